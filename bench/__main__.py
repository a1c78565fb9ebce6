"""`make bench`: this engine and its peers, one after the other in the same run, on the same servers and the same load.

PostgreSQL and Redis are the bench's own, with their default durability (fsync and
synchronous_commit on). Every order is checked in the database afterwards.
"""

import argparse
import asyncio
import json
import platform
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from bench.burst import CONNECTIONS, burst_round, embedded_round
from bench.growth import LONG_QUEUE, full_tables_rounds, long_queue_round
from bench.measure import Stand, median_of, stand
from bench.report import BEGIN, END, readme_section
from bench.scenarios import (
    IN_FLIGHT,
    RATES,
    SECONDS_AT_A_RATE,
    WATCHED_PER_S,
    WATCHERS,
    in_flight_round,
    rate_round,
    scale_round,
    slow_disk_round,
    watchers_round,
)
from bench.subjects import BATCHING_PEER, ENGINE, SUBJECTS, USUAL_PEER, Subject
from docs.generate import with_section

RESULTS = Path(__file__).parent / "results" / "latest.json"
README = Path(__file__).parent.parent / "README.md"
UP = ("up-500", "order-engine up (one process, SQLite), 500 at once")
PARTS = ("burst", "watched", "watchers", "rates", "in_flight", "scale", "slow_disk", "growth")


class Bench:
    """One run: what is measured, in which order, and what came of it."""

    def __init__(self, found: Stand, options: argparse.Namespace) -> None:
        """`options`: see main."""
        self._stand = found
        self._options = options
        self._orders = options.orders
        self._missing = {it.name: it.missing() for it in SUBJECTS}

    async def burst(self) -> dict[str, Any]:
        """Every subject in turn, as often as there are rounds."""
        subjects = [it for it in SUBJECTS if not self._options.quick or it in (ENGINE, USUAL_PEER, BATCHING_PEER)]
        found: dict[str, Any] = {}
        for number in range(self._options.rounds):
            for it in subjects:
                profiles = self._options.profile if it is ENGINE else None
                await self._one(found, it, number, self._orders, profiles=profiles)
            print(f"{UP[1]}, round {number + 1} ...", file=sys.stderr)
            figures = await embedded_round(self._stand, self._orders, ENGINE.concurrency)
            found.setdefault(UP[0], {"title": UP[1], "rounds": []})["rounds"].append(figures)
        return _with_medians(found)

    async def watched(self) -> dict[str, Any]:
        """A WebSocket for each order."""
        found: dict[str, Any] = {}
        for number in range(self._options.rounds):
            for it in (ENGINE, USUAL_PEER, BATCHING_PEER):
                await self._one(found, it, number, self._orders // 5, is_watched=True)
        return _with_medians(found)

    async def watchers(self) -> dict[str, Any]:
        """Many who watch every order at once."""
        found: dict[str, Any] = {}
        for number in range(self._options.rounds):
            for count in WATCHERS:
                print(f"{count} watchers, round {number + 1} ...", file=sys.stderr)
                figures = await watchers_round(self._stand, count, WATCHED_PER_S)
                found.setdefault(f"watchers-{count}", {"rounds": []})["rounds"].append(figures)
        return _with_medians(found)

    async def rates(self) -> list[dict[str, Any]]:
        """Orders at a rate, and one peer where there is nothing to batch."""
        wanted: list[tuple[Subject, int]] = [(ENGINE, per_s) for per_s in RATES] + [(USUAL_PEER, RATES[0])]
        return [
            {"title": it.title} | await rate_round(self._stand, it, per_s, per_s * SECONDS_AT_A_RATE)
            for it, per_s in wanted
            if self._missing[it.name] is None
        ]

    async def in_flight(self) -> dict[str, Any]:
        """Thousands at once, at the delays that are shipped."""
        return await in_flight_round(self._stand, IN_FLIGHT)

    async def scale(self) -> list[dict[str, Any]]:
        """More processes on the same cores."""
        return [
            {"title": f"{apis} API, {workers} worker"} | await scale_round(self._stand, workers, apis, self._orders)
            for apis, workers in ((1, 1), (1, 2), (1, 4), (2, 2))
        ]

    async def slow_disk(self) -> list[dict[str, Any]]:
        """Each flush of the log takes longer."""
        return [
            {"title": it.title} | await slow_disk_round(self._stand, it, self._orders // 2)
            for it in (ENGINE, USUAL_PEER)
            if self._missing[it.name] is None
        ]

    async def growth(self) -> list[dict[str, Any]]:
        """Full tables, then long queues."""
        full = await full_tables_rounds(self._stand, (0, 100_000, 1_000_000), self._orders, self._options.rounds)
        queues = []
        for waiting, is_held_open in ((self._orders, False), (LONG_QUEUE, False), (LONG_QUEUE, True)):
            rounds = [
                await long_queue_round(self._stand, waiting, self._orders, is_held_open=is_held_open)
                for _ in range(self._options.rounds)
            ]
            queues.append(median_of([it for _, it in rounds]) | {"title": rounds[0][0]})
        return full + queues

    async def _one(self, found: dict[str, Any], it: Subject, number: int, orders: int, **how: Any) -> None:
        entry = found.setdefault(it.name, {"title": it.title})
        if reason := self._missing[it.name]:
            entry["missing"] = reason
            return
        print(f"{it.title}, round {number + 1} ...", file=sys.stderr)
        entry.setdefault("rounds", []).append(await burst_round(self._stand, it, orders, **how))


def _with_medians(found: dict[str, Any]) -> dict[str, Any]:
    return {name: it | ({"median": median_of(it["rounds"])} if "rounds" in it else {}) for name, it in found.items()}


def rounds_of(part: Any) -> list[dict[str, Any]]:
    """Return every single measurement of a part, however it is kept."""
    if isinstance(part, list):
        return [one for it in part for one in rounds_of(it)]
    if "rounds" in part:
        return list(part["rounds"])
    if "refused" in part:
        return [part]
    return [one for it in part.values() if isinstance(it, dict) for one in rounds_of(it)]


def write_readme(document: dict[str, Any]) -> None:
    """Put the figures into the README, between its markers."""
    README.write_text(with_section(README.read_text(), BEGIN, END, readme_section(document)))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Run what was asked for, and return the document."""
    async with stand() as found:
        connection = await asyncpg.connect(found.postgres.url)
        version = await connection.fetchval("show server_version")
        await connection.close()
        bench = Bench(found, options)
        parts: dict[str, Any] = {}
        for name in options.only:
            print(f"--- {name} ---", file=sys.stderr)
            parts[name] = await getattr(bench, name)()
    return {
        "at": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": "make bench",
        "options": {"orders": options.orders, "connections": CONNECTIONS, "rounds": options.rounds},
        "machine": {
            "cores": psutil.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30),
            "system": platform.system(),
            "python": platform.python_version(),
            "postgres": f"PostgreSQL {version.split()[0]}",
        },
        **parts,
    }


def main() -> None:
    """Measure, print the tables, and keep the figures of a whole run."""
    parser = argparse.ArgumentParser(prog="make bench")
    parser.add_argument("--orders", type=int, default=10_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="keeps no figures")
    parser.add_argument("--profile", type=Path, help="a directory for what py-spy sees of this engine's processes")
    parser.add_argument("--quick", action="store_true", help="one small burst; keeps no figures")
    options = parser.parse_args()
    if options.quick:
        options.orders, options.rounds, options.only = 2_000, 1, ["burst"]
    document = asyncio.run(measure(options))
    print(readme_section(document))
    bad = [
        it
        for name in options.only
        for it in rounds_of(document[name])
        if it["refused"] or it["unconfirmed"] or it["gaps"]
    ]
    if bad:
        sys.exit(f"not every order was accepted and confirmed with a gapless history: {bad}")
    if options.only == list(PARTS) and not options.profile:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(document, indent=2) + "\n")
        write_readme(document)


if __name__ == "__main__":
    main()
