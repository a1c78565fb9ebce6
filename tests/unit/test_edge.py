"""Each request is checked before a handler sees it: its host, its origin, and the headers of its answer."""

import pytest

from order_engine.api.edge import EdgePolicy
from tests.unit.edge_asks import BARE, KINDS, POLICY, Answer, ask

OURS = (
    *("127.0.0.1", "127.0.0.1:3000", "localhost", "LOCALHOST:3000", "localhost.", "localhost:", "[::1]", "[::1]:3000"),
    *("192.168.1.9:80", "[2001:DB8::1]:3000", "[::ffff:127.0.0.1]", "[fe80::1%25eth0]", "0.0.0.0:3000", "127.0.0.1."),
    *("orders.example.com", "Orders.Example.COM.:443", "api:3000", "engine.example.org", "engine.example.org:8443"),
)
NOT_OURS = (
    *("evil.example", "evil.example:3000", "localhost.evil.example", "127.0.0.1.evil.example", "evil.localhost"),
    *(
        "127.0.0.1.nip.io:3000",
        "xn--lcalhost-n4a",
        "engine.example.org.evil.example",
        "example.com",
        "a.api",
        "2130706433",
    ),
    *("0x7f000001", "127.1", "127.0.0.1_", "apii", "1.2.3.4.5", "256.0.0.1"),
)
NO_HOSTS = (
    *(
        "",
        " ",
        "a b",
        "evil.example@127.0.0.1",
        "127.0.0.1@evil.example",
        "http://127.0.0.1",
        "127.0.0.1/",
        "127.0.0.1?",
    ),
    *(
        "127.0.0.1#",
        "localhost:3000:3000",
        "localhost:x",
        "localhost:99999",
        "::1",
        "[::1",
        "::1]",
        "[::1]x",
        "[localhost]",
    ),
    *(
        "localhost..",
        ".localhost",
        "localhost,evil.example",
        "é",
        "localhost\\evil.example",
        "%6cocalhost",
        "*",
        "[evil]",
    ),
)
OWN_ORIGINS = (
    *(
        "http://localhost",
        "http://localhost:5173",
        "https://127.0.0.1:8443",
        "http://[::1]:1234",
        "https://app.example.com",
    ),
    *(
        "HTTPS://APP.EXAMPLE.COM:443",
        "http://app.example.com:8080",
        "chrome-extension://abcdef",
        "https://engine.example.org",
    ),
)
FOREIGN_ORIGINS = (
    *(
        "null",
        "",
        "http://evil.example",
        "https://app.example.com.evil.example",
        "http://app.example.com",
        "https://evil",
    ),
    *("https://app.example.com:8080", "http://engine.example.org", "https://engine.example.org:8443", "file://", "*"),
    *("http://127.0.0.1@evil.example", "http://localhost.evil.example", "http://[::1", "javascript:0", "localhost"),
    *("https://app.example.com/", "https://app.example.com https://evil.example", "//localhost", "http://10.0.0.9"),
)


async def ask_host(host: str, kind: str = "http", policy: EdgePolicy = POLICY) -> Answer:
    return await ask(policy, kind, ("Host", host))


# --- hosts ---------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_addresses_loopback_and_the_names_of_the_owner_are_answered(kind: str) -> None:
    refused = {host: answer.body for host in OURS if (answer := await ask_host(host, kind)).status != 200}
    assert refused == {}


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_name_that_is_not_ours_is_misdirected_on_every_path(kind: str) -> None:
    for host in NOT_OURS:
        answer = await ask_host(host, kind)
        assert (host, answer.status) == (host, 421)
        assert answer.json["code"] == "host_not_allowed"
        assert answer.headers["content-type"] == "application/problem+json"
    for host in ("orders.example.com", "engine.example.org"):
        assert (await ask_host(host, kind, BARE)).status == 421


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_a_host_that_is_no_host_is_a_bad_request(kind: str) -> None:
    for host in NO_HOSTS:
        answer = await ask_host(host, kind)
        assert (host, answer.status, answer.json["code"]) == (host, 400, "bad_host")
    twice = await ask(POLICY, kind, ("Host", "localhost"), ("Host", "localhost"))
    assert (twice.status, twice.json["code"]) == (400, "bad_host")
    assert (await ask(POLICY, kind)).status == 400


@pytest.mark.asyncio
async def test_only_http_1_0_may_leave_out_the_host() -> None:
    assert (await ask(POLICY, "http", http_version="1.0")).status == 200
    assert (await ask(BARE, "http", http_version="1.0", client=None)).status == 200
    assert (await ask(POLICY, "http", ("Host", "evil.example"), http_version="1.0")).status == 421


# --- origins -------------------------------------------------------------------------------------


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_pages_that_may_call_are_let_in(kind: str) -> None:
    for origin in OWN_ORIGINS:
        answer = await ask(POLICY, kind, ("Host", "127.0.0.1:3000"), ("Origin", origin))
        assert (origin, answer.status) == (origin, 200)
        assert answer.headers["access-control-allow-origin"] == origin


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_pages_of_others_are_refused_and_get_no_cors_headers(kind: str) -> None:
    for origin in FOREIGN_ORIGINS:
        answer = await ask(POLICY, kind, ("Host", "127.0.0.1:3000"), ("Origin", origin))
        assert (origin, answer.status, answer.json["code"]) == (origin, 403, "origin_not_allowed")
        assert not [name for name in answer.headers if name.startswith("access-control-")]
    both = (("Origin", "http://localhost"), ("Origin", "http://evil.example"))
    for origins in (both, both[::-1]):
        assert (await ask(POLICY, kind, ("Host", "localhost"), *origins)).status == 403


@pytest.mark.asyncio
async def test_a_page_of_the_engine_itself_may_call_it_under_each_of_its_names() -> None:
    for host in ("192.168.1.9:3000", "orders.example.com:3000", "[2001:db8::1]:3000", "orders.example.com"):
        assert (await ask(POLICY, "http", ("Host", host), ("Origin", f"http://{host}"))).status == 200
        assert (await ask(POLICY, "http", ("Host", host), ("Origin", "http://192.168.1.9:3001"))).status == 403


# --- CORS ----------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_preflight_says_what_an_allowed_page_may_send() -> None:
    headers = (("Host", "localhost"), ("Origin", "https://app.example.com"))
    asks = (("Access-Control-Request-Method", "DELETE"), ("Access-Control-Request-Headers", "idempotency-key"))
    answer = await ask(POLICY, "http", *headers, *asks, method="OPTIONS")
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
    assert {"GET", "POST", "DELETE"} <= set(answer.headers["access-control-allow-methods"].split(", "))
    sent = {"content-type", "idempotency-key", "x-idempotency-key", "last-event-id", "x-request-id", "authorization"}
    assert sent <= set(answer.headers["access-control-allow-headers"].lower().split(", "))
    assert int(answer.headers["access-control-max-age"]) > 0
    assert "Origin" in answer.headers["vary"]
    assert "access-control-allow-private-network" not in answer.headers

    private = ("Access-Control-Request-Private-Network", "true")
    answer = await ask(POLICY, "http", *headers, *asks, private, method="OPTIONS")
    assert answer.headers["access-control-allow-private-network"] == "true"


@pytest.mark.asyncio
async def test_a_preflight_of_others_is_refused_and_options_alone_is_none() -> None:
    ask_method = ("Access-Control-Request-Method", "POST")
    foreign = await ask(POLICY, "http", ("Host", "localhost"), ("Origin", "http://evil"), ask_method, method="OPTIONS")
    assert foreign.status == 403
    assert not [name for name in foreign.headers if name.startswith("access-control-")]
    rebound = await ask(POLICY, "http", ("Host", "evil"), ("Origin", "http://localhost"), ask_method, method="OPTIONS")
    assert rebound.status == 421
    assert (await ask(POLICY, "http", ("Host", "localhost"), ask_method, method="OPTIONS")).status == 405


@pytest.mark.asyncio
async def test_errors_and_streams_can_be_read_by_an_allowed_page_too() -> None:
    page = (("Host", "localhost"), ("Origin", "https://app.example.com"))
    for path, method, status in (("/x", "DELETE", 405), ("/crash", "GET", 500), ("/stream", "GET", 200)):
        answer = await ask(POLICY, "http", *page, path=path, raw_path=path.encode(), method=method)
        assert (path, answer.status) == (path, status)
        assert answer.headers["access-control-allow-origin"] == "https://app.example.com"
        exposed = set(answer.headers["access-control-expose-headers"].lower().split(", "))
        assert {"location", "idempotent-replayed", "retry-after", "ratelimit-remaining", "x-request-id"} <= exposed
        assert "Origin" in answer.headers["vary"]
    long = await ask(POLICY, "http", *page, raw_path=b"/" + b"x" * 40_000)
    assert long.status == 431
    assert long.headers["access-control-allow-origin"] == "https://app.example.com"


@pytest.mark.asyncio
@pytest.mark.parametrize("kind", KINDS)
async def test_every_answer_has_the_protecting_headers_once(kind: str) -> None:
    for headers in ([("Host", "localhost")], [("Host", "evil")], [("Host", "localhost"), ("Origin", "null")], []):
        answer = await ask(POLICY, kind, *headers)
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["x-frame-options"] == "DENY"
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["vary"] == "Origin"
        assert answer.headers["x-request-id"]
        names = [name for name, _ in answer.raw_headers]
        assert len(names) == len(set(names))
    stream = await ask(POLICY, "http", ("Host", "localhost"), path="/stream")
    assert [value for name, value in stream.raw_headers if name == b"cache-control"] == [b"no-cache"]
