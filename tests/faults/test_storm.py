"""A short storm: some seconds of the two minutes of `make faults`."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.storm import Plan, Storm
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[tuple[PostgresServer, RedisServer]]:
    with postgres_server(tmp_path / "postgres") as postgres, redis_server(tmp_path / "redis") as redis:
        if not (postgres.owned and redis.owned):
            pytest.skip("the servers were given to the tests: they are not theirs to kill")
        yield postgres, redis


@pytest.mark.asyncio
async def test_nothing_is_lost_or_wrong_in_a_storm(tmp_path: Path, servers: tuple[PostgresServer, RedisServer]) -> None:
    directory = tmp_path / "engine"
    directory.mkdir()
    plan = Plan(kills=40, pauses=5, orders=400, streams=40, seconds=15.0, every_point=False)
    report = await Storm(plan, 1, directory, *servers).run(lambda _line: None)
    assert sum(report.kills.values()) + sum(report.points.values()) >= plan.kills
    assert report.orders >= plan.orders
    assert report.streams == plan.streams
