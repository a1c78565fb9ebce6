"""`make sim`: many seeds over all cores, or one seed with its trace."""

import argparse
import multiprocessing
import sys
import time

from tests.simulation.world import World

REPORT_EVERY_S = 5.0


def live(seed: int) -> tuple[int, float, list[str]]:
    """Live one history; returns the seed, its virtual seconds and its violations."""
    world = World(seed)
    found = world.run()
    return seed, world.loop.time(), found


def replay(seed: int) -> int:
    """Print one history's trace and verdict."""
    world = World(seed)
    found = world.run()
    print("\n".join(world.trace))
    print(f"seed {seed}: {'; '.join(found) or 'every invariant holds'}")
    return 1 if found else 0


def run_many(first: int, count: int) -> int:
    """Live `count` histories and print the result, with progress every 5 s."""
    began = told = time.monotonic()
    virtual_s, failed, done = 0.0, 0, 0
    with multiprocessing.Pool() as pool:
        for seed, lived_s, found in pool.imap_unordered(live, range(first, first + count), chunksize=25):
            done += 1
            virtual_s += lived_s
            if found:
                failed += 1
                print(f"seed {seed}: {'; '.join(found)}", flush=True)
            if time.monotonic() - told > REPORT_EVERY_S:
                told = time.monotonic()
                rate = done / (told - began)
                print(f"{done:,} of {count:,}, {rate:.0f}/s, {(count - done) / rate:.0f} s to go", file=sys.stderr)
    took = time.monotonic() - began
    print(
        f"{count:,} histories, {failed} with a violation, {virtual_s / 3600:,.0f} simulated hours "
        f"in {took:.0f} s ({count / took:.0f} histories/s)"
    )
    return 1 if failed else 0


def main() -> int:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="make sim")
    parser.add_argument("--seeds", type=int, default=2_000)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--seed", type=int, help="replay this one with its trace")
    options = parser.parse_args()
    if options.seeds < 1:
        parser.error("SEEDS must be 1 or more")
    return replay(options.seed) if options.seed is not None else run_many(options.first, options.seeds)


if __name__ == "__main__":
    sys.exit(main())
