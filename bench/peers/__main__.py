"""`python -m bench.peers NAME`: one peer alone, once, on servers of its own."""

import argparse
import asyncio
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import asyncpg

from bench.measure import (
    checked_figures,
    cpu_seconds,
    memory_mib,
    post_orders,
    summary,
    wait_until_all_ended,
)
from bench.peers.peer import OPEN_ORDERS, PEERS, POLL_S, Peer
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server


async def peer_round(
    peer: Peer, postgres: PostgresServer, redis: RedisServer, directory: Path, options: argparse.Namespace
) -> dict[str, Any]:
    """One burst against a peer, after a twentieth of it to warm up, and its figures."""
    url = await postgres.create_database()
    with peer.running(directory, url, redis.url, options.concurrency, options.delay_scale) as running:
        pids = running.pids | {"postgres": postgres.pid, "redis": redis.pid}
        connection = await asyncpg.connect(url)
        warm_up = max(options.orders // 20, 1)
        post_orders(running.url, warm_up, options.connections, running.body)
        await wait_until_all_ended(connection, warm_up, open_orders=OPEN_ORDERS, poll_s=POLL_S)
        before = {name: cpu_seconds(pid) for name, pid in pids.items()}
        began = time.perf_counter()
        load = asyncio.to_thread(post_orders, running.url, options.orders, options.connections, running.body)
        loading = asyncio.create_task(load)
        await wait_until_all_ended(connection, options.orders + warm_up, open_orders=OPEN_ORDERS, poll_s=POLL_S)
        took = time.perf_counter() - began
        loaded = await loading
        used = {name: cpu_seconds(pid) - before[name] for name, pid in pids.items()}
        memory = {name: memory_mib(pid) for name, pid in running.pids.items()}
        checked = await checked_figures(connection)
        await connection.close()
    await postgres.drop_database(url)
    return summary(options.orders, took, loaded, used, memory) | checked


async def measure(peer: Peer, options: argparse.Namespace) -> dict[str, Any]:
    """Run the peer once on a private PostgreSQL and Redis."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        with postgres_server(directory) as postgres, redis_server(directory) as redis:
            return await peer_round(peer, postgres, redis, directory, options)


def main() -> None:
    """Measure one peer and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--orders", type=int, default=2_000)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--concurrency", type=int, default=100)
    parser.add_argument("--delay-scale", type=float, default=0.0)
    options = parser.parse_args()
    peer = PEERS[options.name]
    if reason := peer.available():
        sys.exit(f"{peer.name} cannot run here: {reason}")
    print(f"preparing {peer.name} ...", file=sys.stderr)
    peer.prepare()
    it = asyncio.run(measure(peer, options))
    parts = ", ".join(f"{process} {seconds:.2f}" for process, seconds in it["cpu_s_per_1000"].items())
    print(f"{peer.title}: {options.orders:,} orders, {options.connections} connections, {options.concurrency} at once")
    print(f"orders/s            accepted {it['accepted_per_s']:,.0f}, completed {it['completed_per_s']:,.0f}")
    print(f"CPU-s per 1,000     {it['cpu_s_per_1000_total']:.2f} ({parts})")
    print(f"POST p50/p99 ms     {it['post_p50_ms']:.1f}/{it['post_p99_ms']:.1f}")
    print(f"confirmed p50/p99   {it['confirm_p50_ms']:,.0f}/{it['confirm_p99_ms']:,.0f} ms after accept")
    print(f"memory MiB          {', '.join(f'{process} {mib}' for process, mib in it['memory_mib'].items())}")
    print(f"refused {it['refused']}, unconfirmed {it['unconfirmed']}, histories with gaps {it['gaps']}")
    if it["refused"] or it["unconfirmed"] or it["gaps"]:
        sys.exit("not every order was accepted and confirmed with a gapless history")


if __name__ == "__main__":
    main()
