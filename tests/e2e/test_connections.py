"""The limits of a client's connection, and the end of the server: real sockets, a small application."""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any

import pytest
import structlog.testing
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from order_engine.api import http_protocol
from order_engine.api.context import read_body
from order_engine.api.edge import EdgeMiddleware, EdgePolicy
from order_engine.api.problems import MAX_HEAD_BYTES, RequestRejected, problem_response
from order_engine.meters import Meters
from order_engine.serve import address_of, listen, serving
from tests.doors import OpenDoor
from tests.e2e.conversation import HANG_S, refusal, websocket

pytestmark = pytest.mark.asyncio

LIMIT_S = 1.0  # Short for a test, and long for a machine that stalls.
PLAIN = b"GET /plain HTTP/1.1\r\nHost: x\r\n\r\n"


class Application:
    """Routes that take longer than a request may take to arrive, and signals of their progress."""

    def __init__(self) -> None:
        self.reading = asyncio.Event()
        self.read = asyncio.Event()
        routes = [
            Route("/plain", self._plain),
            Route("/slow", self._slow),
            Route("/body", self._body, methods=["POST"]),
            Route("/stream", self._stream),
            WebSocketRoute("/slow", self._slow_websocket),
            WebSocketRoute("/refused", self._refused),
        ]
        self.app = EdgeMiddleware(Starlette(routes=routes), EdgePolicy(frozenset({"x"})), OpenDoor(), {}, Meters())

    async def _plain(self, _request: Request[Any]) -> Response:
        return PlainTextResponse("plain")

    async def _slow(self, _request: Request[Any]) -> Response:
        await asyncio.sleep(2 * LIMIT_S)
        return PlainTextResponse("slow")

    async def _body(self, request: Request[Any]) -> Response:
        self.reading.set()
        try:
            return PlainTextResponse(await read_body(request))
        finally:
            self.read.set()

    async def _stream(self, _request: Request[Any]) -> Response:
        async def forever() -> AsyncIterator[bytes]:
            yield b"first"
            await asyncio.Event().wait()

        return StreamingResponse(forever())

    async def _slow_websocket(self, socket: WebSocket[Any]) -> None:
        await socket.accept()
        await asyncio.sleep(2 * LIMIT_S)
        await socket.send_text("slow")
        await socket.close()

    async def _refused(self, socket: WebSocket[Any]) -> None:
        await socket.send_denial_response(problem_response(RequestRejected("no_such_path", "Nothing."), "id"))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """A request has to come within LIMIT_S."""
    monkeypatch.setattr(http_protocol, "REQUEST_TIMEOUT_S", LIMIT_S)


@pytest.fixture
def running() -> Callable[[Application], AbstractAsyncContextManager[str]]:
    @asynccontextmanager
    async def run(application: Application) -> AsyncIterator[str]:
        with listen("127.0.0.1", 0) as listener:
            url = address_of(listener)
            async with asyncio.timeout(HANG_S), serving(application.app, listener):
                yield url

    return run


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    try:
        yield reader, writer
    finally:
        writer.close()


async def answer_to(url: str, *parts: bytes) -> bytes:
    """Send the parts and return all bytes until the server closes, which it must."""
    async with connected(url) as (reader, writer):
        for part in parts:
            writer.write(part)
        try:
            return await reader.read()
        except ConnectionResetError:
            return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\r\n",
        b"GET /plain HTTP/1.1\r\nHost: x\r\n",
        b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf",
        PLAIN + b"GET /plain",
        PLAIN + b"\r\n",
    ],
    ids=["nothing", "a blank line", "half a head", "half a body", "half a second", "a blank line after"],
)
async def test_a_request_that_does_not_come_to_its_end_is_given_up(running, short: None, sent: bytes) -> None:
    async with running(Application()) as url:
        assert (await answer_to(url, sent)).count(b"HTTP/1.1 200 OK") == sent.count(PLAIN)


async def test_an_answer_and_a_websocket_may_take_longer_than_a_request(running, short: None) -> None:
    async with running(Application()) as url:
        slow = PLAIN.replace(b"/plain", b"/slow").replace(b"Host", b"Connection: close\r\nHost")
        assert (await answer_to(url, slow)).endswith(b"slow")
        async with websocket(url, "/slow") as connection:
            assert await connection.recv() == "slow"


@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"], ids=["without end", "with an end"])
async def test_a_head_that_is_too_long_is_a_431(running, end: bytes) -> None:
    async with running(Application()) as url:
        for head in (b"X: %b" % (b"x" * MAX_HEAD_BYTES), b"X: y\r\n" * MAX_HEAD_BYTES):
            answer = await answer_to(url, b"GET /plain HTTP/1.1\r\nHost: x\r\n" + head + end)
            assert not answer or answer.startswith(b"HTTP/1.1 431 ")
        fits = b"X: %b\r\n" % (b"x" * (MAX_HEAD_BYTES - 1_000))
        accepted = b"GET /plain HTTP/1.1\r\nConnection: close\r\nHost: x\r\n" + fits
        assert (await answer_to(url, accepted, b"\r\n")).endswith(b"plain")


async def test_a_stream_that_is_open_at_the_end_ends_in_good_order(running, caplog: pytest.LogCaptureFixture) -> None:
    async with AsyncExitStack() as server:
        url = await server.enter_async_context(running(Application()))
        async with connected(url) as (reader, writer):
            writer.write(PLAIN.replace(b"/plain", b"/stream"))
            await reader.readuntil(b"first")
            await server.aclose()
            assert (await reader.read()).endswith(b"0\r\n\r\n")
    assert not [record for record in caplog.records if record.exc_info]


async def test_a_client_that_goes_in_the_middle_of_a_body_is_not_our_error(
    running, caplog: pytest.LogCaptureFixture
) -> None:
    application = Application()
    with structlog.testing.capture_logs() as told:
        async with running(application) as url, connected(url) as (_, writer):
            writer.write(b"POST /body HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
            await application.reading.wait()
            writer.close()
            await application.read.wait()
    assert (told, [record for record in caplog.records if record.levelno >= logging.WARNING]) == ([], [])


async def test_a_refused_websocket_is_not_our_error(running, caplog: pytest.LogCaptureFixture) -> None:
    async with running(Application()) as url:
        assert (await refusal(url, "/refused"))[0] == 404
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]
