"""Serves an application on a socket: uvicorn with protocols that a hostile client cannot exhaust."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Collection, Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.http_protocol import HttpProtocol
from order_engine.api.limits import Limits, Seats
from order_engine.api.websocket_protocol import WebSocketProtocol
from order_engine.counters import Faults

_CLOSE_STREAMS_S: Final = 1
_MAX_MESSAGE_BYTES: Final = 64 * 1024
# Bytes that the kernel holds for a connection: received and not read yet, and written and not sent yet. With larger
# buffers the process would notice late that a client sends too much or reads nothing.
_RECEIVE_BUFFER_BYTES: Final = 32 * 1024
_UNSENT_BYTES: Final = 64 * 1024
_TELL_FAULTS_S: Final = 5.0


class HttpServer:
    """A Service that serves an application on a socket; open streams get 1 s to end after `stop`."""

    name: Final = "HTTP server"

    def __init__(self, app: ASGIApp, listener: socket.socket, limits: Limits, faults: Faults) -> None:
        """`faults` of clients are counted here."""
        self._listener = listener
        self._server = _build_server(app, listener, Seats(limits, faults))
        self._serving: asyncio.Task[None] | None = None

    @property
    def connections(self) -> Collection[Any]:
        """The protocol of each open connection."""
        return self._server.server_state.connections

    async def start(self) -> None:
        """See Service. Returns when connections are accepted."""
        self._serving = asyncio.create_task(self._server.serve(sockets=[self._listener]))
        begun = asyncio.create_task(self._server.has_begun.wait())
        try:
            await asyncio.wait([self._serving, begun], return_when=asyncio.FIRST_COMPLETED)
        finally:
            begun.cancel()

    async def run(self) -> None:
        """See Service."""
        assert self._serving is not None  # noqa: S101 - `start` comes first
        await self._serving

    def stop(self) -> None:
        """See Service."""
        self._server.should_exit = True


def _build_server(app: ASGIApp, listener: socket.socket, seats: Seats) -> "_Server":
    _bound_buffers(listener)
    http: Any = functools.partial(HttpProtocol, seats)
    config = uvicorn.Config(
        app,
        http=http,
        ws=WebSocketProtocol,
        ws_max_size=_MAX_MESSAGE_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_STREAMS_S,
    )
    return _Server(config)


async def tell_faults(faults: Faults) -> float:
    """Write the line about clients' faults if it is due, also if no fault follows; returns the pause in s."""
    observe.tell_faults(faults, asyncio.get_running_loop().time())
    return _TELL_FAULTS_S


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: on a signal, the process must end more than its sockets."""

    def __init__(self, config: uvicorn.Config) -> None:
        """`has_begun` is set when connections are accepted."""
        super().__init__(config)
        self.has_begun = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """See uvicorn."""
        await super().startup(sockets)
        self.has_begun.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _bound_buffers(listener: socket.socket) -> None:
    """Set the sizes that every accepted socket inherits."""
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, _RECEIVE_BUFFER_BYTES)
    lowat = getattr(socket, "TCP_NOTSENT_LOWAT", None)
    if lowat is not None and listener.family in (socket.AF_INET, socket.AF_INET6):
        listener.setsockopt(socket.IPPROTO_TCP, lowat, _UNSENT_BYTES)
