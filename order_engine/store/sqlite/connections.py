"""One SQLite connection on one thread: all waiting jobs run in one transaction, with one fsync."""

import asyncio
import contextlib
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Final, Protocol, TypeVar

from order_engine.domain.errors import Paused, StoreUnavailable, WrongCluster
from order_engine.store.folding import NOT_PAUSED, ONE_CLUSTER
from order_engine.store.schema import LEDGER, Applied, applied_by, pending_migrations, require_no_foreign_tables
from order_engine.store.sql import SQLITE, Migration, load_migrations, load_queries

_MAX_IN_A_BATCH: Final = 1_000
_BUSY_TIMEOUT_S: Final = 10.0
_MAKE_LEDGER: Final = f"create table {LEDGER} (number integer primary key, name text not null, digest text not null)"
_KEEP_APPLIED: Final = f"insert into {LEDGER} values (?, ?, ?)"  # noqa: S608 - a constant

Result = TypeVar("Result")
Job = Callable[[sqlite3.Connection], Any]


class JobRunner(Protocol):
    """Runs jobs on one connection, each in a transaction that has committed when its future is done."""

    def run(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        """Queue the job now, in order."""
        ...

    async def close(self) -> None:
        """Finish the queued jobs."""
        ...


class SqliteThread:
    """One connection on one thread: all waiting jobs run in one transaction, with one commit.

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
        future.add_done_callback(mark_retrieved)
        if self._is_closing:
            future.set_exception(StoreUnavailable("the SQLite store is closed"))
        else:
            self._jobs.put((job, future))
        return future

    async def close(self) -> None:
        """Finish the queued jobs and end the thread."""
        self._is_closing = True
        self._jobs.put(None)
        await self._closed

    def _work(self, path: Path) -> None:
        connection = connect(path)
        is_open = True
        while is_open:
            batch = [self._jobs.get()]
            while len(batch) < _MAX_IN_A_BATCH and not self._jobs.empty():
                batch.append(self._jobs.get())
            is_open = None not in batch
            done = self._run_batch(connection, [entry for entry in batch if entry is not None])
            self._tell(_resolve, done)
        connection.close()
        self._tell(self._closed.set_result, None)

    def _tell(self, callback: Callable[..., Any], argument: object) -> None:
        # The event loop can be closed already when the process ends; then no caller waits any more.
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
            return [(future, unavailable(error)) for _, future in batch]
        return done


def run_job(connection: sqlite3.Connection, job: Job) -> Any:
    """Run a job within an open transaction; an error of its own is returned and undone."""
    connection.execute("savepoint job")
    try:
        result = job(connection)
    except sqlite3.OperationalError:
        raise  # The disk is full or the file is locked: true for the whole batch.
    except Exception as error:  # noqa: BLE001 - any error belongs to the job's caller
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


def mark_retrieved(future: "asyncio.Future[Any]") -> None:
    """Keep asyncio from reporting an unread error of a job without a waiter."""
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
    """Bring the schema up to date; raises WrongSchema if another version or program made it."""
    connection.execute("begin immediate")
    try:
        for migration in _pending(connection):
            for statement in _statements(migration.statements):
                connection.execute(statement)
            applied = applied_by(migration)
            connection.execute(_KEEP_APPLIED, (applied.number, applied.name, applied.digest))
    except BaseException:
        connection.execute("rollback")
        raise
    connection.execute("commit")


def _pending(connection: sqlite3.Connection) -> Sequence[Migration]:
    known = load_migrations(SQLITE)
    tables = {row[0] for row in connection.execute("select name from sqlite_schema where type = 'table'")}
    columns = [row[1] for row in connection.execute(f"pragma table_info({LEDGER})")]
    if not columns:
        require_no_foreign_tables(tables)
        connection.execute(_MAKE_LEDGER)
    elif columns != ["number", "name", "digest"]:
        require_no_foreign_tables([LEDGER])
    rows = connection.execute(load_queries(SQLITE)["applied_migrations"])
    return pending_migrations([Applied(*row) for row in rows], known)


def _statements(script: str) -> Iterator[str]:
    """Return the statements of a script, one by one: `executescript` would commit before it begins."""
    statement = ""
    for line in script.splitlines(keepends=True):
        statement += line
        if sqlite3.complete_statement(statement):
            yield statement
            statement = ""


def meaning(error: Exception) -> Exception:
    """Return the engine's own error for a refusal by one of the database's rules, or the error itself."""
    rule = str(error).partition(":")[0] if isinstance(error, sqlite3.IntegrityError) else ""
    if rule == ONE_CLUSTER:
        return WrongCluster(str(error))
    return Paused("") if rule in NOT_PAUSED else error


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return the error for the store's callers if the file cannot be used."""
    return StoreUnavailable(f"SQLite cannot be used: {error}")
