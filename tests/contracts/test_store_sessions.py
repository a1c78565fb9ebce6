"""The store leaves a server that takes no writes, and repeats statements after errors that pass by themselves."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from order_engine.domain.errors import StoreUnavailable
from order_engine.domain.order import OrderId
from order_engine.ports.store import Accepted
from order_engine.store.postgres.store import PostgresStore
from tests.contracts.orders import ACCOUNT, LONG_MS, Life, SingleStore, claim_new, new_order, outcome_of
from tests.contracts.waiting import PATIENCE_S, until
from tests.contracts.worlds import MortalPostgres, PostgresWorld
from tests.servers import PostgresServer

pytestmark = pytest.mark.asyncio

WAITING = "select pid from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
OTHERS = "from pg_stat_activity where datname = current_database() and pid <> pg_backend_pid()"


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


async def set_for_database(url: str, setting: str) -> None:
    """Change a default of the database, and end all sessions that have the old one."""
    name = urlsplit(url).path.removeprefix("/")
    async with connected(url) as connection:
        await connection.execute("set default_transaction_read_only = off")
        await connection.execute(f'alter database "{name}" {setting}')
        await connection.execute(f"select pg_terminate_backend(pid) {OTHERS}")
        await until(lambda: is_alone(connection))


async def is_alone(connection: Any) -> bool:
    return not await connection.fetchval(f"select count(*) {OTHERS}")


async def held(store: PostgresStore, life: Life) -> set[OrderId]:
    return await store.renew("worker", {life.order.order_id: life.fence or 0}, LONG_MS)


async def test_a_database_that_is_read_only_for_a_while_takes_writes_the_moment_it_can(
    postgres_world: PostgresWorld,
) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    await set_for_database(postgres_world.url, "set default_transaction_read_only = on")
    for _ in range(3):
        answer = await outcome_of(store.accept(new_order()))
        assert isinstance(answer, StoreUnavailable)
        assert str(answer).startswith("PostgreSQL takes no writes: cannot execute ")
        assert await store.get(ACCOUNT, life.order.order_id) == life.order

    name = urlsplit(postgres_world.url).path.removeprefix("/")
    async with connected(postgres_world.url) as connection:
        await connection.execute("set default_transaction_read_only = off")
        await connection.execute(f'alter database "{name}" reset default_transaction_read_only')
    # The old sessions are still open.
    answers = await asyncio.gather(*(outcome_of(store.accept(new_order())) for _ in range(75)))
    assert {type(it) for it in answers} == {Accepted}


@asynccontextmanager
async def two_servers(first: MortalPostgres, second: PostgresServer) -> AsyncIterator[tuple[str, str]]:
    """The same database on both servers: the URL that names both, and the URL of the second."""
    name, place = urlsplit(first.url).path.removeprefix("/"), urlsplit(second.url).netloc.rpartition("@")[2]
    async with connected(second.url) as administrator:
        await administrator.execute(f"create role \"{name}\" login password '{name}'")
        await administrator.execute(f'create database "{name}" template template0 owner "{name}"')
    there = f"postgresql://{name}:{name}@{place}/{name}"
    try:
        for url in (first.url, there):
            world = PostgresWorld(url)
            await world.open()
            await world.close()
        hosts = f"{urlsplit(first.url).netloc},{place}"
        yield f"postgresql://{hosts}/{name}?target_session_attrs=read-write", there
    finally:
        async with connected(second.url) as administrator:
            await administrator.execute(f'drop database "{name}" with (force)')
            await administrator.execute(f'drop role "{name}"')


async def make_read_only(mortal: MortalPostgres, *, is_read_only: bool) -> None:
    """Make the server read-only, as a switchover leaves the old primary, or writable again."""
    async with connected(mortal.server.as_administrator(mortal.url)) as connection:
        await connection.execute(f"alter system set default_transaction_read_only = {'on' if is_read_only else 'off'}")
        await connection.execute("select pg_reload_conf()")
        await until(lambda: is_so(connection, is_read_only=is_read_only))


async def is_so(connection: Any, *, is_read_only: bool) -> bool:
    found: str = await connection.fetchval("show default_transaction_read_only")
    return (found == "on") == is_read_only


async def is_missing(store: PostgresStore, order_id: OrderId) -> bool:
    return await store.get(ACCOUNT, order_id) is None


@pytest.mark.parametrize("begins_with_a_read", [True, False])
async def test_after_a_switchover_every_statement_goes_to_the_server_that_takes_writes(
    mortal_postgres: MortalPostgres, postgres: PostgresServer, *, begins_with_a_read: bool
) -> None:
    async with two_servers(mortal_postgres, postgres) as (both, there):
        store = SingleStore(await PostgresStore.open(both, None, lambda _: None, 0))
        first = await asyncio.gather(*(store.accept(new_order()) for _ in range(75)))
        await make_read_only(mortal_postgres, is_read_only=True)
        try:
            if begins_with_a_read:
                # PostgreSQL tells the session of the change a moment later.
                await until(lambda: is_missing(store, first[0].order.order_id))
            answers = await asyncio.gather(*(outcome_of(store.accept(new_order())) for _ in range(75)))
            assert {type(it) for it in answers} == {Accepted}
            async with connected(there) as connection:
                assert await connection.fetchval("select count(*) from orders") == 75
            # Reads go to the second server too: the order is missing there.
            assert await store.get(ACCOUNT, first[0].order.order_id) is None
        finally:
            await store.close()
            await make_read_only(mortal_postgres, is_read_only=False)


async def test_a_first_server_that_answers_nothing_leaves_time_for_the_second(
    mortal_postgres: MortalPostgres, postgres: PostgresServer
) -> None:
    async with two_servers(mortal_postgres, postgres) as (both, _):
        store = SingleStore(await PostgresStore.open(both, None, lambda _: None, 0))
        await store.ping()
        mortal_postgres.pause()
        try:

            async def answers() -> bool:
                return isinstance(await outcome_of(store.accept(new_order())), Accepted)

            await until(answers)
        finally:
            mortal_postgres.resume()
            await store.close()


async def test_when_no_server_takes_writes_that_is_said(
    mortal_postgres: MortalPostgres,
) -> None:
    await make_read_only(mortal_postgres, is_read_only=True)
    try:
        with pytest.raises(StoreUnavailable, match="No server that DATABASE_URL names takes writes"):
            await PostgresStore.open(f"{mortal_postgres.url}?target_session_attrs=read-write", None, lambda _: None, 0)
    finally:
        await make_read_only(mortal_postgres, is_read_only=False)


@pytest.mark.parametrize("end", ["pg_terminate_backend", "pg_cancel_backend"])
async def test_a_statement_that_an_administrator_ends_runs_again(postgres_world: PostgresWorld, end: str) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    async with connected(postgres_world.url) as administrator:
        async with postgres_world.locked(life.order.order_id):
            renewing = asyncio.ensure_future(held(store, life))
            waiting = await until(lambda: administrator.fetchval(WAITING))
            await administrator.execute(f"select {end}({waiting})")
            await until(lambda: is_another(administrator, waiting, end))
        assert await renewing == {life.order.order_id}


async def is_another(administrator: Any, pid: int, end: str) -> bool:
    """Whether the statement runs again; a cancelled statement may run on its old session."""
    found = await administrator.fetchval(WAITING)
    return found is not None and (found != pid or end == "pg_cancel_backend")


async def test_every_session_that_is_ended_while_idle_is_replaced_unnoticed(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    for _ in range(3):
        await asyncio.gather(*(store.accept(new_order()) for _ in range(20)), *(store.ping() for _ in range(20)))
        async with connected(postgres_world.url) as administrator:
            await administrator.execute(f"select pg_terminate_backend(pid) {OTHERS}")
            await until(lambda: is_alone(administrator))
        answers = await asyncio.gather(*(outcome_of(store.accept(new_order())) for _ in range(20)))
        assert {type(it) for it in answers} == {Accepted}


async def test_of_two_that_wait_for_each_other_the_engine_tries_again(
    postgres: PostgresServer, postgres_world: PostgresWorld
) -> None:
    store = await postgres_world.open()
    administrator = postgres.as_administrator(postgres_world.url)
    lives = sorted([await claim_new(store) for _ in range(2)], key=lambda it: it.order.order_id)
    await set_for_database(administrator, "set deadlock_timeout = '100ms'")
    first, second = (it.order.order_id for it in lives)
    lock = "select from orders where order_id = $1 for update"
    async with connected(administrator) as other:
        await other.execute("set deadlock_timeout = '1min'")  # So PostgreSQL ends the engine's statement.
        async with other.transaction():
            await other.execute(lock, second)
            wanted = {it.order.order_id: it.fence or 0 for it in lives}
            renewing = asyncio.ensure_future(store.renew("worker", wanted, LONG_MS))
            await until(postgres_world.waiting_for_locks)
            await other.execute(lock, first)
    assert await renewing == {first, second}


async def test_a_conflict_of_snapshots_is_tried_again(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    await set_for_database(postgres_world.url, "set default_transaction_isolation = 'repeatable read'")
    async with connected(postgres_world.url) as other, other.transaction():
        change = "update orders set lease_until_ms = lease_until_ms + 1 where order_id = $1"
        await other.execute(change, life.order.order_id)
        renewing = asyncio.ensure_future(held(store, life))
        await until(postgres_world.waiting_for_locks)
    assert await renewing == {life.order.order_id}


async def test_a_lock_that_stays_taken_is_unavailable_and_not_a_bug(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    await set_for_database(postgres_world.url, "set lock_timeout = '20ms'")
    async with postgres_world.locked(life.order.order_id):
        answer = await outcome_of(held(store, life))
        assert isinstance(answer, StoreUnavailable)
        assert str(answer) == "PostgreSQL is busy: canceling statement due to lock timeout"
    assert await held(store, life) == {life.order.order_id}


async def test_a_statement_that_the_server_forgot_is_prepared_again(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    await store._sessions.fetch("deallocate all")
    for _ in range(3):
        assert await held(store, life) == {life.order.order_id}


@pytest.mark.parametrize("change", ["drop table attempts cascade", "drop function now_ms() cascade"])
async def test_a_database_that_was_replaced_is_unavailable_and_not_a_bug(
    postgres_world: PostgresWorld, change: str
) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    async with connected(postgres_world.url) as owner:
        await owner.execute(change)
    calls: list[Callable[[], Any]] = [
        store.count_in_doubt,
        lambda: store.claim_due("worker", 1, LONG_MS),
        lambda: held(store, life),
    ]
    answers = [await outcome_of(call()) for call in calls]
    errors = [it for it in answers if isinstance(it, Exception)]
    assert errors
    assert {type(it) for it in errors} == {StoreUnavailable}
    assert all("another database than the one that was opened" in str(it) for it in errors)


async def test_a_storm_of_ended_sessions_ends_nothing_but_sessions(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    news = [new_order(f"key {number}") for number in range(300)]

    async def accept(number: int) -> object:
        return await outcome_of(store.accept(news[number]))

    async with connected(postgres_world.url) as administrator:
        accepting = [asyncio.ensure_future(accept(number)) for number in range(100)]
        for begin in (100, 200):
            await administrator.execute(f"select pg_terminate_backend(pid) {OTHERS}")
            accepting += [asyncio.ensure_future(accept(begin + number)) for number in range(100)]
            await asyncio.sleep(0)
        async with asyncio.timeout(PATIENCE_S):
            answers = await asyncio.gather(*accepting)
        assert {type(it) for it in answers} <= {Accepted, StoreUnavailable}
        again = await asyncio.gather(*(store.accept(new) for new in news))
        assert len({it.order.order_id for it in again}) == 300
        assert await administrator.fetchval("select count(*) from orders") == 300
