"""A TCP relay in front of a server: it can hold and slow all bytes, and cut a connection in the middle of a commit."""

import asyncio
import contextlib
import re
from collections import Counter
from types import TracebackType
from typing import Final, Literal, Self

Cut = Literal["before", "half", "after", "reply"]
CUTS: Final[tuple[Cut, ...]] = ("before", "half", "after", "reply")

_CHUNK: Final = 64 * 1024
# How asyncpg names and prepares a statement, and how it executes it. Each statement of the store that
# changes an order's history is a transaction of its own, committed before the reply.
_PREPARES: Final = re.compile(rb"P....(__asyncpg_stmt_\w+__)\0([^\0]*)\0", re.DOTALL)
_EXECUTES: Final = re.compile(rb"B....\0(__asyncpg_stmt_\w+__)\0", re.DOTALL)
_WRITES: Final = b"insert into order_events"


class _Link:
    """One connection from a client through to the server."""

    def __init__(self, client: asyncio.StreamWriter, server: asyncio.StreamWriter) -> None:
        self.client = client
        self.server = server
        self.writes: set[bytes] = set()
        self.cut_reply = False

    def abort(self) -> None:
        """Reset both sides: nothing more arrives on either."""
        self.client.transport.abort()
        self.server.transport.abort()


class Proxy:
    """Listens on a free port for as long as the context lasts, and relays to one server."""

    def __init__(self, port: int) -> None:
        """`port`: the server's, on this machine."""
        self._target = port
        self._flows = asyncio.Event()
        self._flows.set()
        self._links: set[_Link] = set()
        self._relays: set[asyncio.Task[None]] = set()
        self._next_cut: Cut | None = None
        self.delay_s = 0.0
        self.cuts: Counter[str] = Counter()
        self.port = 0

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._server.close()
        self.drop()
        for relay in self._relays:
            relay.cancel()
        await asyncio.gather(*self._relays, return_exceptions=True)

    def partition(self) -> None:
        """Let nothing pass in either direction and refuse no connection, like a network that swallows packets."""
        self._flows.clear()

    def heal(self) -> None:
        """Let everything pass at once again, held bytes too."""
        self.delay_s = 0.0
        self._next_cut = None
        self._flows.set()

    def cut_a_commit(self, cut: Cut) -> None:
        """Cut the next connection that writes an order's history.

        `before`: the server gets nothing of the write; `half`: it gets half; `after`: it gets all of
        it; `reply`: the client gets half of the server's reply, after the commit.
        """
        self._next_cut = cut

    def lead_to(self, port: int) -> None:
        """Relay new connections to another server; existing ones stay."""
        self._target = port

    def drop(self) -> None:
        """Reset every connection."""
        for link in list(self._links):
            link.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._relays.add(task)
        try:
            await self._flows.wait()
            try:
                server_reader, server_writer = await asyncio.open_connection("127.0.0.1", self._target)
            except OSError:
                writer.transport.abort()
                return
            link = _Link(writer, server_writer)
            self._links.add(link)
            try:
                await asyncio.gather(self._relay_requests(link, reader), self._relay_replies(link, server_reader))
            finally:
                link.abort()
                self._links.discard(link)
        except asyncio.CancelledError:
            writer.transport.abort()  # Swallowed: asyncio's stream server does not await its handlers.
        finally:
            self._relays.discard(task)

    async def _relay_requests(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._pass()
                if self._is_to_be_cut(link, chunk):
                    self._cut(link, chunk)
                link.server.write(chunk)
                await link.server.drain()
        self._end(link.server)

    async def _relay_replies(self, link: _Link, reader: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while chunk := await reader.read(_CHUNK):
                await self._pass()
                if link.cut_reply:
                    link.client.write(chunk[: len(chunk) // 2])
                    link.client.close()
                    return
                link.client.write(chunk)
                await link.client.drain()
        self._end(link.client)

    @staticmethod
    def _end(writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, RuntimeError):
            writer.close()

    async def _pass(self) -> None:
        if self.delay_s:
            await asyncio.sleep(self.delay_s)
        await self._flows.wait()

    def _is_to_be_cut(self, link: _Link, chunk: bytes) -> bool:
        for name, query in _PREPARES.findall(chunk):
            if _WRITES in query:
                link.writes.add(name)
        return self._next_cut is not None and any(name in link.writes for name in _EXECUTES.findall(chunk))

    def _cut(self, link: _Link, chunk: bytes) -> None:
        """Make the cut; raises ConnectionResetError unless the request goes on."""
        cut, self._next_cut = self._next_cut, None
        assert cut is not None
        self.cuts[cut] += 1
        if cut == "reply":
            link.cut_reply = True
            return
        if cut != "before":
            link.server.write(chunk if cut == "after" else chunk[: len(chunk) // 2])
        link.client.transport.abort()
        link.server.close()  # This sends the written bytes first.
        raise ConnectionResetError
