"""The part that both protocols share: when a connection is read, when it is given up, and how it ends."""

import asyncio
import http
from collections.abc import Collection
from typing import Any, Final

import uuid_utils

from order_engine.api.headers import completed
from order_engine.api.problems import RequestRejected, problem_response

SILENCE_S: Final = 30.0
# A client that reads less than this in SILENCE_S is given up.
_MIN_PROGRESS_BYTES: Final = 1_024
_LINGER_S: Final = 1.0
_MAX_DROPPED_BYTES: Final = 512 * 1024
# Bytes that wait to be sent before writing pauses.
_HIGH_WATER_BYTES: Final = 32 * 1024

# Why a connection is not read.
APPLICATION: Final = "application"
WRITING: Final = "writing"
PIPELINE: Final = "pipeline"
PACE: Final = "pace"
HANDSHAKE: Final = "handshake"
ENDED: Final = "ended"


class GatedTransport:
    """A transport that is read only while there is no reason not to."""

    def __init__(self, transport: Any) -> None:
        """Read from now on."""
        self._transport = transport
        self._reasons: set[str] = set()
        # These are called for each message, so they go to the transport directly.
        self.write = transport.write
        self.is_closing = transport.is_closing

    def __getattr__(self, name: str) -> Any:
        """Everything else is the transport's own."""
        return getattr(self._transport, name)

    def end_writing(self) -> None:
        """Tell the client that nothing follows, and read its remaining bytes, even if there were reasons not to."""
        self.write = _write_nothing
        self.is_closing = _always
        if not self._transport.is_closing():
            self._transport.write_eof()
            if self._reasons:
                self._transport.resume_reading()
        self._reasons.clear()

    def hold(self, reason: str) -> None:
        """Stop reading for this reason."""
        if not self._reasons and not self._transport.is_closing():
            self._transport.pause_reading()
        self._reasons.add(reason)

    def release(self, reason: str) -> None:
        """Read again if this was the last reason not to."""
        if reason in self._reasons:
            self._reasons.discard(reason)
            if not self._reasons and not self._transport.is_closing():
                self._transport.resume_reading()

    def pause_reading(self) -> None:
        """See asyncio; uvicorn calls it while the application has something to read."""
        self.hold(APPLICATION)

    def resume_reading(self) -> None:
        """See asyncio."""
        self.release(APPLICATION)


def _write_nothing(_data: bytes) -> None:
    """Take the place of a transport's write when it is over."""


def _always() -> bool:
    """Take the place of a transport's is_closing when it is over."""
    return True


class GuardedProtocol(asyncio.Protocol):
    """Reads nothing while writing is paused, and gives up on a client that does not read."""

    loop: asyncio.AbstractEventLoop
    transport: Any
    _silence: asyncio.TimerHandle | None = None
    _lingering: asyncio.TimerHandle | None = None
    _unsent_bytes = _dropped_bytes = 0

    def connection_made(self, transport: Any) -> None:
        """See asyncio."""
        if not isinstance(transport, GatedTransport):
            transport.set_write_buffer_limits(high=_HIGH_WATER_BYTES)
            transport = GatedTransport(transport)
        super().connection_made(transport)

    def pause_writing(self) -> None:
        """See asyncio. A client with unread answers may not send more requests."""
        super().pause_writing()
        self.transport.hold(WRITING)
        self._watch_silence()

    def resume_writing(self) -> None:
        """See asyncio."""
        self._end_silence()
        self.transport.release(WRITING)
        super().resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._end_silence()
        if self._lingering is not None:
            self._lingering.cancel()
        super().connection_lost(exc)

    def end_soon(self) -> None:
        """Close when the client has closed, or after 1 s: until then it can read the last bytes.

        A socket that is closed with unread bytes sends a reset, which can overtake the last bytes.
        So up to 512 KiB that the client still sends are read and dropped.
        """
        if self._lingering is None:
            self._lingering = self.loop.call_later(_LINGER_S, self._finish)
            self.transport.end_writing()

    def drop(self, data: bytes) -> None:
        """Drop bytes that came after the close."""
        self._dropped_bytes += len(data)
        if self._dropped_bytes > _MAX_DROPPED_BYTES:
            self.transport.hold(ENDED)

    def _finish(self) -> None:
        # The transport's own close would wait until everything is read.
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def _watch_silence(self) -> None:
        self._unsent_bytes = self.transport.get_write_buffer_size()
        self._silence = self.loop.call_later(SILENCE_S, self._check_silence)

    def _check_silence(self) -> None:
        if self.transport.get_write_buffer_size() > self._unsent_bytes - _MIN_PROGRESS_BYTES:
            self.transport.abort()
        else:
            self._watch_silence()

    def _end_silence(self) -> None:
        if self._silence is not None:
            self._silence.cancel()
            self._silence = None


class LingeringEnd:
    """Aborts connections of the server that have been closing for longer than SILENCE_S.

    A transport that closes first waits until everything is read. A client that reads nothing would
    keep it open for ever.
    """

    def __init__(self, connections: Collection[Any]) -> None:
        """`connections`: the server's, which change meanwhile."""
        self._connections = connections
        self._closing: set[Any] = set()

    async def end(self) -> float:
        """Abort those that were closing at the last turn already; returns the pause before the next turn, in s."""
        lingering = {it.transport for it in self._connections if it.transport.is_closing()}
        for transport in lingering & self._closing:
            transport.abort()
        self._closing = lingering
        return SILENCE_S


def peer_of(client: tuple[str, int] | None) -> str:
    """Return the address of the peer as limits and log lines name it."""
    return client[0] if client else "unknown"


def last_answer(error: RequestRejected, request_id: str | None = None) -> bytes:
    """Return a whole HTTP response with the problem, after which the connection closes."""
    request_id = request_id or str(uuid_utils.uuid4())
    response = problem_response(error, request_id)
    headers = completed(response.raw_headers, [(b"x-request-id", request_id.encode())])
    if not any(name == b"connection" for name, _ in headers):
        headers.append((b"connection", b"close"))
    lines = [b"HTTP/1.1 %d %b\r\n" % (response.status_code, _phrase(response.status_code))]
    lines += [b"%b: %b\r\n" % header for header in headers]
    return b"".join([*lines, b"\r\n", bytes(response.body)])


def _phrase(status: int) -> bytes:
    return http.HTTPStatus(status).phrase.encode()
