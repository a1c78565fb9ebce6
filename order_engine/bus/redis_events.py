"""The event bus through Redis: the channels that this process listens to, and the check of each message."""

import asyncio
import contextlib
import itertools
import zlib
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any, Final

from redis.asyncio import Redis

from order_engine import observe
from order_engine.batching import Batcher
from order_engine.bus.fanout import Fanout, FanoutSubscription, Topic
from order_engine.bus.redis_link import (
    GROUPS,
    LOST,
    RECONNECT_S,
    SHARDS,
    SHARDS_OF_GROUP,
    TIMEOUT_S,
    RedisNames,
    Trouble,
)
from order_engine.bus.redis_seal import Seal
from order_engine.counters import Counters
from order_engine.domain.order import OrderId
from order_engine.ports.bus import Subscription

_LISTEN_S: Final = 0.5
_MAX_SILENT_TURNS: Final = 2
_SUBSCRIBE_S: Final = 0.5
_RING_S: Final = 0.1


class RedisListener:
    """Delivers published events to the subscriptions of this process."""

    def __init__(self, redis: Redis, names: RedisNames, seal: Seal, trouble: Trouble, counters: Counters) -> None:
        """`seal` tells which messages are this engine's."""
        self._redis = redis
        self._names = names
        self._seal = seal
        self._trouble = trouble
        self._counters = counters
        self._fanout = ShardedFanout(self._listen_to)
        # Each shard that was asked for; its event is set when Redis has confirmed it.
        self._listened: dict[int, asyncio.Event] = {}
        self._pubsub: Any = None
        # Only one task writes to that connection, and a caller that is cancelled does not interrupt it.
        self._commands: Batcher[tuple[Any, str, int], None] = Batcher(self._command_together, 4 * SHARDS)
        # Shards whose subscribers did not wait until Redis had confirmed them.
        self._late: set[int] = set()
        self._rung_s = [float("-inf")] * SHARDS
        self._confirmations = 0
        self._listening = asyncio.Event()
        self._is_closing = self._is_moving = False
        self.is_connected = False

    def subscribe(self, account: str, order_id: OrderId | None) -> Subscription:
        """See EventBus."""
        return self._fanout.subscribe(account, order_id)

    async def started(self) -> None:
        """Return when events come in, or after 2 s if Redis does not answer."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._listening.wait(), TIMEOUT_S)

    def move(self) -> None:
        """Connect again within 0.5 s, because another server may be the right one now."""
        self._is_moving = True

    def stop(self) -> None:
        """End `run` soon. The client can turn a cancellation into an error of its own, so the loops look at this."""
        self._is_closing = True

    async def run(self) -> None:
        """Listen until the end, on one connection after the other."""
        while not self._is_closing:
            try:
                async with self._redis.pubsub(ignore_subscribe_messages=False) as pubsub:
                    try:
                        await self._subscribe_anew(pubsub)
                        await self._listen(pubsub)
                    finally:
                        self._pubsub = None
            except LOST as error:
                self._trouble.note("listen", error)
                self.is_connected = False
                self._fanout.wake_all()
                await asyncio.sleep(RECONNECT_S)

    async def _listen(self, pubsub: Any) -> None:
        silent_turns = 0
        self._is_moving = False
        while not (self._is_closing or self._is_moving):
            message = await pubsub.get_message(timeout=_LISTEN_S)
            if message is None:
                silent_turns += 1
                if silent_turns > _MAX_SILENT_TURNS:
                    raise TimeoutError("Redis does not answer a ping")
                await pubsub.ping()
                continue
            silent_turns = 0
            if message["type"] == "subscribe":
                self._note_subscribed(message["channel"])
            elif message["type"] == "message":
                self._receive(message["channel"], message["data"])

    async def _subscribe_anew(self, pubsub: Any) -> None:
        known = self._fanout.watched_shards()
        self._listened = {shard: asyncio.Event() for shard in known}
        self._confirmations = 0
        # Redis confirms the last channel last, so its confirmation means that all are confirmed.
        await pubsub.subscribe(*(self._names.channels[shard] for shard in known), self._names.alive)
        self._pubsub = pubsub
        self._ask_for(self._listened.keys() - set(known))

    def _ask_for(self, shards: Iterable[int]) -> None:
        for shard in shards:
            self._commands.submit((self._pubsub, "SUBSCRIBE", shard))

    async def _listen_to(self, shards: Sequence[int]) -> None:
        """Return when Redis sends the events of these shards, or after 0.5 s without an answer."""
        missing = [shard for shard in shards if not self._listened.setdefault(shard, asyncio.Event()).is_set()]
        if not missing:
            return
        # Ask at each call until Redis has confirmed; asking twice does nothing.
        self._ask_for(missing)
        if self.is_connected:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SUBSCRIBE_S):
                    for shard in missing:
                        await self._listened[shard].wait()
                return
        self._late.update(missing)

    async def _command_together(self, commands: Sequence[tuple[Any, str, int]]) -> Sequence[None]:
        """Send the current connection's commands in order; if that fails, the next connection asks for all shards."""
        current = [(name, shard) for pubsub, name, shard in dict.fromkeys(commands) if pubsub is self._pubsub]
        with contextlib.suppress(*LOST):
            for name, group in itertools.groupby(current, key=lambda it: it[0]):
                # Not through the client's subscribe, which would open a second connection.
                connection = self._pubsub.connection if self._pubsub is not None else None
                if connection is not None and connection.is_connected:
                    channels = [self._names.channels[shard] for _, shard in group]
                    await connection.send_command(name, *channels, check_health=False)
        return [None] * len(commands)

    def _note_subscribed(self, channel: bytes) -> None:
        name = channel.decode()
        if name != self._names.alive:
            shard = _shard_of_channel(name)
            if (confirmed := self._listened.get(shard)) is not None:
                confirmed.set()
            if shard in self._late:
                # A subscriber did not wait for this confirmation; the events that it missed are in the log.
                self._late.discard(shard)
                self._fanout.wake_shard(shard)
            return
        self._confirmations += 1
        if self._confirmations > 1:
            # The client has reconnected by itself, and does not know the channels that were added later.
            self._ask_for(self._listened)
        self.is_connected = True
        self._listening.set()
        # Events that were published without a connection are in the log.
        self._fanout.wake_all()
        self._trouble.clear("listen")

    def _receive(self, channel: bytes, payload: bytes) -> None:
        shard = _shard_of_channel(channel.decode())
        if not self._fanout.is_watched(shard):
            if self._listened.pop(shard, None) is not None:
                self._commands.submit((self._pubsub, "UNSUBSCRIBE", shard))
            return
        events = self._seal.open(channel, payload)
        if events is None:
            observe.message_unproven(self._counters)
        elif events:
            self._fanout.deliver(events)
        elif (now_s := asyncio.get_running_loop().time()) - self._rung_s[shard] >= _RING_S:
            # Old events only wake the subscriptions of the shard to read the log, at most 10 times a second.
            self._rung_s[shard] = now_s
            self._fanout.wake_shard(shard)


class ShardedFanout(Fanout):
    """A Fanout that knows which shards have subscriptions in this process."""

    def __init__(self, listen_to: Callable[[Sequence[int]], Awaitable[None]]) -> None:
        """`listen_to` returns when events of these shards arrive."""
        super().__init__()
        self._listen_to = listen_to
        self._watchers = [0] * SHARDS

    def is_watched(self, shard: int) -> bool:
        """Return whether an event on this shard may be for a subscription in this process."""
        return self._watchers[shard] > 0

    def watched_shards(self) -> list[int]:
        """Return every shard with a subscription in this process."""
        return [shard for shard in range(SHARDS) if self._watchers[shard]]

    def wake_shard(self, shard: int) -> None:
        """Tell the subscriptions of this shard that events may have been missed."""
        for topic, subscriptions in self._by_topic.items():
            if shard in _shards_of(topic):
                for subscription in subscriptions:
                    subscription.wake()

    def add(self, topic: Topic, subscription: FanoutSubscription) -> None:
        """See Fanout."""
        super().add(topic, subscription)
        for shard in _shards_of(topic):
            self._watchers[shard] += 1

    async def opened(self, topic: Topic) -> None:
        """See Fanout."""
        await self._listen_to(_shards_of(topic))

    def remove(self, topic: Topic, subscription: FanoutSubscription) -> None:
        """See Fanout."""
        super().remove(topic, subscription)
        for shard in _shards_of(topic):
            self._watchers[shard] -= 1


def _shards_of(topic: Topic) -> Sequence[int]:
    """Return the shards of an account, or the one of an order."""
    account, order_id = topic
    if order_id is not None:
        return (shard_of(account, order_id),)
    first = _group_of(account) * SHARDS_OF_GROUP
    return range(first, first + SHARDS_OF_GROUP)


def shard_of(account: str, order_id: OrderId) -> int:
    """Return the number of the channel on which an order's events are published."""
    return _group_of(account) * SHARDS_OF_GROUP + zlib.crc32(order_id.encode()) % SHARDS_OF_GROUP


def _group_of(account: str) -> int:
    return zlib.crc32(account.encode()) % GROUPS


def _shard_of_channel(name: str) -> int:
    return int(name.rpartition(":")[2])
