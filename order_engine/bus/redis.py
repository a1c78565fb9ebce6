"""The bus on Redis or Valkey: ready ids in a list, events by publish and subscribe, rate windows.

Everything here may be lost at any time, and says so instead of failing.
"""

import asyncio
import contextlib
import itertools
import re
import zlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

import msgspec
from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from order_engine import observe
from order_engine.bus.fanout import Fanout, FanoutSubscription
from order_engine.bus.memory import MOST_READY_IDS, MemoryRateLimiter, count
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId
from order_engine.engine.batch import Batcher
from order_engine.ports.bus import RateVerdict, Subscription
from order_engine.ports.clock import Clock

_TIMEOUT_S: Final = 2.0
_RECONNECT_S: Final = 0.25
_LISTEN_S: Final = 0.5
_ALONE_S: Final = 1.0
_MOST_SILENT_TURNS: Final = 2
_MOST_OUTGOING: Final = 20_000
_MOST_AT_ONCE: Final = 16
_ORDER_ID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_LOST: Final = (RedisError, OSError, TimeoutError)
# Events go out on as many channels, by their order's id, and a process listens
# to those on which somebody follows an order there.
SHARDS: Final = 64
_SUBSCRIBE_S: Final = 0.5

_event_decoder = msgspec.json.Decoder(list[OrderEvent])


class RedisBus:
    """ReadyQueue and EventBus on one Redis; `start` before use, `close` after."""

    def __init__(self, url: str, prefix: str) -> None:
        """`prefix` begins every key and channel, so that engines can share a server."""
        self._redis: Redis = _connect(url)
        self._ready_key = f"{prefix}:ready"
        self._channels = [f"{prefix}:events:{shard}" for shard in range(SHARDS)]
        # Nothing is published here: to be subscribed to something is how a connection shows that it lives.
        self._alive_channel = f"{prefix}:alive"
        self._fanout = _ShardedFanout(self._listen_to)
        # Each shard that was asked for, and whether Redis has said yes.
        self._listened: dict[int, asyncio.Event] = {}
        self._pubsub: Any = None
        # One task alone writes to that connection, and nobody's leaving cuts it short.
        self._commands: Batcher[tuple[Any, str, int], None] = Batcher(self._command_together, 4 * SHARDS)
        # Shards whose followers did not wait until Redis had said yes.
        self._late: set[int] = set()
        self._confirmations = 0
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
            for shard, part in _by_shard(events).items():
                pipeline.publish(self._channels[shard], msgspec.json.encode(part))
            await pipeline.execute()

    # --- listening ---

    async def _listen_forever(self) -> None:
        was_lost = False
        while not self._is_closing:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
                    try:
                        await self._subscribe_anew(pubsub)
                        await self._listen(pubsub, was_lost=was_lost)
                    finally:
                        self._pubsub = None
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
                self._note_subscribed(message["channel"], was_lost=was_lost)
            elif message["type"] == "message":
                self._receive(message["channel"], message["data"])

    async def _subscribe_anew(self, pubsub: Any) -> None:
        known = self._fanout.watched_shards()
        self._listened = {shard: asyncio.Event() for shard in known}
        self._confirmations = 0
        # The last one is confirmed last: then all are.
        await pubsub.subscribe(*(self._channels[shard] for shard in known), self._alive_channel)
        self._pubsub = pubsub
        self._ask_for(self._listened.keys() - set(known))

    def _ask_for(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._commands.submit((self._pubsub, "SUBSCRIBE", shard))

    async def _listen_to(self, shards: Sequence[int]) -> None:
        """Return when Redis sends what is published on these shards, or soon if it does not answer."""
        missing = [shard for shard in shards if not self._listened.setdefault(shard, asyncio.Event()).is_set()]
        if not missing:
            return
        # Asked for again and again until Redis has said yes: to ask twice does nothing.
        self._ask_for(missing)
        if self.is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SUBSCRIBE_S):
                    for shard in missing:
                        await self._listened[shard].wait()
                return
        self._late.update(missing)

    async def _command_together(self, commands: Sequence[tuple[Any, str, int]]) -> Sequence[None]:
        """Send them in order, those of this connection. Where that fails, whoever connects anew asks for all."""
        current = [(name, shard) for pubsub, name, shard in dict.fromkeys(commands) if pubsub is self._pubsub]
        with contextlib.suppress(*_LOST):
            for name, group in itertools.groupby(current, key=lambda it: it[0]):
                # Not through the client's subscribe: that would connect again beside us.
                connection = self._pubsub.connection if self._pubsub is not None else None
                if connection is not None and connection.is_connected:
                    channels = [self._channels[shard] for _, shard in group]
                    await connection.send_command(name, *channels, check_health=False)
        return [None] * len(commands)

    def _note_subscribed(self, channel: bytes, *, was_lost: bool) -> None:
        name = channel.decode()
        if name != self._alive_channel:
            shard = _shard_of_channel(name)
            if (confirmed := self._listened.get(shard)) is not None:
                confirmed.set()
            if shard in self._late:
                # Somebody went on without waiting for this: what he missed is in the log.
                self._late.discard(shard)
                self._fanout.wake_shard(shard)
            return
        self._confirmations += 1
        if self._confirmations > 1:
            # The client has connected anew by itself, and knows nothing of what was asked for since.
            self._ask_for(self._listened)
        self.is_connected = True
        self._listening.set()
        # What was published while nobody listened is in the log.
        self._fanout.wake_all()
        if was_lost:
            observe.bus_recovered()

    def _receive(self, channel: bytes, payload: bytes) -> None:
        shard = _shard_of_channel(channel.decode())
        if not self._fanout.is_watched(shard):
            if self._listened.pop(shard, None) is not None:
                self._commands.submit((self._pubsub, "UNSUBSCRIBE", shard))
            return
        try:
            events = _event_decoder.decode(payload)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return  # Not ours, or forged: the log is the truth either way.
        self._fanout.deliver(events)


class _ShardedFanout(Fanout):
    """A Fanout that knows on which shards somebody here follows an order."""

    def __init__(self, listen_to: Callable[[Sequence[int]], Awaitable[None]]) -> None:
        super().__init__()
        self._listen_to = listen_to
        self._watchers = [0] * SHARDS

    def is_watched(self, shard: int) -> bool:
        """Return whether an event on this shard may be for somebody here."""
        return self._watchers[shard] > 0

    def watched_shards(self) -> list[int]:
        """Return every shard that somebody here follows."""
        return [shard for shard in range(SHARDS) if self._watchers[shard]]

    def wake_shard(self, shard: int) -> None:
        """Tell those who follow something on this shard that events may have been missed."""
        for order_id, subscriptions in self._by_order.items():
            if shard in _shards_of(order_id):
                for subscription in subscriptions:
                    subscription.wake()

    def add(self, order_id: OrderId | None, subscription: FanoutSubscription) -> None:
        """See Fanout."""
        super().add(order_id, subscription)
        for shard in _shards_of(order_id):
            self._watchers[shard] += 1

    async def opened(self, order_id: OrderId | None) -> None:
        """See Fanout."""
        await self._listen_to(_shards_of(order_id))

    def remove(self, order_id: OrderId | None, subscription: FanoutSubscription) -> None:
        """See Fanout."""
        super().remove(order_id, subscription)
        for shard in _shards_of(order_id):
            self._watchers[shard] -= 1


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


def _shards_of(order_id: OrderId | None) -> Sequence[int]:
    """Return the shard of an order; of no order in particular, all."""
    return range(SHARDS) if order_id is None else (_shard_of(order_id),)


def _shard_of(order_id: OrderId) -> int:
    return zlib.crc32(order_id.encode()) % SHARDS


def _shard_of_channel(name: str) -> int:
    return int(name.rpartition(":")[2])


def _by_shard(events: Sequence[OrderEvent]) -> dict[int, list[OrderEvent]]:
    parts: dict[int, list[OrderEvent]] = {}
    for event in events:
        parts.setdefault(_shard_of(event.order_id), []).append(event)
    return parts


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
