"""`make bench`: the burst scenario on the real stack, with its own PostgreSQL and Redis.

The zero-delay paper venues leave the engine's own cost. Durability is PostgreSQL's default (fsync
and synchronous_commit on). Every order is checked in the database afterwards.
"""

import argparse
import asyncio
import json
import platform
import sqlite3
import statistics
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from bench.measure import (
    MOST_SECONDS,
    POLL_S,
    checked_figures,
    cpu_seconds,
    post_orders,
    summary,
    wait_until_all_ended,
)
from docs.generate import with_section
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server
from tests.stack import distributed_stack, embedded_stack

RESULTS = Path(__file__).parent / "results" / "latest.json"
README = Path(__file__).parent.parent / "README.md"
BEGIN, END = "<!-- bench -->", "<!-- /bench -->"


async def distributed_round(
    postgres: PostgresServer, redis: RedisServer, directory: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One burst against `api` and `worker`."""
    url = await postgres.create_database()
    settings = {"MOCK_DELAY_SCALE": "0", "WORKER_CONCURRENCY": str(options.concurrency), "LOG_LEVEL": "warning"}
    with distributed_stack(directory, url, redis.url, **settings) as stack:
        api, worker = stack.spawn("api"), stack.spawn("worker", LOG_LEVEL="info")
        pids = {"api": api.pid, "worker": worker.pid, "postgres": postgres.pid, "redis": redis.pid}
        outside = {"chain": stack.chain_pid}
        connection = await asyncpg.connect(url)
        post_orders(f"{api.url}/v1/orders", options.orders // 20, options.connections)
        await wait_until_all_ended(connection, options.orders // 20)
        before = {name: cpu_seconds(pid) for name, pid in (pids | outside).items()}
        began = time.perf_counter()
        load = asyncio.to_thread(post_orders, f"{api.url}/v1/orders", options.orders, options.connections)
        loading = asyncio.create_task(load)
        await wait_until_all_ended(connection, options.orders * 21 // 20)
        took = time.perf_counter() - began
        loaded = await loading
        used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        chain_cpu_s = cpu_seconds(outside["chain"]) - before["chain"]
        memory = {name: psutil.Process(pids[name]).memory_info().rss // 2**20 for name in ("api", "worker")}
        checked = await checked_figures(connection)
        await connection.close()
    await postgres.drop_database(url)
    chain = {"chain_cpu_s_per_1000": 1000 * chain_cpu_s / options.orders}
    return summary(options.orders, took, loaded, used, memory) | chain | checked


async def embedded_round(directory: Path, options: argparse.Namespace) -> dict[str, Any]:
    """One burst against `up`, checked through its own file."""
    settings = {"MOCK_DELAY_SCALE": "0", "WORKER_CONCURRENCY": str(options.concurrency), "LOG_LEVEL": "warning"}
    with embedded_stack(directory, **settings) as stack:
        up = stack.spawn("up")
        file = sqlite3.connect(f"file:{directory}/data/order-engine.sqlite3?mode=ro", uri=True)
        before = cpu_seconds(up.pid)
        began = time.perf_counter()
        load = asyncio.to_thread(post_orders, f"{up.url}/v1/orders", options.orders, options.connections)
        loading = asyncio.create_task(load)
        deadline = time.monotonic() + MOST_SECONDS
        while file.execute("select count(*) from orders where status = 'confirmed'").fetchone()[0] < options.orders:
            if time.monotonic() > deadline:
                raise TimeoutError("the embedded engine did not finish")
            await asyncio.sleep(4 * POLL_S)
        took = time.perf_counter() - began
        loaded = await loading
        used = {"up": cpu_seconds(up.pid) - before}
        memory = {"up": psutil.Process(up.pid).memory_info().rss // 2**20}
        gaps = file.execute(
            "select count(*) from orders o "
            "where seq <> (select count(*) from order_events e where e.order_id = o.order_id)"
        ).fetchone()[0]
        spans = sorted(row[0] for row in file.execute("select updated_at_ms - created_at_ms from orders"))
        file.close()
    return summary(options.orders, took, loaded, used, memory) | {
        "confirm_p50_ms": spans[len(spans) // 2],
        "confirm_p99_ms": spans[len(spans) * 99 // 100],
        "unconfirmed": 0,
        "gaps": gaps,
    }


def median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over the rounds."""
    return {
        name: median_of([it[name] for it in rounds])
        if isinstance(value, dict)
        else statistics.median(it[name] for it in rounds)
        for name, value in rounds[0].items()
    }


def table(shapes: dict[str, Any]) -> str:
    """Return the medians as Markdown, with the spread of the throughput."""
    columns = ("Shape", "accepted/s", "completed/s (least-most)", "CPU-s per 1,000 orders", "POST p50/p99 ms")
    columns = (*columns, "accept → confirmed p50/p99 ms")
    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    for name, shape in shapes.items():
        it = shape["median"]
        rates = [round_["completed_per_s"] for round_ in shape["rounds"]]
        parts = ", ".join(f"{process} {seconds:.2f}" for process, seconds in it["cpu_s_per_1000"].items())
        lines.append(
            f"| {name} | {it['accepted_per_s']:,.0f} "
            f"| {it['completed_per_s']:,.0f} ({min(rates):,.0f}-{max(rates):,.0f}) "
            f"| {it['cpu_s_per_1000_total']:.2f} ({parts}) | {it['post_p50_ms']:.0f}/{it['post_p99_ms']:.0f} "
            f"| {it['confirm_p50_ms']:,.0f}/{it['confirm_p99_ms']:,.0f} |"
        )
    return "\n".join(lines)


def readme_section(document: dict[str, Any]) -> str:
    """Return what the README says of the figures: generated, so that it cannot say more."""
    machine, options = document["machine"], document["options"]
    measured = "one round" if options["rounds"] == 1 else f"medians of {options['rounds']} rounds"
    sentences = (
        f"{options['orders']:,} orders over {options['connections']} connections, worker concurrency",
        f"{options['concurrency']}, no venue delay; {measured} by `{document['command']}`",
        f"on {document['at'][:10]}, {machine['cores']} cores, {machine['system']}, Python {machine['python']},",
        "the load generator and the paper chain on the same machine. The chain is not part of the engine: it is not in",
        "the CPU figures, except in `up`, where it runs in the same process.",
    )
    return "\n".join([*sentences, "", table(document["shapes"])])


def write_readme(document: dict[str, Any]) -> None:
    """Put the figures into the README, between its markers."""
    README.write_text(with_section(README.read_text(), BEGIN, END, readme_section(document)))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run every round of both shapes."""
    shapes: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with postgres_server(root) as postgres, redis_server(root) as redis:
            rounds = []
            for number in range(options.rounds):
                print(f"distributed, round {number + 1} of {options.rounds} ...", file=sys.stderr)
                (directory := root / f"distributed-{number}").mkdir()
                rounds.append(await distributed_round(postgres, redis, directory, options))
            shapes["api + worker, PostgreSQL, Redis"] = {"rounds": rounds, "median": median_of(rounds)}
        rounds = []
        for number in range(options.rounds):
            print(f"embedded, round {number + 1} of {options.rounds} ...", file=sys.stderr)
            (directory := root / f"embedded-{number}").mkdir()
            rounds.append(await embedded_round(directory, options))
        shapes["up (one process, SQLite)"] = {"rounds": rounds, "median": median_of(rounds)}
    return shapes


def main() -> None:
    """Measure, print the table, and keep the figures."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=500)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shapes = asyncio.run(measure(options))
    bad = [
        name
        for name, it in shapes.items()
        for one in it["rounds"]
        if one["unconfirmed"] or one["gaps"] or one["refused"]
    ]
    RESULTS.parent.mkdir(exist_ok=True)
    document = {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "make bench",
        "options": vars(options),
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": platform.system(),
            "python": platform.python_version(),
        },
        "shapes": shapes,
    }
    RESULTS.write_text(json.dumps(document, indent=2) + "\n")
    print(table(shapes))
    write_readme(document)
    if bad:
        sys.exit(f"not every order was accepted and confirmed with a gapless history: {bad}")


if __name__ == "__main__":
    main()
