"""The bus of one process: the ready queue, the events and the rate limits without Redis."""

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Final

from limits import RateLimitItemPerMinute
from limits.aio.storage import MemoryStorage
from limits.aio.strategies import RateLimiter as Strategy
from limits.aio.strategies import SlidingWindowCounterRateLimiter

from order_engine.bus.fanout import Fanout
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId
from order_engine.ports.bus import RateVerdict, Subscription
from order_engine.ports.clock import Clock

MAX_READY_IDS: Final = 100_000
_SET_BACK_MS: Final = 2_000


class MemoryReadyQueue:
    """A ReadyQueue in this process; it forgets the oldest ids when it grows too long."""

    def __init__(self) -> None:
        """Start empty."""
        self._ids: deque[OrderId] = deque(maxlen=MAX_READY_IDS)
        self._filled = asyncio.Event()

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """See ReadyQueue."""
        self._ids.extend(order_ids)
        self._filled.set()

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """See ReadyQueue."""
        if not self._ids and timeout_s > 0:
            self._filled.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._filled.wait()
            except TimeoutError:
                return []
        return [self._ids.popleft() for _ in range(min(limit, len(self._ids)))]


class MemoryEventBus:
    """An EventBus in this process."""

    def __init__(self) -> None:
        """Start without subscriptions."""
        self._fanout = Fanout()
        self.is_connected = True
        self.trouble: str | None = None

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """See EventBus."""
        self._fanout.deliver(events)

    def subscribe(self, account: str, order_id: OrderId | None) -> Subscription:
        """See EventBus."""
        return self._fanout.subscribe(account, order_id)


class MemoryRateLimiter:
    """A RateLimiter that counts in this process."""

    def __init__(self, clock: Clock) -> None:
        """`clock` tells how long a window has still to go."""
        self._storage = MemoryStorage()
        self._strategy = SlidingWindowCounterRateLimiter(self._storage)
        self._clock = clock
        self._latest_ms = clock.now_ms()

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """See RateLimiter."""
        now_ms = self._clock.now_ms()
        if now_ms < self._latest_ms - _SET_BACK_MS:
            # The library's windows follow the machine's clock, and would last longer if that clock is set back.
            await self._storage.reset()
        self._latest_ms = now_ms
        return await count(self._strategy, self._clock, key, per_minute, cost)


async def count(strategy: Strategy, clock: Clock, key: str, per_minute: int, cost: int) -> RateVerdict:
    """Count against a window of the library; a cost of 0 only reads it."""
    item = RateLimitItemPerMinute(per_minute)
    is_allowed = await strategy.hit(item, key, cost=cost) if cost else await strategy.test(item, key)
    window = await strategy.get_window_stats(item, key)
    reset_s = max(1, -int(-(window.reset_time - clock.now_ms() / 1000) // 1))
    return RateVerdict(is_allowed, per_minute, max(0, window.remaining), reset_s)
