"""The burst: each of 64 connections posts its next order as soon as the last one is answered."""

import asyncio
import sqlite3
import time
from pathlib import Path
from typing import Any

from bench.measure import (
    MAX_SECONDS,
    POLL_S,
    Counters,
    Stand,
    at,
    checked_figures,
    cpu_seconds,
    cpu_seconds_of,
    generate,
    peak_memory_mib,
    post_orders,
    summary,
    wait_until_all_ended,
)
from bench.profiling import profiled
from bench.subjects import V1_ORDERS, Running, Subject
from tests.stack import embedded_stack

CONNECTIONS = 64
WARM_UP = 20  # A twentieth of the orders is posted before the measurement.


async def burst_round(
    stand: Stand,
    subject: Subject,
    orders: int,
    *,
    is_watched: bool = False,
    url: str | None = None,
    profiles: Path | None = None,
) -> dict[str, Any]:
    """Measure one subject once, in a database of its own; `is_watched`: with a WebSocket for each order.

    `url`: an existing database, which is kept; `profiles`: the directory for py-spy's flame graphs.
    """
    own_url = None if url else await stand.postgres.create_database()
    url = url or own_url or ""
    orders = max(CONNECTIONS, int(orders * subject.orders_factor))
    warm_up = max(orders // WARM_UP, 1)
    counters = Counters(stand, url)
    with subject.running(stand.directory(), url, stand.redis.url) as running:
        await counters.open()
        pids = running.pids | {"postgres": stand.postgres.pid, "redis": stand.redis.pid}

        async def ended(count: int) -> None:
            await wait_until_all_ended(
                counters.connection, count, open_orders=subject.open_orders, poll_s=subject.poll_s
            )

        there = await counters.connection.fetchval("select count(*) from orders")
        await post_orders(running.url, warm_up, CONNECTIONS, running.body)
        await ended(there + warm_up)
        before = cpu_seconds_of(pids | running.outside, counters.pid)
        with profiled(running.pids | running.outside, profiles):
            began = time.perf_counter()
            loading = asyncio.create_task(_load(running, subject, orders, is_watched=is_watched))
            await ended(there + warm_up + orders)
            took = time.perf_counter() - began
        loaded = await loading
        if is_watched:
            took = loaded["took_s"]
        after = cpu_seconds_of(pids | running.outside, counters.pid)
        used = {name: after[name] - before[name] for name in after}
        memory = {name: peak_memory_mib(pid) for name, pid in running.pids.items()}
        checked = await checked_figures(counters.connection)
    outside = {name: 1000 * used.pop(name) / orders for name in running.outside}
    counted = await counters.per_order(orders + warm_up)
    if own_url:
        await stand.postgres.drop_database(own_url)
    frames = {"frames": loaded["frames"]} if is_watched else {}
    return (
        summary(orders, took, loaded, used, memory) | {"outside_cpu_s_per_1000": outside} | checked | counted | frames
    )


async def _load(running: Running, subject: Subject, orders: int, *, is_watched: bool) -> dict[str, Any]:
    if is_watched:
        body = [running.body.decode()] if running.body else []
        arguments = ["watched", running.url, str(orders), str(CONNECTIONS), subject.stream_path or "", *body]
        return await generate(arguments)
    share = orders // len(running.urls)
    shares = [orders - share * (len(running.urls) - 1), *[share] * (len(running.urls) - 1)]
    loads = await asyncio.gather(
        *(
            post_orders(url, count, CONNECTIONS // len(running.urls), running.body)
            for url, count in zip(running.urls, shares, strict=True)
        )
    )
    return {
        "took_s": max(it["took_s"] for it in loads),
        "refused": sum(it["refused"] for it in loads),
        "post_p50_ms": max(it["post_p50_ms"] for it in loads),
        "post_p99_ms": max(it["post_p99_ms"] for it in loads),
    }


async def embedded_round(stand: Stand, orders: int, concurrency: int) -> dict[str, Any]:
    """Measure `up` once, and check the orders in its database file."""
    settings = {"MOCK_DELAY_SCALE": "0", "WORKER_CONCURRENCY": str(concurrency), "LOG_LEVEL": "warning"}
    directory = stand.directory()
    with embedded_stack(directory, **settings) as stack:
        up = stack.spawn("up")
        file = sqlite3.connect(f"file:{directory}/data/order-engine.sqlite3?mode=ro", uri=True)
        before = cpu_seconds(up.pid)
        began = time.perf_counter()
        loading = asyncio.create_task(post_orders(up.url + V1_ORDERS, orders, CONNECTIONS))
        deadline = time.monotonic() + MAX_SECONDS
        while file.execute("select count(*) from orders where status = 'confirmed'").fetchone()[0] < orders:
            if time.monotonic() > deadline:
                raise TimeoutError("the embedded engine did not finish")
            await asyncio.sleep(4 * POLL_S)
        took = time.perf_counter() - began
        loaded = await loading
        used = {"up": cpu_seconds(up.pid) - before}
        memory = {"up": peak_memory_mib(up.pid)}
        gaps = file.execute(
            "select count(*) from orders o "
            "where seq <> (select count(*) from order_events e where e.order_id = o.order_id)"
        ).fetchone()[0]
        spans = sorted(row[0] for row in file.execute("select updated_at_ms - created_at_ms from orders"))
        file.close()
    return summary(orders, took, loaded, used, memory) | {
        "confirm_p50_ms": at(0.5, spans),
        "confirm_p99_ms": at(0.99, spans),
        "unconfirmed": 0,
        "gaps": gaps,
    }
