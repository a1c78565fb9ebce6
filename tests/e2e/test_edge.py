"""The edge around a real engine: hosts, origins, proxies, the page, and addresses to listen on."""

import re
import socket
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from urllib.parse import urlsplit

import httpx2
import pytest

from order_engine.serve import listen
from order_engine.settings import SettingsError
from tests.e2e.conftest import EMBEDDED, Engine, Engines
from tests.e2e.conversation import follow, place, problem_of, refusal
from tests.stack import embedded_stack, market_order

PAGE = "https://app.example.com"
PUBLIC = "https://orders.example.org"
PATHS = (
    "/health",
    "/ready",
    "/docs",
    "/docs/assets/swagger-ui.css",
    "/openapi.json",
    "/v1/orders",
    "/v1/stream",
    "/",
    "/x",
)
SOCKETS = ("/v1/stream", "/v1/orders/x/stream", "/ws", "/orders/x", "/api/orders/execute", "/nope")


@pytest.fixture
def proxied(engines: Engines) -> Engine:
    """An engine behind a proxy on this machine, with a limit for each client."""
    return engines.get(
        EMBEDDED,
        MOCK_DELAY_SCALE="0",
        ALLOWED_ORIGINS=PAGE,
        ALLOWED_HOSTS="api",
        PUBLIC_URL=PUBLIC,
        TRUSTED_PROXIES="127.0.0.1,::1",
        API_MAX_ORDERS_PER_MIN="2",
    )


@pytest.fixture
def http(proxied: Engine) -> Iterator[httpx2.Client]:
    with proxied.client() as client:
        yield client


def test_a_rebound_name_reads_nothing(http: httpx2.Client) -> None:
    for path in PATHS:
        for method in ("GET", "HEAD", "POST", "OPTIONS"):
            answer = http.request(method, path, headers={"Host": "evil.example:3000"})
            assert answer.status_code == 421, path
            if method != "HEAD":
                assert problem_of(answer, 421)["code"] == "host_not_allowed"
    assert http.get("/health", headers={"Host": "api:3000"}).status_code == 200


@pytest.mark.asyncio
async def test_a_rebound_name_opens_no_websocket(proxied: Engine) -> None:
    port = urlsplit(proxied.url).port
    for path in SOCKETS:
        with socket.create_connection(("127.0.0.1", port)) as peer:
            peer.sendall(
                b"GET %b HTTP/1.1\r\nHost: evil.example\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n" % path.encode()
            )
            assert peer.recv(65_536).startswith(b"HTTP/1.1 421 ")
        status, problem = await refusal(proxied.url, path, {"Origin": "https://evil.example"})
        assert (status, problem["code"]) == (403, "origin_not_allowed")


def test_an_allowed_page_may_call_and_read_everything(proxied: Engine, http: httpx2.Client) -> None:
    asks = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,idempotency-key"}
    for path in ("/v1/orders", "/api/orders/execute", "/v1/stream"):
        preflight = http.options(path, headers={"Origin": PAGE, **asks})
        assert (preflight.status_code, preflight.content) == (204, b"")
        assert preflight.headers["access-control-allow-origin"] == PAGE
        assert "Idempotency-Key" in preflight.headers["access-control-allow-headers"]
    order = http.post("/v1/orders", json=market_order(), headers={"Origin": PAGE, "X-Forwarded-For": "198.51.100.1"})
    answers = [
        (202, order),
        (422, http.post("/v1/orders", json={}, headers={"Origin": PAGE})),
        (415, http.post("/v1/orders", content=b"{}", headers={"Origin": PAGE})),
        (404, http.get("/v1/orders/nobody", headers={"Origin": PAGE})),
        (405, http.put("/v1/orders", headers={"Origin": PAGE})),
        (200, http.get(f"/v1/orders/{order.json()['orderId']}/stream", headers={"Origin": PAGE})),
    ]
    for status, answer in answers:
        assert answer.status_code == status, answer.text
        assert answer.headers["access-control-allow-origin"] == PAGE
        assert "Location" in answer.headers["access-control-expose-headers"]
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
    assert not [name for name in http.get("/health").headers if name.startswith("access-control")]


@pytest.mark.asyncio
async def test_the_public_url_is_told_and_its_pages_may_call(proxied: Engine, http: httpx2.Client) -> None:
    headers = {"Origin": PUBLIC, "Host": "orders.example.org", "X-Forwarded-For": "198.51.100.2"}
    body = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}
    answer = http.post("/api/orders/execute", json=body, headers=headers)
    assert answer.is_success, answer.text
    assert answer.json()["wsUrl"].startswith("wss://orders.example.org/")
    assert await follow(proxied.url, answer.json()["wsUrl"].removeprefix("wss://orders.example.org"))


def test_behind_a_proxy_each_client_has_a_limit_of_its_own(http: httpx2.Client) -> None:
    def post(client: str) -> int:
        return http.post("/v1/orders", json=market_order(), headers={"X-Forwarded-For": client}).status_code

    assert [post("198.51.100.7") for _ in range(3)] == [202, 202, 429]
    # Addresses from the client itself stand to the left of the address that the proxy saw.
    assert [post(f"203.0.113.{number}, 198.51.100.7") for number in range(2)] == [429, 429]
    assert [post(f"2001:db8::{number}") for number in range(3)] == [202, 202, 429]
    assert [post("198.51.100.8") for _ in range(3)] == [202, 202, 429]


def test_behind_a_proxy_connections_are_counted_by_client(engines: Engines) -> None:
    limits = {"MAX_CONNECTIONS_PER_ADDRESS": "2", "TRUSTED_PROXIES": "127.0.0.1"}
    engine = engines.get(EMBEDDED, MOCK_DELAY_SCALE="0", **limits)

    def open_streams(stack: ExitStack, client: str) -> list[int]:
        """Open four streams and keep them open; returns their statuses."""
        statuses = []
        for _ in range(4):
            http = stack.enter_context(engine.client())
            headers = {"X-Forwarded-For": client}
            statuses.append(stack.enter_context(http.stream("GET", "/v1/stream", headers=headers)).status_code)
        return statuses

    with ExitStack() as stack:
        assert open_streams(stack, "198.51.100.7") == [200, 200, 503, 503]
        assert open_streams(stack, "198.51.100.8") == [200, 200, 503, 503]


def test_an_encoded_body_is_refused_by_every_route_that_reads_one(engines: Engines) -> None:
    with engines.get(EMBEDDED, MOCK_DELAY_SCALE="0").client() as http:
        for path in ("/v1/orders", "/v1/quotes", "/api/orders/execute", "/enqueue"):
            for coding in ("gzip", "br", "deflate", "identity, gzip", "GZIP", "x"):
                headers = {"Content-Encoding": coding, "Content-Type": "application/json"}
                answer = http.post(path, content=b"{}", headers=headers)
                assert answer.status_code == 415, (path, coding)
                assert answer.json()["code"] == "encoded_body"
                assert answer.headers["accept-encoding"] == "identity"
        plain = http.post("/v1/orders", json=market_order(), headers={"Content-Encoding": "identity"})
        assert plain.status_code == 202
        for kind in ("application/json; charset=utf-16", "application/json; charset=latin-1", "application/jsonx"):
            assert problem_of(http.post("/v1/orders", content=b"{}", headers={"Content-Type": kind}), 415)
        twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
        assert problem_of(http.post("/v1/orders", content=b"{}", headers=twice), 415)


def test_the_page_works_with_its_own_files_alone(engines: Engines) -> None:
    with engines.get(EMBEDDED, MOCK_DELAY_SCALE="0").client() as http:
        page = http.get("/docs")
        policy = dict(part.strip().split(" ", 1) for part in page.headers["content-security-policy"].split(";"))
        assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
        assert policy["script-src"] == "'self'"
        assert "<script>" not in page.text
        assert not re.search(r'\son\w+="|https?://', page.text)
        for path in re.findall(r'(?:src|href)="(/[^"]+)"', page.text):
            asset = http.get(path)
            assert asset.status_code == 200, path
            assert asset.headers["x-content-type-options"] == "nosniff"
            # With nosniff a browser runs and applies only files of the right type.
            assert asset.headers["content-type"].split(";")[0] in ("text/javascript", "text/css")
        assert "max-age" in http.get("/docs/assets/swagger-ui.css").headers["cache-control"]
        frame = http.get("/docs/assets/oauth2-redirect.html").headers["content-security-policy"]
        assert frame.startswith("default-src 'none'")
        assert problem_of(http.get("/docs/assets/nope.js"), 404)
        assert "GET" in http.put("/docs/assets/swagger-ui.css").headers["allow"]


# --- addresses to listen on ----------------------------------------------------------------------


def _has_ipv6() -> bool:
    try:
        with socket.create_server(("::1", 0), family=socket.AF_INET6):
            return True
    except OSError:
        return False


def _answers(host: str, port: int, listener: socket.socket) -> bool:
    try:
        with socket.create_connection((host, port), timeout=5):
            listener.accept()[0].close()
            return True
    except OSError:
        return False


def test_all_addresses_means_ipv4_and_ipv6() -> None:
    with closing(listen("::", 0)) as listener:
        port = listener.getsockname()[1]
        assert _answers("127.0.0.1", port, listener)
        assert _answers("::1", port, listener) or not _has_ipv6()


def test_one_address_is_that_address() -> None:
    with closing(listen("127.0.0.1", 0)) as listener:
        assert listener.getsockname()[0] == "127.0.0.1"
        assert not _answers("::1", listener.getsockname()[1], listener)
    with closing(listen("0.0.0.0", 0)) as listener:  # noqa: S104 - all addresses are meant
        assert listener.family == socket.AF_INET


@pytest.mark.parametrize("host", ["http://127.0.0.1", "no.such.host.invalid", "1.2.3.4.5", "[::1]x"])
def test_an_address_that_is_none_is_refused_in_a_sentence(host: str) -> None:
    with pytest.raises(SettingsError, match=re.escape(f"{host!r}")):
        listen(host, 0)


def test_an_engine_on_all_addresses_serves_ipv4(tmp_path: Path) -> None:
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0", HOST="::") as stack:
        key = stack.operate("keys", "create", "--account", "desk").stdout.strip()
        headers = {"Authorization": f"Bearer {key}"}
        with httpx2.Client(base_url=stack.spawn("up").url, headers=headers, trust_env=False) as http:
            assert place(http)["status"] == "pending"


@pytest.mark.parametrize("upgrade", [b"", b"Upgrade: websocket\r\nConnection: Upgrade\r\n"])
def test_the_host_of_an_absolute_target_counts(proxied: Engine, upgrade: bytes) -> None:
    websocket = b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" if upgrade else b""
    for target, host, status in (
        (b"http://evil.example/v1/orders/x/stream", b"localhost", b"421"),
        (b"http://localhost/v1/orders/x/stream", b"evil.example", b"404"),
    ):
        with socket.create_connection(("127.0.0.1", urlsplit(proxied.url).port)) as peer:
            peer.sendall(b"GET %b HTTP/1.1\r\nHost: %b\r\n%b%b\r\n" % (target, host, upgrade, websocket))
            answer = peer.recv(65_536)
        assert answer.startswith(b"HTTP/1.1 %b " % status), answer


def test_a_request_that_is_no_http_gets_the_protecting_headers_too(proxied: Engine) -> None:
    with socket.create_connection(("127.0.0.1", urlsplit(proxied.url).port)) as peer:
        peer.sendall(b"NONSENSE\r\n\r\n")
        answer = peer.recv(65_536).lower()
    assert answer.startswith(b"http/1.1 400 ")
    for header in (b"x-content-type-options: nosniff", b"cache-control: no-store", b"x-frame-options: deny"):
        assert header in answer
