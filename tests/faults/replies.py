"""A proxy that relays requests to an engine and drops every third reply, after the engine has given it."""

import asyncio
import itertools
from types import TracebackType
from typing import Self

_DROPPED = 3


class ReplyDropper:
    """Listens on a free port for as long as the context lasts. Relays HTTP and WebSockets alike."""

    def __init__(self, port: int) -> None:
        """`port`: the engine's, on this machine."""
        self._target = port
        self._replies = itertools.count(1)
        self._relays: set[asyncio.Task[None]] = set()
        self.dropped = 0
        self.url = ""

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    async def _relay(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        upstream: asyncio.StreamWriter | None = None
        try:
            answers, upstream = await asyncio.open_connection("127.0.0.1", self._target)
            sending = asyncio.ensure_future(_copy(reader, upstream))
            try:
                while chunk := await answers.read(65_536):
                    if chunk.startswith(b"HTTP/1.1 ") and next(self._replies) % _DROPPED == 0:
                        self.dropped += 1
                        break
                    writer.write(chunk)
                    await writer.drain()
            finally:
                sending.cancel()
                await asyncio.gather(sending, return_exceptions=True)
        except (OSError, asyncio.CancelledError):
            pass  # Swallowed: asyncio's stream server does not await its handlers.
        finally:
            writer.transport.abort()
            if upstream is not None:
                upstream.transport.abort()
            self._relays.discard(task)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while chunk := await reader.read(65_536):
        writer.write(chunk)
        await writer.drain()
