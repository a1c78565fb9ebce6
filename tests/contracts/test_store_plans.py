"""Every statement of the order path finds its rows by an index, with tables of any size and any statistics.

The tests do not look at plans but count rows: PostgreSQL counts the rows that each index and each table
gave. A plan that reads a whole table or a whole index would give all of its rows.
"""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from bench.growth import fill, make_schema
from order_engine.domain.order import AttemptOutcome
from order_engine.store.postgres.store import PostgresStore
from tests.contracts.orders import BUILT, CONFIRMED, GENESIS, LONG_MS, ROUTED, Life, SingleStore, new_order, pause
from tests.servers import PostgresServer

pytestmark = pytest.mark.asyncio

# An order reads about 60 rows on its way, including the rows that triggers look up. If each order of
# a batch read the whole batch, it would be thousands of rows.
MAX_ROWS_READ_BY_AN_ORDER = 150
# PostgreSQL plans a prepared statement 5 times before it keeps a plan. The first 8 turns are small,
# so that the kept plan was made for nearly empty tables.
TURNS = (*[1] * 8, *[200] * 4)

READ = """
select coalesce(sum(seq_tup_read), 0)::bigint as by_scans,
    (select coalesce(sum(idx_tup_read), 0)::bigint from pg_stat_user_indexes) as by_index
from pg_stat_user_tables
"""


async def walk_the_order_path(store: PostgresStore, count: int) -> None:
    """Use every statement of the order path for `count` orders."""
    news = [new_order(f"key of {new_order().order.order_id}" if number % 2 else None) for number in range(count)]
    await asyncio.gather(*(store.accept(it) for it in news))
    await asyncio.gather(*(store.accept(it) for it in news if it.idempotency))
    ids = [it.order.order_id for it in news]
    claims = await store.claim("worker", ids[: count // 2], LONG_MS)
    claims += await store.claim_due("worker", count, LONG_MS)
    assert sorted(it.order.order_id for it in claims) == sorted(ids)
    assert await store.claim_poison("worker", 0, LONG_MS) == []
    fences = {it.order.order_id: it.fence for it in claims}
    assert await store.renew("worker", fences, LONG_MS) == set(ids)
    lives = [Life(it.order, it.fence) for it in claims]
    await _record(store, lives[::2], "retried")
    await _record(store, lives[1::2], "confirmed")
    again = await store.claim_due("worker", count, LONG_MS)
    await store.release("worker", {it.order.order_id: it.fence for it in again})
    again = await store.claim_due("worker", count, LONG_MS)
    assert len(again) == (count + 1) // 2
    await _record(store, [Life(it.order, it.fence) for it in again], "confirmed")
    histories = await asyncio.gather(*(store.history(order_id, 0) for order_id in ids))
    assert min(map(len, histories)) >= len(("pending", "routing", "building", "submitted", "confirmed"))
    for order_id in ids[:2]:
        assert await store.get("acme", order_id)
        assert await store.attempts(order_id)
    await store.count_in_doubt()
    await store.expire_dead_leases()


async def _record(store: PostgresStore, lives: Sequence[Life], end: str) -> None:
    for life in lives:
        store.record(life.write(ROUTED))
        store.record(life.write(BUILT))
    await asyncio.gather(*(store.record(life.sign()) for life in lives))
    if end == "confirmed":
        await asyncio.gather(*(store.record(it.settle(CONFIRMED, AttemptOutcome.LANDED)) for it in lives))
    else:
        await asyncio.gather(*(store.record(it.settle(pause(0), AttemptOutcome.EXPIRED)) for it in lives))


async def opened(url: str) -> PostgresStore:
    store = SingleStore(await PostgresStore.open(url, None, lambda _events: None, 0))
    await store.pin_cluster(GENESIS)
    return store


async def analyze(url: str) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute("vacuum (analyze) orders, order_events, attempts, cluster")
    await connection.close()


async def rows_read(server: PostgresServer, url: str) -> int:
    """All rows that the database's tables and indexes have given; complete only after all sessions have ended."""
    connection = await asyncpg.connect(url)
    try:
        row = await connection.fetchrow(READ)
        assert row is not None
        return int(row["by_scans"] + row["by_index"])
    finally:
        await connection.close()


@pytest.mark.parametrize("is_analyzed", [False, True], ids=["never analyzed", "analyzed while empty"])
async def test_plans_that_were_made_for_empty_tables_hold_when_they_have_grown(
    postgres: PostgresServer, *, is_analyzed: bool
) -> None:
    url = await postgres.create_database()
    await make_schema(url)
    if is_analyzed:
        await analyze(url)
    store = await opened(url)
    for count in TURNS:
        await walk_the_order_path(store, count)
    await store.close()

    assert await rows_read(postgres, url) < MAX_ROWS_READ_BY_AN_ORDER * sum(TURNS)
    await postgres.drop_database(url)


@pytest.mark.timeout(300)
async def test_at_a_million_orders_an_order_reads_what_it_reads_in_empty_tables(postgres: PostgresServer) -> None:
    url = await postgres.create_database()
    await fill(url, postgres.as_administrator(url), 1_000_000, events=1)
    before = await rows_read(postgres, url)
    store = await opened(url)
    for count in TURNS:
        await walk_the_order_path(store, count)
    await store.close()
    assert await rows_read(postgres, url) - before < MAX_ROWS_READ_BY_AN_ORDER * sum(TURNS)
    await postgres.drop_database(url)
