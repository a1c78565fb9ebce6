"""Many watchers of every order, in a process of its own: how late they are, and whether they get everything.

python -m bench.watching URL PATH WATCHERS

Watches until its standard input ends, and then prints the figures. Each watcher notes the age of the
first event of every message; 10 of them read every event and check that none is missing.
They offer permessage-deflate, as browsers and the usual clients do.
"""

import asyncio
import json
import sys
import time
import zlib
from datetime import datetime
from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.measure import at

CHECKED = 10
_AT_ONCE = 50
_SHORT, _LONG = 126, 127
_IS_DEFLATED, _OPCODE, _TEXT = 0x40, 0x0F, 0x01
_END_OF_MESSAGE = b"\x00\x00\xff\xff"
# All watchers get the same bytes. Real watchers decode them on their own machines; here all share one result.
_for_all = lru_cache(maxsize=256)


class _Event(msgspec.Struct, rename="camel"):
    order_id: str
    seq: int


class _Page(msgspec.Struct):
    events: list[_Event]


_decoder = msgspec.json.Decoder(_Page)


@_for_all
def messages_in(received: bytes) -> tuple[tuple[bytes, ...], bytes]:
    """Return the text of each complete message, and the remaining bytes."""
    texts = []
    while len(received) > 1:
        head, length, begin = received[0], received[1], 2
        if length in (_SHORT, _LONG):
            begin = 4 if length == _SHORT else 10
            length = int.from_bytes(received[2:begin])
        if len(received) < begin + length:
            break
        payload, received = received[begin : begin + length], received[begin + length :]
        if head & _OPCODE == _TEXT:
            is_deflated = head & _IS_DEFLATED
            texts.append(zlib.decompressobj(-15).decompress(payload + _END_OF_MESSAGE) if is_deflated else payload)
    return tuple(texts), received


@_for_all
def time_of(text: bytes) -> float | None:
    """Return the time of a message's first event, in seconds since 1970."""
    _, _, rest = text.partition(b'"at":"')
    return datetime.fromisoformat(rest[: rest.index(b'"')].decode()).timestamp() if rest else None


class Watcher(asyncio.Protocol):
    """One WebSocket, which keeps the age of each message, and the events if it checks."""

    def __init__(self, address: str, path: str, *, is_checking: bool) -> None:
        """`address` is the host and the port."""
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
            "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"
        ).encode()
        self._is_checking = is_checking
        self._is_open = False
        self._waiting = b""
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages = 0
        self.bytes = 0
        self.lags_ms: list[float] = []
        self.seqs: dict[str, list[int]] = {}

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade."""
        transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        """End the wait for this watcher if it was refused."""
        if not self.began.done():
            self.began.set_exception(error or ConnectionError(f"the WebSocket was refused: {self._waiting[:200]!r}"))

    def data_received(self, data: bytes) -> None:
        """Note the messages that are complete by now."""
        self.bytes += len(data)
        data = self._waiting + data
        if not self._is_open:
            head, end, rest = data.partition(b"\r\n\r\n")
            if not end or not head.startswith(b"HTTP/1.1 101"):
                self._waiting = data
                return
            self._is_open, data = True, rest
        texts, self._waiting = messages_in(data)
        for text in texts:
            if not self.began.done():
                self.began.set_result(None)
            self.messages += 1
            then = time_of(text)
            if then is not None:
                self.lags_ms.append(1000 * (time.time() - then))
            if self._is_checking:
                for event in _decoder.decode(text).events:
                    self.seqs.setdefault(event.order_id, []).append(event.seq)


async def watch(url: str, path: str, watchers: int) -> dict[str, Any]:
    """Watch until the standard input ends."""
    address = urlsplit(url)
    loop = asyncio.get_running_loop()
    found: list[Watcher] = []
    for begin in range(0, watchers, _AT_ONCE):
        opened = [
            Watcher(address.netloc, path, is_checking=number < CHECKED)
            for number in range(begin, min(begin + _AT_ONCE, watchers))
        ]
        for it in opened:
            await loop.create_connection(lambda it=it: it, address.hostname, address.port)
        await asyncio.gather(*(it.began for it in opened))
        found += opened
    print("watching", flush=True)
    await loop.run_in_executor(None, sys.stdin.read)
    lags = sorted(lag for it in found for lag in it.lags_ms)
    checked = [it.seqs for it in found[:CHECKED]]
    return {
        "lag_p50_ms": at(0.5, lags),
        "lag_p99_ms": at(0.99, lags),
        "messages": sum(it.messages for it in found),
        "mib": sum(it.bytes for it in found) / 2**20,
        "checked": len(checked),
        # The watcher that saw the fewest counts: a gapless life can still lack its last event.
        "events_seen": min(sum(map(len, seqs.values())) for seqs in checked),
        "gaps_seen": sum(life != [*range(1, len(life) + 1)] for seqs in checked for life in seqs.values()),
    }


def main() -> None:
    """Print the figures as one JSON document."""
    _, url, path, watchers = sys.argv
    print(json.dumps(uvloop.run(watch(url, path, int(watchers)))))


if __name__ == "__main__":
    main()
