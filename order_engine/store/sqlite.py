"""The store on SQLite: one file, one writing thread, one fsync for all that waits."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Self

import msgspec

from order_engine.domain.errors import Fenced
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import Attempt, Order, OrderId
from order_engine.ports import (
    SUSPECT_CLAIMS,
    Accepted,
    Announce,
    Claim,
    Clock,
    InDoubt,
    InDoubtCount,
    NewOrder,
    OrderFilter,
    Write,
)
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
from order_engine.store.sql import SQLITE, load_queries
from order_engine.store.sqlite_thread import (
    JobRunner,
    Result,
    SqliteThread,
    connect,
    mark_retrieved,
    migrate,
    unavailable,
)


class SqliteStore:
    """OrderStore and OrderReader on one file that one process has open."""

    def __init__(self, writer: JobRunner, reader: JobRunner, clock: Clock, announce: Announce, grace_ms: int) -> None:
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
            raise unavailable(error) from error
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
            values = {"now_ms": self._clock.now_ms(), "suspect_claims": SUSPECT_CLAIMS}
            found = [
                order_id
                for order_id in dict.fromkeys(order_ids)
                if connection.execute(self._sql["claimable"], {**values, "order_id": order_id}).fetchone()
            ]
            return self._take(connection, worker, found, lease_ms)

        return await self._write(job)

    async def claim_due(self, worker: str, limit: int, lease_ms: int) -> list[Claim]:
        """See OrderStore."""
        values = {"most": limit, "suspect_claims": SUSPECT_CLAIMS}
        return await self._claim_found("claimable_due", values, worker, lease_ms)

    async def claim_suspect(self, worker: str, waited_ms: int, lease_ms: int) -> list[Claim]:
        """See OrderStore."""
        values = {"worker": worker, "waited_ms": waited_ms, "suspect_claims": SUSPECT_CLAIMS}
        return await self._claim_found("claimable_suspect", values, worker, lease_ms)

    async def end_leases_of_the_gone(self) -> None:
        """See OrderStore. One process has the file: nobody else is there to be gone."""

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
            values = {"worker": worker, "now_ms": self._clock.now_ms(), "suspect_claims": SUSPECT_CLAIMS}
            connection.executemany(
                self._sql["release"],
                [{**values, "order_id": order_id, "fence": fence} for order_id, fence in claims.items()],
            )

        await self._write(job)

    async def take_back_leases(self) -> int:
        """Free what a former life of this process still holds; returns how many orders that were.

        Only for the one process that has the file: then whoever holds a lease is dead. The claims
        stay counted, so that an order that kills its process is parked all the same.
        """
        values = {"now_ms": self._clock.now_ms()}
        return await self._write(lambda connection: connection.execute(self._sql["take_back"], values).rowcount)

    def record(self, write: Write) -> Awaitable[None]:
        """See OrderStore."""
        return self._write(self._record_job(write), write.events)

    async def keep_genesis(self, genesis_hash: str) -> str:
        """See OrderStore."""
        values = (genesis_hash,)
        kept: str = (await self._write(lambda connection: _one(connection, self._sql["keep_genesis"], values)))[0]
        return kept

    # --- OrderReader ---

    async def get(self, account: str, order_id: OrderId) -> Order | None:
        """See OrderReader."""
        row = await self._read(lambda connection: _one(connection, self._sql["get"], (order_id,)))
        return order_from_row(row) if row and row["account"] == account else None

    async def attempts(self, order_id: OrderId) -> list[Attempt]:
        """See OrderReader."""
        rows = await self._read(lambda connection: _all(connection, self._sql["attempts"], (order_id,)))
        return [attempt_from_row(row) for row in rows]

    async def in_doubt(self, account: str, limit: int) -> list[InDoubt]:
        """See OrderReader."""
        values = (account, limit)
        rows = await self._read(lambda connection: _all(connection, self._sql["in_doubt"], values))
        return [InDoubt(row["order_id"], attempt_from_row(row[1:])) for row in rows]

    async def count_in_doubt(self) -> InDoubtCount:
        """See OrderReader."""
        values = (self._clock.now_ms(),)
        row = await self._read(lambda connection: _one(connection, self._sql["count_in_doubt"], values))
        return InDoubtCount(*row)

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
            if write.proven is not None:
                it = write.proven
                values = (it.outcome.value, text(it.evidence), order_id, it.attempt)
                connection.execute(self._sql["prove_attempt"], values)
            if write.signed is not None:
                connection.execute(self._sql["insert_attempt"], attempt_columns(order_id, write.signed))
            # Last, since each event is refused unless the order and its attempt already say the same.
            connection.executemany(self._sql["insert_event"], map(event_columns, write.events))
            if _one(connection, self._sql["is_matched"], (order_id,)) is None:
                raise sqlite3.IntegrityError("orders_match_events: the history does not say so")

        return job

    async def _claim_found(self, query: str, values: dict[str, Any], worker: str, lease_ms: int) -> list[Claim]:
        def find(connection: sqlite3.Connection) -> list[OrderId]:
            found = connection.execute(self._sql[query], {**values, "now_ms": self._clock.now_ms()})
            return [row[0] for row in found]

        def job(connection: sqlite3.Connection) -> list[Claim]:
            return self._take(connection, worker, find(connection), lease_ms)

        # Most sweeps find nothing; looking first spares them the write transaction and its fsync.
        return await self._write(job) if await self._read(find) else []

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
        outer.add_done_callback(mark_retrieved)
        return outer

    def _announce_if_new(self, done: "asyncio.Future[Any]", events: Sequence[OrderEvent]) -> None:
        if done.cancelled() or done.exception() is not None:
            return
        if not (isinstance(done.result(), Accepted) and done.result().is_replay):
            self._announce(events)

    def _read(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        return self._reader.run(job)


def _one(connection: sqlite3.Connection, statement: str, values: Any) -> Any:
    return connection.execute(statement, values).fetchone()


def _all(connection: sqlite3.Connection, statement: str, values: Any) -> list[Any]:
    return connection.execute(statement, values).fetchall()
