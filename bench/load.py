"""The load generator, a process of its own: bursts, orders at a fixed rate, and orders that are watched.

python -m bench.load burst URL ORDERS CONNECTIONS [BODY]
python -m bench.load rate URL ORDERS RATE [BODY]
python -m bench.load watched URL ORDERS CONNECTIONS STREAM_PATH [BODY]

Its clients do as little work as possible: they take processor time from the system that they measure.
"""

import asyncio
import json
import sys
import time
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from bench.measure import at

BODY = json.dumps(
    {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1", "slippageBps": 100}
).encode()
CONNECTIONS_AT_A_RATE = 256
_CLOSE = 0x8
_SHORT, _LONG = 126, 127
_MASK = bytes(4)


class Client:
    """One keep-alive connection that posts orders."""

    def __init__(self, url: str, body: bytes) -> None:
        """`body` is posted again and again."""
        self._address = urlsplit(url)
        self._request = (
            b"POST %b HTTP/1.1\r\nHost: %b\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
            % (self._address.path.encode(), self._address.netloc.encode(), len(body))
        ) + body
        self._reader: asyncio.StreamReader | None = None

    async def open(self) -> None:
        """Connect."""
        self._reader, self._writer = await asyncio.open_connection(self._address.hostname, self._address.port)

    @property
    def is_open(self) -> bool:
        """Whether the connection is open; servers close idle ones."""
        return self._reader is not None and not self._reader.at_eof()

    async def post(self) -> tuple[bool, bytes]:
        """Post one order; returns whether it was accepted, and the answer."""
        assert self._reader is not None  # noqa: S101 - it was opened
        self._writer.write(self._request)
        head = await self._reader.readuntil(b"\r\n\r\n")
        length = int(head.lower().split(b"content-length: ", 1)[1].split(b"\r\n", 1)[0])
        return head.startswith(b"HTTP/1.1 202"), await self._reader.readexactly(length)

    def close(self) -> None:
        """Disconnect."""
        if self._reader is not None:
            self._writer.close()

    async def watch(self, path: str) -> int:
        """Read a WebSocket to its end on a connection of its own; returns the number of frames."""
        reader, writer = await asyncio.open_connection(self._address.hostname, self._address.port)
        writer.write(
            b"GET %b HTTP/1.1\r\nHost: %b\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            % (path.encode(), self._address.netloc.encode())
        )
        head = await reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 101"):
            raise RuntimeError(f"no WebSocket at {path}: {head.decode()}")
        frames = 0
        while True:
            opcode, length = await reader.readexactly(2)
            if length == _SHORT:
                length = int.from_bytes(await reader.readexactly(2))
            elif length == _LONG:
                length = int.from_bytes(await reader.readexactly(8))
            payload = await reader.readexactly(length)
            if opcode & 0xF == _CLOSE:
                writer.write(bytes((0x80 | _CLOSE, 0x80 | length)) + _MASK + payload)
                writer.close()
                with suppress(OSError):
                    await writer.wait_closed()
                return frames
            frames += 1


async def burst(url: str, count: int, connections: int, body: bytes, stream: str | None = None) -> dict[str, Any]:
    """Post `count` orders over `connections` sockets, each as soon as the one before it is answered.

    `stream`: a path such as `/v1/orders/{}/stream`; each order is then read to its end over a
    WebSocket before the next one is posted.
    """
    left, refused, frames = count, 0, 0
    latencies: list[float] = []

    async def run() -> None:
        nonlocal left, refused, frames
        client = Client(url, body)
        await client.open()
        while left > 0:
            left -= 1
            began = time.perf_counter()
            is_accepted, answer = await client.post()
            latencies.append(time.perf_counter() - began)
            refused += not is_accepted
            if stream is not None:
                seen = await client.watch(stream.format(json.loads(answer)["orderId"]))
                frames += seen

    began = time.perf_counter()
    await asyncio.gather(*(run() for _ in range(connections)))
    return _summary(time.perf_counter() - began, latencies, refused) | {"frames": frames}


async def rate(url: str, count: int, per_s: float, body: bytes) -> dict[str, Any]:
    """Post one order every 1/`per_s` seconds, whether or not those before it are answered.

    A latency counts from the time at which the order was due, so that a server that stalls is
    charged with every order that it delays (no coordinated omission).
    """
    latencies: list[float] = []
    refused = 0
    idle: list[Client] = []
    slots = asyncio.Semaphore(CONNECTIONS_AT_A_RATE)

    async def post(due: float) -> None:
        nonlocal refused
        # Take the connection that was used last: the server closes idle ones.
        client = idle.pop() if idle else Client(url, body)
        try:
            if not client.is_open:
                await client.open()
            is_accepted, _ = await client.post()
            latencies.append(time.perf_counter() - due)
            refused += not is_accepted
            idle.append(client)
        except (OSError, EOFError):
            refused += 1
        finally:
            slots.release()

    began = time.perf_counter()
    async with asyncio.TaskGroup() as tasks:
        for number in range(count):
            due = began + number / per_s
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            await slots.acquire()
            tasks.create_task(post(due))
    for client in idle:
        client.close()
    return _summary(time.perf_counter() - began, latencies, refused)


def _summary(took_s: float, latencies: list[float], refused: int) -> dict[str, Any]:
    latencies.sort()
    return {
        "took_s": took_s,
        "refused": refused,
        "post_p50_ms": 1000 * at(0.5, latencies),
        "post_p99_ms": 1000 * at(0.99, latencies),
    }


def main() -> None:
    """Read the command line, generate the load, and print the figures."""
    import uvloop  # noqa: PLC0415 - this module is also imported where uvloop is missing

    _, mode, url, count, number, *more = sys.argv
    if mode == "watched":
        stream, *more = more
        load = burst(url, int(count), int(number), more[0].encode() if more else BODY, stream)
    elif mode == "rate":
        load = rate(url, int(count), float(number), more[0].encode() if more else BODY)
    else:
        load = burst(url, int(count), int(number), more[0].encode() if more else BODY)
    print(json.dumps(uvloop.run(load)))


if __name__ == "__main__":
    main()
