"""The event log of an account: every event once, in the order of the commits, while other commits are under way."""

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

from order_engine.domain.errors import StoreUnavailable, UnknownCursor
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import AttemptOutcome, OrderId
from order_engine.ports.store import BEGINNING, NewOrder
from order_engine.store.postgres.store import PostgresStore
from tests.contracts.orders import (
    ACCOUNT,
    BUILT,
    CONFIRMED,
    FAILED,
    LONG_MS,
    ROUTED,
    Life,
    SingleStore,
    claim_new,
    new_order,
)
from tests.contracts.worlds import MortalPostgres, PostgresWorld, SqliteWorld, StoreWorld
from tests.servers import PostgresServer

pytestmark = pytest.mark.asyncio

ALL_MS = -3_600_000
HANG_S = 20


async def everything(store: SingleStore, after: str = BEGINNING, limit: int = 100) -> tuple[list[OrderEvent], str]:
    """All events after the cursor until now, read page by page, and the cursor after them."""
    until = (await store.account_events(ACCOUNT, None, None, limit)).cursor
    found: list[OrderEvent] = []
    while after != until:
        page = await store.account_events(ACCOUNT, after, until, limit)
        found += page.events
        after = page.cursor
    return found, after


async def live(store: SingleStore) -> Life:
    """Bring a new order to `confirmed`."""
    life = await claim_new(store)
    for fact in (ROUTED, BUILT):
        store.record(life.write(fact))
    await store.record(life.sign())
    await store.record(life.settle(CONFIRMED, AttemptOutcome.LANDED))
    return life


async def test_an_empty_log_has_an_end(world: StoreWorld) -> None:
    store = await world.open()
    assert (await store.account_events(ACCOUNT, None, None, 10)).events == []
    assert (await everything(store))[0] == []


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
async def test_a_feed_has_every_event_once_whatever_the_size_of_its_pages(world: StoreWorld, limit: int) -> None:
    store = await world.open()
    lives = await asyncio.gather(*(live(store) for _ in range(7)))
    found, end = await everything(store, limit=limit)
    for life in lives:
        order_id = life.order.order_id
        assert [it for it in found if it.order_id == order_id] == await store.history(order_id, 0)
    assert len(found) == 7 * 5
    assert (await store.account_events(ACCOUNT, end, None, limit)).events == []


async def test_what_was_committed_first_comes_first(world: StoreWorld) -> None:
    store = await world.open()
    news = [new_order() for _ in range(5)]
    for new in reversed(news):
        await store.accept(new)
    found, _ = await everything(store)
    assert [it.order_id for it in found] == [it.order.order_id for it in reversed(news)]


async def test_a_feed_goes_on_where_a_reader_was(world: StoreWorld) -> None:
    store = await world.open()
    first, cursor = await live(store), (await store.account_events(ACCOUNT, None, None, 1)).cursor
    second = await live(store)
    found, end = await everything(store, cursor)
    assert {it.order_id for it in found} == {second.order.order_id}
    # The same pages again: a cursor is a place, not a state.
    assert await everything(store, cursor) == (found, end)
    both = (await store.account_events(ACCOUNT, BEGINNING, cursor, 100)).events
    assert {it.order_id for it in both} == {first.order.order_id}


async def test_another_accounts_events_are_not_in_it(world: StoreWorld) -> None:
    store = await world.open()
    mine, other = new_order(), new_order(account="other")
    for new in (other, mine, new_order(account="other")):
        await store.accept(new)
    assert (await everything(store, limit=1))[0] == [mine.event]
    assert other.event in (await store.account_events("other", BEGINNING, None, 10)).events


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "-1",
        "1.5",
        "5:3:",
        "5:7:9",
        "5:7:6:",
        "1:1:1,",
        "0:0:",
        "\x00",
        "٣",
        "9" * 30,
        "1:\n1:",
        "+1:1:",
        "0" * 5000 + "1:1:",
        "1",
        "3:3:",
        "1@",
        "1@1.1.xyz",
        "3:3:@2.1.0123456789abcdeF",
    ],
)
async def test_what_is_no_cursor_is_refused(world: StoreWorld, cursor: str) -> None:
    store = await world.open()
    with pytest.raises(UnknownCursor):
        await store.account_events(ACCOUNT, cursor, None, 10)


@pytest.mark.parametrize("number", [2**63, 2**64, 10**20 - 1])
async def test_a_mark_whose_number_no_log_can_have_is_refused(world: StoreWorld, number: int) -> None:
    store = await world.open()
    await store.accept(new_order())
    place = (await everything(store))[1].partition("@")[0]
    for limit in (0, 10):
        with pytest.raises(UnknownCursor):
            await store.account_events(ACCOUNT, f"{place}@{number}.1760000000000.0123456789abcdef", None, limit)


async def test_a_cursor_from_the_future_is_refused(world: StoreWorld) -> None:
    store = await world.open()
    ahead = "1000000" if isinstance(world, SqliteWorld) else "1000000:1000000:"
    ahead += "@1000000.1760000000000.0123456789abcdef"
    with pytest.raises(UnknownCursor, match="ahead"):
        await store.account_events(ACCOUNT, ahead, None, 10)


async def test_a_place_in_the_log_is_never_given_twice(world: StoreWorld) -> None:
    store = await world.open()
    gone = await claim_new(store)
    await store.record(gone.write(FAILED))
    _, cursor = await everything(store)
    assert await store.delete_ended(ALL_MS, 10) == 1
    new = new_order()
    await store.accept(new)
    assert (await store.account_events(ACCOUNT, cursor, None, 0)).events == []
    assert (await everything(store, cursor))[0] == [new.event]


async def test_events_are_not_lost_among_many_writers(world: StoreWorld) -> None:
    stores = [await world.open() for _ in range(1 if isinstance(world, SqliteWorld) else 4)]
    seen: list[OrderEvent] = []
    cursor, is_over = BEGINNING, False

    async def watch() -> None:
        nonlocal cursor
        while True:
            was_over = is_over
            page = await stores[0].account_events(ACCOUNT, cursor, None, 20)
            seen.extend(page.events)
            cursor = page.cursor
            if was_over and not page.events:
                return
            await asyncio.sleep(0)

    watching = asyncio.create_task(watch())
    for _ in range(10):
        await asyncio.gather(*(live(store) for store in stores for _ in range(5)))
    is_over = True
    await watching
    histories = [await stores[0].history(order_id, 0) for order_id in {it.order_id for it in seen}]
    assert len(histories) == 10 * 5 * len(stores)
    assert sorted(seen, key=place_of) == sorted((it for history in histories for it in history), key=place_of)
    for order_id in {it.order_id for it in seen}:
        assert [it.seq for it in seen if it.order_id == order_id] == [1, 2, 3, 4, 5]


def place_of(event: OrderEvent) -> tuple[OrderId, int]:
    return event.order_id, event.seq


# --- PostgreSQL: transactions do not end in the order in which they begin ---


@asynccontextmanager
async def open_insert(world: PostgresWorld) -> AsyncIterator[OrderId]:
    """Insert an order in a transaction that stays open until the context ends."""
    connection = await asyncpg.connect(world.url)
    new = new_order()
    try:
        async with connection.transaction():
            await connection.execute(
                "with created as (insert into orders (order_id, account, token_in, token_in_mint, token_in_decimals, "
                "token_out, token_out_mint, token_out_decimals, amount_in, slippage_bps, created_at_ms, status, seq, "
                "attempt, updated_at_ms, quotes, due_at_ms) "
                "values ($1, $2, '', '', 1, '', '', 1, 1, 1, 1, 'pending', 1, 0, 1, '[]', 1)) "
                "insert into order_events (order_id, account, seq, status, attempt, at_ms, data) "
                "values ($1, $2, 1, 'pending', 0, 1, '{}')",
                new.order.order_id,
                ACCOUNT,
            )
            yield new.order.order_id
    finally:
        await connection.close()


@pytest.mark.parametrize("limit", [1, 100])
async def test_what_is_committed_late_is_new_to_whoever_has_seen_later_ones(
    postgres_world: PostgresWorld, limit: int
) -> None:
    store = await postgres_world.open()
    await live(store)
    async with open_insert(postgres_world) as late, open_insert(postgres_world) as later:
        quick = await live(store)
        seen, cursor = await everything(store, limit=limit)
        assert quick.order.order_id in {it.order_id for it in seen}
        assert not {late, later} & {it.order_id for it in seen}
        # A reader delays no writer, and no open transaction delays a reader.
        again = await live(store)
        more, cursor = await everything(store, cursor, limit)
        assert {it.order_id for it in more} == {again.order.order_id}
    more, cursor = await everything(store, cursor, limit)
    assert [it.order_id for it in more] == [late, later]
    assert (await everything(store, cursor, limit))[0] == []


async def test_what_came_from_another_servers_dump_is_the_past(
    postgres: PostgresServer, postgres_world: PostgresWorld
) -> None:
    store = await postgres_world.open()
    lives = [await live(store) for _ in range(3)]
    before, _ = await everything(store)
    connection = await asyncpg.connect(postgres.as_administrator(postgres_world.url))
    # Like rows from a restored dump: their transaction numbers are higher than this server's.
    await connection.execute("set session_replication_role = replica")
    await connection.execute("update order_events set xid = ((xid::text::bigint + 1000000000)::text)::xid8")
    await connection.close()

    again = await postgres_world.open()
    found, cursor = await everything(again)
    assert sorted(found, key=place_of) == sorted(before, key=place_of)
    for life in lives:
        assert [it.seq for it in found if it.order_id == life.order.order_id] == [1, 2, 3, 4, 5]
    new = new_order()
    await again.accept(new)
    assert (await everything(again, cursor))[0] == [new.event]
    assert await again.claim("worker", [new.order.order_id], LONG_MS)


async def test_a_cursor_goes_no_further_than_the_last_event(postgres_world: PostgresWorld) -> None:
    store = await postgres_world.open()
    await live(store)
    _, cursor = await everything(store)
    connection = await asyncpg.connect(postgres_world.url)
    for _ in range(5):
        transaction = connection.transaction()
        await transaction.start()
        await connection.execute("select pg_current_xact_id()")
        await transaction.rollback()
    await connection.close()
    # After a crash PostgreSQL reuses the numbers of rolled-back transactions, also for writing events.
    assert (await everything(store))[1] == cursor
    assert (await store.account_events(ACCOUNT, cursor, None, 10)).cursor == cursor
    assert (await store.account_events(ACCOUNT, None, None, 10)).cursor == cursor


async def test_a_crash_of_the_server_costs_a_reader_nothing(mortal_postgres: MortalPostgres) -> None:
    store = SingleStore(await PostgresStore.open(mortal_postgres.url, None, lambda _: None, 0))
    connection = await asyncpg.connect(mortal_postgres.url)
    await connection.execute("create table elsewhere (a integer primary key); insert into elsewhere values (1)")
    before = new_order()
    await store.accept(before)
    for _ in range(5):
        with contextlib.suppress(asyncpg.UniqueViolationError):
            await connection.execute("insert into elsewhere values (1)")
    seen, cursor = await everything(store)
    mortal_postgres.kill()
    mortal_postgres.start()
    news = [new_order() for _ in range(6)]
    for new in news:
        await accepted(store, new)
    later, _ = await everything(store, cursor)
    assert seen == [before.event]
    assert [it.order_id for it in later] == [it.order.order_id for it in news]
    await store.close()
    connection.terminate()


async def accepted(store: SingleStore, new: NewOrder) -> None:
    """Accept the order as soon as the server is back."""
    async with asyncio.timeout(HANG_S):
        while True:
            with contextlib.suppress(StoreUnavailable):
                await store.accept(new)
                return
            await asyncio.sleep(0.05)


async def test_a_reader_of_what_a_restored_log_does_not_have_is_refused(world: StoreWorld) -> None:
    """After an older backup is restored, other events get the same places."""
    store = await world.open()
    await live(store)
    _, known = await everything(store)
    await store.accept(new_order())
    _, lost = await everything(store)
    place, _, mark = lost.partition("@")
    number, at_ms, digest = mark.split(".")
    other = f"{place}@{number}.{at_ms}.{digest[::-1]}"
    with pytest.raises(UnknownCursor, match="restored"):
        await store.account_events(ACCOUNT, other, None, 0)
    for cursor in (known, lost, BEGINNING):
        assert (await store.account_events(ACCOUNT, cursor, None, 0)).events == []


async def test_a_file_that_is_restored_from_a_backup_refuses_the_readers_of_what_it_lost(
    sqlite_world: SqliteWorld, tmp_path: Path
) -> None:
    store = await sqlite_world.open()
    await live(store)
    _, known = await everything(store)
    await store.close()
    backup = tmp_path / "backup.sqlite3"
    shutil.copy(sqlite_world.path, backup)
    store = await sqlite_world.open()
    await store.accept(new_order())
    _, lost = await everything(store)
    await store.close()
    shutil.copy(backup, sqlite_world.path)
    store = await sqlite_world.open()
    for _ in range(3):  # First the cursor is ahead of the log, then the log grows past it.
        with pytest.raises(UnknownCursor, match="restored"):
            await store.account_events(ACCOUNT, lost, None, 0)
        await store.accept(new_order())
    assert len((await everything(store, known))[0]) == 3
