"""What every round does, whoever is measured: load, wait for the end, count processor time, check the tables."""

import asyncio
import json
import subprocess
import sys
import time
from typing import Any

import asyncpg
import psutil

MOST_SECONDS = 300
POLL_S = 0.05

# The engine's own question: both counts are answered from small partial indexes.
NOBODY_WAITS = (
    "select (select count(*) from orders where due_at_ms is not null) + "
    "(select count(*) from orders where lease_until_ms is not null)"
)

CHECK = """
select count(*) as orders,
    count(*) filter (where status = 'confirmed') as confirmed,
    count(*) filter (where seq <> (select count(*) from order_events e where e.order_id = o.order_id)) as gaps,
    percentile_cont(0.5) within group (order by updated_at_ms - created_at_ms) as p50,
    percentile_cont(0.99) within group (order by updated_at_ms - created_at_ms) as p99
from orders o
"""


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of all of its children, those included that have ended."""
    process = psutil.Process(pid)
    ended = process.cpu_times()
    total = ended.children_user + ended.children_system
    for it in (process, *process.children(recursive=True)):
        times = it.cpu_times()
        total += times.user + times.system
    return total


def memory_mib(pid: int) -> int:
    """Return the resident memory of a process and all of its children."""
    process = psutil.Process(pid)
    return sum(it.memory_info().rss for it in (process, *process.children(recursive=True))) // 2**20


def post_orders(url: str, orders: int, connections: int, body: bytes | None = None) -> dict[str, Any]:
    """Run the load generator in a process of its own; without a body it posts this engine's orders."""
    command = [sys.executable, "-m", "bench.load", url, str(orders), str(connections)]
    if body is not None:
        command.append(body.decode())
    done = subprocess.run(command, check=True, capture_output=True, timeout=MOST_SECONDS)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


async def wait_until_all_ended(
    connection: asyncpg.Connection, count: int, *, open_orders: str = NOBODY_WAITS, poll_s: float = POLL_S
) -> None:
    """Return when `count` orders exist and `open_orders`, a statement, finds that none is open."""
    deadline = time.monotonic() + MOST_SECONDS
    while time.monotonic() < deadline:
        # The cheap question first: the count of all orders is asked only when none is open.
        if (
            not await connection.fetchval(open_orders)
            and await connection.fetchval("select count(*) from orders") >= count
        ):
            return
        await asyncio.sleep(poll_s)
    raise TimeoutError(f"not all of {count} orders ended within {MOST_SECONDS} s")


def summary(
    orders: int, took: float, loaded: dict[str, Any], used: dict[str, float], memory: dict[str, int]
) -> dict[str, Any]:
    """Return one round's figures."""
    return {
        "accepted_per_s": orders / loaded["took_s"],
        "completed_per_s": orders / took,
        "post_p50_ms": loaded["post_p50_ms"],
        "post_p99_ms": loaded["post_p99_ms"],
        "refused": loaded["refused"],
        "cpu_s_per_1000": {name: 1000 * seconds / orders for name, seconds in used.items()},
        "cpu_s_per_1000_total": 1000 * sum(used.values()) / orders,
        "memory_mib": memory,
    }


async def checked_figures(connection: asyncpg.Connection) -> dict[str, Any]:
    """Return what CHECK finds in the tables, as part of a round's figures."""
    (row,) = await connection.fetch(CHECK)
    return {
        "confirm_p50_ms": row["p50"],
        "confirm_p99_ms": row["p99"],
        "unconfirmed": row["orders"] - row["confirmed"],
        "gaps": row["gaps"],
    }
