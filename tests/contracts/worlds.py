"""Databases for the store contract: an empty database, the stores that are opened on it, and its clock."""

import asyncio
import sqlite3
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import asyncpg
import psutil

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import EpochMs, OrderId
from order_engine.ports.store import Announce
from order_engine.store.postgres.store import PostgresStore
from order_engine.store.sqlite.store import SqliteStore
from tests.contracts.orders import GENESIS, LONG_MS, SingleStore
from tests.contracts.waiting import until
from tests.servers import PostgresServer

Answer = TypeVar("Answer")


class SteppedClock:
    """A Clock that stands still until a test advances it."""

    def __init__(self, now_ms: int | None = None) -> None:
        self._now_ms = time.time_ns() // 1_000_000 if now_ms is None else now_ms

    def now_ms(self) -> EpochMs:
        return EpochMs(self._now_ms)

    def advance(self, by_ms: int) -> None:
        self._now_ms += by_ms


class StoreWorld(Protocol):
    """One database. `announced` lists the events that its stores have announced, in order."""

    announced: list[OrderEvent]

    async def open(self, grace_ms: int = LONG_MS, announce: Announce | None = None) -> SingleStore:
        """Open a store; it is closed at the end of the test, if not before."""
        ...

    async def pass_ms(self, by_ms: int) -> None:
        """Return when this time has passed on the clock that decides when leases lapse."""
        ...

    def committed(self, order_id: OrderId) -> int:
        """How many events of the order another connection sees at this moment."""
        ...

    async def close(self) -> None:
        """Close every store."""
        ...


class _World:
    def __init__(self) -> None:
        self.announced: list[OrderEvent] = []
        self._stores: list[SingleStore] = []

    async def _opened(self, store: SingleStore) -> SingleStore:
        self._stores.append(store)
        # An engine asks its chain before it signs anything.
        await store.pin_cluster(GENESIS)
        return store

    def _announce(self, events: Sequence[OrderEvent]) -> None:
        self.announced.extend(events)

    async def close(self) -> None:
        for store in self._stores:
            await store.close()


class SqliteWorld(_World):
    """An SQLite file."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.path = path
        self._clock = SteppedClock()

    async def open(self, grace_ms: int = LONG_MS, announce: Announce | None = None) -> SingleStore:
        return await self._opened(
            SingleStore(await SqliteStore.open(self.path, self._clock, announce or self._announce, grace_ms))
        )

    async def pass_ms(self, by_ms: int) -> None:
        self._clock.advance(by_ms)

    def committed(self, order_id: OrderId) -> int:
        with closing(sqlite3.connect(self.path)) as connection:
            query = "select count(*) from order_events where order_id = ?"
            return int(connection.execute(query, (order_id,)).fetchone()[0])


class PostgresWorld(_World):
    """A database on a PostgreSQL server."""

    def __init__(self, url: str) -> None:
        super().__init__()
        self.url = url

    async def open(self, grace_ms: int = LONG_MS, announce: Announce | None = None) -> SingleStore:
        return await self._opened(
            SingleStore(await PostgresStore.open(self.url, None, announce or self._announce, grace_ms))
        )

    async def pass_ms(self, by_ms: int) -> None:
        connection = await asyncpg.connect(self.url)
        try:
            end_ms = await connection.fetchval("select now_ms()") + by_ms
            await until(lambda: connection.fetchval("select now_ms() >= $1", end_ms))
        finally:
            await connection.close()

    @asynccontextmanager
    async def locked(self, order_id: OrderId) -> AsyncIterator[None]:
        """Lock the order's row, so that no other connection can write the order."""
        connection = await asyncpg.connect(self.url)
        try:
            async with connection.transaction():
                await connection.execute("select from orders where order_id = $1 for update", order_id)
                yield
        finally:
            await connection.close()

    async def waiting_for_locks(self) -> int:
        """How many statements wait for another statement's lock."""
        connection = await asyncpg.connect(self.url)
        try:
            query = (
                "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
            )
            return int(await connection.fetchval(query))
        finally:
            await connection.close()

    def committed(self, order_id: OrderId) -> int:
        async def count() -> int:
            connection = await asyncpg.connect(self.url)
            try:
                query = "select count(*) from order_events where order_id = $1"
                return int(await connection.fetchval(query, order_id))
            finally:
                await connection.close()

        return elsewhere(count)


async def migrate(world: StoreWorld) -> None:
    """Make the schema, and leave no store open."""
    await world.open()
    await world.close()


@dataclass(frozen=True)
class MortalPostgres:
    """A database whose server can be frozen, or killed and started again with all committed data."""

    url: str
    server: PostgresServer

    def kill(self) -> None:
        self.server.kill()

    def start(self) -> None:
        self.server.start()

    def pause(self) -> None:
        """Freeze the server and its children (SIGSTOP): it can be connected to, but answers nothing."""
        server = psutil.Process(self.server.pid)
        server.suspend()  # First, so that it forks no more.
        for child in server.children(recursive=True):
            child.suspend()

    def resume(self) -> None:
        server = psutil.Process(self.server.pid)
        for process in (*server.children(recursive=True), server):
            process.resume()


def elsewhere(work: Callable[[], Coroutine[Any, Any, Answer]]) -> Answer:
    """Run the work on an event loop of its own in another thread, and wait for it."""
    with ThreadPoolExecutor(1) as thread:
        return thread.submit(lambda: asyncio.run(work())).result()
