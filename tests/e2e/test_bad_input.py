"""Every bad request gets a documented 4xx that names the fault, and stores nothing."""

import itertools
import json
import re
import socket
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx2
import pytest

from tests.e2e.bad_bodies import CLIENT_ORDER_IDS, DEEP_METADATA, FIELDS, METADATA, NOT_OBJECTS, written, wrong_orders
from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import ended, events_of, place, problem_of, refusal, wait_for
from tests.stack import market_order

V1, QUOTES, COMPAT, ENQUEUE = "/v1/orders", "/v1/quotes", "/api/orders/execute", "/enqueue"
BAD = {400, 422}
MAX_BODY_BYTES = 16 * 1024

SAME = {name: name for name in ("tokenIn", "tokenOut", "amountIn", "slippageBps")}
OPTIONAL = {name: name for name in ("clientOrderId", "metadata")}
# The field names of each body: v1's, a quote's, and those of the compatibility rows.
SHAPES = {
    "v1": (V1, {"type": "type", **SAME, **OPTIONAL}),
    "quote": (QUOTES, SAME),
    "market_execute": (COMPAT, {"type": "type", **SAME, **OPTIONAL}),
    "minimal": (COMPAT, {**SAME, "amountIn": "amount"}),
    "typed": (COMPAT, {**SAME, "type": "orderType", "amountIn": "amount"}),
}
ENQUEUED = [
    ("orderId", {**CLIENT_ORDER_IDS, "null": "null", "array": '["a"]', "NaN": "NaN"}),
    ("payload", METADATA),
]
IDS = (
    "%00",
    "a%00b",
    "%ff",
    "%ed%a0%80",
    "%F0%9F%A6%80",
    "..%2f..",
    "%2e%2e",
    "a%20b",
    "'--",
    "%25",
    "*",
    "x" * 20_000,
)
TIMES = ("", "now", "1", "2026-01-01", "2026-13-01T00:00:00Z", "2026-01-01T00:00:00", "2026-01-01T25:00:00Z", "\0")
NUMBERS = ("", "abc", "1.5", "-1", "1" + "0" * 30, "NaN", "true", "\u0661", "\0", "0x1")
ORIGINS = (
    *("http://evil.example", "null", "", "http://[::1", "http://]", "file://", "javascript:0", "http://a b", "\u00e9"),
    *("http://localhost.evil.example", "http://127.0.0.1@evil.example", "http://127.0.0.1.evil.example:3000"),
)


@pytest.fixture(autouse=True)
def _nothing_is_stored(engine: Engine) -> Iterator[None]:
    """No test here makes an order unless it says so: the list of orders does not change."""
    with engine.client() as http:

        def stored() -> list[str]:
            page = http.get(V1, params={"limit": 100}).raise_for_status().json()
            return [order["orderId"] for order in page["orders"]]

        before = stored()
        yield
        assert stored() == before
        assert http.get("/health").status_code == 200


def post(http: httpx2.Client, path: str, body: bytes, **headers: str) -> httpx2.Response:
    return http.post(path, content=body, headers={"Content-Type": "application/json", **headers})


# --- bodies --------------------------------------------------------------------------------------


def complaint(engine: Engine, path: str, body: bytes, *fields: str | None) -> str | None:
    """Send a bad body; returns a complaint if the answer is wrong."""
    with engine.client() as http:  # A connection of its own: a crash may have closed the one before.
        response = post(http, path, body)
    try:
        problem_of(response, BAD, response.json().get("field") if response.is_client_error else None)
    except AssertionError as error:
        return str(error).splitlines()[0]
    named = response.json().get("field")
    return None if named in fields or not fields else f"names {named}: {response.json()['detail']}"


@pytest.mark.parametrize("name", SHAPES)
def test_a_wrong_field_is_refused_by_its_name(engine: Engine, name: str) -> None:
    path, names = SHAPES[name]
    complaints = {wrong: complaint(engine, path, body, field) for wrong, body, field in wrong_orders(names)}
    assert len(complaints) > 50
    assert {wrong: what for wrong, what in complaints.items() if what} == {}


@pytest.mark.parametrize("path", [V1, QUOTES, COMPAT, ENQUEUE])
def test_a_body_that_is_no_object_is_refused(engine: Engine, path: str) -> None:
    complaints = {wrong: complaint(engine, path, body) for wrong, body in NOT_OBJECTS.items()}
    assert {wrong: what for wrong, what in complaints.items() if what} == {}


@pytest.mark.parametrize("path", [V1, QUOTES, COMPAT, ENQUEUE])
def test_an_empty_body_is_refused(http: httpx2.Client, path: str) -> None:
    for body in (b"", b" ", b" \r\n\t", b"\0", b"\xef\xbb\xbf", b"null", b"[]", b'""'):
        problem_of(post(http, path, body), BAD)
    for headers in ({}, {"Content-Type": ""}, {"Content-Length": "0"}, {"Content-Type": "application/json"}):
        problem_of(http.post(path, headers=headers), {*BAD, 415})


@pytest.mark.parametrize("field", FIELDS)
def test_a_missing_field_is_named(http: httpx2.Client, field: str) -> None:
    body = written({name: value for name, value in FIELDS.items() if name != field})
    problem_of(post(http, V1, body), 422, field)
    if field != "type":
        problem_of(post(http, COMPAT, body), 400, field)


def test_v1_is_strict_where_the_other_rows_are_loose(http: httpx2.Client) -> None:
    problem = problem_of(post(http, V1, written(FIELDS | {"amuontIn": "2"})), 422, "amuontIn")
    assert problem["code"] == "unknown_field"
    problem_of(post(http, V1, written(FIELDS | {"type": '"MARKET"'})), 422, "type")
    problem_of(post(http, V1, written(FIELDS | {"slippageBps": '"50"'})), 422, "slippageBps")


def test_job_queue_refuses_a_symbol_that_is_no_pair(engine: Engine) -> None:
    symbols = [
        '""',
        '" "',
        '"SOL-USDC"',
        '"SOL_USDC"',
        '"SOL:USDC"',
        '"SOL USDC"',
        '"SOL\\u0000"',
        '"' + "S" * 33 + '"',
        '"/"',
        '"SOL//USDC"',
        '"SOL/"',
        '"SOL/SOL"',
        '"SOL/DOGE"',
        '"SOL/USDC/SOL"',
        "1",
        "null",
        "NaN",
        '"\\ud800/SOL"',
    ]
    # The pair is one field to this client, whichever half of it is wrong.
    complaints = {symbol: complaint(engine, COMPAT, written({"symbol": symbol}), "symbol") for symbol in symbols}
    assert {symbol: what for symbol, what in complaints.items() if what} == {}


def test_job_queue_takes_defaults_but_no_body_of_something_else(http: httpx2.Client) -> None:
    for body in (b'{"hello": "world"}', b'{"hello": null, "symbol": "SOL/USDC"}'):
        assert problem_of(post(http, COMPAT, body), 400, "hello")["code"] == "unknown_field"


@pytest.mark.parametrize(("field", "values"), ENQUEUED, ids=["orderId", "payload"])
def test_an_enqueued_job_is_checked_by_its_own_field_names(engine: Engine, field: str, values: dict[str, str]) -> None:
    complaints = {
        wrong: complaint(engine, ENQUEUE, written({"orderId": '"order-123"', field: value}), field)
        for wrong, value in values.items()
    }
    assert {wrong: what for wrong, what in complaints.items() if what} == {}
    assert complaint(engine, ENQUEUE, b'{"payload": {}}', "orderId") is None


def test_deep_metadata_is_refused_by_its_name_or_comes_back_as_it_came(engines: Engines, shape: str) -> None:
    engine = engines.get(shape, MOCK_DELAY_SCALE="0.001")  # An engine of its own, as it may store orders.
    for depth, metadata in DEEP_METADATA.items():
        with engine.client() as http:
            response = post(http, V1, written(FIELDS | {"metadata": metadata}))
            if response.status_code != 202:
                problem_of(response, BAD, "metadata")
                continue
            assert metadata in response.text, depth
            location = response.headers["location"]
            for path in (location, f"/api{location.removeprefix('/v1')}", f"{V1}?limit=1"):
                answer = http.get(path)
                assert answer.status_code == 200, (depth, path)
                assert metadata in answer.text, (depth, path)


# --- size and kind -------------------------------------------------------------------------------


def pieces(body: bytes) -> Iterator[bytes]:
    for start in range(0, len(body), 4_096):
        yield body[start : start + 4_096]


@pytest.mark.parametrize("path", [V1, QUOTES, COMPAT, ENQUEUE])
@pytest.mark.parametrize("more", [1, 4_096, 2_000_000])
def test_a_body_over_16_kib_is_refused_with_and_without_its_length(engine: Engine, path: str, more: int) -> None:
    body = written(FIELDS).ljust(MAX_BODY_BYTES + more)
    with engine.client() as http:
        problem = problem_of(post(http, path, body), 413)
        assert problem["code"] == "body_too_large"
        chunked = http.post(path, content=pieces(body), headers={"Content-Type": "application/json"})
        problem_of(chunked, 413)


def raw(engine: Engine, request: bytes) -> tuple[int, str]:
    """Send bytes as they are; returns the status and the whole answer."""
    address = urlsplit(engine.url)
    with socket.create_connection((address.hostname, address.port), timeout=30) as peer:
        peer.sendall(request)
        answer = b""
        while not (head := re.match(rb"(?s)HTTP/1.1 (\d+).*?content-length: (\d+).*?\r\n\r\n", answer)) or (
            len(answer) < head.end() + int(head[2])
        ):
            received = peer.recv(65_536)
            assert received, answer
            answer += received
    return int(head[1]), answer.decode()


def test_a_length_that_is_too_large_is_refused_before_the_body_comes(engine: Engine) -> None:
    for path, length in itertools.product((V1, COMPAT), (b"16385", b"999999999999", b"9" * 18)):
        head = b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: %b\r\n\r\n"
        status, answer = raw(engine, head % (path.encode(), length))
        assert status == 413
        assert "application/problem+json" in answer


# --- headers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("key", [b"", b"a b", b"x" * 256, b"\xc3\xa9", b"a\tb"])
def test_an_idempotency_key_is_visible_ascii(http: httpx2.Client, key: bytes) -> None:
    for path, name in ((V1, "Idempotency-Key"), (COMPAT, "x-idempotency-key")):
        response = http.post(path, json=market_order(), headers={name: key})
        problem_of(response, BAD, name)


def test_a_key_under_the_name_of_another_shape_is_refused_and_not_ignored(http: httpx2.Client) -> None:
    response = http.post(V1, json=market_order(), headers={"X-Idempotency-Key": "first"})
    problem_of(response, BAD, "X-Idempotency-Key")


def test_an_empty_or_nested_body_is_named_as_that(http: httpx2.Client) -> None:
    json_type = {"Content-Type": "application/json"}
    for body, sentence in ((b"", "The body is empty"), (b"[" * 16_000, "The body is nested too deeply.")):
        response = http.post(V1, content=body, headers=json_type)
        assert (response.status_code, sentence in response.json()["detail"]) == (400, True), response.text


def test_two_idempotency_keys_are_refused_rather_than_one_of_them_chosen(http: httpx2.Client) -> None:
    for path, name in ((V1, "Idempotency-Key"), (COMPAT, "x-idempotency-key")):
        response = http.post(path, json=market_order(), headers=[(name, "first"), (name, "second")])
        problem_of(response, BAD, name)
    both = {"Idempotency-Key": "first", "x-idempotency-key": "second"}
    problem_of(http.post(COMPAT, json=market_order(), headers=both), 400, "x-idempotency-key")
    problem_of(http.post(ENQUEUE, json={"orderId": "first"}, headers=both), 400, "x-idempotency-key")
    other = {"Idempotency-Key": "second"}
    problem_of(http.post(ENQUEUE, json={"orderId": "first"}, headers=other), 400, "idempotency-key")


@pytest.mark.parametrize("origin", ORIGINS)
def test_a_foreign_origin_is_refused_however_odd_it_is(http: httpx2.Client, origin: str) -> None:
    for path in (V1, COMPAT, ENQUEUE, QUOTES):
        response = http.post(path, json=market_order(), headers={"Origin": origin.encode()})
        assert problem_of(response, 403)["code"] == "origin_not_allowed"


@pytest.mark.asyncio
@pytest.mark.parametrize("origin", ORIGINS)
async def test_a_foreign_origin_opens_no_websocket_however_odd_it_is(engine: Engine, origin: str) -> None:
    for path in ("/ws", "/ws-exec", "/api/orders/execute", "/v1/orders/nobody/stream"):
        status, problem = await refusal(engine.url, path, {"Origin": origin.encode().decode("latin-1")})
        assert (status, problem["code"]) == (403, "origin_not_allowed")


# --- paths and queries ---------------------------------------------------------------------------


@pytest.mark.parametrize("order_id", IDS, ids=lambda it: it[:12])
def test_a_weird_id_is_an_order_that_is_not_there(http: httpx2.Client, order_id: str) -> None:
    for path in (f"{V1}/{order_id}", f"{V1}/{order_id}/events", f"{V1}/{order_id}/stream"):
        problem = problem_of(http.get(path), 404)
        assert len(problem["detail"]) < 1_000
    problem_of(http.delete(f"{V1}/{order_id}"), 404)
    problem_of(http.get(f"/api/orders/{order_id}"), 404)
    problem_of(http.get(f"/api/orders/{order_id}/events"), 404)


@pytest.mark.asyncio
@pytest.mark.parametrize("order_id", IDS[:-1], ids=lambda it: it[:12])
async def test_a_weird_id_opens_no_websocket(engine: Engine, order_id: str) -> None:
    paths = ("/orders/{}", "/v1/orders/{}/stream", "/ws?jobId={}", "/api/orders/execute?orderId={}")
    for path in (path.format(order_id) for path in paths):
        status, problem = await refusal(engine.url, path)
        assert (status, problem["code"]) in {(404, "order_not_found"), (404, "no_such_path")}, path


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("status", ("", "done", "PENDING", "\0", "pending,failed")),
        ("type", ("", "limit", "MARKET")),
        ("tokenIn", ("", "DOGE", "\0", "\ud83e")),
        ("tokenOut", ("", "DOGE", "x" * 5_000)),
        ("clientOrderId", ("\0", "a\0b")),
        ("createdAfter", TIMES),
        ("createdBefore", TIMES),
        ("limit", (*NUMBERS, "0", "101")),
        ("cursor", ("", "x", "1", "\0", "01900000-0000-7000-8000-00000000000g")),
        ("orderId", ("1",)),
    ],
)
def test_a_wrong_filter_is_named(http: httpx2.Client, name: str, values: tuple[str, ...]) -> None:
    for value in values:
        quoted = "".join(f"%{byte:02x}" for byte in value.encode("utf-8", "surrogatepass"))
        problem_of(http.get(f"{V1}?{name}={quoted}"), 422, name)
        if name != "clientOrderId":
            problem_of(http.get(f"{V1}?clientOrderId=x&{name}={quoted}"), 422, name)


def test_a_filter_that_is_there_twice_is_refused_rather_than_one_of_them_chosen(http: httpx2.Client) -> None:
    pairs = [
        ("limit", "1"),
        ("status", "failed"),
        ("createdAfter", "2026-01-31T12:00:00.123456789Z"),
        ("tokenIn", "SOL"),
    ]
    for name, value in pairs:
        assert http.get(V1, params=[(name, value)]).status_code == 200
        problem_of(http.get(V1, params=[(name, value), (name, value)]), 422, name)
    assert http.get("/v1/attempts", params={"inDoubt": "true", "limit": "5"}).status_code == 200
    problem_of(http.get("/v1/attempts?limit=1&limit=2"), 422, "limit")
    problem_of(http.get("/v1/attempts?limit="), 422, "limit")
    problem_of(http.get("/v1/attempts?orderId=1"), 422, "orderId")


def test_a_wrong_cursor_into_a_history_is_named(engines: Engines, shape: str) -> None:
    # An engine of its own, as this test makes an order.
    with engines.get(shape, MOCK_DELAY_SCALE="0.001").client() as http:
        order = ended(http, place(http)["orderId"])
        path = f"{V1}/{order['orderId']}"
        assert events_of(http, order["orderId"])
        for number in (*NUMBERS, str(2**31), str(2**63)):
            problem_of(http.get(f"{path}/events", params={"after": number}), 422, "after")
            problem_of(http.get(f"{path}/stream", params={"after": number}), 422, "after")
            if number and number.isprintable() and number.isascii():
                headers = {"Last-Event-ID": number}
                problem_of(http.get(f"{path}/stream", headers=headers), 422, "Last-Event-ID")
        problem_of(http.get(f"{path}/stream", headers={"Accept": "application/json"}), 406)


def test_an_unreadable_request_is_a_400(engine: Engine) -> None:
    for request in (b"GET /v1/orders/\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", b"NONSENSE\r\n\r\n"):
        assert raw(engine, request)[0] == 400
    log = wait_for(engine.processes[0].log_text, lambda text: "clients at fault" in text and text.endswith("\n"))
    assert all(json.loads(line) for line in log.splitlines())
