"""Many who watch every order at once, a process of its own: how late they are, and whether they get everything.

python -m bench.watching URL PATH WATCHERS

Watches until its standard input ends, and then prints what it found. Each watcher notes, of every
message, how old its first event is; ten of them read every event and check that nothing is missing.
"""

import asyncio
import json
import sys
import time
from datetime import datetime
from typing import Any
from urllib.parse import urlsplit

import msgspec
import uvloop

from bench.measure import at

CHECKED = 10
_AT_ONCE = 50
_SHORT, _LONG = 126, 127
_HEAD_BYTES = 10  # the longest head that a server's frame has
_SEEN_BYTES = 512  # where a message's first event is over, as far as its time goes


class _Event(msgspec.Struct, rename="camel"):
    order_id: str
    seq: int


class _Page(msgspec.Struct):
    events: list[_Event]


_decoder = msgspec.json.Decoder(_Page)


class Watcher(asyncio.Protocol):
    """One WebSocket. Of a message it keeps the first bytes, or all of them if it checks."""

    def __init__(self, address: str, path: str, *, is_checking: bool) -> None:
        """`address` is the host and the port."""
        self._request = (
            f"GET {path} HTTP/1.1\r\nHost: {address}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        ).encode()
        self._is_checking = is_checking
        self._is_open = False
        self._waiting = b""
        self._left = 0
        self._message = bytearray()
        self.began: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.messages = 0
        self.bytes = 0
        self.lags_ms: list[float] = []
        self.seqs: dict[str, list[int]] = {}

    def connection_made(self, transport: Any) -> None:
        """Ask for the upgrade."""
        transport.write(self._request)

    def connection_lost(self, error: Exception | None) -> None:
        """Nobody is to wait for a watcher that was refused."""
        if not self.began.done():
            self.began.set_exception(error or ConnectionError(f"the WebSocket was refused: {self._waiting[:200]!r}"))

    def data_received(self, data: bytes) -> None:
        """Take apart what came; a message that is larger than what came is gone on with later."""
        self.bytes += len(data)
        if not self._is_open:
            head, end, data = (self._waiting + data).partition(b"\r\n\r\n")
            if not end or not head.startswith(b"HTTP/1.1 101"):
                self._waiting = head
                return
            self._is_open, self._waiting = True, b""
        if self._waiting:
            data, self._waiting = self._waiting + data, b""
        place = 0
        while place < len(data):
            if not self._left:
                begin = self._begin_frame(data, place)
                if begin is None:
                    self._waiting = data[place:]
                    return
                place = begin
            end = min(len(data), place + self._left)
            if self._is_checking or len(self._message) < _SEEN_BYTES:
                self._message += data[place : end if self._is_checking else min(end, place + _SEEN_BYTES)]
            self._left -= end - place
            place = end
            if not self._left:
                self._end_frame()

    def _begin_frame(self, data: bytes, place: int) -> int | None:
        """Return where the frame's payload begins, or None if its head is not whole yet."""
        if len(data) - place < _HEAD_BYTES and len(data) - place < 2 + {_SHORT: 2, _LONG: 8}.get(
            data[place + 1] if len(data) > place + 1 else _LONG, 0
        ):
            return None
        length = data[place + 1]
        place += 2
        if length == _SHORT:
            length, place = int.from_bytes(data[place : place + 2]), place + 2
        elif length == _LONG:
            length, place = int.from_bytes(data[place : place + 8]), place + 8
        self._left = length
        return place

    def _end_frame(self) -> None:
        message, self._message = bytes(self._message), bytearray()
        if not message.startswith(b'{"cursor"'):
            return  # A ping.
        if not self.began.done():
            self.began.set_result(None)
        self.messages += 1
        _, _, rest = message.partition(b'"at":"')
        if rest:
            then = datetime.fromisoformat(rest[: rest.index(b'"')].decode())
            self.lags_ms.append(1000 * (time.time() - then.timestamp()))
        if self._is_checking:
            for event in _decoder.decode(message).events:
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
        # By whoever saw the fewest: with lives that are gapless, the last event of one can still be missing.
        "events_seen": min(sum(map(len, seqs.values())) for seqs in checked),
        "gaps_seen": sum(life != [*range(1, len(life) + 1)] for seqs in checked for life in seqs.values()),
    }


def main() -> None:
    """Print one JSON document of what was found."""
    _, url, path, watchers = sys.argv
    print(json.dumps(uvloop.run(watch(url, path, int(watchers)))))


if __name__ == "__main__":
    main()
