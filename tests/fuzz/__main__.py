"""`make fuzz`: generated requests by the thousand to both shapes of the engine, with all checks of schemathesis."""

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from tests.fuzz.runs import Found, fuzz, make_admin
from tests.fuzz.unsayable import UNCHECKED, UNSAYABLE
from tests.servers import postgres_server, redis_server
from tests.stack import EngineProcess, distributed_stack, embedded_stack

_SETTINGS: Final = {"MOCK_DELAY_SCALE": "0.002", "LOG_FORMAT": "json"}
_EXAMPLES: Final = 100  # A run sends them to each operation; then the next seed begins.
_HANG_S: Final = 1_800


@contextmanager
def _embedded(directory: Path) -> Iterator[tuple[EngineProcess, ...]]:
    with embedded_stack(directory, **_SETTINGS) as stack:
        yield (stack.spawn("up"),)


@contextmanager
def _distributed(directory: Path) -> Iterator[tuple[EngineProcess, ...]]:
    with postgres_server(directory / "postgres") as postgres, redis_server(directory / "redis") as redis:
        database_url = asyncio.run(postgres.create_database())
        try:
            with distributed_stack(directory, database_url, redis.url, **_SETTINGS) as stack:
                yield stack.spawn("api"), stack.spawn("worker")
        finally:
            asyncio.run(postgres.drop_database(database_url))


def _fuzz_until(cases: int, seed: int, url: str, directory: Path) -> Found:
    total, key = Found(), make_admin(url)
    while total.cases < cases:
        found = fuzz(url, key, directory, _EXAMPLES, seed, _HANG_S)
        total.cases += found.cases
        total.operations = found.operations
        total.unsayable += found.unsayable
        total.failures += found.failures
        seed += 1
        print(f"  {total.cases:,} cases, {len(total.failures)} runs with failures", flush=True)
    return total


def main() -> int:
    """Fuzz both shapes and print the results."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--cases", type=int, default=20_000, help="minimum in all, half of them for each store")
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    arguments = parser.parse_args()
    failures: list[str] = []
    for name, start in (("up on SQLite", _embedded), ("api and worker on PostgreSQL and Redis", _distributed)):
        print(f"{name}:", flush=True)
        with tempfile.TemporaryDirectory() as text, start(Path(text)) as processes:
            found = _fuzz_until(arguments.cases // 2, arguments.seed, processes[0].url, Path(text))
            crashes = [line for it in processes for line in it.log_text().splitlines() if "request crashed" in line]
        failures += found.failures + crashes
        print(f"  {found.operations} operations; refused by rules that no schema can say:")
        for label, count in sorted(found.unsayable.items()):
            print(f"    {count:6,}  {label}")
    print("\n".join(failures))
    print("No schema can say these rules:")
    for (code, field), (reason, _) in UNSAYABLE.items():
        print(f"  {code} of {field}: {reason}")
    for check, reason in UNCHECKED.items():
        print(f"  not checked: {check}: {reason}")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
