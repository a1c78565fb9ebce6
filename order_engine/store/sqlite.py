"""The store on SQLite: one file, one writing thread, one fsync for all that waits."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Protocol, Self, TypeVar

import msgspec

from order_engine.domain.errors import Fenced, StoreUnavailable
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import Attempt, Order, OrderId
from order_engine.ports import Accepted, Announce, Claim, Clock, NewOrder, OrderFilter, Write
from order_engine.store.rows import (
    accept_columns,
    accepted_from_row,
    attempt_columns,
    attempt_from_row,
    event_columns,
    event_from_row,
    move_columns,
    order_from_row,
    text,
)
from order_engine.store.sql import SQLITE, load_migrations, load_queries

_MOST_IN_A_BATCH: Final = 1_000
_BUSY_TIMEOUT_S: Final = 10.0

Result = TypeVar("Result")
Job = Callable[[sqlite3.Connection], Any]


class SqliteStore:
    """OrderStore and OrderReader on one file that one process has open."""

    def __init__(
        self, writer: "JobRunner", reader: "JobRunner", clock: Clock, announce: Announce, grace_ms: int
    ) -> None:
        """`grace_ms`: how long an announced order is left to the ready queue before it is due."""
        self._clock = clock
        self._announce = announce
        self._grace_ms = grace_ms
        self._sql = load_queries(SQLITE)
        self._writer = writer
        self._reader = reader

    @classmethod
    async def open(cls, path: Path, clock: Clock, announce: Announce, grace_ms: int) -> Self:
        """Create or migrate the file and return the store; raises StoreUnavailable."""
        try:
            with contextlib.closing(connect(path)) as connection:
                migrate(connection)
        except sqlite3.Error as error:
            raise _unavailable(error) from error
        writer, reader = SqliteThread(path, "begin immediate"), SqliteThread(path, "begin")
        return cls(writer, reader, clock, announce, grace_ms)

    async def close(self) -> None:
        """Finish what was queued and close the file."""
        await self._writer.close()
        await self._reader.close()

    # --- OrderStore ---

    async def accept(self, new: NewOrder) -> Accepted:
        """See OrderStore."""
        return await self._write(self._accept_job(new), [new.event])

    async def claim(self, worker: str, order_ids: Sequence[OrderId], lease_ms: int) -> list[Claim]:
        """See OrderStore."""

        def job(connection: sqlite3.Connection) -> list[Claim]:
            now_ms = self._clock.now_ms()
            found = [
                order_id
                for order_id in dict.fromkeys(order_ids)
                if connection.execute(self._sql["claimable"], {"order_id": order_id, "now_ms": now_ms}).fetchone()
            ]
            return self._take(connection, worker, found, lease_ms)

        return await self._write(job)

    async def claim_due(self, worker: str, limit: int, lease_ms: int) -> list[Claim]:
        """See OrderStore."""

        def job(connection: sqlite3.Connection) -> list[Claim]:
            values = {"now_ms": self._clock.now_ms(), "most": limit}
            found = [row[0] for row in connection.execute(self._sql["claimable_due"], values)]
            return self._take(connection, worker, found, lease_ms)

        # Most sweeps find nothing; looking first spares them the write transaction and its fsync.
        values = {"now_ms": self._clock.now_ms(), "most": 1}
        if await self._read(lambda connection: _one(connection, self._sql["claimable_due"], values)):
            return await self._write(job)
        return []

    async def renew(self, worker: str, claims: Mapping[OrderId, int], lease_ms: int) -> set[OrderId]:
        """See OrderStore."""

        def job(connection: sqlite3.Connection) -> set[OrderId]:
            values = {"worker": worker, "now_ms": self._clock.now_ms(), "lease_ms": lease_ms}
            return {
                order_id
                for order_id, fence in claims.items()
                if connection.execute(self._sql["renew"], {**values, "order_id": order_id, "fence": fence}).rowcount
            }

        return await self._write(job)

    async def release(self, worker: str, claims: Mapping[OrderId, int]) -> None:
        """See OrderStore."""

        def job(connection: sqlite3.Connection) -> None:
            values = {"worker": worker, "now_ms": self._clock.now_ms()}
            connection.executemany(
                self._sql["release"],
                [{**values, "order_id": order_id, "fence": fence} for order_id, fence in claims.items()],
            )

        await self._write(job)

    def record(self, write: Write) -> Awaitable[None]:
        """See OrderStore."""
        return self._write(self._record_job(write), write.events)

    # --- OrderReader ---

    async def get(self, account: str, order_id: OrderId) -> Order | None:
        """See OrderReader."""
        row = await self._read(lambda connection: _one(connection, self._sql["get"], (order_id,)))
        return order_from_row(row) if row and row["account"] == account else None

    async def attempts(self, order_id: OrderId) -> list[Attempt]:
        """See OrderReader."""
        rows = await self._read(lambda connection: _all(connection, self._sql["attempts"], (order_id,)))
        return [attempt_from_row(row) for row in rows]

    async def history(self, order_id: OrderId, after: int) -> list[OrderEvent]:
        """See OrderReader."""
        values = (order_id, after)
        rows = await self._read(lambda connection: _all(connection, self._sql["history"], values))
        return [event_from_row(row) for row in rows]

    async def find(self, order_filter: OrderFilter, limit: int) -> list[Order]:
        """See OrderReader."""
        values = {**msgspec.structs.asdict(order_filter), "most": limit}
        rows = await self._read(lambda connection: _all(connection, self._sql["find"], values))
        return [order_from_row(row) for row in rows]

    async def find_by_key(self, account: str, key: str) -> Accepted | None:
        """See OrderReader."""
        values = (account, key)
        row = await self._read(lambda connection: _one(connection, self._sql["find_by_key"], values))
        return accepted_from_row(row) if row else None

    async def ping(self) -> None:
        """See OrderReader."""
        await self._read(lambda connection: connection.execute("select 1").fetchone())

    # --- jobs ---

    def _accept_job(self, new: NewOrder) -> Callable[[sqlite3.Connection], Accepted]:
        def job(connection: sqlite3.Connection) -> Accepted:
            created_at_ms = new.order.created_at_ms
            due_at_ms = self._clock.now_ms() + self._grace_ms
            if new.idempotency is not None:
                key = (new.order.account, new.idempotency.key)
                if (row := _one(connection, self._sql["find_by_key"], key)) is not None:
                    return accepted_from_row(row)
            values = (*accept_columns(new), created_at_ms, due_at_ms)
            connection.execute(self._sql["accept_order"], values)
            connection.execute(self._sql["insert_event"], event_columns(new.event))
            return Accepted(new.order, is_replay=False, digest=None)

        return job

    def _record_job(self, write: Write) -> Callable[[sqlite3.Connection], None]:
        def job(connection: sqlite3.Connection) -> None:
            order_id = write.order.order_id
            columns = {**move_columns(write), "now_ms": self._clock.now_ms()}
            if _one(connection, self._sql["is_writable"], columns) is None:
                raise Fenced(order_id)
            connection.execute(self._sql["move_order"], columns)
            connection.executemany(self._sql["insert_event"], map(event_columns, write.events))
            if _one(connection, self._sql["is_matched"], (order_id,)) is None:
                raise sqlite3.IntegrityError("orders_match_events: the history does not say so")
            if write.proven is not None:
                it = write.proven
                values = (it.outcome.value, text(it.evidence), order_id, it.attempt)
                connection.execute(self._sql["prove_attempt"], values)
            if write.signed is not None:
                connection.execute(self._sql["insert_attempt"], attempt_columns(order_id, write.signed))

        return job

    def _take(
        self, connection: sqlite3.Connection, worker: str, order_ids: Sequence[OrderId], lease_ms: int
    ) -> list[Claim]:
        values = {"worker": worker, "now_ms": self._clock.now_ms(), "lease_ms": lease_ms}
        claims = []
        for order_id in order_ids:
            connection.execute(self._sql["claim"], {**values, "order_id": order_id})
            row = _one(connection, self._sql["get"], (order_id,))
            claims.append(Claim(order_from_row(row), row["fence"], row["claims"]))
        return claims

    def _write(
        self, job: Callable[[sqlite3.Connection], Result], events: Sequence[OrderEvent] = ()
    ) -> "asyncio.Future[Result]":
        future = self._writer.run(job)
        if not events:
            return future
        future.add_done_callback(lambda done: self._announce_if_new(done, events))
        # A caller who gives up waiting keeps neither the commit nor its announcement from happening.
        outer = asyncio.shield(future)
        outer.add_done_callback(_mark_retrieved)
        return outer

    def _announce_if_new(self, done: "asyncio.Future[Any]", events: Sequence[OrderEvent]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        if not (isinstance(done.result(), Accepted) and done.result().is_replay):
            self._announce(events)

    def _read(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        return self._reader.run(job)


class JobRunner(Protocol):
    """Runs jobs on one connection, each in a transaction that has committed when its future is done."""

    def run(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        """Queue the job now, in order."""
        ...

    async def close(self) -> None:
        """Finish what was queued."""
        ...


class SqliteThread:
    """One connection on one thread: everything that waits runs in one transaction, one commit.

    Each job has a savepoint of its own, so that one that fails takes nothing with it.
    """

    def __init__(self, path: Path, begin: str) -> None:
        """Start the thread; `begin` is the statement that opens a transaction."""
        self._begin = begin
        self._jobs: SimpleQueue[tuple[Job, asyncio.Future[Any]] | None] = SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._closed = self._loop.create_future()
        self._is_closing = False
        self._thread = threading.Thread(target=self._work, args=(path,), name="sqlite", daemon=True)
        self._thread.start()

    def run(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        """Queue the job now; the future is done when its transaction has committed."""
        future: asyncio.Future[Result] = self._loop.create_future()
        future.add_done_callback(_mark_retrieved)
        if self._is_closing:
            future.set_exception(StoreUnavailable("the SQLite store is closed"))
        else:
            self._jobs.put((job, future))
        return future

    async def close(self) -> None:
        """Finish what was queued and end the thread."""
        self._is_closing = True
        self._jobs.put(None)
        await self._closed

    def _work(self, path: Path) -> None:
        connection = connect(path)
        is_open = True
        while is_open:
            batch = [self._jobs.get()]
            while len(batch) < _MOST_IN_A_BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            is_open = None not in batch
            done = self._run_batch(connection, [entry for entry in batch if entry is not None])
            self._tell(_resolve, done)
        connection.close()
        self._tell(self._closed.set_result, None)

    def _tell(self, callback: Callable[..., Any], argument: object) -> None:
        # The loop can be gone when the process is on its way out; then nobody waits any more.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(callback, argument)

    def _run_batch(
        self, connection: sqlite3.Connection, batch: Sequence[tuple[Job, "asyncio.Future[Any]"]]
    ) -> list[tuple["asyncio.Future[Any]", Any]]:
        if not batch:
            return []
        try:
            connection.execute(self._begin)
            done = [(future, run_job(connection, job)) for job, future in batch]
            connection.execute("commit")
        except sqlite3.Error as error:
            with contextlib.suppress(sqlite3.Error):
                connection.execute("rollback")
            return [(future, _unavailable(error)) for _, future in batch]
        return done


def run_job(connection: sqlite3.Connection, job: Job) -> Any:
    """Run a job within an open transaction; an error of its own is returned and undone."""
    connection.execute("savepoint job")
    try:
        result = job(connection)
    except sqlite3.OperationalError:
        raise  # The disk is full or the file is locked: true for the whole batch.
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the job's caller
        connection.execute("rollback to job")
        connection.execute("release job")
        return error
    connection.execute("release job")
    return result


def _resolve(done: Sequence[tuple["asyncio.Future[Any]", Any]]) -> None:
    for future, result in done:
        if future.done():
            continue
        if isinstance(result, Exception):
            future.set_exception(result)
        else:
            future.set_result(result)


def _mark_retrieved(future: "asyncio.Future[Any]") -> None:
    """Keep a result that nobody waits for from being reported as a forgotten error."""
    if not future.cancelled():
        future.exception()


def connect(path: Path) -> sqlite3.Connection:
    """Open the file so that a commit is on the disk when it returns."""
    connection = sqlite3.connect(path, timeout=_BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False)
    connection.row_factory = sqlite3.Row
    connection.execute("pragma journal_mode = wal")
    connection.execute("pragma synchronous = full")
    connection.execute("pragma foreign_keys = on")
    return connection


def migrate(connection: sqlite3.Connection) -> None:
    """Bring the schema up to date; `user_version` is the number of the last migration."""
    connection.execute("begin immediate")
    (done,) = connection.execute("pragma user_version").fetchone()
    connection.execute("commit")
    for migration in load_migrations(SQLITE)[done:]:
        connection.executescript(
            f"begin immediate;\n{migration.statements}\npragma user_version = {migration.number};\ncommit;"
        )


def _one(connection: sqlite3.Connection, statement: str, values: Any) -> Any:
    return connection.execute(statement, values).fetchone()


def _all(connection: sqlite3.Connection, statement: str, values: Any) -> list[Any]:
    return connection.execute(statement, values).fetchall()


def _unavailable(error: BaseException) -> StoreUnavailable:
    return StoreUnavailable(f"SQLite cannot be used: {error}")
