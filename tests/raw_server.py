"""The server's protocols with a small application, and clients that write raw bytes."""

import asyncio
import json
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import msgspec
from starlette.requests import ClientDisconnect, Request
from starlette.types import Receive, Scope, Send

from order_engine.api.limits import Limits
from order_engine.serve import serving

HANG_S = 30  # Longer than any step takes: only a hang gets there.


class Heard(msgspec.Struct):
    """A whole request, as the application got it."""

    method: str
    path: str
    query: str
    headers: list[tuple[str, str]]
    body: bytes

    def values(self, name: str) -> list[str]:
        return [value for it, value in self.headers if it == name]


class Echo:
    """Answers each request with its method, path and body; remembers them."""

    def __init__(self) -> None:
        self.heard: list[Heard] = []
        self.begun = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.size = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":
            await self._websocket(receive, send)
            return
        self.begun += 1
        headers = [(name.decode("latin-1"), value.decode("latin-1")) for name, value in scope["headers"]]
        try:
            body = await Request(scope, receive).body()
        except ClientDisconnect:
            return
        self.heard.append(Heard(scope["method"], scope["path"], scope["query_string"].decode(), headers, body))
        await self.may_answer.wait()
        shown = json.dumps({"method": scope["method"], "path": scope["path"], "body": body.decode()}).encode()
        shown += b" " * self.size
        start = [(b"content-length", str(len(shown)).encode())] if "stream" not in scope["path"] else []
        await send({"type": "http.response.start", "status": 200, "headers": start})
        await send({"type": "http.response.body", "body": shown})

    async def _websocket(self, receive: Receive, send: Send) -> None:
        """Send each message back."""
        await receive()
        await send({"type": "websocket.accept"})
        while (message := await receive())["type"] != "websocket.disconnect":
            text = message.get("text")
            await send({"type": "websocket.send", "text": text} if text is not None else {**message, "type": SEND})


SEND = "websocket.send"


@asynccontextmanager
async def served(app: Any, **limits: Any) -> AsyncIterator[int]:
    """Serve the application; yields the port."""
    with socket.create_server(("127.0.0.1", 0), backlog=2048) as listener:
        port: int = listener.getsockname()[1]
        async with asyncio.timeout(HANG_S), serving(app, listener, Limits(**limits)):
            yield port


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        yield reader, writer
    finally:
        writer.transport.abort()


async def exchange(port: int, *parts: bytes, pause_s: float = 0.0) -> bytes:
    """Send the parts, each in a packet of its own; returns everything until the server closes."""
    async with connected(port) as (reader, writer):
        writer.transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for part in parts:
            writer.write(part)
            await asyncio.sleep(pause_s)
        return await reader.read()


class Answer(msgspec.Struct):
    """One response, read to its end."""

    status: int
    headers: dict[str, str]
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


def answers_in(received: bytes) -> list[Answer]:
    """Split a server's bytes into its responses; interim ones are left out."""
    answers = []
    while received:
        head, _, received = received.partition(b"\r\n\r\n")
        status_line, *lines = head.decode("latin-1").split("\r\n")
        status = int(status_line.split()[1])
        headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
        if status < 200:
            continue
        if headers.get("transfer-encoding") == "chunked":
            body = b""
            while True:
                size, _, received = received.partition(b"\r\n")
                chunk, received = received[: int(size, 16)], received[int(size, 16) + 2 :]
                if not chunk:
                    break
                body += chunk
        else:
            size = int(headers.get("content-length", len(received)))
            body, received = received[:size], received[size:]
        answers.append(Answer(status, headers, body))
    return answers


UPGRADE = (
    b"GET / HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)


def frame(opcode: int, payload: bytes = b"", *, fin: bool = True) -> bytes:
    """A masked frame with a mask of zeros."""
    length = len(payload)
    size = bytes([0x80 | length]) if length < 126 else b"\xfe" + length.to_bytes(2, "big")
    return bytes([(0x80 if fin else 0) | opcode]) + size + bytes(4) + payload


def close_code_in(received: bytes) -> int | None:
    """Return the code of the close frame at the end of a server's bytes."""
    while len(received) >= 2:
        size, begin = received[1] & 0x7F, 2
        if size == 126:
            size, begin = int.from_bytes(received[2:4], "big"), 4
        elif size == 127:
            size, begin = int.from_bytes(received[2:10], "big"), 10
        if received[0] & 0x0F == 8:
            return int.from_bytes(received[begin : begin + 2], "big")
        received = received[begin + size :]
    return None
