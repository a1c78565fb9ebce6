"""Which bytes the server takes as a request, and which it refuses: raw bytes against its HTTP."""

import asyncio
import gc

import pytest

from tests.raw_server import UPGRADE, Answer, Echo, answers_in, connected, exchange, served

pytestmark = pytest.mark.asyncio

CLOSE = b"Connection: close\r\n"
CHUNKED = b"Transfer-Encoding: chunked\r\n"
BODY = b'{"amountIn": "1.5"}'


def post(*headers: bytes, body: bytes = BODY, path: bytes = b"/order") -> bytes:
    lines = [b"POST %b HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n" % (path, len(body)), *headers]
    return b"".join([*lines, b"\r\n", body])


def is_problem(answer: Answer, status: int, code: str) -> bool:
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json"
    assert problem["requestId"] == answer.headers["x-request-id"]
    assert answer.headers["connection"].lower() == "close"
    return (answer.status, problem["status"], problem["code"]) == (status, status, code)


# --- offers of other protocols -------------------------------------------------------------------

OFFERS = [
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n",
    b"upgrade: H2C\r\nconnection: upgrade\r\n",
    b"Upgrade: TLS/1.0\r\nConnection: Upgrade\r\n",
    b"Upgrade: WebSocket\r\nConnection: Upgrade\r\n",
    b"Upgrade: foo, h2c\r\nConnection: keep-alive, Upgrade\r\n",
    b"Upgrade: h2c\r\nConnection: keep-alive\r\nConnection: Upgrade\r\n",
    b"Upgrade:\r\nConnection: Upgrade\r\n",
    b"Connection: Upgrade\r\n",
    b"Upgrade: h2c\r\n",
]


def ways_of(whole: bytes) -> list[list[bytes]]:
    """The request in one packet, with the body in a second packet, in chunks, and byte by byte."""
    head, _, body = whole.partition(b"\r\n\r\n")
    chunked = head.replace(b"Content-Length: %d" % len(body), CHUNKED.strip()) + b"\r\n\r\n"
    return [
        [whole],
        [head + b"\r\n\r\n", body],
        [chunked, b"5\r\n%b\r\n" % body[:5], b"%x\r\n%b\r\n0\r\n\r\n" % (len(body) - 5, body[5:])],
        [whole[place : place + 1] for place in range(len(whole))],
    ]


@pytest.mark.parametrize("offer", OFFERS)
async def test_an_offer_of_another_protocol_changes_nothing(offer: bytes) -> None:
    echo = Echo()
    ways = ways_of(post(offer))
    async with served(echo) as port:
        for parts in ways:
            pause_s = 0.001 if len(parts) < 4 else 0
            received = await exchange(port, *parts, post(CLOSE, body=b"next"), pause_s=pause_s)
            assert [it.json()["body"] for it in answers_in(received)] == [BODY.decode(), "next"]
    assert [(it.method, it.body) for it in echo.heard] == [("POST", BODY), ("POST", b"next")] * len(ways)
    assert not any(it.values("http2-settings") for it in echo.heard)


async def test_a_websocket_handshake_with_a_body_is_an_ordinary_request() -> None:
    echo = Echo()
    asked = UPGRADE.replace(b"Host: x\r\n", b"Host: x\r\nContent-Length: 4\r\n") + b"body"
    async with served(echo) as port:
        (answer, last) = answers_in(await exchange(port, asked, post(CLOSE)))
    assert (answer.json()["method"], answer.json()["body"]) == ("GET", "body")
    assert last.json()["body"] == BODY.decode()


async def test_a_websocket_is_not_opened_while_an_answer_is_due() -> None:
    echo = Echo()
    async with served(echo) as port:
        received = await exchange(port, post() + UPGRADE + post(CLOSE))
    assert [it.status for it in answers_in(received)] == [200, 200, 200]


@pytest.mark.parametrize(
    "sent",
    [
        b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n" + post(),
        b"CONNECT / HTTP/1.1\r\nHost: x\r\n\r\n" + post(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0" + post(),
    ],
)
async def test_a_tunnel_and_http_2_are_refused_and_what_follows_is_not_run(sent: bytes) -> None:
    echo = Echo()
    async with served(echo) as port:
        (answer,) = answers_in(await exchange(port, sent))
    assert is_problem(answer, 400, "malformed_request")
    assert echo.heard == []


async def test_a_body_that_waits_for_100_continue_is_read_once() -> None:
    echo = Echo()
    head, _, body = post(b"Expect: 100-continue\r\n", CLOSE).partition(b"\r\n\r\n")
    async with served(echo) as port, connected(port) as (reader, writer):
        writer.write(head + b"\r\n\r\n")
        assert await reader.readuntil(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
        writer.write(body)
        (answer,) = answers_in(await reader.read())
    assert answer.json()["body"] == BODY.decode()


async def test_after_an_answer_before_100_continue_the_connection_closes() -> None:
    async def refuses(scope, receive, send) -> None:
        await send({"type": "http.response.start", "status": 415, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    async with served(refuses) as port, connected(port) as (reader, writer):
        writer.write(post(b"Expect: 100-continue\r\n", body=b"").replace(b"Length: 0", b"Length: 9"))
        (answer,) = answers_in(await reader.read())
    assert (answer.status, answer.headers["connection"]) == (415, "close")


# --- malformed requests --------------------------------------------------------------------------

MALFORMED = {
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "two hosts in 1.0": b"GET / HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n",
    "a host that is none": b"GET / HTTP/1.1\r\nHost: x/y\r\n\r\n",
    "two hosts in one": b"GET / HTTP/1.1\r\nHost: x y\r\n\r\n",
    "no version": b"GET /\r\n\r\n",
    "version 0.9": b"GET / HTTP/0.9\r\nHost: x\r\n\r\n",
    "version 2": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "a version that is none": b"GET / HTTQ/1.1\r\nHost: x\r\n\r\n",
    "no method": b"/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "a method that is none": b"GETT / HTTP/1.1\r\nHost: x\r\n\r\n",
    "TLS": b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(99),
    "a space in the path": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "a path that is not ASCII": b"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n",
    "a fragment": b"GET /#a HTTP/1.1\r\nHost: x\r\n\r\n",
    "a user name": b"GET http://a@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: x\n\n",
    "a header without a colon": b"GET / HTTP/1.1\r\nHost: x\r\nhello\r\n\r\n",
    "a header without a name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "a space before the colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "a NUL": b"GET / HTTP/1.1\r\nHost: x\r\nA: \0\r\n\r\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "a length that is none": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1x\r\n\r\n1",
    "a negative length": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n1",
    "a length with a sign": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n1",
    "a length beyond 64 bits": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999\r\n\r\n1",
    "two lengths": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n1",
    "two lengths in one": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n1",
    "length and chunks": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 3\r\n" + CHUNKED + b"\r\n0\r\n\r\n",
    "chunks and length": b"POST / HTTP/1.1\r\nHost: x\r\n" + CHUNKED + b"Content-Length: 3\r\n\r\n0\r\n\r\n",
    "an unknown coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip\r\n\r\n1",
    "a coding inside": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "chunks twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "identity": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: identity\r\n\r\n",
    "chunks in 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "a chunk size that is none": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
    "a chunk that is longer": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("kind", MALFORMED)
async def test_what_is_no_request_is_a_problem_in_its_turn_and_nothing_runs(kind: str) -> None:
    echo = Echo()
    async with served(echo) as port:
        (answer,) = answers_in(await exchange(port, MALFORMED[kind] + post()))
        assert is_problem(answer, 400, "malformed_request")
        assert echo.heard == []
        before, answer = answers_in(await exchange(port, post() + MALFORMED[kind] + post()))
    assert is_problem(answer, 400, "malformed_request")
    assert before.json()["body"] == BODY.decode()
    assert len(echo.heard) == 1


async def test_a_broken_body_behind_an_answer_that_is_due_is_refused_after_it() -> None:
    echo = Echo()
    echo.may_answer.clear()
    async with served(echo) as port, connected(port) as (reader, writer):
        writer.write(post() + MALFORMED["a chunk size that is none"])
        while not echo.heard:
            await asyncio.sleep(0.01)
        echo.may_answer.set()
        first, last = answers_in(await reader.read())
    assert first.json()["body"] == BODY.decode()
    assert is_problem(last, 400, "malformed_request")
    assert len(echo.heard) == 1


async def test_a_refusal_carries_the_request_id_of_the_client() -> None:
    async with served(Echo()) as port:
        sent = b"GET / HTTP/1.1\r\nX-Request-Id: mine-1\r\nHost: x\r\nHost: y\r\n\r\n"
        (answer,) = answers_in(await exchange(port, sent))
    assert answer.headers["x-request-id"] == "mine-1"


@pytest.mark.parametrize(
    ("head", "code"),
    [
        (b"A: %b\r\n" % (b"x" * 40_000), "head_too_large"),
        (b"A: b\r\n" * 101, "head_too_large"),
        (b"Transfer-Encoding: chunked\r\n\r\n1;%b" % (b"x" * 400_000), "body_too_large"),
        (b"Transfer-Encoding: chunked\r\n\r\n0\r\n" + b"A: b\r\n" * 60_000, "body_too_large"),
    ],
)
async def test_what_grows_without_end_is_refused(head: bytes, code: str) -> None:
    async with served(Echo()) as port:
        received = await exchange(port, b"POST / HTTP/1.1\r\nHost: x\r\n" + head)
    (answer,) = answers_in(received)
    assert is_problem(answer, {"head_too_large": 431, "body_too_large": 413}[code], code)


async def test_headers_after_the_body_do_not_change_the_request() -> None:
    echo = Echo()
    chunked = b"POST / HTTP/1.1\r\nHost: x\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n"
    async with served(echo) as port:
        await exchange(port, chunked, b"1\r\na\r\n0\r\nIdempotency-Key: k\r\nHost: y\r\n\r\n", pause_s=0.01)
    assert echo.heard[0].values("idempotency-key") == []
    assert echo.heard[0].values("host") == ["x"]


async def test_the_host_of_an_absolute_target_counts() -> None:
    echo = Echo()
    async with served(echo) as port:
        for target in (b"http://other:8/a?b", b"http://[::1]:8"):
            sent = b"GET %b HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n" % target
            (answer,) = answers_in(await exchange(port, sent))
            assert answer.status == 200
    assert [(it.path, it.query, it.values("host")) for it in echo.heard] == [
        ("/a", "b", ["other:8"]),
        ("/", "", ["[::1]:8"]),
    ]


async def test_http_1_0_gets_no_chunks() -> None:
    async with served(Echo()) as port:
        for head in (b"", b"Connection: keep-alive\r\n"):
            received = await exchange(port, b"GET /stream HTTP/1.0\r\nHost: x\r\n" + head + b"\r\n")
            (answer,) = answers_in(received)
            assert "transfer-encoding" not in answer.headers
            assert answer.json()["path"] == "/stream"
        (answer,) = answers_in(await exchange(port, b"GET /stream HTTP/1.1\r\nHost: x\r\n" + CLOSE + b"\r\n"))
    assert answer.headers["transfer-encoding"] == "chunked"


# --- many requests -------------------------------------------------------------------------------


async def test_requests_that_come_together_are_answered_in_turn() -> None:
    echo = Echo()
    sent = [post(body=str(number).encode()) for number in range(100)]
    async with served(echo) as port:
        received = await exchange(port, b"".join(sent) + post(CLOSE))
    assert [it.json()["body"] for it in answers_in(received)] == [*map(str, range(100)), BODY.decode()]


async def test_of_the_requests_that_wait_only_a_few_are_read() -> None:
    echo = Echo()
    echo.may_answer.clear()
    async with served(echo) as port, connected(port) as (_, writer):
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 200_000)
        while not echo.heard:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.1)
        waiting = [it for it in gc.get_objects() if type(it).__name__ == "Exchange" and not it.response_complete]
        assert len(waiting) < 64
        assert writer.transport.get_write_buffer_size() > 1_000_000  # The server has not read the rest.


async def test_a_client_that_asks_and_reads_nothing_is_not_answered_any_more() -> None:
    echo = Echo()
    echo.size = 100_000
    async with served(echo) as port, connected(port) as (reader, writer):
        reader._transport.pause_reading()
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)
        before = -1
        while before != echo.begun:
            before = echo.begun
            await asyncio.sleep(0.3)
        assert 0 < echo.begun < 200


async def test_a_handler_hears_that_its_client_left_although_another_request_waits() -> None:
    heard, left = asyncio.Event(), asyncio.Event()

    async def streams(scope, receive, send) -> None:
        heard.set()
        await receive()
        assert (await receive())["type"] == "http.disconnect"
        left.set()

    async with served(streams) as port:
        async with connected(port) as (_, writer):
            writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 2)
            await heard.wait()
        await left.wait()
