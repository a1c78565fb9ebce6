"""Rate windows on Redis: all processes of an engine count together, but each one alone while Redis is away."""

import asyncio
import contextlib
from typing import Any, Final

from limits.aio.storage import RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.exceptions import ResponseError

from order_engine.bus.memory import MemoryRateLimiter, count
from order_engine.bus.redis_link import LOST, RedisNames, Trouble, connect, leave_wrong_server
from order_engine.ports.bus import RateVerdict
from order_engine.ports.clock import Clock

_ALONE_S: Final = 1.0
_MAX_AT_ONCE: Final = 16


class RedisRateLimiter:
    """A RateLimiter that counts in Redis for all processes, and in this one while Redis is away."""

    def __init__(self, url: str, names: RedisNames, clock: Clock, trouble: Trouble) -> None:
        """`names` are those of the engine whose processes count together; `trouble` is the bus's."""
        self._redis: Redis = connect(url)
        self._trouble = trouble
        options: dict[str, Any] = {"connection_pool": self._redis.connection_pool}
        # The library understands fewer URLs than the client, so it gets the client's connection pool.
        storage = RedisStorage(
            "async+redis://", implementation="redispy", key_prefix=names.rate, wrap_exceptions=False, **options
        )
        self._strategy = SlidingWindowCounterRateLimiter(storage)
        self._alone = MemoryRateLimiter(clock)
        self._clock = clock
        # More requests at once than connections would look like a lost Redis.
        self._turns = asyncio.Semaphore(_MAX_AT_ONCE)
        self._alone_until_s = 0.0

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """See RateLimiter."""
        try:
            async with self._turns:
                # Otherwise a Redis that hangs would make every caller wait for the whole timeout.
                if self._now_s() >= self._alone_until_s:
                    verdict = await count(self._strategy, self._clock, key, per_minute, cost)
                    self._trouble.clear("count")
                    return verdict
        except LOST as error:
            if isinstance(error, ResponseError):
                # The bus notices a lost connection by itself; a refusal may concern the counting alone.
                self._trouble.note("count", error)
            self._alone_until_s = self._now_s() + _ALONE_S
            with contextlib.suppress(*LOST):
                await leave_wrong_server(self._redis, error)
        return await self._alone.hit(key, per_minute, cost)

    async def close(self) -> None:
        """Disconnect."""
        with contextlib.suppress(*LOST):
            await self._redis.aclose()

    def _now_s(self) -> float:
        return asyncio.get_running_loop().time()
