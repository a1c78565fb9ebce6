"""`make bench`: this engine and its peers, one after the other in the same run, on the same servers and the same load.

PostgreSQL and Redis are the bench's own, with their default durability (fsync and
synchronous_commit on). Every order is checked in the database afterwards.
"""

import argparse
import asyncio
import json
import platform
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import psutil

from bench.burst import CONNECTIONS, burst_round, embedded_round
from bench.growth import LONG_QUEUE, fill, full_tables_round, long_queue_round
from bench.measure import Stand, median_of, stand
from bench.pieces import build_piece, chain_piece, quotes_piece, sign_piece, statement_piece, store_piece
from bench.report import BEGIN, END, LINE_BEGIN, LINE_END, performance_section, summary_line
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
ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PERFORMANCE = ROOT / "docs" / "performance.md"
PARTS = (
    "burst",
    "watched",
    "watchers",
    "rates",
    "in_flight",
    "scale",
    "slow_disk",
    "growth",
    "queues",
    "pieces",
    "statements",
)


@dataclass(frozen=True)
class Measured:
    """One measurement, made once in each round; `missing` says why it is impossible here."""

    name: str
    title: str
    measure: Callable[[], Awaitable[dict[str, Any]]]
    missing: str | None = None


class Bench:
    """One run of the bench; each part is a method that returns its measurements."""

    def __init__(self, found: Stand, options: argparse.Namespace) -> None:
        """`options`: see main."""
        self._stand = found
        self._options = options
        self._orders = options.orders
        self._missing = {it.name: it.missing() for it in SUBJECTS}

    async def run(self, part: str) -> dict[str, Any]:
        """Make each measurement of a part once per round; returns all rounds with their medians."""
        wanted: list[Measured] = await getattr(self, part)()
        found: dict[str, Any] = {
            it.name: {"title": it.title} | ({"missing": it.missing} if it.missing else {"rounds": []}) for it in wanted
        }
        for number in range(self._options.rounds):
            for it in wanted:
                if it.missing is None:
                    print(f"{part}: {it.title}, round {number + 1} ...", file=sys.stderr)
                    found[it.name]["rounds"].append(await it.measure())
        for entry in found.values():
            if "rounds" in entry:
                entry["median"] = median_of(entry["rounds"])
        return found

    async def burst(self) -> list[Measured]:
        """Bursts: each configuration of the engine, and each peer."""
        subjects = [it for it in SUBJECTS if not self._options.quick or it in (ENGINE, USUAL_PEER, BATCHING_PEER)]
        ours = {"profiles": self._options.profile}
        found = [self._of(it, burst_round, it, self._orders, **(ours if it is ENGINE else {})) for it in subjects]
        embedded = partial(embedded_round, self._stand, self._orders, ENGINE.concurrency)
        return [*found, Measured("up-500", "order-engine up (one process, SQLite), 500 at once", embedded)]

    async def watched(self) -> list[Measured]:
        """A WebSocket for each order."""
        subjects = (ENGINE, USUAL_PEER, BATCHING_PEER)
        return [self._of(it, burst_round, it, self._orders // 5, is_watched=True) for it in subjects]

    async def watchers(self) -> list[Measured]:
        """Many watchers of every order."""
        return [
            Measured(f"watchers-{count}", f"{count:,}", partial(watchers_round, self._stand, count, WATCHED_PER_S))
            for count in WATCHERS
        ]

    async def rates(self) -> list[Measured]:
        """Orders at fixed rates; the usual peer at the two lowest, with almost nothing to batch."""
        wanted = [*((ENGINE, per_s) for per_s in RATES), *((USUAL_PEER, per_s) for per_s in RATES[:2])]
        return [
            self._of(it, rate_round, it, per_s, per_s * SECONDS_AT_A_RATE, name=f"{it.name}-at-{per_s}")
            for it, per_s in wanted
        ]

    async def in_flight(self) -> list[Measured]:
        """5,000 orders in flight at once, with the default delays."""
        return [Measured("in-flight", "in flight", partial(in_flight_round, self._stand, IN_FLIGHT))]

    async def scale(self) -> list[Measured]:
        """More processes on the same cores."""
        return [
            Measured(
                f"scale-{apis}-{workers}",
                f"{apis} API, {workers} worker",
                partial(scale_round, self._stand, workers, apis, self._orders),
            )
            for apis, workers in ((1, 1), (1, 2), (1, 4), (2, 2))
        ]

    async def slow_disk(self) -> list[Measured]:
        """Each flush of the WAL takes 5 ms longer."""
        return [self._of(it, slow_disk_round, it, self._orders // 2) for it in (ENGINE, USUAL_PEER)]

    async def growth(self) -> list[Measured]:
        """Full tables. No round makes or drops a database: its checkpoint would be charged to the next round."""
        found = []
        for finished in (0, 100_000, 1_000_000):
            url = await self._stand.postgres.create_database()
            await fill(url, self._stand.postgres.as_administrator(url), finished)
            title = f"{finished:,} finished orders" if finished else "nothing but its own"
            measure = partial(full_tables_round, self._stand, url, self._orders)
            found.append(Measured(f"finished-{finished}", title, measure))
        return found

    async def queues(self) -> list[Measured]:
        """Long queues."""
        found = []
        for waiting, is_held_open in ((self._orders, False), (LONG_QUEUE, False), (LONG_QUEUE, True)):
            title = f"{waiting:,} orders waiting" + (", a transaction open beside it" if is_held_open else "")
            measure = partial(long_queue_round, self._stand, waiting, self._orders, is_held_open=is_held_open)
            found.append(Measured(f"waiting-{waiting}" + "-beside-another" * is_held_open, title, measure))
        return found

    async def pieces(self) -> list[Measured]:
        """The processor time of single steps of an order."""
        return [
            Measured("quotes", "two quotes and the choice between them", quotes_piece),
            Measured("build", "the swap's instruction and message", build_piece),
            Measured("sign", "its signature and the signed bytes", sign_piece),
            Measured("chain", "sent, looked up, fetched and weighed, apart from HTTP", chain_piece),
            Measured("store", "accepted, claimed, written twice with events and evidence", self._store_piece()),
            Measured("store-trusting", "the same without the triggers that refuse", self._store_piece(trusting=True)),
        ]

    async def statements(self) -> list[Measured]:
        """The processor time of single statements that carry one order."""
        titles = {
            "accept": "accept the order and its first event",
            "claim": "claim it",
            "submit": "record route, build and signature",
            "confirm": "record the outcome with its evidence",
        }
        return [Measured(step, title, partial(statement_piece, self._stand, step)) for step, title in titles.items()]

    def _store_piece(self, *, trusting: bool = False) -> Callable[[], Awaitable[dict[str, Any]]]:
        return partial(store_piece, self._stand, has_triggers=not trusting)

    def _of(self, it: Subject, measure: Callable[..., Any], *values: Any, name: str = "", **how: Any) -> Measured:
        measuring = partial(measure, self._stand, *values, **how)
        return Measured(name or it.name, it.title, measuring, self._missing[it.name])


def rounds_of(part: dict[str, Any]) -> list[dict[str, Any]]:
    """Return every single measurement of a part."""
    return [one for it in part.values() for one in it.get("rounds", ())]


def write_documents(document: dict[str, Any]) -> None:
    """Put the figures into docs/performance.md and the README, between their markers."""
    PERFORMANCE.write_text(with_section(PERFORMANCE.read_text(), BEGIN, END, performance_section(document)))
    README.write_text(with_section(README.read_text(), LINE_BEGIN, LINE_END, summary_line(document)))


async def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Measure the parts in the options, and return the document."""
    async with stand() as found:
        connection = await asyncpg.connect(found.postgres.url)
        version = await connection.fetchval("show server_version")
        await connection.close()
        bench = Bench(found, options)
        parts: dict[str, Any] = {}
        for name in options.only:
            print(f"--- {name} ---", file=sys.stderr)
            parts[name] = await bench.run(name)
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
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts alone; keeps no figures"
    )
    parser.add_argument("--again", action="store_true", help="with --only: replace these parts' kept figures")
    parser.add_argument("--profile", type=Path, help="a directory for py-spy's flame graphs of this engine")
    parser.add_argument("--quick", action="store_true", help="one small burst; keeps no figures")
    options = parser.parse_args()
    if options.again and (options.quick or options.profile):
        parser.error("--again keeps figures: neither those of --quick nor those of --profile are worth it")
    if options.quick:
        options.orders, options.rounds, options.only = 2_000, 1, ["burst"]
    document = asyncio.run(measure(options))
    print(performance_section(document))
    bad = [
        it
        for name in options.only
        for it in rounds_of(document[name])
        if it["refused"] or it["unconfirmed"] or it["gaps"]
    ]
    if bad:
        sys.exit(f"not every order was accepted and confirmed with a gapless history: {bad}")
    if options.again:
        again = dict.fromkeys(options.only, document["at"])
        kept = json.loads(RESULTS.read_text())
        document = kept | {name: document[name] for name in again} | {"again": kept.get("again", {}) | again}
    if options.again or (options.only == list(PARTS) and not options.profile):
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(json.dumps(document, indent=2) + "\n")
        write_documents(document)


if __name__ == "__main__":
    main()
