"""Serves an application on a socket: uvicorn with protocols that a hostile client cannot exhaust."""

import asyncio
import contextlib
import functools
import socket
from collections.abc import Iterator
from typing import Any, Final

import uvicorn
from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.http_protocol import HttpProtocol
from order_engine.api.limits import Limits, Seats
from order_engine.api.websocket_protocol import WebSocketProtocol

_CLOSE_STREAMS_S: Final = 1
_MAX_MESSAGE_BYTES: Final = 64 * 1024
# Bytes that the kernel holds for a connection: received and not read yet, and written and not sent yet. With larger
# buffers the process would notice late that a client sends too much or reads nothing.
_RECEIVE_BUFFER_BYTES: Final = 32 * 1024
_UNSENT_BYTES: Final = 64 * 1024
_TELL_FAULTS_S: Final = 5.0


def build_server(app: ASGIApp, listener: socket.socket, limits: Limits | None = None) -> uvicorn.Server:
    """Return a server of the application for this socket; open streams get 1 s to end when it should exit."""
    _bound_buffers(listener)
    http: Any = functools.partial(HttpProtocol, Seats(limits or Limits()))
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


async def tell_faults_forever() -> None:
    """Write the line about clients' faults when it is due, also if no fault follows."""
    loop = asyncio.get_running_loop()
    while True:
        await asyncio.sleep(_TELL_FAULTS_S)
        observe.tell_faults(loop.time())


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: on a signal, the process must end more than its sockets."""

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
