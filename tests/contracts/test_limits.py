"""RateLimiter: the number of hits in a minute is limited, in one process and through Redis."""

import asyncio
import time
from collections.abc import Callable

import pytest
import pytest_asyncio

from order_engine.bus.memory import MemoryRateLimiter
from order_engine.bus.redis_limits import RedisRateLimiter
from order_engine.bus.redis_link import RedisNames
from order_engine.clock import SystemClock
from order_engine.ports.bus import RateLimiter
from tests.contracts.buses import names_of, new_identity
from tests.contracts.waiting import until_true
from tests.servers import RedisServer
from tests.unit.samples import ManualClock

pytestmark = pytest.mark.asyncio


NewLimiter = Callable[[str, RedisNames], RedisRateLimiter]


async def well_within_a_minute() -> None:
    """Wait if the clock's minute ends within 3 s, so that a test runs in one window."""
    await until_true(lambda: time.time() % 60 < 57)


@pytest_asyncio.fixture(params=["memory", "redis"])
async def limiter(request: pytest.FixtureRequest, redis: RedisServer, new_limiter: NewLimiter) -> RateLimiter:
    await well_within_a_minute()
    if request.param == "memory":
        return MemoryRateLimiter(SystemClock())
    return new_limiter(redis.url, names_of(new_identity()))


async def test_each_hit_is_counted_until_there_is_no_room(limiter: RateLimiter) -> None:
    verdicts = [await limiter.hit("key", 5) for _ in range(7)]
    assert [verdict.is_allowed for verdict in verdicts] == [True] * 5 + [False] * 2
    assert [verdict.remaining for verdict in verdicts] == [4, 3, 2, 1, 0, 0, 0]
    assert {verdict.limit for verdict in verdicts} == {5}
    assert all(1 <= verdict.reset_s <= 60 for verdict in verdicts)


async def test_a_cost_is_counted_whole_or_not_at_all(limiter: RateLimiter) -> None:
    assert (await limiter.hit("key", 10, cost=7)).remaining == 3
    refused = await limiter.hit("key", 10, cost=4)
    assert (refused.is_allowed, refused.remaining) == (False, 3)
    assert (await limiter.hit("key", 10, cost=3)).is_allowed
    assert not (await limiter.hit("key", 10)).is_allowed
    assert not (await limiter.hit("other", 10, cost=11)).is_allowed
    assert (await limiter.hit("other", 10, cost=0)).remaining == 10


async def test_looking_costs_nothing(limiter: RateLimiter) -> None:
    for _ in range(20):
        verdict = await limiter.hit("key", 2, cost=0)
        assert (verdict.is_allowed, verdict.remaining) == (True, 2)
    await limiter.hit("key", 2, cost=2)
    verdict = await limiter.hit("key", 2, cost=0)
    assert (verdict.is_allowed, verdict.remaining) == (False, 0)


async def test_each_key_has_a_window_of_its_own(limiter: RateLimiter) -> None:
    names = ["a", "b", "a:b", "a/b", "A", "é", "", "a b", "x" * 300, "::1"]
    for name in names:
        assert (await limiter.hit(name, 1)).is_allowed, name
    for name in names:
        assert not (await limiter.hit(name, 1)).is_allowed, name


async def test_of_many_at_once_exactly_as_many_as_fit_are_allowed(limiter: RateLimiter) -> None:
    verdicts = await asyncio.gather(*(limiter.hit("key", 30) for _ in range(500)))
    assert sum(verdict.is_allowed for verdict in verdicts) == 30
    assert (await limiter.hit("key", 30, cost=0)).remaining == 0


async def test_what_processes_count_through_redis_they_count_together(
    redis: RedisServer, new_limiter: NewLimiter
) -> None:
    await well_within_a_minute()
    identity = new_identity()
    names = [names_of(identity), names_of(identity), names_of(new_identity()), names_of(identity, "other")]
    one, two, stranger, other = (new_limiter(redis.url, it) for it in names)
    assert [(await it.hit("key", 4)).remaining for it in (one, two, one, two)] == [3, 2, 1, 0]
    assert not (await one.hit("key", 4)).is_allowed
    assert (await stranger.hit("key", 4)).remaining == 3
    assert (await other.hit("key", 4)).remaining == 3


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("redis://cache", "cache", None),
        ("redis://:p%40ss:w%2Ford@cache/2", "cache", None),
        ("redis://[2001:db8::1]:6380", "2001:db8::1", 6380),
    ],
)
async def test_a_limiter_reads_every_url_that_the_client_reads(
    new_limiter: NewLimiter, url: str, host: str, port: int | None
) -> None:
    named = new_limiter(url, names_of(new_identity()))._redis.connection_pool.connection_kwargs
    assert (named["host"], named.get("port")) == (host, port)


async def test_a_clock_that_is_set_back_makes_no_window_longer() -> None:
    clock = ManualClock()
    limiter = MemoryRateLimiter(clock)
    while (await limiter.hit("key", 2)).is_allowed:
        pass
    clock.ms -= 3_600_000
    assert (await limiter.hit("key", 2)).is_allowed
