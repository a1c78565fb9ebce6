"""The bus on Redis or Valkey: ready ids in a list, events by publish and subscribe.

Everything here may be lost at any time; a loss is reported and is not an error. Redis may also lie: a forged id costs a
claim that finds nothing, and an event counts only with the proof of `redis_seal`.
"""

import asyncio
import contextlib
import re
from collections import deque
from collections.abc import Sequence
from typing import Any, Final

from redis.asyncio import Redis

from order_engine import observe
from order_engine.bus.memory import MAX_READY_IDS
from order_engine.bus.redis_events import RedisListener, shard_of
from order_engine.bus.redis_link import (
    LOST,
    RECONNECT_S,
    TIMEOUT_S,
    RedisNames,
    Trouble,
    connect,
    leave_wrong_server,
)
from order_engine.bus.redis_seal import Seal
from order_engine.counters import Counters
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId
from order_engine.ports.bus import Subscription
from order_engine.ports.clock import Clock
from order_engine.ports.store import EngineIdentity

_MAX_OUTGOING: Final = 20_000
_PROBE_S: Final = 1.0
# Not an order's id, so a worker that gets it throws it away.
_PROBE: Final = "probe"
_ORDER_ID: Final = re.compile(rb"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")


class RedisBus:
    """ReadyQueue and EventBus on one Redis; a Service, which `identify` precedes.

    A store can be opened with it before `start`: its announcements wait until then.
    """

    name: Final = "bus"

    def __init__(self, url: str, prefix: str, clock: Clock, counters: Counters) -> None:
        """`prefix` begins every key and channel; `clock` dates the messages."""
        self._redis: Redis = connect(url)
        self._prefix = prefix
        self._clock = clock
        self._counters = counters
        self.troubles = Trouble()
        self._names: RedisNames | None = None
        self._seal: Seal | None = None
        self._listener: RedisListener | None = None
        self._ids: deque[OrderId] = deque(maxlen=_MAX_OUTGOING)
        self._events: deque[OrderEvent] = deque(maxlen=_MAX_OUTGOING)
        self._outgoing = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._is_closing = False

    @property
    def is_connected(self) -> bool:
        """See EventBus."""
        return self._listener is not None and self._listener.is_connected

    @property
    def trouble(self) -> str | None:
        """See EventBus."""
        return self.troubles.reason

    def identify(self, identity: EngineIdentity) -> None:
        """Send and listen as this engine."""
        self._names = RedisNames(self._prefix, identity)
        self._seal = Seal(identity.bus_secret, self._clock)
        self._listener = RedisListener(self._redis, self._names, self._seal, self.troubles, self._counters)

    async def start(self) -> None:
        """See Service. Waits at most 2 s for Redis."""
        assert self._listener is not None  # noqa: S101 - it is identified first
        self._tasks = [asyncio.create_task(self._send_forever()), asyncio.create_task(self._listener.run())]
        await self._listener.started()

    async def run(self) -> None:
        """See Service. At the end, the waiting ids and events are sent if Redis answers."""
        try:
            await asyncio.wait(self._tasks, return_when=asyncio.FIRST_COMPLETED)
            errors = [] if self._is_closing else [task.exception() for task in self._tasks if task.done()]
        finally:
            self.stop()
            await asyncio.gather(*self._tasks, return_exceptions=True)
            with contextlib.suppress(*LOST):
                await self._send_batch()
            with contextlib.suppress(*LOST):
                await self._redis.aclose()
        for error in errors:
            if error is not None:
                raise error

    def stop(self) -> None:
        """See Service."""
        # The client can turn a cancellation into an error of its own, so the loops look at this too.
        self._is_closing = True
        if self._listener is not None:
            self._listener.stop()
        for task in self._tasks:
            task.cancel()

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """See ReadyQueue."""
        self._ids.extend(order_ids)
        self._outgoing.set()

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """See ReadyQueue."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        key = self._started_names().ready
        found: Any = None
        try:
            # A connection that is silent for TIMEOUT_S counts as lost, so each single wait is shorter.
            while found is None and (left_s := deadline - loop.time()) > 0:
                wait_s = min(left_s, TIMEOUT_S / 2)
                found = await self._redis.blmpop(wait_s, 1, key, direction="LEFT", count=limit)
            if found is None:
                found = await self._redis.lmpop(1, key, direction="LEFT", count=limit)
        except LOST as error:
            await self._note("take", error)
            await asyncio.sleep(min(timeout_s, RECONNECT_S))
            return []
        self._note_well("take")
        return _order_ids(found[1]) if found else []

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """See EventBus."""
        self._events.extend(events)
        self._outgoing.set()

    def subscribe(self, account: str, order_id: OrderId | None) -> Subscription:
        """See EventBus."""
        assert self._listener is not None  # noqa: S101 - nothing is followed before the start
        return self._listener.subscribe(account, order_id)

    # --- sending: everything that waits goes out in one round trip ---

    async def _send_forever(self) -> None:
        while not self._is_closing:
            is_probe = False
            try:
                # While Redis refuses, try again each second, even if there is nothing to send.
                async with asyncio.timeout(_PROBE_S if self.troubles.is_noted("send") else None):
                    await self._outgoing.wait()
            except TimeoutError:
                is_probe = True
            self._outgoing.clear()
            waiting = len(self._ids) + len(self._events)
            try:
                await self._send_batch(is_probe=is_probe)
            except LOST as error:
                observe.announcements_dropped(self._counters, waiting)
                await self._note("send", error)
                await asyncio.sleep(RECONNECT_S)
            else:
                self._note_well("send")

    async def _send_batch(self, *, is_probe: bool = False) -> None:
        if self._names is None or self._seal is None:
            return
        ids: list[str] = [*self._ids]
        events = [*self._events]
        self._ids.clear()
        self._events.clear()
        if is_probe:
            ids.append(_PROBE)
        async with self._redis.pipeline(transaction=False) as pipeline:
            if ids:
                pipeline.rpush(self._names.ready, *ids)
                pipeline.ltrim(self._names.ready, -MAX_READY_IDS, -1)
            for shard, part in _by_shard(events).items():
                channel = self._names.channels[shard]
                pipeline.publish(channel, self._seal.close(channel, part))
            answers = await pipeline.execute(raise_on_error=False)
        # Only the first error: the client's own message would contain every id.
        for answer in answers:
            if isinstance(answer, Exception):
                raise answer

    def _note_well(self, part: str) -> None:
        if self.troubles.clear(part) and self._listener is not None:
            # This part works again, perhaps on another server; then listen there too.
            self._listener.move()

    async def _note(self, part: str, error: BaseException) -> None:
        self.troubles.note(part, error)
        with contextlib.suppress(*LOST):
            await leave_wrong_server(self._redis, error)

    def _started_names(self) -> RedisNames:
        assert self._names is not None  # noqa: S101 - a worker pops after the start
        return self._names


def _by_shard(events: Sequence[OrderEvent]) -> dict[int, list[OrderEvent]]:
    parts: dict[int, list[OrderEvent]] = {}
    for event in events:
        parts.setdefault(shard_of(event.account, event.order_id), []).append(event)
    return parts


def _order_ids(kept: Sequence[bytes]) -> list[OrderId]:
    """Return the entries that are order ids, because any program with access to Redis can write other texts."""
    return [OrderId(entry.decode()) for entry in kept if _ORDER_ID.fullmatch(entry)]
