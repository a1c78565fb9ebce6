"""A plain connection to either database, which does not go through the store."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderId, OrderStatus
from order_engine.wiring import new_order_id
from tests.contracts.orders import GENESIS, OWNER

Values = Mapping[str, Any]
Statement = tuple[str, Sequence[Any]]
Answer = TypeVar("Answer")

PENDING: Final = OrderStatus.PENDING
ROUTING: Final = OrderStatus.ROUTING
BUILDING: Final = OrderStatus.BUILDING
SUBMITTED: Final = OrderStatus.SUBMITTED
CONFIRMED: Final = OrderStatus.CONFIRMED
RETRYING: Final = OrderStatus.RETRYING

# The columns of a pending order's row; the other columns are null or have a default.
ORDER: Final[Values] = {
    "account": "acme",
    "idempotency_key": "key",
    "request_digest": "digest",
    "client_order_id": None,
    "token_in": "SOL",
    "token_in_mint": "So11111111111111111111111111111111111111112",
    "token_in_decimals": 9,
    "token_out": "USDC",
    "token_out_mint": "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
    "token_out_decimals": 6,
    "amount_in": 1_000,
    "slippage_bps": 50,
    "metadata": '{"a":1}',
    "created_at_ms": 1_000,
    "status": "pending",
    "seq": 1,
    "attempt": 0,
    "updated_at_ms": 1_000,
    "quotes": "[]",
    "fence": 5,
    "due_at_ms": 1_000,
}
ATTEMPT: Final[Values] = {
    "attempt": 1,
    "signature": "signature",
    "raw": b"raw",
    "owner": OWNER,
    "last_valid_block_height": 150,
    "signed_slot": 90,
    "signed_block_height": 80,
    "blockhash_slot": 95,
    "signed_at_ms": 1_000,
    "genesis_hash": GENESIS,
}


class Refused(Exception):  # noqa: N818 - it reads best at `raises`
    """The database refused the statement, and everything in the same transaction."""


class RawDatabase(Protocol):
    """A migrated database."""

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `{0}`, `{1}` … for its values; raises Refused."""
        ...

    async def together(self, statements: Sequence[Statement]) -> None:
        """Run all statements in one transaction; raises Refused."""
        ...

    async def close(self) -> None: ...


class RawPostgres:
    """See RawDatabase."""

    def __init__(self, connection: "asyncpg.Connection[asyncpg.Record]") -> None:
        self._connection = connection

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        numbered = statement.format(*(f"${at + 1}" for at in range(len(values))))
        try:
            return [tuple(row) for row in await self._connection.fetch(numbered, *values)]
        except asyncpg.IntegrityConstraintViolationError as error:
            raise Refused(f"{error.constraint_name}: {error}") from error

    async def together(self, statements: Sequence[Statement]) -> None:
        # The triggers run at the end of a statement, so all writes must be in one statement.
        *firsts, last = statements
        values: list[Any] = []
        parts = []
        for statement, its_values in (*firsts, last):
            parts.append(statement.format(*(f"{{{len(values) + at}}}" for at in range(len(its_values)))))
            values += its_values
        named = ", ".join(f"part{at} as ({part})" for at, part in enumerate(parts[:-1]))
        await self.run(f"with {named} {parts[-1]}" if named else parts[-1], values)

    async def close(self) -> None:
        await self._connection.close()


class RawSqlite:
    """See RawDatabase."""

    def __init__(self, path: Path) -> None:
        self._connection = sqlite3.connect(path, isolation_level=None)
        self._connection.execute("pragma foreign_keys = on")

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        numbered = statement.format(*(f"?{at + 1}" for at in range(len(values))))
        try:
            return self._connection.execute(numbered, tuple(values)).fetchall()
        except sqlite3.IntegrityError as error:
            raise Refused(str(error)) from error

    async def together(self, statements: Sequence[Statement]) -> None:
        await self.run("begin")
        try:
            for statement, values in statements:
                await self.run(statement, values)
            await self.run("commit")
        except Refused:
            await self.run("rollback")
            raise

    async def close(self) -> None:
        self._connection.close()


async def open_raw(place: str | Path) -> RawDatabase:
    """Connect to a file, or to a database by its URL."""
    return RawSqlite(place) if isinstance(place, Path) else RawPostgres(await asyncpg.connect(place))


# --- statements ---


def insert(table: str, values: Values) -> Statement:
    """A new row."""
    places = ", ".join(f"{{{at}}}" for at in range(len(values)))
    return f"insert into {table} ({', '.join(values)}) values ({places})", [*values.values()]


def change(order: Values) -> Statement:
    """An update of the order that has this `order_id`."""
    changes = ", ".join(f"{name} = {{{at}}}" for at, name in enumerate(order) if name != "order_id")
    return f"update orders set {changes} where order_id = {{{[*order].index('order_id')}}}", [*order.values()]


def signing(order_id: OrderId, attempt: int = 1, **changes: Any) -> Statement:
    """A new attempt; it has no outcome unless `changes` give one."""
    signature = signature_of(order_id, attempt)
    return insert("attempts", {**ATTEMPT, "order_id": order_id, "attempt": attempt, "signature": signature, **changes})


def proving(order_id: OrderId, attempt: int, outcome: str | None) -> Statement:
    """An attempt's outcome."""
    statement = "update attempts set outcome = {0}, evidence = {1} where order_id = {2} and attempt = {3}"
    return statement, [outcome, None if outcome is None else "{}", order_id, attempt]


def signature_of(order_id: OrderId, attempt: int) -> str:
    """The signature of this attempt in these tests."""
    return f"{order_id}/{attempt}"


def event_of(order_id: OrderId, seq: int, status: OrderStatus, attempt: int = 0) -> Values:
    """An event's row."""
    return {
        "order_id": order_id,
        "account": "acme",
        "seq": seq,
        "status": status.value,
        "attempt": attempt,
        "at_ms": 1_000,
        "data": "{}",
    }


# --- orders in every status ---


async def write(database: RawDatabase, order: Values, event: Values | None, attempt: Statement | None = None) -> None:
    """Insert or, by `order_id`, update an order, sign or prove its attempt and append the event, together."""
    statements = [insert("orders", order) if "account" in order else change(order)]
    statements += [] if attempt is None else [attempt]
    # The event comes last, because SQLite's triggers check each row at once.
    statements += [] if event is None else [insert("order_events", event)]
    await database.together(statements)


async def begin(database: RawDatabase, status: OrderStatus = PENDING, **changes: Any) -> OrderId:
    """Insert an order whose first event has this status; return its id."""
    order_id = new_order_id()
    order = {**ORDER, "order_id": order_id, "idempotency_key": f"key of {order_id}", **resting(status), **changes}
    await write(database, order, {**event_of(order_id, 1, status), "account": order["account"]})
    return order_id


async def move(
    database: RawDatabase,
    order_id: OrderId,
    seq: int,
    status: OrderStatus,
    outcome: str | None = None,
    **changes: Any,
) -> None:
    """Move the order to a status, with the event and the attempt that this status requires.

    Without an `outcome`, a submitted order's attempt lands if the order becomes confirmed, and expires otherwise.
    """
    ((before, attempt),) = await database.run("select status, attempt from orders where order_id = {0}", [order_id])
    change_of_attempt = None
    order = {"order_id": order_id, "seq": seq, **resting(status)}
    if before == SUBMITTED:
        change_of_attempt = proving(order_id, attempt, outcome or ("landed" if status is CONFIRMED else "expired"))
    attempt += status is ROUTING
    if status is SUBMITTED:
        change_of_attempt = signing(order_id, attempt)
        order["tx_signature"] = signature_of(order_id, attempt)
    event = event_of(order_id, seq, status, attempt)
    await write(database, {**order, "attempt": attempt, **changes}, event, change_of_attempt)


async def begin_and_move(database: RawDatabase, status: OrderStatus) -> tuple[OrderId, int]:
    """Bring a new order to the status by the shortest legal path; return its id and its seq."""
    return await begin_and_follow(database, shortest_paths(PENDING)[status])


async def begin_and_follow(
    database: RawDatabase, path: Sequence[OrderStatus], outcome: str | None = None
) -> tuple[OrderId, int]:
    """Move a new order along the path; return its id and its seq. `move` explains the outcome."""
    order_id = await begin(database)
    for seq, step in enumerate(path, 2):
        await move(database, order_id, seq, step, "landed" if step is CONFIRMED else outcome)
    return order_id, 1 + len(path)


async def append(database: RawDatabase, event: Values) -> None:
    """Add an event and change nothing else."""
    await database.run(*insert("order_events", event))


async def rows(database: RawDatabase, order_id: OrderId) -> list[list[tuple[Any, ...]]]:
    """Everything that is kept of the order."""
    tables = ("orders", "order_events", "attempts")
    found = [
        await database.run(f"select * from {table} where order_id = {{0}} order by 1, 2", [order_id])
        for table in tables
    ]
    return [[tuple(str(value) for value in row) for row in table] for table in found]


def resting(status: OrderStatus) -> dict[str, Any]:
    """The columns whose values depend on the status."""
    ended = status in TERMINAL
    return {
        "status": status.value,
        "due_at_ms": None if ended else 1_000,
        "amount_out": 1 if status is OrderStatus.CONFIRMED else None,
        "reason_code": "no_route" if ended and status is not OrderStatus.CONFIRMED else None,
    }


def shortest_paths(first: OrderStatus) -> Mapping[OrderStatus, tuple[OrderStatus, ...]]:
    """The shortest path from a status to each status that an order can reach from it."""
    paths: dict[OrderStatus, tuple[OrderStatus, ...]] = {first: ()}
    waiting = [first]
    for status in waiting:
        for following in sorted(TRANSITIONS[status] - paths.keys()):
            paths[following] = (*paths[status], following)
            waiting.append(following)
    return paths
