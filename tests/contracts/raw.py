"""A plain connection to either database, as somebody has it who does not go through the store."""

import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Protocol, TypeVar

import asyncpg

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderId, OrderStatus
from order_engine.wiring import new_order_id

Values = Mapping[str, Any]
Answer = TypeVar("Answer")

PENDING: Final = OrderStatus.PENDING

# What a pending order's row holds; the rest is null or has a default.
ORDER: Final[Values] = {
    "account": "acme",
    "idempotency_key": "key",
    "request_digest": "digest",
    "client_order_id": "mine",
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
    "last_valid_block_height": 150,
    "signed_at_ms": 1_000,
}


class Refused(Exception):  # noqa: N818 - it reads best at `raises`
    """The database refused the statement, and everything that was to go with it."""


class RawDatabase(Protocol):
    """A migrated database."""

    async def run(self, statement: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run one statement with `{0}`, `{1}` … for its values; raises Refused."""
        ...

    async def write(self, order: Values, event: Values | None) -> None:
        """Insert or, by `order_id`, update an order and append the event, together; raises Refused."""
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
            raise Refused(str(error)) from error

    async def write(self, order: Values, event: Values | None) -> None:
        # The triggers look at the end of the statement, so both have to be in one.
        values = [*order.values()]
        statement = _order_statement(order)
        if event is not None:
            insert = _insert("order_events", event, len(values))
            statement = f"with moved as ({statement}) {insert}"
            values += event.values()
        await self.run(statement, values)

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

    async def write(self, order: Values, event: Values | None) -> None:
        # The triggers look at each row, so the order has to be there before its event.
        await self.run("begin")
        try:
            await self.run(_order_statement(order), [*order.values()])
            if event is not None:
                await self.run(_insert("order_events", event), [*event.values()])
            await self.run("commit")
        except Refused:
            await self.run("rollback")
            raise

    async def close(self) -> None:
        self._connection.close()


def _order_statement(order: Values) -> str:
    if "account" in order:
        return _insert("orders", order)
    changes = ", ".join(f"{name} = {{{at}}}" for at, name in enumerate(order) if name != "order_id")
    return f"update orders set {changes} where order_id = {{{[*order].index('order_id')}}}"


def _insert(table: str, values: Values, first: int = 0) -> str:
    places = ", ".join(f"{{{first + at}}}" for at in range(len(values)))
    return f"insert into {table} ({', '.join(values)}) values ({places})"


async def open_raw(place: str | Path) -> RawDatabase:
    """Connect to a file, or to a database by its URL."""
    return RawSqlite(place) if isinstance(place, Path) else RawPostgres(await asyncpg.connect(place))


# --- orders in whatever status a test needs ---


async def begin(database: RawDatabase, status: OrderStatus = PENDING, **changes: Any) -> OrderId:
    """A new order's id; its first event says `status`."""
    order_id = new_order_id()
    order = {**ORDER, "order_id": order_id, "idempotency_key": f"key of {order_id}", **_resting(status), **changes}
    await database.write(order, event_of(order_id, 1, status))
    return order_id


async def move(database: RawDatabase, order_id: OrderId, seq: int, status: OrderStatus, **changes: Any) -> None:
    """Move the order to a status, with its event."""
    order = {"order_id": order_id, "seq": seq, **_resting(status), **changes}
    await database.write(order, event_of(order_id, seq, status))


async def begin_and_move(database: RawDatabase, status: OrderStatus) -> tuple[OrderId, int]:
    """An order that has come to the status by the shortest legal way, and its seq."""
    order_id = await begin(database)
    path = _paths()[status]
    for seq, step in enumerate(path, 2):
        await move(database, order_id, seq, step)
    return order_id, 1 + len(path)


async def append(database: RawDatabase, event: Values) -> None:
    """Add an event alone."""
    await database.run(_insert("order_events", event), [*event.values()])


async def sign(database: RawDatabase, order_id: OrderId, attempt: int = 1) -> None:
    """Add an attempt without an outcome."""
    values = {**ATTEMPT, "order_id": order_id, "attempt": attempt, "signature": f"{order_id}/{attempt}"}
    await database.run(_insert("attempts", values), [*values.values()])


async def prove(database: RawDatabase, order_id: OrderId, outcome: str, attempt: int = 1) -> None:
    """Give the attempt its outcome."""
    statement = "update attempts set outcome = {0}, evidence = {1} where order_id = {2} and attempt = {3}"
    await database.run(statement, [outcome, "{}", order_id, attempt])


def event_of(order_id: OrderId, seq: int, status: OrderStatus) -> Values:
    """An event's row."""
    return {"order_id": order_id, "seq": seq, "status": status.value, "attempt": 0, "at_ms": 1_000, "data": "{}"}


async def rows(database: RawDatabase, order_id: OrderId) -> list[list[tuple[Any, ...]]]:
    """Everything that is kept of the order."""
    tables = ("orders", "order_events", "attempts")
    found = [
        await database.run(f"select * from {table} where order_id = {{0}} order by 1, 2", [order_id])
        for table in tables
    ]
    return [[tuple(str(value) for value in row) for row in table] for table in found]


def _resting(status: OrderStatus) -> Values:
    """The columns that go with a status."""
    ended = status in TERMINAL
    return {
        "status": status.value,
        "due_at_ms": None if ended else 1_000,
        "amount_out": 1 if status is OrderStatus.CONFIRMED else None,
        "reason_code": "no_route" if ended and status is not OrderStatus.CONFIRMED else None,
    }


def _paths() -> Mapping[OrderStatus, tuple[OrderStatus, ...]]:
    """The shortest way from pending to every status."""
    paths: dict[OrderStatus, tuple[OrderStatus, ...]] = {PENDING: ()}
    waiting = [PENDING]
    for status in waiting:
        for following in sorted(TRANSITIONS[status] - paths.keys()):
            paths[following] = (*paths[status], following)
            waiting.append(following)
    return paths
