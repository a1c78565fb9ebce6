"""Rounds other than the burst: orders at a fixed rate, thousands in flight, several workers, a slow disk."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import asyncpg

from bench.burst import burst_round
from bench.measure import (
    POLL_S,
    Stand,
    at,
    checked_figures,
    cpu_seconds_of,
    generate,
    peak_memory_mib,
    wait_until_all_ended,
)
from bench.subjects import ENGINE, V1_ORDERS, EngineSubject, Subject
from order_engine.settings import LEDGER_FILE

RATES = (50, 300, 1_000, 2_000)
SECONDS_AT_A_RATE = 8
FEED = "/v1/stream"
WATCHERS = (100, 1_000)
WATCHED_PER_S = 500
LAST_MESSAGES_S = 3
IN_FLIGHT = 5_000
# Delays at MOCK_DELAY_SCALE=1: a paper venue's longest quote, and the paper chain's time from landing to confirmed.
QUOTE_MS = 250
CONFIRMED_AFTER_MS = 800
SLOW_FSYNC_US = 5_000

STAGES = """
select o.order_id::text, o.created_at_ms,
    min(e.at_ms) filter (where e.status = 'routing') as routing_at_ms,
    min(e.at_ms) filter (where e.status = 'submitted') as submitted_at_ms,
    min(e.at_ms) filter (where e.status = 'confirmed') as confirmed_at_ms
from orders o join order_events e using (order_id)
group by o.order_id
"""


async def rate_round(stand: Stand, subject: Subject, per_s: int, orders: int) -> dict[str, Any]:
    """Measure one subject under orders that come at a fixed rate."""
    url, directory = await stand.postgres.create_database(), stand.directory()
    with subject.running(directory, url, stand.redis.url) as running:
        connection = await asyncpg.connect(url)

        async def post(count: int) -> dict[str, Any]:
            body = [running.body.decode()] if running.body else []
            return await generate(["rate", running.url, str(count), str(per_s), *body])

        warm_up = min(orders, per_s)
        await post(warm_up)
        await wait_until_all_ended(connection, warm_up, open_orders=subject.open_orders, poll_s=subject.poll_s)
        await connection.execute("create table warmed_up as select order_id from orders")
        pids = running.pids | {"postgres": stand.postgres.pid, "redis": stand.redis.pid}
        before = cpu_seconds_of(pids, connection.get_server_pid())
        loaded = await post(orders)
        if loaded["refused"]:
            raise RuntimeError(f"{loaded['refused']} of {orders} orders were not accepted at {per_s}/s")
        await wait_until_all_ended(connection, warm_up + orders, open_orders=subject.open_orders, poll_s=subject.poll_s)
        used_s = sum(cpu_seconds_of(pids, connection.get_server_pid()).values()) - sum(before.values())
        checked = await checked_figures(connection)
        spans = await connection.fetch(
            "select (updated_at_ms - created_at_ms)::float as ms from orders "
            "where order_id not in (select order_id from warmed_up) order by 1"
        )
        await connection.close()
    await stand.postgres.drop_database(url)
    taken = [row["ms"] for row in spans]
    return {
        "per_s": per_s,
        "posted_per_s": orders / loaded["took_s"],
        "post_p50_ms": loaded["post_p50_ms"],
        "post_p99_ms": loaded["post_p99_ms"],
        "confirm_p50_ms": at(0.5, taken),
        "confirm_p99_ms": at(0.99, taken),
        "cpu_s_per_1000": 1000 * used_s / orders,
        "refused": loaded["refused"],
        "unconfirmed": checked["unconfirmed"],
        "gaps": checked["gaps"],
    }


@asynccontextmanager
async def _watching(url: str, watchers: int) -> AsyncIterator[dict[str, Any]]:
    """Watch every order for as long as the context lasts; the dictionary has the figures after it."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.watching", url, FEED, str(watchers)),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None  # noqa: S101 - it is a pipe
    found: dict[str, Any] = {}
    try:
        await process.stdout.readline()
        yield found
        told, _ = await process.communicate(b"")
        found |= json.loads(told)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def watchers_round(stand: Stand, watchers: int, per_s: int) -> dict[str, Any]:
    """Measure how late the watchers of all orders are, at a fixed rate of orders."""
    url, directory = await stand.postgres.create_database(), stand.directory()
    orders = per_s * SECONDS_AT_A_RATE
    with ENGINE.running(directory, url, stand.redis.url) as running:
        connection = await asyncpg.connect(url)
        pids = running.pids | {"postgres": stand.postgres.pid, "redis": stand.redis.pid}
        async with _watching(running.url.removesuffix(V1_ORDERS), watchers) as found:
            before = cpu_seconds_of(pids, connection.get_server_pid())
            loaded = await generate(["rate", running.url, str(orders), str(per_s)])
            await wait_until_all_ended(connection, orders, poll_s=POLL_S)
            after = cpu_seconds_of(pids, connection.get_server_pid())
            await asyncio.sleep(LAST_MESSAGES_S)
        checked = await checked_figures(connection)
        events = await connection.fetchval("select count(*) from order_events")
        await connection.close()
    await stand.postgres.drop_database(url)
    return found | {
        "watchers": watchers,
        "per_s": per_s,
        "orders": orders,
        "posted_per_s": orders / loaded["took_s"],
        "post_p50_ms": loaded["post_p50_ms"],
        "post_p99_ms": loaded["post_p99_ms"],
        "cpu_s_per_1000": {name: 1000 * (after[name] - before[name]) / orders for name in after},
        "refused": loaded["refused"],
        "unconfirmed": checked["unconfirmed"],
        "gaps": checked["gaps"] + found["gaps_seen"] + (events - found["events_seen"]),
    }


async def in_flight_round(stand: Stand, orders: int) -> dict[str, Any]:
    """Measure one worker with all orders in flight at once, with the default delays.

    The overhead of an order is its time without its venue and its chain, a sum of three: from its
    creation to its route, less the longest quote; from its route to its signed transaction; and
    from its confirmation by the chain's ledger to its own.
    """
    url, directory = await stand.postgres.create_database(), stand.directory()
    subject = EngineSubject("", "", orders, {"MOCK_DELAY_SCALE": "1"})
    with subject.running(directory, url, stand.redis.url) as running:
        connection = await asyncpg.connect(url)
        loaded = await generate(["burst", running.url, str(orders), "64"])
        most = 0
        while True:
            held = await connection.fetchval("select count(*) from orders where lease_until_ms is not null")
            most = max(most, held)
            if not held and await connection.fetchval("select count(*) from orders where due_at_ms is null") >= orders:
                break
            await asyncio.sleep(0.1)
        memory = {name: peak_memory_mib(pid) for name, pid in running.pids.items()}
        checked = await checked_figures(connection)
        stages = await connection.fetch(STAGES)
        await connection.close()
    await stand.postgres.drop_database(url)
    ledger = sqlite3.connect(f"file:{directory}/data/{LEDGER_FILE}?mode=ro", uri=True)
    landed = dict(ledger.execute("select memo, max(lands_at_ms) from paper_chain_swaps group by memo").fetchall())
    ledger.close()
    overheads = sorted(
        float(
            max(0, it["routing_at_ms"] - it["created_at_ms"] - QUOTE_MS)
            + it["submitted_at_ms"]
            - it["routing_at_ms"]
            + max(0, it["confirmed_at_ms"] - landed[it["order_id"]] - CONFIRMED_AFTER_MS)
        )
        for it in stages
    )
    return {
        "orders": orders,
        "most_in_flight": most,
        "overhead_p50_ms": at(0.5, overheads),
        "overhead_p99_ms": at(0.99, overheads),
        "peak_memory_mib": memory,
        "refused": loaded["refused"],
        "unconfirmed": checked["unconfirmed"],
        "gaps": checked["gaps"],
    }


async def scale_round(stand: Stand, workers: int, apis: int, orders: int) -> dict[str, Any]:
    """Measure several processes on this one machine, and how much of the work each did."""
    subject = EngineSubject("", "", ENGINE.concurrency, workers=workers, apis=apis)
    return await burst_round(stand, subject, orders)


async def slow_disk_round(stand: Stand, subject: Subject, orders: int) -> dict[str, Any]:
    """Measure with every flush of the WAL delayed by 5 ms, as on a disk with a slow fsync."""
    connection = await asyncpg.connect(stand.postgres.url)
    try:
        await connection.execute(f"alter system set commit_delay = {SLOW_FSYNC_US}")
        await connection.execute("alter system set commit_siblings = 0")
        await connection.execute("select pg_reload_conf()")
        return await burst_round(stand, subject, orders)
    finally:
        await connection.execute("alter system reset commit_delay")
        await connection.execute("alter system reset commit_siblings")
        await connection.execute("select pg_reload_conf()")
        await connection.close()
