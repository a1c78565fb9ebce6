"""The cost of an order with full tables, with a long queue, and beside a transaction that stays open."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from typing import Any

import asyncpg

from bench.burst import burst_round
from bench.measure import Stand, checked_figures, cpu_seconds_of, summary
from bench.subjects import ENGINE, EngineSubject
from order_engine.store.postgres.store import PostgresStore

SESSION_IS_OLD = "select 1 from orders limit 1"
LONG_QUEUE = 100_000

# Orders as the engine stores them; the ids are ordered by time, like the engine's.
_ID = "(lpad(to_hex(1700000000000 + n), 12, '0') || '70008000' || lpad(to_hex(n), 12, '0'))::uuid"
FINISHED = f"""
insert into orders (order_id, account, token_in, token_in_mint, token_in_decimals,
    token_out, token_out_mint, token_out_decimals, amount_in, slippage_bps, created_at_ms,
    status, seq, attempt, updated_at_ms, venue, quotes, min_amount_out, amount_out, tx_signature, fence)
select {_ID}, 'default', 'SOL', 'So11111111111111111111111111111111111111112', 9,
    'USDC', 'EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v', 6, 1000000000, 100, 1700000000000 + n,
    'confirmed', 5, 1, 1700000002500 + n, 'raydium', repeat('q', 220), 148000000, 149000000,
    'signature' || lpad(n::text, 79, '0'), 1
from generate_series($1::bigint, $2::bigint) n
"""
EVENTS = f"""
insert into order_events (order_id, account, seq, status, attempt, at_ms, data)
select {_ID}, 'default', k,
    (array['pending', 'routing', 'building', 'submitted', 'confirmed'])[k], least(k - 1, 1),
    1700000000000 + n, repeat('d', (array[2, 280, 90, 170, 190])[k])
from generate_series($1::bigint, $2::bigint) n, generate_series(1, $3) k
"""
ATTEMPTS = f"""
insert into attempts (order_id, attempt, signature, raw, owner, last_valid_block_height, signed_slot,
    signed_block_height, blockhash_slot, signed_at_ms, genesis_hash, outcome, evidence)
select {_ID}, 1, 'signature' || lpad(n::text, 79, '0'), decode(repeat('ab', 450), 'hex'), repeat('o', 44), 1000, 1000,
    950, 1030, 1700000000000 + n, repeat('g', 44), 'landed', repeat('e', 180)
from generate_series($1::bigint, $2::bigint) n
"""
WAITING = f"""
with waiting as (
    insert into orders (order_id, account, token_in, token_in_mint, token_in_decimals,
        token_out, token_out_mint, token_out_decimals, amount_in, slippage_bps, created_at_ms,
        status, seq, attempt, updated_at_ms, quotes, due_at_ms)
    select {_ID}, 'default', 'SOL', 'So11111111111111111111111111111111111111112', 9,
        'USDC', 'EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v', 6, 1000000000, 100, now_ms(),
        'pending', 1, 0, now_ms(), '[]', now_ms()
    from generate_series($1::bigint, $2::bigint) n
    returning order_id, created_at_ms
)
insert into order_events (order_id, account, seq, status, attempt, at_ms, data)
select order_id, 'default', 1, 'pending', 0, created_at_ms, '{{}}' from waiting
"""
AT_ONCE = 50_000


async def fill(url: str, administrator: str, finished: int, events: int = 5) -> None:
    """Make the schema and insert `finished` orders, each with its first `events` events.

    `administrator`: the same database for a role that may switch triggers off.
    """
    await make_schema(url)
    connection = await asyncpg.connect(administrator)
    # These orders are finished: no trigger needs to check each row.
    await connection.execute("set session_replication_role = replica")
    for begin in range(1, finished + 1, AT_ONCE):
        end = min(begin + AT_ONCE - 1, finished)
        await connection.execute(FINISHED, begin, end)
        await connection.execute(EVENTS, begin, end, events)
        await connection.execute(ATTEMPTS, begin, end)
    await connection.execute("vacuum (analyze) orders, order_events, attempts")
    await connection.close()


async def make_schema(url: str) -> None:
    """Bring the schema up to date, as a starting engine does."""
    store = await PostgresStore.open(url, None, lambda _events: None, 0)
    await store.close()


async def forget_the_chain(url: str) -> None:
    """Delete the pinned cluster, so that the database accepts the next round's new chain."""
    connection = await asyncpg.connect(url)
    await connection.execute("set session_replication_role = replica")
    await connection.execute("delete from cluster")
    await connection.close()


async def full_tables_round(stand: Stand, url: str, orders: int) -> dict[str, Any]:
    """Measure a burst in a filled database, which is kept."""
    await forget_the_chain(url)
    return await burst_round(stand, ENGINE, orders, url=url)


@contextlib.asynccontextmanager
async def open_transaction(url: str) -> AsyncIterator[None]:
    """Hold a snapshot, as a forgotten session or a long report does: VACUUM cannot remove rows that die meanwhile."""
    connection = await asyncpg.connect(url)
    try:
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch(SESSION_IS_OLD)
            yield
    finally:
        await connection.close()


async def long_queue_round(stand: Stand, waiting: int, orders: int, *, is_held_open: bool) -> dict[str, Any]:
    """Measure the first `orders` that a worker takes from a queue of `waiting`."""
    url, directory = await stand.postgres.create_database(), stand.directory()
    await make_schema(url)
    connection = await asyncpg.connect(url)
    for begin in range(1, waiting + 1, AT_ONCE):
        await connection.execute(WAITING, begin, min(begin + AT_ONCE - 1, waiting), timeout=600)
    await connection.execute("vacuum (analyze) orders, order_events")
    subject = EngineSubject("", "", ENGINE.concurrency, apis=0)
    async with contextlib.AsyncExitStack() as stack:
        if is_held_open:
            await stack.enter_async_context(open_transaction(url))
        running = stack.enter_context(subject.running(directory, url, stand.redis.url))
        pids = running.pids | {"postgres": stand.postgres.pid, "redis": stand.redis.pid}
        # An index with landed attempts only: a scan of a whole table would take processor time from the engine.
        ended = "select count(*) from attempts where outcome = 'landed'"
        before = cpu_seconds_of(pids, connection.get_server_pid())
        began = time.perf_counter()
        # The worker has started, and may have finished some orders.
        there, done = await connection.fetchval(ended), 0
        while done < orders:
            await asyncio.sleep(0.5)
            done = await connection.fetchval(ended) - there
        took = time.perf_counter() - began
        after = cpu_seconds_of(pids, connection.get_server_pid())
        used = {name: after[name] - before[name] for name in after}
    checked = await checked_figures(connection)
    await connection.close()
    await stand.postgres.drop_database(url)
    loaded = {"took_s": took, "post_p50_ms": 0.0, "post_p99_ms": 0.0, "refused": 0}
    return summary(done, took, loaded, used, {}) | {"unconfirmed": 0, "gaps": checked["gaps"]}
