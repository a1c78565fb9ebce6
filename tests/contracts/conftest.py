"""Every implementation of a port, one fixture for each port."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from order_engine.bus.redis import RedisRateLimiter
from order_engine.wiring import SystemClock
from tests.contracts.worlds import PostgresWorld, SqliteWorld, StoreWorld
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server


@pytest_asyncio.fixture
async def sqlite_world(tmp_path: Path) -> AsyncIterator[SqliteWorld]:
    """A file for stores."""
    world = SqliteWorld(tmp_path / "orders.sqlite3")
    yield world
    await world.close()


@pytest_asyncio.fixture
async def postgres_world(postgres: PostgresServer) -> AsyncIterator[PostgresWorld]:
    """A database for stores."""
    world = PostgresWorld(await postgres.create_database())
    yield world
    await world.close()
    await postgres.drop_database(world.url)


@pytest.fixture(params=["postgres", "sqlite"])
def world(request: pytest.FixtureRequest) -> StoreWorld:
    """An empty database of this test's own, in each dialect."""
    found: StoreWorld = request.getfixturevalue(f"{request.param}_world")
    return found


@pytest.fixture
def mortal_postgres(tmp_path: Path) -> Iterator[PostgresServer]:
    """A PostgreSQL of this test's own, to be killed."""
    with postgres_server(tmp_path) as server:
        if not server.owned:
            pytest.skip("TEST_DATABASE_URL names a server that is not ours to kill")
        yield server


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis of this test's own, to be killed."""
    with redis_server(tmp_path) as server:
        if not server.owned:
            pytest.skip("TEST_REDIS_URL names a server that is not ours to kill")
        yield server


@pytest_asyncio.fixture
async def new_limiter() -> AsyncIterator[Callable[[str, str], RedisRateLimiter]]:
    """Makes limiters from a URL and a prefix, and ends their connections, which nothing else does."""
    made: list[RedisRateLimiter] = []

    def make(url: str, prefix: str) -> RedisRateLimiter:
        made.append(RedisRateLimiter(url, prefix, SystemClock()))
        return made[-1]

    yield make
    for limiter in made:
        await limiter._strategy.storage.bridge.storage.aclose()
