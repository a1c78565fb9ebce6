"""The steps of every round, for every subject: load, wait for the end, count, check the tables."""

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg
import psutil
from redis.asyncio import Redis

from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server

MAX_SECONDS = 600
POLL_S = 0.05
# The bench connects as its own user, so that its statements are not counted as the engine's.
OBSERVER = "bench"

# The query for the engine's tables: small partial indexes answer both counts.
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


@dataclass(frozen=True)
class Stand:
    """The servers that all subjects run on, one after the other, and where their files go."""

    postgres: PostgresServer
    redis: RedisServer
    root: Path

    def directory(self) -> Path:
        """Return a new, empty directory."""
        return Path(tempfile.mkdtemp(dir=self.root))


def processes_of(pid: int) -> list[psutil.Process]:
    """Return a process and all of its children."""
    with suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def cpu_seconds(pid: int) -> float:
    """Return the processor time of a process and of all of its children, ended ones included."""
    ended = psutil.Process(pid).cpu_times()
    total = ended.children_user + ended.children_system
    for it in processes_of(pid):
        times = it.cpu_times()
        total += times.user + times.system
    return total


def cpu_seconds_of(pids: dict[str, int], observer_pid: int) -> dict[str, float]:
    """Return the processor time of each process; PostgreSQL's without its work for the observer."""
    used = {name: cpu_seconds(pid) for name, pid in pids.items()}
    used["postgres"] -= cpu_seconds(observer_pid)
    return used


def peak_memory_mib(pid: int) -> int:
    """Return the peak resident memory of a process and its children; the current one where the system keeps no peak."""
    total = 0
    for it in processes_of(pid):
        try:
            lines = Path(f"/proc/{it.pid}/status").read_text("utf-8").splitlines()
            total += next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
        except (OSError, StopIteration):
            total += it.memory_info().rss
    return total // 2**20


class Counters:
    """Counts the work of one database and one Redis, without the bench's own queries."""

    def __init__(self, stand: Stand, url: str) -> None:
        """Nothing is counted before `open`. `url`: the database of one subject."""
        self._server_url = stand.postgres.url
        self._url = url
        self._redis = Redis.from_url(stand.redis.url)
        self._redis_before = 0
        self.connection: asyncpg.Connection
        self.pid = 0
        self._wal_before, self._size_before = "", 0

    async def open(self) -> None:
        """Connect as the observer."""
        self.connection = await asyncpg.connect(self._url, user=OBSERVER)
        self.pid = self.connection.get_server_pid()
        before = "select pg_current_wal_lsn()::text, pg_database_size(current_database())"
        self._wal_before, self._size_before = await self.connection.fetchrow(before)
        self._redis_before = await self._redis_commands()

    async def per_order(self, orders: int) -> dict[str, float | None]:
        """Return the work per order since the database was made; call it when the processes have ended.

        A backend adds its last counts to the server's counters when it ends. The statements are
        None if the server has no pg_stat_statements.
        """
        name = await self.connection.fetchval("select current_database()")
        await self.connection.close()
        server = await asyncpg.connect(self._server_url, user=OBSERVER)
        commits = await server.fetchval("select xact_commit from pg_stat_database where datname = $1", name)
        statements = own = None
        if await server.fetchval("select count(*) from pg_extension where extname = 'pg_stat_statements'"):
            asked = (
                "select coalesce(sum(calls) filter (where userid <> r.oid), 0), "
                "coalesce(sum(calls) filter (where userid = r.oid), 0) "
                "from pg_roles r, pg_stat_statements s join pg_database d on d.oid = s.dbid "
                "where r.rolname = $1 and d.datname = $2"
            )
            statements, own = await server.fetchrow(asked, OBSERVER, name)
        wal_bytes = await server.fetchval("select pg_current_wal_lsn() - $1::text::pg_lsn", self._wal_before)
        size_bytes = await server.fetchval("select pg_database_size($1)", name)
        await server.close()
        redis = await self._redis_commands() - self._redis_before
        await self._redis.aclose()
        return {
            "statements_per_order": None if statements is None else float(statements) / orders,
            "commits_per_order": (commits - float(own or 0)) / orders,
            "redis_commands_per_order": redis / orders,
            "wal_kb_per_order": float(wal_bytes) / 1000 / orders,
            "database_kb_per_order": (size_bytes - self._size_before) / 1000 / orders,
        }

    async def _redis_commands(self) -> int:
        return int((await self._redis.info("stats"))["total_commands_processed"])


async def prepare_server(postgres: PostgresServer) -> None:
    """Make the observer, and count statements if the server can."""
    connection = await asyncpg.connect(postgres.url)
    await connection.execute(f"create role {OBSERVER} superuser login")
    wanted = "select count(*) from pg_available_extensions where name = 'pg_stat_statements'"
    can_count = await connection.fetchval(wanted)
    if can_count:
        await connection.execute("alter system set shared_preload_libraries = 'pg_stat_statements'")
    await connection.close()
    if can_count:
        postgres.stop()
        postgres.start()
        connection = await asyncpg.connect(postgres.url)
        await connection.execute("create extension pg_stat_statements")
        await connection.close()


@asynccontextmanager
async def stand() -> AsyncIterator[Stand]:
    """Servers of the bench's own, for as long as the context lasts."""
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        with postgres_server(root) as postgres, redis_server(root) as redis:
            await prepare_server(postgres)
            yield Stand(postgres, redis, root)


async def generate(arguments: list[str]) -> dict[str, Any]:
    """Run the load generator in a process of its own and return its figures."""
    command = [sys.executable, "-m", "bench.load", *arguments]
    done = await asyncio.to_thread(subprocess.run, command, check=True, stdout=subprocess.PIPE, timeout=MAX_SECONDS)
    loaded: dict[str, Any] = json.loads(done.stdout)
    return loaded


async def post_orders(url: str, orders: int, connections: int, body: bytes | None = None) -> dict[str, Any]:
    """Post as fast as possible; without a body, post this engine's orders."""
    return await generate(["burst", url, str(orders), str(connections), *([body.decode()] if body else [])])


async def wait_until_all_ended(
    connection: asyncpg.Connection, count: int, *, open_orders: str = NOBODY_WAITS, poll_s: float = POLL_S
) -> None:
    """Return when `count` orders exist and the query `open_orders` finds none open."""
    deadline = time.monotonic() + MAX_SECONDS
    while time.monotonic() < deadline:
        # The cheap query first: all orders are counted only when none is open.
        if (
            not await connection.fetchval(open_orders)
            and await connection.fetchval("select count(*) from orders") >= count
        ):
            return
        await asyncio.sleep(poll_s)
    raise TimeoutError(f"not all of {count} orders ended within {MAX_SECONDS} s")


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
        "peak_memory_mib": memory,
    }


async def checked_figures(connection: asyncpg.Connection) -> dict[str, Any]:
    """Return the result of CHECK, as part of a round's figures."""
    (row,) = await connection.fetch(CHECK)
    return {
        "confirm_p50_ms": row["p50"],
        "confirm_p99_ms": row["p99"],
        "unconfirmed": row["orders"] - row["confirmed"],
        "gaps": row["gaps"],
    }


def median_of(rounds: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the median of each figure over the rounds; None for a figure that was not measured."""
    return {
        name: median_of([it[name] for it in rounds])
        if isinstance(value, dict)
        else None
        if value is None
        else statistics.median(it[name] for it in rounds)
        for name, value in rounds[0].items()
    }


def at(quantile: float, values: list[float]) -> float:
    """Return a quantile of sorted values."""
    return values[min(len(values) - 1, int(len(values) * quantile))]
