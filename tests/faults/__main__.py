"""`make faults`: the real engine under kill -9, and the cost of recovery."""

import argparse
import asyncio
import contextlib
import secrets
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tests.faults import measure, points
from tests.faults.measure import LEASE_S, MAX_CLAIMS, SWEEP_S, Servers
from tests.faults.storm import Plan, Storm
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server

STOP_S = 10.0
NEXT_S = 1.0
GONE_WITHIN_S = 3.0


@contextlib.contextmanager
def servers() -> Iterator[tuple[Path, PostgresServer, RedisServer]]:
    """Private servers, always: these will be killed."""
    with (
        tempfile.TemporaryDirectory(prefix="order-engine-faults-", ignore_cleanup_errors=True) as name,
        postgres_server(Path(name) / "postgres") as postgres,
        redis_server(Path(name) / "redis") as redis,
    ):
        if not (postgres.owned and redis.owned):
            sys.exit("make faults kills its servers: unset TEST_DATABASE_URL and TEST_REDIS_URL.")
        yield Path(name), postgres, redis


def tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


async def storm(plan: Plan, seed: int) -> None:
    """Break everything at once; raises AssertionError if a check fails."""
    with servers() as (directory, postgres, redis):
        engine = directory / "engine"
        engine.mkdir()
        report = await Storm(plan, seed, engine, postgres, redis).run(tell)
    print("\n".join(report.lines()))


async def measured() -> bool:
    """Print the cost of recovery; returns whether it is within its bounds."""
    within = LEASE_S + SWEEP_S + 1
    with servers() as (directory, postgres, redis):

        def of(name: str) -> Servers:
            return Servers(directory / name, postgres, redis)

        rows: list[tuple[str, bool]] = []
        for word, is_killed in (("killed (SIGKILL)", True), ("frozen (SIGSTOP)", False)):
            it = await measure.recovery(of(word[:6]), is_killed=is_killed, rounds=3)
            row = (
                f"worker {word}: {it.orders} orders in another's hands after p50 {it.p50_s:.2f} s, p99 {it.p99_s:.2f} s"
            )
            bound = GONE_WITHIN_S if is_killed else within
            rows.append((f"{row} (lease {LEASE_S} s, sweep {SWEEP_S} s)", it.p99_s <= bound))
            tell(rows[-1][0])
        it = await measure.poison(of("poison"))
        row = f"poison order: parked after it killed {it.killed} workers; the {it.others} others took"
        rows.append(
            (
                f"{row} p50 {it.p50_s:.2f} s, at most {it.slowest_s:.2f} s",
                it.killed == MAX_CLAIMS and it.slowest_s - it.p50_s <= LEASE_S,
            )
        )
        tell(rows[-1][0])
        it = await measure.stop(of("stop"))
        row = f"SIGTERM under load: ended in {it.ended_s:.2f} s; the {it.released} orders given back"
        rows.append(
            (
                f"{row} were in the next worker's hands {it.taken_up_s:.2f} s later",
                it.ended_s <= STOP_S and it.taken_up_s <= NEXT_S,
            )
        )
    for row, is_within in rows:
        print(f"{'ok ' if is_within else 'NO '} {row}")
    return all(is_within for _, is_within in rows)


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make faults", description=__doc__)
    parser.add_argument("--kills", type=int, default=300, help="at least so many SIGKILLs (default %(default)s)")
    parser.add_argument("--pauses", type=int, default=60, help="at least so many SIGSTOPs past the lease")
    parser.add_argument("--orders", type=int, default=3_000)
    parser.add_argument("--streams", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=110.0, help="about how long the storm lasts")
    parser.add_argument("--seed", type=int, help="decides which fault happens when; random by default")
    parser.add_argument("--measure", action="store_true", help="measure the cost of recovery instead")
    options = parser.parse_args()
    if options.measure:
        return 0 if asyncio.run(measured()) else 1
    seed = options.seed if options.seed is not None else secrets.randbelow(2**32)
    every = sum(len(points.names(role)) for role in points.BY_ROLE)
    tell(f"seed {seed}; {every} named points, each to be hit")
    asyncio.run(
        storm(
            Plan(options.kills, options.pauses, options.orders, options.streams, options.seconds, every_point=True),
            seed,
        )
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
