"""Every implementation of a port, one fixture for each port."""

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from order_engine.bus.redis_limits import RedisRateLimiter
from order_engine.bus.redis_link import RedisNames, Trouble
from order_engine.clock import SystemClock
from tests.contracts.raw import RawDatabase, open_raw
from tests.contracts.worlds import MortalPostgres, PostgresWorld, SqliteWorld, StoreWorld, elsewhere, migrate
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


@pytest.fixture(scope="module", params=["postgres", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str | Path]:
    """A migrated database, one for all tests of a module; each test makes its own orders."""
    if request.param == "sqlite":
        file = SqliteWorld(tmp_path_factory.mktemp("raw") / "orders.sqlite3")
        elsewhere(lambda: migrate(file))
        yield file.path
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    database = PostgresWorld(elsewhere(server.create_database))
    elsewhere(lambda: migrate(database))
    yield database.url
    elsewhere(lambda: server.drop_database(database.url))


@pytest_asyncio.fixture
async def database(place: str | Path) -> AsyncIterator[RawDatabase]:
    """A plain connection to the database at `place`."""
    raw = await open_raw(place)
    yield raw
    await raw.close()


@pytest.fixture(scope="session")
def postgres_to_kill(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A second PostgreSQL, so that a test that kills its server leaves the databases of other tests alone."""
    with postgres_server(tmp_path_factory.mktemp("postgres-to-kill")) as server:
        yield server


@pytest_asyncio.fixture
async def mortal_postgres(postgres_to_kill: PostgresServer) -> AsyncIterator[MortalPostgres]:
    """An empty database on a server that can be killed and started again."""
    if not postgres_to_kill.owned:
        pytest.skip("TEST_DATABASE_URL names a server that is not ours to kill")
    postgres_to_kill.start()
    url = await postgres_to_kill.create_database()
    yield MortalPostgres(url, postgres_to_kill)
    postgres_to_kill.start()
    await postgres_to_kill.drop_database(url)


@pytest.fixture
def mortal_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A Redis for this test alone, which the test may kill."""
    with redis_server(tmp_path) as server:
        if not server.owned:
            pytest.skip("TEST_REDIS_URL names a server that is not ours to kill")
        yield server


@pytest_asyncio.fixture
async def new_limiter() -> AsyncIterator[Callable[[str, RedisNames], RedisRateLimiter]]:
    """Makes limiters from a URL and an engine's names, and closes them."""
    made: list[RedisRateLimiter] = []

    def make(url: str, names: RedisNames) -> RedisRateLimiter:
        made.append(RedisRateLimiter(url, names, SystemClock(), Trouble()))
        return made[-1]

    yield make
    for limiter in made:
        await limiter.close()
