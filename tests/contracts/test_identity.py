"""An engine's identity: its database makes it once, all of its processes share it, and it never changes."""

import uuid

import pytest

from tests.contracts.raw import RawDatabase, Refused
from tests.contracts.worlds import PostgresWorld, SqliteWorld, StoreWorld
from tests.servers import PostgresServer

pytestmark = pytest.mark.asyncio


async def test_every_process_of_a_database_is_the_same_engine(world: StoreWorld) -> None:
    first = await (await world.open()).identity()
    assert str(uuid.UUID(first.engine_id)) == first.engine_id
    assert len(first.bus_secret) == 32
    assert await (await world.open()).identity() == first


async def test_two_databases_are_two_engines(
    postgres: PostgresServer, postgres_world: PostgresWorld, sqlite_world: SqliteWorld
) -> None:
    another = PostgresWorld(await postgres.create_database())
    found = [await (await world.open()).identity() for world in (postgres_world, another, sqlite_world)]
    await another.close()
    await postgres.drop_database(another.url)
    assert len({it.engine_id for it in found}) == len({it.bus_secret for it in found}) == 3


async def test_no_log_shows_the_secret(sqlite_world: SqliteWorld) -> None:
    identity = await (await sqlite_world.open()).identity()
    assert repr(identity.bus_secret) not in f"{identity!r} {identity}"


@pytest.mark.parametrize(
    "statement",
    [
        "update engine_identity set engine_id = 'another'",
        "update engine_identity set bus_secret = bus_secret",
        "delete from engine_identity",
        "insert into engine_identity (one, engine_id, bus_secret) values (1, 'another', '')",
        "insert into engine_identity (one, engine_id, bus_secret) values (2, 'another', '')",
    ],
)
async def test_an_engine_stays_who_it_is(database: RawDatabase, statement: str) -> None:
    before = await database.run("select engine_id, bus_secret from engine_identity")
    with pytest.raises(Refused):
        await database.run(statement)
    assert await database.run("select engine_id, bus_secret from engine_identity") == before
