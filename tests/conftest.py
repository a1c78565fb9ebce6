"""Servers for the tests: one private PostgreSQL and one private Redis for each test process."""

from collections.abc import AsyncIterator, Iterator

import pytest
import pytest_asyncio

from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the tests that wait most: while one waits for a lease or an expiry, others use the processor."""
    items.sort(key=lambda item: "faults" not in item.path.parts)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print the seed that caught each planted bug."""
    found = [
        (name, value)
        for report in terminalreporter.stats.get("passed", ())
        for name, value in report.user_properties
        if name.startswith("planted:")
    ]
    if found:
        terminalreporter.section("planted bugs, each caught by the simulation")
        for name, value in sorted(found):
            terminalreporter.line(f"{name.removeprefix('planted:'):<48} {value}")


@pytest.fixture(scope="session")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    """A PostgreSQL that the tests own, or the one that TEST_DATABASE_URL gives."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server


@pytest.fixture(scope="session")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A Redis that the tests own, or the one that TEST_REDIS_URL gives."""
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        yield server


@pytest_asyncio.fixture
async def database_url(postgres: PostgresServer) -> AsyncIterator[str]:
    """A database of this test's own."""
    url = await postgres.create_database()
    yield url
    await postgres.drop_database(url)
