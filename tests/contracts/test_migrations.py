"""The migrations: numbered, harmless to repeat, safe to run from two sides, and equal to the schema on file.

When a migration changes the schema on purpose, write the files in tests/contracts/schema/ again and
read the difference:

    REWRITE_SCHEMA=1 .venv/bin/python -m pytest -n 0 tests/contracts/test_migrations.py
"""

import asyncio
import os
import re
from pathlib import Path

import asyncpg
import pytest

from order_engine.domain.errors import WrongSchema
from order_engine.settings import SettingsError, load_settings
from order_engine.store.postgres.store import PostgresStore
from order_engine.store.sql import POSTGRES, SQLITE, Dialect, load_migrations
from order_engine.wiring import migrate
from tests.contracts.catalogs import postgres_catalog, sqlite_catalog
from tests.contracts.orders import ACCOUNT, ROUTED, SingleStore, claim_new, kept, new_order
from tests.contracts.raw import open_raw
from tests.contracts.waiting import until
from tests.contracts.worlds import PostgresWorld, SqliteWorld, StoreWorld
from tests.servers import PostgresServer

SCHEMAS = Path(__file__).parent / "schema"
TABLES = (
    *("account_limits", "account_usage", "api_keys", "attempts", "audit", "cluster", "engine_identity"),
    *("order_events", "orders", "pauses", "processes", "retention", "schema_migrations", "tickets"),
)
MIGRATION_LOCK = 0x6F72646572  # the advisory lock of a migrator: all releases must use this number


def file_of(world: StoreWorld) -> Path:
    return SCHEMAS / f"{'postgres' if isinstance(world, PostgresWorld) else 'sqlite'}.txt"


def schema_on_file(world: StoreWorld) -> str:
    return file_of(world).read_text("utf-8")


async def catalog_of(world: StoreWorld) -> str:
    place = place_of(world)
    return sqlite_catalog(place) if isinstance(place, Path) else await postgres_catalog(place)


def place_of(world: StoreWorld) -> str | Path:
    if isinstance(world, PostgresWorld):
        return world.url
    assert isinstance(world, SqliteWorld)
    return world.path


@pytest.mark.parametrize("dialect", [POSTGRES, SQLITE])
def test_migrations_are_numbered_from_one_without_a_gap(dialect: Dialect) -> None:
    migrations = load_migrations(dialect)
    assert migrations
    assert [it.number for it in migrations] == [*range(1, len(migrations) + 1)]
    assert all(it.name.startswith(f"{it.number:04}_") and it.statements.strip() for it in migrations)


def test_the_two_dialects_have_the_same_migrations() -> None:
    assert [it.name for it in load_migrations(POSTGRES)] == [it.name for it in load_migrations(SQLITE)]


@pytest.mark.asyncio
async def test_a_migrated_database_has_the_schema_on_file(world: StoreWorld) -> None:
    await world.open()
    if os.environ.get("REWRITE_SCHEMA"):
        file_of(world).write_text(await catalog_of(world), "utf-8")
    assert await catalog_of(world) == schema_on_file(world)


@pytest.mark.asyncio
async def test_opening_again_changes_nothing(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    await store.record(life.write(ROUTED))
    before, catalog = await kept(store, life.order.order_id), await catalog_of(world)
    await store.close()

    for _ in range(2):
        again = await world.open()
        assert await kept(again, life.order.order_id) == before
    assert await catalog_of(world) == catalog


@pytest.mark.asyncio
async def test_stores_that_open_an_empty_database_at_the_same_moment_all_work(world: StoreWorld) -> None:
    stores = await asyncio.gather(*(world.open() for _ in range(4)))
    for store in stores:
        new = new_order()
        await store.accept(new)
        for reader in stores:
            assert await reader.get(ACCOUNT, new.order.order_id) == new.order


@pytest.mark.asyncio
@pytest.mark.parametrize("schema", ["other", "Other", "order-engine", 'my "own"'])
async def test_a_store_lives_in_the_schema_that_it_was_given(postgres_world: PostgresWorld, schema: str) -> None:
    url = postgres_world.url
    store = SingleStore(await PostgresStore.open(url, schema, lambda _: None, 0))
    new = new_order()
    await store.accept(new)
    (claim,) = await store.claim_due("worker", 1, 60_000)
    assert claim.order == new.order
    await store.close()

    again = SingleStore(await PostgresStore.open(url, schema, lambda _: None, 0))
    assert await again.get(ACCOUNT, new.order.order_id) == new.order
    await again.close()

    plain = await postgres_world.open()
    assert await plain.get(ACCOUNT, new.order.order_id) is None
    assert await tables(url) == sorted((where, table) for where in (schema, "public") for table in TABLES)


async def tables(url: str) -> list[tuple[str, str]]:
    connection = await asyncpg.connect(url)
    try:
        query = (
            "select schemaname, tablename from pg_tables where schemaname not in ('pg_catalog', 'information_schema')"
        )
        return sorted((row[0], row[1]) for row in await connection.fetch(query))
    finally:
        await connection.close()


@pytest.mark.asyncio
async def test_a_store_that_opens_while_another_makes_the_schema_waits_for_it(postgres_world: PostgresWorld) -> None:
    connection = await asyncpg.connect(postgres_world.url)
    try:
        await connection.execute("select pg_advisory_lock($1)", MIGRATION_LOCK)
        async with connection.transaction():
            await connection.execute("create schema other")
            opening = asyncio.ensure_future(PostgresStore.open(postgres_world.url, "other", lambda _: None, 0))
            await until(postgres_world.waiting_for_locks)
    finally:
        await connection.close()
    store = await opening
    await store.ping()
    await store.close()


@pytest.mark.asyncio
async def test_a_migration_that_fails_half_way_leaves_nothing_behind(world: StoreWorld) -> None:
    database = await open_raw(place_of(world))
    await database.run("create table attempts (in_the_way integer)")
    with pytest.raises(Exception, match="attempts"):
        await world.open()

    await database.run("drop table attempts")
    await database.close()
    await world.open()
    assert await catalog_of(world) == schema_on_file(world)


async def open_fails(world: StoreWorld) -> str:
    with pytest.raises(WrongSchema) as refused:
        await world.open()
    return str(refused.value)


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("change", "told"),
    [
        ("update schema_migrations set digest = 'another'", "earlier, unreleased version"),
        ("update schema_migrations set name = '0001_other'", "earlier, unreleased version"),
        ("insert into schema_migrations values (99, '0099_later', 'x')", "a later version"),
        ("update schema_migrations set number = number - 1", "earlier, unreleased version|is missing"),
        ("alter table schema_migrations drop column digest", "table schema_migrations that this version"),
        ("drop table schema_migrations", "table attempts that this version"),
    ],
)
async def test_a_schema_that_this_version_did_not_make_is_refused(world: StoreWorld, change: str, told: str) -> None:
    store = await world.open()
    await store.close()
    database = await open_raw(place_of(world))
    await database.run(change)
    await database.close()
    catalog = await catalog_of(world)
    assert re.search(told, await open_fails(world))
    assert await catalog_of(world) == catalog


@pytest.mark.asyncio
async def test_a_database_of_another_program_is_refused_only_if_it_has_our_tables(world: StoreWorld) -> None:
    database = await open_raw(place_of(world))
    await database.run("create table customers (name text)")
    await database.run("create table orders (name text)")
    assert "table orders" in await open_fails(world)
    await database.run("drop table orders")
    await database.close()
    store = await world.open()
    await store.accept(new_order())


@pytest.mark.asyncio
async def test_a_role_that_may_only_read_and_write_runs_an_engine_on_a_schema_that_is_there(
    postgres: PostgresServer, postgres_world: PostgresWorld
) -> None:
    owner = await postgres_world.open()
    user = PostgresWorld(await postgres.create_user(postgres_world.url))
    store = await user.open()
    life = await claim_new(store)
    await store.record(life.write(ROUTED))
    assert await kept(owner, life.order.order_id) == await kept(store, life.order.order_id)
    assert await store.delete_ended(0, 10) == 0
    await store.expire_dead_leases()
    await user.close()


@pytest.mark.asyncio
async def test_a_role_that_may_not_make_a_schema_is_told_who_may(
    postgres: PostgresServer, postgres_world: PostgresWorld
) -> None:
    user = PostgresWorld(await postgres.create_user(postgres_world.url))
    assert "order-engine migrate" in await open_fails(user)


@pytest.mark.asyncio
async def test_a_role_without_rights_on_the_tables_is_told_who_gives_them(
    postgres: PostgresServer, postgres_world: PostgresWorld
) -> None:
    user = await postgres.create_user(postgres_world.url)
    await postgres_world.open()
    with pytest.raises(SettingsError, match=r"permission denied for table .* As the owner of the database"):
        await migrate(load_settings(database_url=user))
