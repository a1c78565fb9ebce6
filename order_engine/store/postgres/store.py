"""The store on PostgreSQL, with group commit; each statement is a file."""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Self

import asyncpg
import msgspec

from order_engine.domain.errors import ClientOrderIdTaken, Fenced, Paused, StoreUnavailable, UnknownCursor, WrongCluster
from order_engine.domain.events import OrderEvent
from order_engine.domain.order import Order, OrderId, SignedAttempt
from order_engine.domain.quarantine import POISON
from order_engine.ports.health import MAX_COUNTED_WAITING, Heartbeat, StoreHealth
from order_engine.ports.store import (
    BEGINNING,
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
from order_engine.store.cursors import MarkedEvent, check_mark, join, number_of, split
from order_engine.store.folding import NOT_PAUSED, ONE_CLUSTER, WITHIN_LIMITS, bisect_failures, flush_folded
from order_engine.store.last_write import LastWrite
from order_engine.store.postgres.access import PostgresAccess
from order_engine.store.postgres.connections import Sessions, connect
from order_engine.store.postgres.errors import LOST, unavailable
from order_engine.store.postgres.limits import limit_exceeded
from order_engine.store.postgres.schema import bring_up_to_date
from order_engine.store.postgres.snapshots import NOTHING_SEEN, is_snapshot, moved_on
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
from order_engine.store.sql import POSTGRES, load_migrations, load_queries

_EVENT_FROM: Final = 6  # Of a row of account_events.sql: where the event begins.
_OPEN_TIMEOUT_S: Final = 10.0
# A worker's name begins with this if its process's sessions have the same name; PostgreSQL cuts it at 63 bytes.
SESSION: Final = "order-engine "
_GONE_AFTER_S: Final = 0.9
_LOOK_IS_OLD_S: Final = 3.0


class PostgresStore:
    """A Store on one PostgreSQL database, for one process."""

    def __init__(self, sessions: Sessions, announce: Announce, grace_ms: int) -> None:
        """`grace_ms`: how long an announced order is left to the ready queue before it is due."""
        self._sessions = sessions
        self._announce = announce
        self._grace_ms = grace_ms
        self._queries = load_queries(POSTGRES)
        self._last_write = LastWrite()
        self._missing_since_s: dict[str, float] = {}
        self._looked_s = 0.0

    @classmethod
    async def open(
        cls, dsn: str, schema: str | None, announce: Announce, grace_ms: int, session: str = "order-engine migrate"
    ) -> Self:
        """Connect, migrate if needed and return the store; raises StoreUnavailable and WrongSchema.

        `session` names this process's sessions. A worker of the same name, with SESSION at the start, is taken for dead
        when they have ended.
        """
        settings = {"application_name": session}
        if schema is not None:
            settings["search_path"] = _quoted(schema)
        try:
            await _migrate(dsn, settings)
            sessions = await Sessions.open(dsn, settings)
        except LOST as error:
            raise unavailable(error) from error
        return cls(sessions, announce, grace_ms)

    def access(self) -> PostgresAccess:
        """Return the keys, pauses and audit log in the same database."""
        return PostgresAccess(self._sessions)

    async def close(self) -> None:
        """Disconnect."""
        await self._sessions.close()

    # --- OrderStore ---

    async def accept_many(self, new_orders: Sequence[NewOrder]) -> Sequence[Accepted | Exception]:
        """See OrderStore."""
        # Keys in one order, so that two processes that accept the same ones cannot deadlock.
        news = [accept_columns(new) for new in sorted(new_orders, key=_account_and_key)]
        try:
            with self._last_write.noted():
                rows = await self._fetch("accept", news, self._grace_ms, CLIENT_ORDER_ID_KEPT_MS)
        except asyncpg.PostgresError as error:
            return await bisect_failures(self.accept_many, new_orders, _meaning(error))
        stored = {str(row[0]) for row in rows}
        self._announce([new.event for new in new_orders if new.order.order_id in stored])
        others = [new for new in new_orders if new.order.order_id not in stored]
        answers: dict[OrderId, Accepted | Exception] = await self._answers_to(others) if others else {}
        return [
            answers.get(new.order.order_id) or Accepted(new.order, is_replay=False, digest=None) for new in new_orders
        ]

    async def _answers_to(self, others: Sequence[NewOrder]) -> dict[OrderId, Accepted | Exception]:
        """Return the answers for orders that were not stored: the order of their key, or the error of their name."""
        known = await self._find("find_by_keys", others, _key)
        by_key = {(row["account"], row["idempotency_key"]): row for row in known}
        unknown = [new for new in others if _key(new) not in by_key]
        found = await self._find("find_namesakes", unknown, _name, CLIENT_ORDER_ID_KEPT_MS) if unknown else []
        by_name = {(row["account"], row["client_order_id"]): str(row["order_id"]) for row in found}
        # The conflicting row is gone, because its order was deleted in between.
        gone = [new for new in unknown if _name(new) not in by_name]
        again = await self.accept_many(gone) if gone else []
        answers: dict[OrderId, Accepted | Exception] = {
            new.order.order_id: it for new, it in zip(gone, again, strict=True)
        }
        for new in others:
            if (row := by_key.get(_key(new))) is not None:
                answers[new.order.order_id] = accepted_from_row(row)
            elif (existing := by_name.get(_name(new))) is not None:
                answers[new.order.order_id] = ClientOrderIdTaken(_name(new)[1] or "", existing)
        return answers

    async def _find(
        self, query: str, news: Sequence[NewOrder], of: Callable[[NewOrder], tuple[str, str | None]], *values: Any
    ) -> list[asyncpg.Record]:
        wanted = [it for it in {of(new) for new in news} if it[1] is not None]
        return await self._fetch(query, *zip(*wanted, strict=True), *values) if wanted else []

    async def record_many(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        """See OrderStore."""
        return await flush_folded(writes, self._write_folded)

    async def _write_folded(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        # Rows and not columns, because the driver would inspect every value of an array per column first.
        moves = [(*move_columns(write).values(),) for write in writes]
        events = [event_columns(event) for write in writes for event in write.events]
        signed = [attempt_columns(it.order.order_id, it.signed) for it in writes if it.signed]
        proven = [
            (it.order.order_id, it.proven.attempt_number, it.proven.outcome.value, text(it.proven.evidence))
            for it in writes
            if it.proven
        ]
        try:
            with self._last_write.noted():
                rows = await self._fetch("record", moves, events, signed, proven)
        except asyncpg.PostgresError as error:
            return await bisect_failures(self._write_folded, writes, _meaning(error))
        moved = {str(row[0]) for row in rows}
        self._announce([event for write in writes if write.order.order_id in moved for event in write.events])
        return [None if write.order.order_id in moved else Fenced(write.order.order_id) for write in writes]

    # --- WorkQueue ---

    async def claim(self, worker: str, order_ids: Sequence[OrderId], lease_ms: int) -> list[Claim]:
        """See WorkQueue."""
        return _claims(await self._fetch("claim", worker, order_ids, lease_ms, POISON.claims))

    async def claim_due(
        self, worker: str, limit: int, lease_ms: int, longest_wait_ms: int = LONGEST_WAIT_MS
    ) -> list[Claim]:
        """See WorkQueue."""
        limits = (POISON.claims, LONGEST_LEASE_MS, longest_wait_ms, POISON.claims_in_doubt)
        return _claims(await self._fetch("claim_due", worker, limit, lease_ms, *limits))

    async def claim_poison(self, worker: str, waited_ms: int, lease_ms: int) -> list[Claim]:
        """See WorkQueue."""
        limits = (POISON.claims_in_doubt, POISON.first_wait_ms, POISON.max_wait_ms)
        return _claims(await self._fetch("claim_poison", worker, lease_ms, POISON.claims, waited_ms, *limits))

    async def expire_dead_leases(self) -> None:
        """See WorkQueue. A worker must be missing for 0.9 s: it may come back after a server's restart."""
        now_s = asyncio.get_running_loop().time()
        if now_s - self._looked_s > _LOOK_IS_OLD_S:
            self._missing_since_s.clear()
        self._looked_s = now_s
        missing = [row[0] for row in await self._fetch("dead_workers", SESSION)]
        self._missing_since_s = {name: self._missing_since_s.get(name, now_s) for name in missing}
        gone = [name for name, since_s in self._missing_since_s.items() if now_s - since_s >= _GONE_AFTER_S]
        if gone:
            await self._fetch("expire_leases", sorted(gone))

    async def renew(self, worker: str, claims: Mapping[OrderId, int], lease_ms: int) -> set[OrderId]:
        """See WorkQueue."""
        rows = await self._fetch("renew", worker, *_in_order(claims), lease_ms)
        return {OrderId(str(row[0])) for row in rows}

    async def release(self, worker: str, claims: Mapping[OrderId, int]) -> None:
        """See WorkQueue."""
        await self._fetch("release", worker, *_in_order(claims), POISON.claims)

    # --- Upkeep ---

    async def delete_ended(self, older_than_ms: int, limit: int) -> int:
        """See Upkeep."""
        deleted: int = (await self._fetch("delete_ended", older_than_ms, limit))[0][0]
        return deleted

    async def pin_cluster(self, genesis_hash: str) -> str:
        """See Upkeep."""
        while not (rows := await self._fetch("pin_cluster", genesis_hash)):
            pass  # Another process was first, after this statement began; the next one sees its row.
        kept: str = rows[0][0]
        return kept

    async def identity(self) -> EngineIdentity:
        """See Upkeep."""
        return EngineIdentity(*(await self._fetch("identity"))[0])

    async def ping(self) -> None:
        """See Upkeep."""
        await self._sessions.fetch("select 1")

    # --- OrderReader ---

    async def get_many(self, wanted: Sequence[tuple[str, OrderId]]) -> Sequence[Order | None]:
        """See OrderReader."""
        found = (order_from_row(row) for row in await self._fetch("get", [*{order_id for _, order_id in wanted}]))
        by_id = {(order.account, order.order_id): order for order in found}
        return [by_id.get(it) for it in wanted]

    async def attempts(self, order_id: OrderId) -> list[SignedAttempt]:
        """See OrderReader."""
        return [attempt_from_row(tuple(row)) for row in await self._fetch("attempts", order_id)]

    async def in_doubt(self, account: str, limit: int) -> list[InDoubt]:
        """See OrderReader."""
        rows = await self._fetch("in_doubt", account, limit)
        return [InDoubt(OrderId(str(row[0])), attempt_from_row(tuple(row)[1:])) for row in rows]

    async def count_in_doubt(self) -> InDoubtCount:
        """See OrderReader."""
        return InDoubtCount(*(await self._fetch("count_in_doubt"))[0])

    async def find(self, order_filter: OrderFilter, limit: int) -> list[Order]:
        """See OrderReader."""
        return [order_from_row(row) for row in await self._fetch("find", *_values(order_filter), limit)]

    async def find_by_key(self, account: str, key: str) -> Accepted | None:
        """See OrderReader."""
        rows = await self._fetch("find_by_keys", [account], [key])
        return accepted_from_row(rows[0]) if rows else None

    # --- EventLog ---

    async def histories(self, wanted: Sequence[tuple[OrderId, int]]) -> Sequence[list[OrderEvent]]:
        """See EventLog."""
        least: dict[OrderId, int] = {}
        for order_id, after in wanted:
            least[order_id] = min(after, least.get(order_id, after))
        found: dict[OrderId, list[OrderEvent]] = {order_id: [] for order_id in least}
        for row in await self._fetch("history", [*least], [*least.values()]):
            event = event_from_row(tuple(row))
            found[event.order_id].append(event)
        return [[it for it in found[order_id] if it.seq > after] for order_id, after in wanted]

    async def account_events(self, account: str, after: str | None, until: str | None, limit: int) -> LogPage:
        """See EventLog. The place of a cursor is a snapshot: the transactions whose events have been seen."""
        seen, mark = (NOTHING_SEEN, None) if after in (BEGINNING, None) else split(after)
        if not is_snapshot(seen) or (mark is None and seen != NOTHING_SEEN):
            raise UnknownCursor("is not a cursor of this log")
        end = None if until is None else split(until)[0]
        try:
            rows = await self._fetch("account_events", account, seen, end, 0 if after is None else limit)
        except asyncpg.DataError as error:
            raise UnknownCursor("is not a cursor of this log") from error
        now, last, is_ahead = rows[0]["now"], _newest(rows[0]), rows[0]["is_ahead"]
        if is_ahead:
            raise UnknownCursor(
                "is ahead of this log: the database was restored from an older backup, or is another one"
            )
        if not limit and mark is not None:
            await self._check_mark(account, mark)
        found = [tuple(row)[_EVENT_FROM:] for row in rows if row["order_id"] is not None]
        if not limit or len(found) < limit:
            return LogPage([event_from_row(row[:-1]) for row in found], until or _cursor(after, seen, now, last))
        whole = [row for row in found if row[-1] != found[-1][-1]]
        if not whole:
            return await self.account_events(account, after, until, 2 * limit)
        events = [event_from_row(row[:-1]) for row in whole]
        newest = MarkedEvent(whole[-1][-1], events[-1].order_id, events[-1].seq, events[-1].at_ms)
        return LogPage(events, _cursor(after, seen, end or now, newest), has_more=True)

    async def _check_mark(self, account: str, mark: str) -> None:
        number = number_of(mark)
        rows = await self._fetch("marked_events", account, str(number))
        events = [MarkedEvent(number, str(row[1]), row[2], row[3]) for row in rows if row[1] is not None]
        check_mark(mark, events, rows[0]["deleted_before_ms"])

    # --- HealthStore ---

    @property
    def write_trouble(self) -> str | None:
        """See HealthStore."""
        return self._last_write.trouble

    async def beat(self, heartbeat: Heartbeat) -> None:
        """See HealthStore."""
        try:
            await self._fetch("beat", *heartbeat_columns(heartbeat))
        except asyncpg.PostgresError as error:
            raise StoreUnavailable(f"PostgreSQL takes no writes: {error}") from error

    async def health(self) -> StoreHealth:
        """See HealthStore."""
        processes = [process_from_row(row) for row in await self._fetch("processes")]
        queue = (await self._fetch("queue_state", MAX_COUNTED_WAITING))[0]
        applied = [Applied(*row) for row in await self._fetch("applied_migrations")]
        trouble = schema_trouble(applied, load_migrations(POSTGRES))
        in_doubt, oldest_ms = (await self._fetch("count_in_doubt"))[0]
        return StoreHealth(processes, queue["waiting"], queue["oldest_due_ms"], in_doubt, oldest_ms, trouble)

    async def _fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        return await self._sessions.fetch(self._queries[query], *values)


def _meaning(error: asyncpg.PostgresError) -> Exception:
    """Return the engine's own error for a refusal by one of the database's rules, or the error itself."""
    constraint = getattr(error, "constraint_name", None)
    if constraint == ONE_CLUSTER:
        return WrongCluster(str(error))
    if constraint == WITHIN_LIMITS:
        return limit_exceeded(getattr(error, "detail", None) or "")
    if constraint in NOT_PAUSED:
        return Paused(getattr(error, "detail", None) or "")
    return error


def _in_order(claims: Mapping[OrderId, int]) -> tuple[list[OrderId], list[int]]:
    """Return ids and fences in the order in which every statement locks its rows: no two deadlock."""
    order_ids = sorted(claims)
    return order_ids, [claims[order_id] for order_id in order_ids]


def _account_and_key(new: NewOrder) -> tuple[str, str]:
    return new.order.account, new.idempotency.key if new.idempotency else ""


def _key(new: NewOrder) -> tuple[str, str | None]:
    return new.order.account, new.idempotency.key if new.idempotency else None


def _name(new: NewOrder) -> tuple[str, str | None]:
    return new.order.account, new.order.request.client_order_id


def _claims(rows: Sequence[asyncpg.Record]) -> list[Claim]:
    return [Claim(order_from_row(row), row["fence"], row["claims"]) for row in rows]


def _newest(row: asyncpg.Record) -> MarkedEvent | None:
    """Return the event of the last transaction that wrote one, as `account_events.sql` names it."""
    if row["last_xid"] is None:
        return None
    return MarkedEvent(row["last_xid"], str(row["last_order_id"]), row["last_seq"], row["last_at_ms"])


def _cursor(after: str | None, seen: str, until: str, last: MarkedEvent | None) -> str:
    """Return the cursor of a reader that had `after`, and then everything of `until` up to an event."""
    if last is None:
        return seen
    place = moved_on(seen, until, last.number)
    # A transaction that ended late has a lower number than those that the reader has already seen.
    is_further = after in (BEGINNING, None) or last.number >= number_of(split(after)[1] or "0")
    return join(place, last.mark if is_further else split(after or "")[1])


def _values(order_filter: OrderFilter) -> tuple[Any, ...]:
    return msgspec.structs.astuple(order_filter)


def _quoted(name: str) -> str:
    return '"{}"'.format(name.replace('"', '""'))


async def _migrate(dsn: str, settings: dict[str, str]) -> None:
    connection = await connect(dsn, timeout=_OPEN_TIMEOUT_S, server_settings=settings)
    try:
        await bring_up_to_date(connection, settings.get("search_path"))
    finally:
        await connection.close()
