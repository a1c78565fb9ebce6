"""The store on SQLite: one file, one writing thread, one fsync for all waiting writes."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from order_engine.domain.errors import ClientOrderIdTaken, Fenced, Paused, StoreUnavailable, UnknownCursor
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import Order, OrderId, SignedAttempt
from order_engine.domain.quarantine import POISON
from order_engine.ports.clock import Clock
from order_engine.ports.health import MAX_COUNTED_WAITING, Heartbeat, StoreHealth
from order_engine.ports.store import (
    CLIENT_ORDER_ID_KEPT_MS,
    LONGEST_LEASE_MS,
    LONGEST_WAIT_MS,
    Accepted,
    Announce,
    Claim,
    EngineIdentity,
    InDoubt,
    InDoubtCount,
    LogPage,
    NewOrder,
    OrderFilter,
    Write,
)
from order_engine.store.cursors import MarkedEvent, check_mark, join, number_of
from order_engine.store.folding import bisect_failures, flush_folded
from order_engine.store.last_write import LastWrite
from order_engine.store.rows import (
    accept_columns,
    accepted_from_row,
    attempt_columns,
    attempt_from_row,
    event_columns,
    event_from_row,
    heartbeat_columns,
    move_columns,
    order_from_row,
    process_from_row,
    text,
)
from order_engine.store.schema import Applied, schema_trouble
from order_engine.store.sql import SQLITE, load_migrations, load_queries
from order_engine.store.sqlite.access import SqliteAccess
from order_engine.store.sqlite.connections import (
    JobRunner,
    Result,
    SqliteThread,
    connect,
    meaning,
    migrate,
    unavailable,
)
from order_engine.store.sqlite.limits import use_limits
from order_engine.store.sqlite.positions import position_of
from order_engine.store.sqlite.retention import delete_ended
from order_engine.store.sqlite.statements import fetch_all, fetch_one, json_text

_POISON: Final = {f"poison_{name}": value for name, value in msgspec.structs.asdict(POISON).items()}
_FORGOTTEN_AFTER_MS: Final = 3_600_000


class SqliteStore:
    """A Store on one file that one process has open."""

    def __init__(self, writer: JobRunner, reader: JobRunner, clock: Clock, announce: Announce, grace_ms: int) -> None:
        """`grace_ms`: how long an announced order is left to the ready queue before it is due."""
        self._clock = clock
        self._announce = announce
        self._grace_ms = grace_ms
        self._sql = load_queries(SQLITE)
        self._last_write = LastWrite()
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

    def access(self) -> SqliteAccess:
        """Return the keys, pauses and audit log in the same file."""
        return SqliteAccess(self._writer, self._reader, self._clock)

    async def close(self) -> None:
        """Close the file."""
        await self._writer.close()
        await self._reader.close()

    # --- OrderStore ---

    async def accept_many(self, new_orders: Sequence[NewOrder]) -> Sequence[Accepted | Exception]:
        """See OrderStore."""
        now_ms = self._clock.now_ms()

        def job(connection: sqlite3.Connection) -> list[Accepted | Exception]:
            return [self._accept(connection, new, now_ms) for new in new_orders]

        try:
            with self._last_write.noted():
                accepted = await self._writer.run(job)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the error belongs to one of them
            return await bisect_failures(self.accept_many, new_orders, meaning(error))
        answered = zip(new_orders, accepted, strict=True)
        self._announce([new.event for new, it in answered if isinstance(it, Accepted) and not it.is_replay])
        return accepted

    def _accept(self, connection: sqlite3.Connection, new: NewOrder, now_ms: int) -> Accepted | Exception:
        if new.idempotency is not None:
            key = (new.order.account, new.idempotency.key)
            if (row := fetch_one(connection, self._sql["find_by_key"], key)) is not None:
                return accepted_from_row(row)
        if (client_order_id := new.order.request.client_order_id) is not None:
            name = (new.order.account, client_order_id, now_ms - CLIENT_ORDER_ID_KEPT_MS)
            if (row := fetch_one(connection, self._sql["find_namesake"], name)) is not None:
                return ClientOrderIdTaken(client_order_id, row["order_id"])
        if (row := fetch_one(connection, self._sql["find_pause"], (new.order.account,))) is not None:
            return Paused(row["reason"])
        if (refusal := use_limits(connection, self._sql, new.order, now_ms)) is not None:
            return refusal
        columns = accept_columns(new)[:-1]  # The event's data goes with the event.
        connection.execute(self._sql["accept_order"], (*columns, now_ms + self._grace_ms))
        connection.execute(self._sql["insert_event"], event_columns(new.event))
        return Accepted(new.order, is_replay=False, digest=None)

    async def record_many(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        """See OrderStore."""
        return await flush_folded(writes, self._write_folded)

    async def _write_folded(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        def job(connection: sqlite3.Connection) -> list[Exception | None]:
            results: list[Exception | None] = [self._move(connection, write) for write in writes]
            moved = json_text([it.order.order_id for it, result in zip(writes, results, strict=True) if result is None])
            if fetch_one(connection, self._sql["unmatched"], (moved,)) is not None:
                raise sqlite3.IntegrityError("orders_match_events: the history does not say so")
            return results

        try:
            with self._last_write.noted():
                results = await self._writer.run(job)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - the error belongs to one of them
            return await bisect_failures(self._write_folded, writes, meaning(error))
        moved = [write for write, result in zip(writes, results, strict=True) if result is None]
        self._announce([event for write in moved for event in write.events])
        return results

    def _move(self, connection: sqlite3.Connection, write: Write) -> Fenced | None:
        order_id = write.order.order_id
        columns = {**move_columns(write), "now_ms": self._clock.now_ms()}
        if connection.execute(self._sql["move_order"], columns).rowcount == 0:
            return Fenced(order_id)
        if (it := write.proven) is not None:
            proof = (it.outcome.value, text(it.evidence), order_id, it.attempt_number)
            connection.execute(self._sql["prove_attempt"], proof)
        if write.signed is not None:
            connection.execute(self._sql["insert_attempt"], attempt_columns(order_id, write.signed))
        # Events come last, because each is refused unless the order and its attempt already agree with it.
        connection.executemany(self._sql["insert_event"], map(event_columns, write.events))
        return None

    # --- WorkQueue ---

    async def claim(self, worker: str, order_ids: Sequence[OrderId], lease_ms: int) -> list[Claim]:
        """See WorkQueue."""
        wanted = {"order_ids": json_text(order_ids), "now_ms": self._clock.now_ms(), **_POISON}

        def job(connection: sqlite3.Connection) -> list[Claim]:
            found = [row[0] for row in fetch_all(connection, self._sql["claimable"], wanted)]
            return self._take(connection, worker, found, lease_ms)

        return await self._writer.run(job)

    async def claim_due(
        self, worker: str, limit: int, lease_ms: int, longest_wait_ms: int = LONGEST_WAIT_MS
    ) -> list[Claim]:
        """See WorkQueue."""
        values = {
            "most": limit,
            **_POISON,
            "longest_lease_ms": LONGEST_LEASE_MS,
            "longest_wait_ms": longest_wait_ms,
        }
        return await self._claim_found("claimable_due", values, worker, lease_ms)

    async def claim_poison(self, worker: str, waited_ms: int, lease_ms: int) -> list[Claim]:
        """See WorkQueue."""
        values = {"worker": worker, "waited_ms": waited_ms, **_POISON}
        return await self._claim_found("claimable_poison", values, worker, lease_ms)

    async def expire_dead_leases(self) -> None:
        """See WorkQueue. Only one process has the file, so there are no other workers that could be dead."""

    async def renew(self, worker: str, claims: Mapping[OrderId, int], lease_ms: int) -> set[OrderId]:
        """See WorkQueue."""
        values = {"worker": worker, "claims": json_text(list(claims.items())), "lease_ms": lease_ms}

        def job(connection: sqlite3.Connection) -> set[OrderId]:
            rows = fetch_all(connection, self._sql["renew"], {**values, "now_ms": self._clock.now_ms()})
            return {row[0] for row in rows}

        return await self._writer.run(job)

    async def release(self, worker: str, claims: Mapping[OrderId, int]) -> None:
        """See WorkQueue."""
        values = {"worker": worker, "claims": json_text(list(claims.items())), **_POISON}

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["release"], {**values, "now_ms": self._clock.now_ms()})

        await self._writer.run(job)

    async def take_back_leases(self) -> int:
        """Free the orders that an earlier run of this process still holds; returns their number.

        Only for the one process that has the file, because then each lease belongs to a dead worker. The claims stay
        counted, so that an order that kills its process is parked in the end.
        """
        values = {"now_ms": self._clock.now_ms()}
        return await self._writer.run(lambda connection: connection.execute(self._sql["take_back"], values).rowcount)

    # --- Upkeep ---

    async def delete_ended(self, older_than_ms: int, limit: int) -> int:
        """See Upkeep."""
        before_ms = self._clock.now_ms() - older_than_ms
        return await self._writer.run(lambda connection: delete_ended(connection, self._sql, before_ms, limit))

    async def pin_cluster(self, genesis_hash: str) -> str:
        """See Upkeep."""
        values = (genesis_hash,)
        kept: str = (
            await self._writer.run(lambda connection: fetch_one(connection, self._sql["pin_cluster"], values))
        )[0]
        return kept

    async def identity(self) -> EngineIdentity:
        """See Upkeep."""
        return EngineIdentity(*await self._read(lambda connection: fetch_one(connection, self._sql["identity"], ())))

    async def ping(self) -> None:
        """See Upkeep."""
        await self._read(lambda connection: connection.execute("select 1").fetchone())

    # --- OrderReader ---

    async def get_many(self, wanted: Sequence[tuple[str, OrderId]]) -> Sequence[Order | None]:
        """See OrderReader."""

        def job(connection: sqlite3.Connection) -> list[Order | None]:
            rows = [fetch_one(connection, self._sql["get"], (order_id,)) for _, order_id in wanted]
            found = zip(wanted, rows, strict=True)
            return [order_from_row(row) if row and row["account"] == account else None for (account, _), row in found]

        return await self._read(job)

    async def attempts(self, order_id: OrderId) -> list[SignedAttempt]:
        """See OrderReader."""
        rows = await self._read(lambda connection: fetch_all(connection, self._sql["attempts"], (order_id,)))
        return [attempt_from_row(row) for row in rows]

    async def in_doubt(self, account: str, limit: int) -> list[InDoubt]:
        """See OrderReader."""
        values = (account, limit)
        rows = await self._read(lambda connection: fetch_all(connection, self._sql["in_doubt"], values))
        return [InDoubt(row["order_id"], attempt_from_row(row[1:])) for row in rows]

    async def count_in_doubt(self) -> InDoubtCount:
        """See OrderReader."""
        values = (self._clock.now_ms(),)
        row = await self._read(lambda connection: fetch_one(connection, self._sql["count_in_doubt"], values))
        return InDoubtCount(*row)

    async def find(self, order_filter: OrderFilter, limit: int) -> list[Order]:
        """See OrderReader."""
        values = {**msgspec.structs.asdict(order_filter), "most": limit}
        rows = await self._read(lambda connection: fetch_all(connection, self._sql["find"], values))
        return [order_from_row(row) for row in rows]

    async def find_by_key(self, account: str, key: str) -> Accepted | None:
        """See OrderReader."""
        values = (account, key)
        row = await self._read(lambda connection: fetch_one(connection, self._sql["find_by_key"], values))
        return accepted_from_row(row) if row else None

    # --- EventLog ---

    async def histories(self, wanted: Sequence[tuple[OrderId, int]]) -> Sequence[list[OrderEvent]]:
        """See EventLog."""

        def job(connection: sqlite3.Connection) -> list[list[OrderEvent]]:
            return [[event_from_row(row) for row in fetch_all(connection, self._sql["history"], it)] for it in wanted]

        return await self._read(job)

    async def account_events(self, account: str, after: str | None, until: str | None, limit: int) -> LogPage:
        """See EventLog. The place of a cursor is a position in the log."""
        seen, mark = position_of(after)
        most, _ = position_of(until)

        def job(connection: sqlite3.Connection) -> LogPage:
            end, *newest = fetch_one(connection, self._sql["log_end"], (account,))
            end_mark = None if newest[0] is None else MarkedEvent(*newest).mark
            if seen is None:
                return LogPage([], join(str(end), end_mark))
            if seen > end:
                raise UnknownCursor("is ahead of this log: the file was restored from an older backup")
            if not limit and mark is not None:
                self._check_mark(connection, account, mark)
            values = {"account": account, "after": seen, "until": end if most is None else most, "most": limit}
            rows = fetch_all(connection, self._sql["account_events"], values)
            has_more = 0 < limit == len(rows)
            cursor = until or join(str(end), end_mark)
            if has_more:
                last = rows[-1]
                event = MarkedEvent(last["position"], last["order_id"], last["seq"], last["at_ms"])
                cursor = join(str(event.number), event.mark)
            return LogPage([event_from_row(tuple(row)[:-1]) for row in rows], cursor, has_more)

        return await self._read(job)

    def _check_mark(self, connection: sqlite3.Connection, account: str, mark: str) -> None:
        number = number_of(mark)
        deleted_before_ms, *found = fetch_one(connection, self._sql["marked_event"], (account, number))
        events = [] if found[0] is None else [MarkedEvent(number, *found)]
        check_mark(mark, events, deleted_before_ms)

    # --- HealthStore ---

    @property
    def write_trouble(self) -> str | None:
        """See HealthStore."""
        return self._last_write.trouble

    async def beat(self, heartbeat: Heartbeat) -> None:
        """See HealthStore."""
        now_ms = self._clock.now_ms()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["forget_processes"], (now_ms - _FORGOTTEN_AFTER_MS,))
            connection.execute(self._sql["beat"], (*heartbeat_columns(heartbeat), now_ms))

        await self._writer.run(job)

    async def health(self) -> StoreHealth:
        """See HealthStore."""
        now_ms = self._clock.now_ms()

        def job(connection: sqlite3.Connection) -> StoreHealth:
            processes = [process_from_row(row) for row in fetch_all(connection, self._sql["processes"], (now_ms,))]
            queue = fetch_one(connection, self._sql["queue_state"], (now_ms, MAX_COUNTED_WAITING))
            applied = [Applied(*row) for row in fetch_all(connection, self._sql["applied_migrations"], ())]
            in_doubt, oldest_ms = fetch_one(connection, self._sql["count_in_doubt"], (now_ms,))
            trouble = schema_trouble(applied, load_migrations(SQLITE))
            return StoreHealth(processes, queue["waiting"], queue["oldest_due_ms"], in_doubt, oldest_ms, trouble)

        return await self._read(job)

    # --- jobs ---

    async def _claim_found(self, query: str, values: dict[str, Any], worker: str, lease_ms: int) -> list[Claim]:
        def find(connection: sqlite3.Connection) -> list[OrderId]:
            found = connection.execute(self._sql[query], {**values, "now_ms": self._clock.now_ms()})
            return [row[0] for row in found]

        def job(connection: sqlite3.Connection) -> list[Claim]:
            return self._take(connection, worker, find(connection), lease_ms)

        # Most sweeps find nothing; a read first saves them the write transaction and its fsync.
        return await self._writer.run(job) if await self._read(find) else []

    def _take(
        self, connection: sqlite3.Connection, worker: str, order_ids: Sequence[OrderId], lease_ms: int
    ) -> list[Claim]:
        values = {"order_ids": json_text(order_ids), "worker": worker, "lease_ms": lease_ms}
        rows = fetch_all(connection, self._sql["claim"], {**values, "now_ms": self._clock.now_ms()})
        claims = {row["order_id"]: Claim(order_from_row(row), row["fence"], row["claims"]) for row in rows}
        return [claims[order_id] for order_id in order_ids]

    def _read(self, job: Callable[[sqlite3.Connection], Result]) -> "asyncio.Future[Result]":
        return self._reader.run(job)
