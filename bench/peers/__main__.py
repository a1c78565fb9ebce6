"""`python -m bench.peers NAME`: one peer alone, once, on servers of its own."""

import argparse
import asyncio
import sys
from typing import Any

from bench.burst import CONNECTIONS, burst_round
from bench.measure import stand
from bench.peers.peer import PEERS
from bench.subjects import PeerSubject


async def measure(subject: PeerSubject, orders: int) -> dict[str, Any]:
    """Run the peer once on a private PostgreSQL and Redis."""
    async with stand() as found:
        return await burst_round(found, subject, orders)


def main() -> None:
    """Measure one peer and print its figures."""
    parser = argparse.ArgumentParser(prog="python -m bench.peers")
    parser.add_argument("name", choices=PEERS)
    parser.add_argument("--orders", type=int, default=2_000)
    parser.add_argument("--concurrency", type=int, default=100)
    options = parser.parse_args()
    subject = PeerSubject(PEERS[options.name], options.concurrency)
    if reason := subject.missing():
        sys.exit(f"{subject.peer.name} cannot run here: {reason}")
    it = asyncio.run(measure(subject, options.orders))
    parts = ", ".join(f"{process} {seconds:.2f}" for process, seconds in it["cpu_s_per_1000"].items())
    print(f"{subject.title}: {options.orders:,} orders, {CONNECTIONS} connections")
    print(f"orders/s            accepted {it['accepted_per_s']:,.0f}, completed {it['completed_per_s']:,.0f}")
    print(f"CPU-s per 1,000     {it['cpu_s_per_1000_total']:.2f} ({parts})")
    print(f"POST p50/p99 ms     {it['post_p50_ms']:.1f}/{it['post_p99_ms']:.1f}")
    print(f"confirmed p50/p99   {it['confirm_p50_ms']:,.0f}/{it['confirm_p99_ms']:,.0f} ms after accept")
    print(f"memory MiB          {', '.join(f'{process} {mib}' for process, mib in it['peak_memory_mib'].items())}")
    print(f"refused {it['refused']}, unconfirmed {it['unconfirmed']}, histories with gaps {it['gaps']}")
    if it["refused"] or it["unconfirmed"] or it["gaps"]:
        sys.exit("not every order was accepted and confirmed with a gapless history")


if __name__ == "__main__":
    main()
