"""The server's two protocols, with the limits that a stranger's connection needs."""

import asyncio
from collections.abc import Collection
from typing import Any, Final

from starlette.types import Message
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.protocols.utils import ClientDisconnected
from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.extensions import Extension
from websockets.extensions.permessage_deflate import PerMessageDeflate, ServerPerMessageDeflateFactory
from websockets.protocol import State

from order_engine.api.frames import DEFLATED, READY, WINDOW_BITS, WRITE_NOW
from order_engine.api.problems import MOST_HEAD_BYTES

_REQUEST_TIMEOUT_S: Final = 15.0
SILENCE_S: Final = 30.0
_DEFLATE: Final = ServerPerMessageDeflateFactory(
    server_no_context_takeover=True,
    client_no_context_takeover=True,
    server_max_window_bits=WINDOW_BITS,
)
_TOO_LARGE: Final = b"HTTP/1.1 431 Request Header Fields Too Large\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


class _GivesUpOnSilence(asyncio.Protocol):
    """A client that reads nothing any more, and does not go either, would be written to for ever."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _silence: asyncio.TimerHandle | None = None

    def pause_writing(self) -> None:
        """See asyncio. The transport's own close would wait until everything is read."""
        super().pause_writing()
        self._silence = self.loop.call_later(SILENCE_S, self.transport.abort)

    def resume_writing(self) -> None:
        """See asyncio."""
        self._end_silence()
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end_silence()
        super().connection_lost(exc)

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


async def end_what_lingers(connections: Collection[Any]) -> None:
    """End what closes and does not come to its end, in the set of a server's connections.

    A transport that closes waits until everything is read, whoever closed it; a client who reads
    nothing would be kept for ever.
    """
    closing: set[Any] = set()
    while True:
        await asyncio.sleep(SILENCE_S)
        lingering = {it.transport for it in connections if it.transport.is_closing()}
        for transport in lingering & closing:
            transport.abort()
        closing = lingering


class HttpProtocol(_GivesUpOnSilence, HttpToolsProtocol):
    """uvicorn's HTTP, which gives up on a request that does not come to its end."""

    _deadline: asyncio.TimerHandle | None = None
    _is_in_head = False
    _head_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._await_request()

    def data_received(self, data: bytes) -> None:
        """Take a part of a request; a head that grows too long is refused before it ends."""
        self._await_request()
        super().data_received(data)
        self._head_bytes = self._head_bytes + len(data) if self._is_in_head else 0
        if self._head_bytes > MOST_HEAD_BYTES and not self.transport.is_closing():
            self.transport.write(_TOO_LARGE)
            self.transport.close()

    def on_message_begin(self) -> None:
        """See uvicorn."""
        self._is_in_head = True
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """See uvicorn."""
        self._is_in_head = False
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """See uvicorn; from here on it is our turn, which no deadline cuts short."""
        self._stop_waiting()
        super().on_message_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """See uvicorn."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _await_request(self) -> None:
        if self._deadline is None:
            self._deadline = self.loop.call_later(_REQUEST_TIMEOUT_S, self.transport.close)

    def _stop_waiting(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class WebSocketProtocol(_GivesUpOnSilence, WebSocketsSansIOProtocol):
    """uvicorn's WebSocket, to which a refused handshake is a complete one and not an error."""

    _frame = READY

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        """See uvicorn; to a client who offers it, deflated frames may be sent."""
        super().__init__(*args, **kwargs)
        self.conn.available_extensions = [_DEFLATE]

    async def run_asgi(self) -> None:
        """See uvicorn. The application may also write without waiting."""
        extensions: dict[str, Any] = self.scope["extensions"]
        extensions[WRITE_NOW] = self.write_now
        await super().run_asgi()

    def write_now(self, message: Message) -> bool:
        """Send a message that is made already, and return whether that could be done without waiting."""
        if not self.writable.is_set() or self.transport.is_closing() or self.conn.state is not State.OPEN:
            return False
        self.transport.write(message.get(self._frame) or message[READY])
        return True

    async def send(self, message: Any) -> None:
        """See uvicorn. A frame that is made already goes out as it is."""
        if READY in message:
            if not self.writable.is_set():
                await self.writable.wait()
            if self.write_now(message):
                return
            if self.transport.is_closing():
                raise ClientDisconnected
        await super().send(message)
        if message["type"] == "websocket.accept":
            self._frame = DEFLATED if any(map(_is_wide_enough, self.conn.extensions)) else READY
        if message["type"] == "websocket.http.response.body" and not message.get("more_body", False):
            self.handshake_complete = True


def _is_wide_enough(extension: Extension) -> bool:
    return isinstance(extension, PerMessageDeflate) and extension.local_max_window_bits >= WINDOW_BITS
