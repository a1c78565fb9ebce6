"""A server that answers by a script: lost replies, proxies, and answers that are not the engine's."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Final, Self

import msgspec

ORDER_ID: Final = "01900000-0000-7000-8000-000000000000"


class Received(msgspec.Struct, frozen=True):
    """A request as it came in."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def key(self) -> str | None:
        return self.headers.get("idempotency-key")


Step = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


def placed_order(**fields: Any) -> dict[str, Any]:
    """An order resource with every member that the client reads."""
    order = {
        "orderId": ORDER_ID,
        "clientOrderId": None,
        "type": "market",
        "status": "pending",
        "inDoubt": False,
        "tokenIn": "SOL",
        "tokenOut": "USDC",
        "amountIn": "1",
        "slippageBps": 50,
        "minAmountOut": None,
        "venue": None,
        "quotes": [],
        "amountOut": None,
        "price": None,
        "txSignature": None,
        "reason": None,
        "metadata": None,
        "attempt": 0,
        "createdAt": "2026-01-31T12:00:00.000Z",
        "updatedAt": "2026-01-31T12:00:00.000Z",
        "seq": 1,
        "attempts": [],
    }
    return {**order, **fields}


def answer(
    status: int, body: bytes | dict[str, Any], kind: str = "application/json", cut: int | None = None, **headers: str
) -> Step:
    """Answer the request; with `cut`, only the first `cut` bytes of the body arrive before the connection closes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} Scripted", f"Content-Type: {kind}", f"Content-Length: {len(content)}"]
    lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
    head = "\r\n".join(lines).encode() + b"\r\n\r\n"

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head + content[:cut])
        if cut is not None:
            writer.close()

    return step


def raw(text: bytes) -> Step:
    """Send bytes and close."""

    async def step(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(text)
        writer.close()

    return step


def problem(status: int, code: str, **headers: str) -> Step:
    """Answer with the engine's own problem document."""
    document = {"title": "T", "status": status, "code": code, "detail": f"Said the engine: {code}.", "requestId": "r"}
    return answer(status, document, "application/problem+json", **headers)


async def reset(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Reset the connection after the request was read."""
    writer.transport.abort()


async def close(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Close the connection in order, without an answer."""
    writer.close()


async def hang(reader: asyncio.StreamReader, _writer: asyncio.StreamWriter) -> None:
    """Answer nothing for as long as the client stays."""
    await reader.read()


async def endless(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Answer with a page that does not end."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[")
    while not writer.is_closing():
        writer.write(b"1," * 512 * 1024)
        await writer.drain()


ACCEPTED: Final = answer(202, placed_order())


class ScriptedServer:
    """Listens on a free port, or the one that is given.

    Each request gets the next step of the script; the last step repeats.
    """

    def __init__(self, script: Sequence[Step], port: int = 0) -> None:
        self._port = port
        self._script = [*script]
        self.received: list[Received] = []
        self.url = ""
        self.arrived = asyncio.Event()

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", self._port)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        self._tasks: set[asyncio.Task[None]] = set()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        try:
            while not writer.is_closing():
                self.received.append(await _read_request(reader))
                self.arrived.set()
                step = self._script[0] if len(self._script) == 1 else self._script.pop(0)
                await step(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # Swallowed: asyncio's stream server does not await its handlers.
        finally:
            writer.close()


async def _read_request(reader: asyncio.StreamReader) -> Received:
    head = (await reader.readuntil(b"\r\n\r\n")).decode()
    first, *lines = head.strip().split("\r\n")
    headers = {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}
    method, path, _ = first.split(" ")
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body)
