"""One attacker: a process with sockets that do one kind of harm until it is killed.

python -m tests.hostile.attack KIND PORT SOCKETS
"""

import asyncio
import contextlib
import itertools
import os
import random
import socket
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import Final

from tests.raw_server import UPGRADE, frame

GET: Final = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
LIST: Final = b"GET /v1/orders?limit=100 HTTP/1.1\r\nHost: localhost\r\n\r\n"
FEED: Final = UPGRADE.replace(b"GET / ", b"GET /v1/stream ").replace(b"Host: x", b"Host: localhost")
PAST: Final = FEED.replace(b"/v1/stream ", b"/v1/stream?after=0 ")
SSE_PAST: Final = b"GET /v1/stream?after=0 HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n"
EXECUTE: Final = FEED.replace(b"/v1/stream ", b"/api/orders/execute ")
_ESTABLISHED: Final = 1
ALL_AT_ONCE: Final = "all at once"
_SOCKETS: Final = {"deaf_websocket": 50, "deaf_sse": 50, "pipeline": 20}
_OTHERS: Final = 8
KINDS_OF_FRAMES: Final = (
    frame(9),
    frame(9, b"x" * 125),
    frame(10),
    frame(1),
    frame(2),
    frame(1, fin=False) + frame(0, fin=False) * 99,
    frame(1, b"\xff"),
    frame(8) * 10,
)


def _socket() -> socket.socket:
    sock = socket.socket()
    sock.settimeout(0)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


async def _flood(port: int, opening: bytes, piece: bytes, *, reads: bool, pause_s: float = 0.0) -> None:
    """Send the opening and then the piece again and again, until the server closes the connection."""
    loop = asyncio.get_running_loop()
    with _socket() as sock:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, opening)
        while True:
            await loop.sock_sendall(sock, piece)
            if reads:
                with contextlib.suppress(BlockingIOError):
                    if not sock.recv(65_536):
                        return
            await asyncio.sleep(pause_s)


async def frames(port: int, number: int) -> None:
    """Tiny frames of one kind after the other; the answers are read."""
    kind = KINDS_OF_FRAMES[number % len(KINDS_OF_FRAMES)]
    await _flood(port, random.choice((FEED, EXECUTE)), kind * (4_096 // len(kind) + 1), reads=True)


async def deaf_frames(port: int, number: int) -> None:
    """The same, and nothing is read."""
    kind = KINDS_OF_FRAMES[number % len(KINDS_OF_FRAMES)]
    await _flood(port, FEED, kind * (4_096 // len(kind) + 1), reads=False)


async def frame_bytes(port: int, number: int) -> None:
    """Frames in packets of one byte."""
    await _bytewise(port, FEED, frame(2, b"x" * 60_000))


async def request_bytes(port: int, number: int) -> None:
    """Requests in packets of one byte."""
    body = b'{"type": "market"}' + b" " * 16_000
    head = b"POST /v1/orders HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    await _bytewise(port, b"", head + body)


async def _bytewise(port: int, opening: bytes, sent: bytes) -> None:
    loop = asyncio.get_running_loop()
    with _socket() as sock:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, opening)
        while True:
            for place in range(len(sent)):
                await loop.sock_sendall(sock, sent[place : place + 1])
                if place % 16 == 0:
                    await asyncio.sleep(0)
            with contextlib.suppress(BlockingIOError):
                if not sock.recv(65_536):
                    return


async def pipeline(port: int, number: int) -> None:
    """Requests without end; no answer is read."""
    await _flood(port, b"", (GET, LIST)[number % 2] * 100, reads=False)


async def _deaf(port: int, opening: bytes) -> None:
    """Ask for the whole past and read nothing of it."""
    loop = asyncio.get_running_loop()
    with _socket() as sock:
        await loop.sock_connect(sock, ("127.0.0.1", port))
        await loop.sock_sendall(sock, opening)
        while sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 1)[0] == _ESTABLISHED:
            await asyncio.sleep(1.0)


async def deaf_websocket(port: int, number: int) -> None:
    """A WebSocket reader of the past that reads nothing."""
    await _deaf(port, PAST)


async def deaf_sse(port: int, number: int) -> None:
    """The same with server-sent events."""
    await _deaf(port, SSE_PAST)


KINDS: Final[dict[str, Callable[[int, int], Awaitable[None]]]] = {
    "frames": frames,
    "deaf_frames": deaf_frames,
    "frame_bytes": frame_bytes,
    "request_bytes": request_bytes,
    "pipeline": pipeline,
    "deaf_websocket": deaf_websocket,
    "deaf_sse": deaf_sse,
}


async def attack(kind: str, port: int, sockets: int) -> None:
    """Reconnect at once when the server has closed a socket, with the next kind of frames."""

    numbers = itertools.count()

    async def again_and_again() -> None:
        while True:
            with contextlib.suppress(OSError):
                await KINDS[kind](port, next(numbers))

    print("attacking", flush=True)  # noqa: T201 - the process that started this one waits for it
    await asyncio.gather(*(again_and_again() for _ in range(sockets)))


@contextlib.contextmanager
def attacking(kind: str, port: int) -> Iterator[None]:
    """Run the attackers of this kind as processes of their own."""
    kinds = list(KINDS) if kind == ALL_AT_ONCE else [kind] if kind in KINDS else []
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", "tests.hostile.attack", it, str(port), str(_SOCKETS.get(it, _OTHERS))],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for it in kinds
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            process.stdout.readline()
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


if __name__ == "__main__":
    os.nice(19)  # Real attackers use other machines' processors.
    _, kind_of_attack, port_number, socket_count = sys.argv
    asyncio.run(attack(kind_of_attack, int(port_number), int(socket_count)))
