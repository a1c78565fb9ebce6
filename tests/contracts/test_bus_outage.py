"""RedisBus and RedisRateLimiter when Redis is away: events may be late, none is lost, and no call fails."""

import asyncio
import time
from collections.abc import AsyncIterator
from uuid import uuid4

import pytest
import pytest_asyncio

from order_engine.bus.redis import RedisBus
from order_engine.domain.order import OrderId
from order_engine.ports.bus import Subscription
from tests.contracts.buses import close, names_of, new_identity, start_bus
from tests.contracts.orders import ACCOUNT
from tests.contracts.test_buses import event
from tests.contracts.test_limits import NewLimiter
from tests.contracts.waiting import PATIENCE_S, until, until_true
from tests.servers import RedisServer

pytestmark = pytest.mark.asyncio


@pytest_asyncio.fixture
async def bus(mortal_redis: RedisServer) -> AsyncIterator[RedisBus]:
    found = await start_bus(mortal_redis.url)
    yield found
    await close(found)


async def flows_again(bus: RedisBus, subscription: Subscription) -> None:
    """Events and ids come through, without a restart of anything."""
    await until_true(lambda: bus.is_connected)
    name = str(uuid4())

    async def came() -> bool:
        bus.publish([event(name)])
        return any(it.order_id == name for it in await subscription.next(0.1))

    async def popped() -> bool:
        bus.push([OrderId(name)])
        return name in await bus.pop(100, 0.1)

    await until(came)
    await until(popped)


async def test_a_killed_redis_is_noticed_and_found_again(bus: RedisBus, mortal_redis: RedisServer) -> None:
    assert bus.is_connected
    async with bus.subscribe(ACCOUNT, None) as every, bus.subscribe(ACCOUNT, OrderId("one")) as one:
        for _ in range(2):
            await flows_again(bus, every)
            waiting = asyncio.ensure_future(one.next(PATIENCE_S * 10))
            await asyncio.sleep(0)
            mortal_redis.kill()
            async with asyncio.timeout(PATIENCE_S):
                assert list(await waiting) == []  # woken, so that it reads the log
            await until_true(lambda: not bus.is_connected)

            for seq in range(50):
                bus.publish([event("one", seq)])
                bus.push([OrderId("one")])
                await asyncio.sleep(0)
            assert await bus.pop(1, 0) == []
            assert await bus.pop(1, 0.05) == []

            mortal_redis.start()
            await flows_again(bus, every)
            assert bus.is_connected


async def test_a_redis_that_answers_nothing_is_noticed_and_found_again(
    bus: RedisBus, mortal_redis: RedisServer
) -> None:
    async with bus.subscribe(ACCOUNT, None) as every:
        mortal_redis.pause()
        bus.publish([event("one")])
        bus.push([OrderId("one")])
        await until_true(lambda: not bus.is_connected)
        mortal_redis.resume()
        await flows_again(bus, every)


async def test_a_bus_starts_without_redis_and_finds_it_later(mortal_redis: RedisServer) -> None:
    mortal_redis.kill()
    bus = await start_bus(mortal_redis.url)
    try:
        assert not bus.is_connected
        assert await bus.pop(1, 0) == []
        async with bus.subscribe(ACCOUNT, None) as every:
            bus.publish([event("one")])
            mortal_redis.start()
            await flows_again(bus, every)
    finally:
        await close(bus)


async def test_a_bus_can_be_closed_at_any_moment_of_a_send(redis: RedisServer) -> None:
    for turns in range(25):
        bus = await start_bus(redis.url)
        bus.publish([event("one")])
        for _ in range(turns):
            await asyncio.sleep(0)
        closing = asyncio.ensure_future(close(bus))
        _, late = await asyncio.wait([closing], timeout=PATIENCE_S / 4)
        if late:
            closing.cancel()
            await asyncio.gather(closing, return_exceptions=True)
            await close(bus)
        assert not late, f"still closing, {turns} turns of the loop after it published"


async def test_closing_without_redis_is_no_error(mortal_redis: RedisServer) -> None:
    bus = await start_bus(mortal_redis.url)
    mortal_redis.kill()
    bus.publish([event("one")])
    bus.push([OrderId("one")])
    async with asyncio.timeout(PATIENCE_S):
        await close(bus)


async def test_without_redis_a_limiter_counts_on_its_own_and_with_it_together_again(
    mortal_redis: RedisServer, new_limiter: NewLimiter
) -> None:
    await until_true(lambda: time.time() % 60 < 50)  # the window is the clock's minute
    names = names_of(new_identity())
    one, two = (new_limiter(mortal_redis.url, names) for _ in range(2))
    assert (await one.hit("key", 10)).remaining == 9
    assert (await two.hit("key", 10)).remaining == 8

    mortal_redis.kill()
    for limiter in (one, two):
        verdicts = [await limiter.hit("key", 10) for _ in range(11)]
        assert [verdict.remaining for verdict in verdicts[:10]] == [*range(9, -1, -1)]
        assert [verdict.is_allowed for verdict in verdicts] == [True] * 10 + [False]
        assert (await limiter.hit("key", 10, cost=0)).remaining == 0

    mortal_redis.start()

    async def are_together() -> bool:
        name = str(uuid4())
        return [(await it.hit(name, 10)).remaining for it in (one, two)] == [9, 8]

    await until(are_together)


async def test_a_redis_that_hangs_delays_one_hit_and_not_each(
    mortal_redis: RedisServer, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter(mortal_redis.url, names_of(new_identity()))
    await limiter.hit("key", 100)
    mortal_redis.pause()
    try:
        async with asyncio.timeout(PATIENCE_S / 2):  # 30 hits that all wait would take a minute.
            for _ in range(30):
                assert (await limiter.hit("other", 100)).is_allowed
    finally:
        mortal_redis.resume()
