"""ReadyQueue and EventBus: fast delivery of ids and events, in one process and through Redis."""

import asyncio
from collections.abc import AsyncIterator
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio
from redis.asyncio import Redis

from order_engine.bus.fanout import MAX_WAITING_EVENTS
from order_engine.bus.memory import MAX_READY_IDS, MemoryEventBus, MemoryReadyQueue
from order_engine.bus.redis import RedisBus
from order_engine.bus.redis_events import shard_of
from order_engine.bus.redis_link import SHARDS
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import EpochMs, OrderId, OrderStatus
from order_engine.ports.bus import EventBus, ReadyQueue, Subscription
from tests.contracts.buses import close, new_identity, start_bus
from tests.contracts.orders import ACCOUNT
from tests.contracts.waiting import PATIENCE_S
from tests.servers import RedisServer

pytestmark = pytest.mark.asyncio

A_MOMENT_S = 0.05
FEED_PATIENCE_S = 5.0


@pytest_asyncio.fixture
async def redis_bus(redis: RedisServer) -> AsyncIterator[RedisBus]:
    bus = await start_bus(redis.url)
    yield bus
    await close(bus)


@pytest.fixture(params=["memory", "redis"])
def ready(request: pytest.FixtureRequest) -> ReadyQueue:
    queue: ReadyQueue = MemoryReadyQueue() if request.param == "memory" else request.getfixturevalue("redis_bus")
    return queue


@pytest.fixture(params=["memory", "redis"])
def bus(request: pytest.FixtureRequest) -> EventBus:
    found: EventBus = MemoryEventBus() if request.param == "memory" else request.getfixturevalue("redis_bus")
    return found


def ids(count: int) -> list[OrderId]:
    return [OrderId(str(uuid4())) for _ in range(count)]


def event(order_id: str, seq: int = 1) -> OrderEvent:
    data = msgspec.Raw(msgspec.json.encode({"seq": seq, "text": "é"}))
    return OrderEvent(OrderId(order_id), ACCOUNT, seq, OrderStatus.ROUTING, 1, EpochMs(1_000 + seq), seq, data)


async def popped(ready: ReadyQueue, count: int) -> list[OrderId]:
    """Pop `count` ids, in the order in which they arrive."""
    found: list[OrderId] = []
    while len(found) < count:
        batch = await ready.pop(count - len(found), PATIENCE_S)
        assert batch
        found += batch
    return found


async def received(subscription: Subscription, count: int) -> list[OrderEvent]:
    """Receive `count` events, in the order in which they arrive."""
    found: list[OrderEvent] = []
    async with asyncio.timeout(FEED_PATIENCE_S):
        while len(found) < count:
            found += await subscription.next(PATIENCE_S)
    return found


# --- the ready queue ---


async def test_ids_come_out_in_the_order_in_which_they_went_in(ready: ReadyQueue) -> None:
    wanted = ids(20)
    ready.push(wanted[:1])
    ready.push(wanted[1:15])
    ready.push(wanted[15:])
    assert await popped(ready, 20) == wanted


async def test_a_pop_takes_no_more_than_its_limit_and_leaves_the_rest(ready: ReadyQueue) -> None:
    wanted = ids(7)
    ready.push(wanted)
    assert await ready.pop(3, PATIENCE_S) == wanted[:3]
    assert await ready.pop(3, 0) == wanted[3:6]
    assert await ready.pop(3, 0) == wanted[6:]


async def test_an_empty_queue_gives_nothing_when_the_time_is_over(ready: ReadyQueue) -> None:
    async with asyncio.timeout(PATIENCE_S):
        assert await ready.pop(5, A_MOMENT_S) == []


async def test_no_time_means_no_waiting(ready: ReadyQueue) -> None:
    async with asyncio.timeout(PATIENCE_S):
        for _ in range(20):
            assert await ready.pop(5, 0) == []


async def test_whoever_waits_gets_what_comes(ready: ReadyQueue) -> None:
    wanted = ids(2)
    waiting = asyncio.ensure_future(ready.pop(5, PATIENCE_S))
    await asyncio.sleep(A_MOMENT_S)
    ready.push(wanted)
    assert await waiting == wanted
    assert await ready.pop(5, 0) == []


async def test_what_several_take_at_once_each_gets_once(ready: ReadyQueue) -> None:
    wanted = ids(200)
    ready.push(wanted)
    first = await ready.pop(1, PATIENCE_S)
    batches = await asyncio.gather(*(ready.pop(20, 0) for _ in range(10)))
    assert sorted(first + [order_id for batch in batches for order_id in batch]) == sorted(wanted)


async def test_many_pushes_lose_nothing_and_keep_their_order(ready: ReadyQueue) -> None:
    wanted = ids(5_000)
    for order_id in wanted:
        ready.push([order_id])
    assert await popped(ready, 5_000) == wanted


async def test_a_queue_that_nobody_empties_forgets_the_oldest() -> None:
    ready = MemoryReadyQueue()
    wanted = [OrderId(str(number)) for number in range(MAX_READY_IDS + 5)]
    ready.push(wanted)
    assert await ready.pop(len(wanted), 0) == wanted[5:]


# --- the event bus ---


async def test_events_reach_followers_of_their_order_or_account_and_nobody_else(bus: EventBus) -> None:
    async with (
        bus.subscribe(ACCOUNT, OrderId("one")) as one,
        bus.subscribe(ACCOUNT, OrderId("two")) as two,
        bus.subscribe(ACCOUNT, None) as every,
        bus.subscribe("other", OrderId("one")) as foreign,
        bus.subscribe("other", None) as quiet,
    ):
        events = [event("one", 1), event("two", 1), event("one", 2), event("three", 1)]
        bus.publish(events)
        # Events of different orders may overtake each other.
        assert sorted(await received(every, 4), key=lambda it: (it.order_id, it.seq)) == [
            events[at] for at in (0, 2, 3, 1)
        ]
        assert await received(one, 2) == [events[0], events[2]]
        assert await received(two, 1) == [events[1]]
        for subscription in (one, two, every, foreign, quiet):
            assert list(await subscription.next(0)) == []


async def test_several_who_follow_the_same_order_each_get_every_event(bus: EventBus) -> None:
    async with bus.subscribe(ACCOUNT, OrderId("one")) as first, bus.subscribe(ACCOUNT, OrderId("one")) as second:
        bus.publish([event("one", 1)])
        bus.publish([event("one", 2)])
        for subscription in (first, second):
            assert [it.seq for it in await received(subscription, 2)] == [1, 2]


async def test_when_nothing_comes_the_wait_ends_empty(bus: EventBus) -> None:
    async with bus.subscribe(ACCOUNT, OrderId("one")) as one, asyncio.timeout(PATIENCE_S):
        assert list(await one.next(A_MOMENT_S)) == []
        assert list(await one.next(0)) == []
        bus.publish([event("two"), event("one")])
        assert await received(one, 1) == [event("one")]


async def test_nothing_is_missed_between_two_waits(bus: EventBus) -> None:
    async with bus.subscribe(ACCOUNT, OrderId("one")) as one, bus.subscribe(ACCOUNT, None) as every:
        for seq in range(1, 50):
            bus.publish([event("one", seq)])
            await received(every, 1)
        assert [it.seq for it in await received(one, 49)] == [*range(1, 50)]


async def test_a_wait_that_is_given_up_loses_nothing(bus: EventBus) -> None:
    async with bus.subscribe(ACCOUNT, OrderId("one")) as one:
        waiting = asyncio.ensure_future(one.next(PATIENCE_S))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.gather(waiting, return_exceptions=True)
        bus.publish([event("one")])
        assert await received(one, 1) == [event("one")]


async def test_whoever_is_slow_loses_only_its_own_events_and_its_memory_is_bounded(bus: EventBus) -> None:
    count = 100
    turns = 2 * MAX_WAITING_EVENTS // count
    async with bus.subscribe(ACCOUNT, OrderId("one")) as slow, bus.subscribe(ACCOUNT, OrderId("one")) as fast:
        for turn in range(turns):
            batch = [event("one", turn * count + at + 1) for at in range(count)]
            bus.publish(batch)
            assert await received(fast, count) == batch
        late = list(await slow.next(0))
        assert [it.seq for it in late] == [*range(turns * count - MAX_WAITING_EVENTS + 1, turns * count + 1)]

        bus.publish([event("one", 9_999)])
        assert await received(slow, 1) == await received(fast, 1) == [event("one", 9_999)]


async def test_leaving_ends_the_delivery(bus: EventBus) -> None:
    async with bus.subscribe(ACCOUNT, OrderId("one")) as every:
        left = bus.subscribe(ACCOUNT, OrderId("one"))
        async with left:
            bus.publish([event("one", 1)])
            await received(every, 1)
            assert [it.seq for it in await left.next(0)] == [1]
        bus.publish([event("one", 2)])
        assert [it.seq for it in await received(every, 1)] == [2]
        assert list(await left.next(0)) == []


async def test_nobody_has_to_listen(bus: EventBus) -> None:
    for seq in range(100):
        bus.publish([event("one", seq)])
    bus.publish([])
    async with bus.subscribe(ACCOUNT, OrderId("two")) as two:
        bus.publish([event("two")])
        assert await received(two, 1) == [event("two")]
    assert bus.is_connected


# --- through Redis ---


def channels(bus: RedisBus) -> list[str]:
    assert bus._names is not None
    return bus._names.channels


@pytest_asyncio.fixture
async def client(redis: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis.url) as found:
        yield found


@pytest.mark.parametrize("is_other", [True, False], ids=["another engine", "another prefix"])
async def test_what_one_process_publishes_and_pushes_reaches_another_of_its_engine_alone(
    redis: RedisServer, *, is_other: bool
) -> None:
    identity, other, wanted = new_identity(), new_identity(), ids(1)
    here, there = await start_bus(redis.url, identity), await start_bus(redis.url, identity)
    # Another engine on the same Redis, or the same engine under another prefix.
    elsewhere = await start_bus(redis.url, other if is_other else identity, "test" if is_other else "other")
    try:
        async with there.subscribe(ACCOUNT, None) as every, elsewhere.subscribe(ACCOUNT, None) as nothing:
            here.publish([event("one")])
            here.push(wanted)
            assert await received(every, 1) == [event("one")]
            assert await there.pop(1, PATIENCE_S) == wanted
            assert list(await nothing.next(0)) == []
            assert await elsewhere.pop(1, 0) == []
    finally:
        for it in (here, there, elsewhere):
            await close(it)


async def test_closing_sends_what_still_waits(redis: RedisServer) -> None:
    identity, wanted = new_identity(), ids(1)
    here, there = await start_bus(redis.url, identity), await start_bus(redis.url, identity)
    async with there.subscribe(ACCOUNT, None) as every:
        here.publish([event("one")])
        here.push(wanted)
        await close(here)
        assert await received(every, 1) == [event("one")]
        assert await there.pop(1, PATIENCE_S) == wanted
    await close(there)


async def test_a_process_hears_of_the_shards_that_are_followed_there_and_of_no_others(
    redis_bus: RedisBus, client: Redis
) -> None:
    async def listeners(order_id: str) -> int:
        channel = channels(redis_bus)[shard_of(ACCOUNT, OrderId(order_id))]
        return (await client.pubsub_numsub(channel))[0][1]

    one = "one"
    ours = shard_of(ACCOUNT, OrderId(one))
    other = next(name for name in map(str, range(SHARDS)) if shard_of(ACCOUNT, OrderId(name)) != ours)
    assert await listeners(one) == 0
    async with redis_bus.subscribe(ACCOUNT, OrderId(one)) as following:
        assert (await listeners(one), await listeners(other)) == (1, 0)
        redis_bus.publish([event(other), event(one)])
        assert await received(following, 1) == [event(one)]
        async with redis_bus.subscribe(ACCOUNT, None) as every:
            assert await listeners(other) == 1
            redis_bus.publish([event(other)])
            assert await received(every, 1) == [event(other)]

    # The first event without a subscriber ends the listening.
    redis_bus.publish([event(one)])
    async with asyncio.timeout(PATIENCE_S):
        while await listeners(one):
            await asyncio.sleep(A_MOMENT_S)
    async with redis_bus.subscribe(ACCOUNT, OrderId(one)) as again:
        redis_bus.publish([event(one, 2)])
        assert await received(again, 1) == [event(one, 2)]


async def test_a_connection_that_is_cut_leaves_no_shard_unheard(redis_bus: RedisBus, client: Redis) -> None:
    async with redis_bus.subscribe(ACCOUNT, OrderId("one")) as one, redis_bus.subscribe(ACCOUNT, OrderId("two")) as two:
        await client.client_kill_filter(_type="pubsub")
        for seq, following, order_id in ((1, one, "one"), (1, two, "two")):
            arrived: list[OrderEvent] = []
            async with asyncio.timeout(FEED_PATIENCE_S):
                while not arrived:
                    redis_bus.publish([event(order_id, seq)])
                    arrived = [*await following.next(A_MOMENT_S)]
        theirs = [channels(redis_bus)[shard_of(ACCOUNT, OrderId(it))] for it in ("one", "two")]
        assert [count for _, count in await client.pubsub_numsub(*theirs)] == [1, 1]


async def test_what_is_no_order_id_is_never_handed_out(redis_bus: RedisBus, client: Redis) -> None:
    (wanted,) = ids(1)
    await client.rpush(redis_bus._names.ready, b"\xff\xfe", b"", "é".encode(), b"one", b"x" * 36, b"0" * 100_000)
    redis_bus.push([wanted])
    found: list[OrderId] = []
    async with asyncio.timeout(FEED_PATIENCE_S):
        while wanted not in found:
            found += await redis_bus.pop(3, A_MOMENT_S)
    assert found == [wanted]


async def test_whoever_waits_longer_than_a_connection_is_silent_gets_what_comes(redis_bus: RedisBus) -> None:
    (wanted,) = ids(1)
    waiting = asyncio.ensure_future(redis_bus.pop(1, PATIENCE_S))
    await asyncio.wait([waiting], timeout=2.3)  # longer than the Redis client's own timeout
    redis_bus.push([wanted])
    assert await waiting == [wanted]


async def test_a_ready_key_of_another_kind_does_no_harm(redis_bus: RedisBus, client: Redis) -> None:
    await client.set(redis_bus._names.ready, "not a list")
    lost, wanted = ids(2)
    async with redis_bus.subscribe(ACCOUNT, None) as every:
        redis_bus.push([lost])
        assert await redis_bus.pop(1, A_MOMENT_S) == []
        assert await redis_bus.pop(1, 0) == []
        redis_bus.publish([event("one")])
        assert await received(every, 1) == [event("one")]
        await client.delete(redis_bus._names.ready)
        redis_bus.push([wanted])
        assert await popped(redis_bus, 1) == [wanted]
