"""A client that reads nothing and does not go is given up, whatever it was sent."""

import asyncio
import socket

import pytest
from starlette.types import Receive, Scope, Send

from order_engine.api import connections
from order_engine.serve import serving

pytestmark = pytest.mark.asyncio

UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
HANG_S = 10


@pytest.mark.parametrize("request_head", [b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", UPGRADE])
async def test_a_client_that_reads_nothing_is_given_up(monkeypatch: pytest.MonkeyPatch, request_head: bytes) -> None:
    monkeypatch.setattr(connections, "SILENCE_S", 0.2)
    ended = asyncio.Event()

    async def endless(scope: Scope, receive: Receive, send: Send) -> None:
        """Send until nobody is there to be sent to."""
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
