"""The bus on Redis or Valkey: ready ids in a list, events by publish and subscribe, rate windows.

Everything here may be lost at any time, and says so instead of failing.
"""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

import msgspec
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from order_engine import observe
from order_engine.bus.fanout import Fanout
from order_engine.bus.memory import MOST_READY_IDS, MemoryRateLimiter, count
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId
from order_engine.ports import Clock, RateVerdict, Subscription

_TIMEOUT_S: Final = 2.0
_RECONNECT_S: Final = 0.25
_LISTEN_S: Final = 0.5
_ALONE_S: Final = 1.0
_MOST_SILENT_TURNS: Final = 2
_MOST_OUTGOING: Final = 20_000
_MOST_AT_ONCE: Final = 16
_ORDER_ID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOST: Final = (RedisError, OSError, TimeoutError)

_event_decoder = msgspec.json.Decoder(list[OrderEvent])


class RedisBus:
    """ReadyQueue and EventBus on one Redis; `start` before use, `close` after."""

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix` begins every key and channel, so that engines can share a server."""
        self._redis: Redis = _connect(url)
        self._ready_key = f"{prefix}:ready"
        self._channel = f"{prefix}:events"
        self._fanout = Fanout()
        self._ids: deque[OrderId] = deque(maxlen=_MOST_OUTGOING)
        self._events: deque[OrderEvent] = deque(maxlen=_MOST_OUTGOING)
        self._outgoing = asyncio.Event()
        self._listening = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False
        self.is_connected = False

    async def start(self) -> None:
        """Begin to send and to listen; waits a moment for Redis, and goes on without it."""
        self._tasks = [asyncio.create_task(self._send_forever()), asyncio.create_task(self._listen_forever())]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listening.wait(), _TIMEOUT_S)

    async def close(self) -> None:
        """Send what is still waiting, if Redis answers, and disconnect."""
        # The client can turn a cancellation into an error of its own, so the loops look at this too.
        self._is_closing = True
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        with contextlib.suppress(*_LOST):
            await self._send_batch()
        with contextlib.suppress(*_LOST):
            await self._redis.aclose()

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """See ReadyQueue."""
        self._ids.extend(order_ids)
        self._outgoing.set()

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """See ReadyQueue."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        found: Any = None
        try:
            # A connection that is silent for _TIMEOUT_S counts as lost, so no single wait is that long.
            while found is None and (left_s := deadline - loop.time()) > 0:
                wait_s = min(left_s, _TIMEOUT_S / 2)
                found = await self._redis.blmpop(wait_s, 1, self._ready_key, direction="LEFT", count=limit)
            if found is None:
                found = await self._redis.lmpop(1, self._ready_key, direction="LEFT", count=limit)
        except _LOST:
            await asyncio.sleep(min(timeout_s, _RECONNECT_S))
            return []
        return _order_ids(found[1]) if found else []

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """See EventBus."""
        self._events.extend(events)
        self._outgoing.set()

    def subscribe(self, order_id: OrderId | None) -> Subscription:
        """See EventBus."""
        return self._fanout.subscribe(order_id)

    # --- sending: everything that waits goes out in one round trip ---

    async def _send_forever(self) -> None:
        while not self._is_closing:
            await self._outgoing.wait()
            self._outgoing.clear()
            waiting = len(self._ids) + len(self._events)
            try:
                await self._send_batch()
            except _LOST:
                observe.announcements_dropped(waiting)
                await asyncio.sleep(_RECONNECT_S)

    async def _send_batch(self) -> None:
        ids, events = [*self._ids], [*self._events]
        self._ids.clear()
        self._events.clear()
        async with self._redis.pipeline(transaction=False) as pipeline:
            if ids:
                pipeline.rpush(self._ready_key, *ids)
                pipeline.ltrim(self._ready_key, -MOST_READY_IDS, -1)
            if events:
                pipeline.publish(self._channel, msgspec.json.encode(events))
            await pipeline.execute()

    # --- listening ---

    async def _listen_forever(self) -> None:
        was_lost = False
        while not self._is_closing:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
                    await pubsub.subscribe(self._channel)
                    await self._listen(pubsub, was_lost=was_lost)
            except _LOST as error:
                if self.is_connected or not was_lost:
                    observe.bus_lost(error)
                was_lost = True
                self.is_connected = False
                self._fanout.wake_all()
                await asyncio.sleep(_RECONNECT_S)

    async def _listen(self, pubsub: Any, *, was_lost: bool) -> None:
        silent_turns = 0
        while not self._is_closing:
            message = await pubsub.get_message(timeout=_LISTEN_S)
            if message is None:
                silent_turns += 1
                if silent_turns > _MOST_SILENT_TURNS:
                    raise TimeoutError("Redis does not answer a ping")
                await pubsub.ping()
                continue
            silent_turns = 0
            if message["type"] == "subscribe":
                self.is_connected = True
                self._listening.set()
                # What was published while nobody listened is in the log.
                self._fanout.wake_all()
                if was_lost:
                    observe.bus_recovered()
            elif message["type"] == "message":
                self._receive(message["data"])

    def _receive(self, payload: bytes) -> None:
        try:
            events = _event_decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # Not ours, or forged: the log is the truth either way.
        self._fanout.deliver(events)


class RedisRateLimiter:
    """A RateLimiter that counts in Redis for all processes, and in this one while Redis is away."""

    def __init__(self, url: str, prefix: str, clock: Clock) -> None:
        """`prefix` begins every key."""
        self._redis: Redis = _connect(url)
        options: dict[str, Any] = {"connection_pool": self._redis.connection_pool}
        # The library's own reading of a URL is narrower than the client's; it gets what the client made of it.
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=f"{prefix}:rate", wrap_exceptions=False, **options
        )
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        self._alone = MemoryRateLimiter(clock)
        self._clock = clock
        # More at once than the client has connections would look like a lost Redis.
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        self._alone_until_s = 0.0

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """See RateLimiter."""
        try:
            async with self._turns:
                # A Redis that hangs would make every caller wait as long as the one that found out.
                if self._now_s() >= self._alone_until_s:
                    return await count(self._strategy, self._clock, key, per_minute, cost)
        except _LOST:
            self._alone_until_s = self._now_s() + _ALONE_S
        return await self._alone.hit(key, per_minute, cost)

    async def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(*_LOST):
            await self._redis.aclose()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()


def _order_ids(kept: Sequence[bytes]) -> list[OrderId]:
    """Return the entries that are order ids: whoever can write to Redis can write anything."""
    return [OrderId(entry.decode()) for entry in kept if _ORDER_ID.fullmatch(entry)]


def _options() -> dict[str, Any]:
    """Fail at once and let the caller decide: a retry inside the client would only hide the loss."""
    return {
        "socket_timeout": _TIMEOUT_S,
        "socket_connect_timeout": _TIMEOUT_S,
        "retry": Retry(NoBackoff(), 0),
    }


def _connect(url: str) -> Redis:
    client: Redis = Redis.from_url(url, **_options())
    return client
