"""Redis may lie: a message counts only if it is recent and comes from a process of the same engine."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence

import pytest
import pytest_asyncio
from redis.asyncio import Redis

from order_engine.bus.redis import RedisBus
from order_engine.bus.redis_events import shard_of
from order_engine.bus.redis_seal import MAX_AGE_MS, Seal
from order_engine.clock import SystemClock
from order_engine.counters import Counters
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId
from order_engine.engine.order_stream import follow_order
from tests.contracts.buses import close, names_of, new_identity, start_bus
from tests.contracts.orders import ACCOUNT
from tests.contracts.test_buses import channels, event, received
from tests.contracts.waiting import PATIENCE_S, until, until_true
from tests.contracts.worlds import SteppedClock
from tests.servers import RedisServer

pytestmark = pytest.mark.asyncio

A_MOMENT_S = 0.05
IDENTITY = new_identity()


@pytest_asyncio.fixture
async def redis_bus(redis: RedisServer) -> AsyncIterator[RedisBus]:
    bus = await start_bus(redis.url, IDENTITY)
    yield bus
    await close(bus)


@pytest_asyncio.fixture
async def client(redis: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(redis.url) as found:
        yield found


MARK = "££££"
DEEP = 100_000

# Each entry makes a forged message from a true one.
FORGED: dict[str, Callable[[bytes], bytes]] = {
    "one bit of an event": lambda ours: ours[:-20] + bytes([ours[-20] ^ 1]) + ours[-19:],
    "another status": lambda ours: ours.replace(b"routing", b"confirmed"),
    "another time": lambda ours: ours[:23] + bytes([ours[23] ^ 1]) + ours[24:],
    "another proof": lambda ours: bytes([ours[0] ^ 1]) + ours[1:],
    "without a proof": lambda ours: ours[16:],
    "the events alone": lambda ours: ours[24:],
    "proven with an empty secret": lambda ours: hashlib.blake2b(ours[16:], digest_size=16).digest() + ours[16:],
    "nothing": lambda _: b"",
    "text": lambda _: b"hello",
    "an object": lambda _: b'{"order_id": "one"}',
    "numbers": lambda _: b"[1, 2]",
    "half an event": lambda _: b'[{"order_id": "one"}]',
    "cut off": lambda ours: ours[:-3],
    "twice": lambda ours: ours + ours,
    "an unknown status": lambda ours: ours.replace(b"routing", b"roaming"),
    "not UTF-8": lambda ours: ours.replace(MARK.encode(), b"\xff" * 8),
    "deep JSON": lambda _: b"[" * DEEP + b"]" * DEEP,
    "an event of deep JSON": lambda _: b'[{"data":' + b"[" * DEEP + b"]" * DEEP + b"}]",
    "deep MessagePack": lambda _: b"\x91\x81\xa4data" + b"\x91" * DEEP + b"\x90",
    "MessagePack that claims to be huge": lambda _: b"\xdd\xff\xff\xff\xff",
}


async def message_of(redis_bus: RedisBus, client: Redis, published: OrderEvent) -> tuple[str, bytes]:
    """Publish the event; return the channel and the message that the bus sent."""
    channel = channels(redis_bus)[shard_of(ACCOUNT, published.order_id)]
    async with client.pubsub(ignore_subscribe_messages=True) as wire:
        await wire.subscribe(channel)
        await until(lambda: client.pubsub_numsub(channel))
        while not (await client.pubsub_numsub(channel))[0][1]:
            await asyncio.sleep(0)
        redis_bus.publish([published])
        found = await until(lambda: wire.get_message(timeout=1))
        return channel, found["data"]


@pytest.mark.parametrize("name", sorted(FORGED))
async def test_a_forged_message_is_ignored(redis_bus: RedisBus, client: Redis, name: str) -> None:
    async with redis_bus.subscribe(ACCOUNT, None) as every:
        channel, ours = await message_of(redis_bus, client, event(MARK))
        await received(every, 1)

        forged = FORGED[name](ours)
        assert forged != ours
        assert await client.publish(channel, forged) == 1
        redis_bus.publish([event("two")])
        assert await received(every, 1) == [event("two")]
        assert redis_bus.is_connected
        assert redis_bus.trouble is None


async def test_a_message_of_another_channel_or_engine_proves_nothing(redis_bus: RedisBus, client: Redis) -> None:
    other = next(
        name for name in map(str, range(200)) if shard_of(ACCOUNT, OrderId(name)) != shard_of(ACCOUNT, OrderId(MARK))
    )
    stranger = Seal(new_identity().bus_secret, SystemClock())
    async with redis_bus.subscribe(ACCOUNT, None) as every:
        _, ours = await message_of(redis_bus, client, event(MARK))
        await received(every, 1)
        elsewhere = channels(redis_bus)[shard_of(ACCOUNT, OrderId(other))]
        assert await client.publish(elsewhere, ours) == 1
        assert await client.publish(elsewhere, stranger.close(elsewhere, [event(other)])) == 1
        redis_bus.publish([event("two")])
        assert await received(every, 1) == [event("two")]


async def test_a_true_message_that_comes_again_is_heard_once(redis_bus: RedisBus, client: Redis) -> None:
    async with redis_bus.subscribe(ACCOUNT, None) as every:
        channel, ours = await message_of(redis_bus, client, event("one"))
        assert await received(every, 1) == [event("one")]
        for _ in range(50):
            await client.publish(channel, ours)
        redis_bus.publish([event("two")])
        assert await received(every, 1) == [event("two")]


async def test_an_old_message_rings_and_says_nothing(redis: RedisServer, client: Redis) -> None:
    # After a restored backup, the events that were published then may not be in the log.
    clock = SteppedClock()
    bus = RedisBus(redis.url, "test", clock, Counters())
    bus.identify(IDENTITY)
    await bus.start()
    try:
        async with bus.subscribe(ACCOUNT, OrderId("one")) as one:
            channel = channels(bus)[shard_of(ACCOUNT, OrderId("one"))]
            old = Seal(IDENTITY.bus_secret, clock).close(channel, [event("one")])
            clock.advance(MAX_AGE_MS + 1)
            async with asyncio.timeout(PATIENCE_S):
                waiting = asyncio.ensure_future(one.next(10 * PATIENCE_S))
                assert await client.publish(channel, old) == 1
                assert list(await waiting) == []
    finally:
        await close(bus)


class Log:
    """The log that a stream reads: one order that is being routed."""

    async def history(self, order_id: OrderId, after: int) -> Sequence[OrderEvent]:
        return [it for it in [event(order_id, 1), event(order_id, 2)] if it.seq > after]


async def test_no_message_on_redis_makes_a_stream_say_confirmed(redis_bus: RedisBus, client: Redis) -> None:
    channel, ours = await message_of(redis_bus, client, event("one", 3))
    seen: list[OrderEvent] = []

    async def follow() -> None:
        async for batch in follow_order(Log(), redis_bus, ACCOUNT, OrderId("one"), 0):
            seen.extend(batch)

    following = asyncio.create_task(follow())
    await until_true(lambda: len(seen) == 2)
    for forged in (FORGED["another status"](ours), b'[{"order_id":"one","seq":3,"status":"confirmed"}]', ours[24:]):
        assert await client.publish(channel, forged) == 1
    redis_bus.publish([event("one", 3)])
    await until_true(lambda: len(seen) == 3)
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    assert seen == [event("one", seq) for seq in (1, 2, 3)]


async def test_forged_ids_are_handed_out_within_the_limit_and_the_queue_is_bounded(
    redis_bus: RedisBus, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("order_engine.bus.redis.MAX_READY_IDS", 50)
    key = names_of(IDENTITY).ready
    await client.delete(key)
    await client.rpush(key, *(f"{number:08x}-0000-4000-8000-000000000000" for number in range(500)))
    assert len(await redis_bus.pop(7, 0)) == 7
    redis_bus.push([OrderId("00000000-0000-4000-8000-00000000000a")])
    await until_true(lambda: not redis_bus._ids)
    await until(lambda: is_short(client, key))


async def is_short(client: Redis, key: str) -> bool:
    return await client.llen(key) <= 50
