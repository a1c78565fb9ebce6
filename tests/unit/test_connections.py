"""Our server gives up on a client that reads nothing, and sends pages that it renders once for all clients."""

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from starlette.types import Receive, Scope, Send
from websockets.asyncio.client import connect
from websockets.extensions.permessage_deflate import ClientPerMessageDeflateFactory

from order_engine.api import guard
from order_engine.api.frames import WRITE_NOW, PageFrame, text_message
from order_engine.ports.store import LogPage
from order_engine.serve import serving
from tests.contracts.orders import new_order

pytestmark = pytest.mark.asyncio

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HANG_S = 10


@pytest.mark.parametrize("request_head", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", UPGRADE])
async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, request_head: bytes) -> None:
    monkeypatch.setattr(guard, "SILENCE_S", 0.2)
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        """Send until the connection is closed."""
        is_websocket = scope["type"] == "websocket"
        if is_websocket:
            await send({"type": "websocket.accept"})
        else:
            await send({"type": "http.response.start", "status": 200, "headers": []})
        try:
            for _ in range(1_000):
                if is_websocket:
                    await send({"type": "websocket.send", "text": "x" * 1_000_000})
                else:
                    await send({"type": "http.response.body", "body": b"x" * 1_000_000, "more_body": True})
        except OSError:
            pass
        finally:
            ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(endless, listener):
            _, writer = await asyncio.open_connection(*listener.getsockname(), limit=1)
            writer.write(request_head)
            await asyncio.wait_for(ended.wait(), HANG_S)
            writer.close()


async def test_a_closing_connection_whose_client_reads_nothing_comes_to_its_end(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(guard, "SILENCE_S", 0.2)
    ended = asyncio.Event()

    async def little(scope: Scope, receive: Receive, send: Send) -> None:
        """Send less than the mark at which writing pauses, and then get no answer to a ping."""
        await send({"type": "websocket.accept"})
        protocol = scope["extensions"][WRITE_NOW].__self__
        protocol.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
        while not protocol.transport.get_write_buffer_size():
            await send({"type": "websocket.send", "text": "x" * 10_000})
            await asyncio.sleep(0.02)  # Wait until the client's kernel has taken its share.
        assert protocol.writable.is_set()
        protocol.ping_timeout = 0.1
        protocol.send_keepalive_ping()
        while (await receive())["type"] != "websocket.disconnect":
            pass
        with contextlib.suppress(OSError):
            await send(PAGE.message)
        ended.set()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with serving(little, listener):
            with socket.socket() as client:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
                client.connect(listener.getsockname())
                client.sendall(UPGRADE)
                await asyncio.wait_for(ended.wait(), HANG_S)


PAGE = PageFrame(LogPage([new_order().event for _ in range(100)], "7:7:"))
OFFERS = {
    "nothing": None,
    "what is usual": [ClientPerMessageDeflateFactory(client_max_window_bits=True)],
    "a window as large as ours": [ClientPerMessageDeflateFactory(server_max_window_bits=12)],
    "a window that is too small": [ClientPerMessageDeflateFactory(server_max_window_bits=9)],
    "to forget": [ClientPerMessageDeflateFactory(server_no_context_takeover=True, client_no_context_takeover=True)],
}
GET_IT_DEFLATED = {"what is usual", "a window as large as ours", "to forget"}


async def pages(scope: Scope, receive: Receive, send: Send) -> None:
    """Send pages in both ways, with other messages in between."""
    await send({"type": "websocket.accept"})
    await send(PAGE.message)
    assert scope["extensions"][WRITE_NOW](PAGE.message)
    await send(text_message("for you"))
    await send({"type": "websocket.send", "text": "as another server sends it"})
    await send(PAGE.message)
    await send({"type": "websocket.close", "code": 1000})
    assert not scope["extensions"][WRITE_NOW](PAGE.message)


@asynccontextmanager
async def counted(host: str, port: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A proxy before the server that counts the bytes of its answers."""
    count = [0]

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward_reader, onward_writer = await asyncio.open_connection(host, port)

        async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter, *, is_counted: bool) -> None:
            while data := await source.read(65_536):
                count[0] += len(data) if is_counted else 0
                target.write(data)
            target.close()

        await asyncio.gather(
            copy(reader, onward_writer, is_counted=False), copy(onward_reader, writer, is_counted=True)
        )

    async with await asyncio.start_server(carry, "127.0.0.1", 0) as server:
        yield server.sockets[0].getsockname()[1], count


@pytest.mark.parametrize("offer", OFFERS)
async def test_every_client_reads_the_same_whatever_it_offers(offer: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        async with (
            serving(pages, listener),
            counted(*listener.getsockname()) as (port, count),
            asyncio.timeout(HANG_S),
            connect(f"ws://127.0.0.1:{port}", proxy=None, compression=None, extensions=OFFERS[offer]) as client,
        ):
            messages = [message async for message in client]
    assert messages == [PAGE.text, PAGE.text, "for you", "as another server sends it", PAGE.text]
    assert (count[0] < len(PAGE.text)) is (offer in GET_IT_DEFLATED)
