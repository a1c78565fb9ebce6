"""A Redis that refuses writes: the bus logs the reason once, and finds the server that takes writes."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from redis.asyncio import Redis
from structlog.testing import capture_logs

from order_engine.bus.redis import RedisBus
from order_engine.domain.order import OrderId
from tests.contracts.buses import PREFIX, close, names_of, new_identity, start_bus
from tests.contracts.orders import ACCOUNT
from tests.contracts.test_bus_outage import flows_again
from tests.contracts.test_buses import event, ids
from tests.contracts.test_limits import NewLimiter
from tests.contracts.waiting import until, until_true
from tests.faults.proxy import Proxy
from tests.servers import RedisServer, redis_server

pytestmark = pytest.mark.asyncio

Change = Callable[[Redis], Coroutine[Any, Any, Any]]


async def allow_all_but(client: Redis, commands: str) -> None:
    await client.execute_command("ACL", "SETUSER", "default", "+@all", *commands.split())


# For each refusal: the change that causes it, the error code, and the change that ends it.
REFUSALS: dict[str, tuple[Change, str, Change]] = {
    "a replica": (
        lambda it: it.execute_command("REPLICAOF", "127.0.0.1", "1"),
        "READONLY ",
        lambda it: it.execute_command("REPLICAOF", "NO", "ONE"),
    ),
    "full memory": (
        lambda it: it.config_set("maxmemory", "1"),
        "OOM ",
        lambda it: it.config_set("maxmemory", "0"),
    ),
    "a user without writing": (
        lambda it: allow_all_but(it, "-rpush -lpush"),
        "NOPERM ",
        lambda it: allow_all_but(it, ""),
    ),
    "too few replicas": (
        lambda it: it.config_set("min-replicas-to-write", "1"),
        "NOREPLICAS ",
        lambda it: it.config_set("min-replicas-to-write", "0"),
    ),
}


@pytest_asyncio.fixture
async def client(mortal_redis: RedisServer) -> AsyncIterator[Redis]:
    async with Redis.from_url(mortal_redis.url) as found:
        yield found


@pytest_asyncio.fixture
async def bus(mortal_redis: RedisServer) -> AsyncIterator[RedisBus]:
    found = await start_bus(mortal_redis.url)
    yield found
    await close(found)


@pytest.mark.parametrize("name", sorted(REFUSALS))
async def test_why_redis_refuses_every_write_is_said_once_and_known_until_it_ends(
    bus: RedisBus, client: Redis, name: str
) -> None:
    refuse, code, allow = REFUSALS[name]
    with capture_logs() as logs:
        assert bus.trouble is None
        await refuse(client)
        for order_id in ids(3):
            bus.push([order_id])
            await until_true(lambda: not bus._ids)
            await asyncio.sleep(0)
        await until_true(lambda: bus.trouble)
        assert (bus.trouble or "").startswith(code)
        assert "Command #" not in (bus.trouble or "")
        # The test sends nothing more: the bus must notice the end by itself.
        await allow(client)
        await until_true(lambda: bus.trouble is None)
    assert [it["event"] for it in logs if it["event"].startswith("redis")] == ["redis lost", "redis recovered"]
    assert logs[0]["error"].startswith(code)
    async with bus.subscribe(ACCOUNT, None) as every:
        await flows_again(bus, every)


@pytest.mark.parametrize(("user", "code"), [("nobody:wrong@", "WRONGPASS "), ("", "NOAUTH ")])
async def test_a_redis_that_lets_nobody_in_says_why_at_the_start(
    mortal_redis: RedisServer, client: Redis, user: str, code: str
) -> None:
    await client.config_set("requirepass", "right")
    with capture_logs() as logs:
        bus = await start_bus(mortal_redis.url.replace("redis://", f"redis://{user}"))
        try:
            assert not bus.is_connected
            assert (bus.trouble or "").startswith(code)
            assert await bus.pop(1, 0.01) == []
        finally:
            await close(bus)
    assert [it["event"] for it in logs] == ["redis lost"]
    assert logs[0]["error"].startswith(code)
    assert "wrong" not in logs[0]["error"].replace("wrong number", "")


async def test_a_limiter_that_redis_refuses_counts_alone_and_says_why(
    bus: RedisBus, client: Redis, mortal_redis: RedisServer, new_limiter: NewLimiter
) -> None:
    limiter = new_limiter(mortal_redis.url, names_of(new_identity(), PREFIX))
    await client.config_set("min-replicas-to-write", "1")
    assert (await limiter.hit("key", 10)).remaining == 9
    assert (limiter._trouble.reason or "").startswith("NOREPLICAS")
    await client.config_set("min-replicas-to-write", "0")

    async def is_well() -> bool:
        await limiter.hit("key", 1_000)
        return limiter._trouble.reason is None

    while not await is_well():
        await asyncio.sleep(0.05)


@pytest.fixture
def other_redis(tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path / "other") as server:
        yield server


async def test_after_a_failover_the_bus_leaves_the_server_that_became_a_replica(
    mortal_redis: RedisServer, other_redis: RedisServer, client: Redis
) -> None:
    # The address stays the same and leads to another server, like a service name or a load balancer.
    async with Proxy(port_of(mortal_redis)) as proxy:
        bus = await start_bus(f"redis://127.0.0.1:{proxy.port}/0")
        try:
            async with bus.subscribe(ACCOUNT, None) as every:
                await flows_again(bus, every)
                await client.execute_command("REPLICAOF", "127.0.0.1", "1")
                proxy.lead_to(port_of(other_redis))
                bus.push([OrderId("lost")])
                await flows_again(bus, every)
                async with Redis.from_url(other_redis.url) as there:
                    await until(lambda: there.pubsub_channels(bus._names.alive))
                await flows_again(bus, every)
                assert bus.trouble is None
        finally:
            await close(bus)


def port_of(server: RedisServer) -> int:
    return int(server.url.rpartition(":")[2].partition("/")[0])


async def test_what_is_well_has_no_trouble(bus: RedisBus) -> None:
    async with bus.subscribe(ACCOUNT, None) as every:
        bus.publish([event("one")])
        await flows_again(bus, every)
        assert bus.trouble is None
