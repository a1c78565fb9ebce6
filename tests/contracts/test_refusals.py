"""Both databases refuse wrong changes, even on a plain connection that does not go through the store."""

from pathlib import Path
from typing import Any

import pytest

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderStatus
from order_engine.wiring import new_order_id
from tests.contracts.raw import (
    ORDER,
    PENDING,
    RawDatabase,
    RawPostgres,
    Refused,
    append,
    begin,
    begin_and_move,
    event_of,
    move,
    open_raw,
    resting,
    rows,
    write,
)
from tests.contracts.worlds import SqliteWorld, migrate

pytestmark = pytest.mark.asyncio

ROUTING, SUBMITTED = OrderStatus.ROUTING, OrderStatus.SUBMITTED
CONFIRMED, FAILED, CANCELLED = OrderStatus.CONFIRMED, OrderStatus.FAILED, OrderStatus.CANCELLED


# --- the history ---


async def test_exactly_the_transitions_of_the_table_are_taken(database: RawDatabase) -> None:
    legal = {(before, after) for before, following in TRANSITIONS.items() for after in following}
    taken = set()
    for before in OrderStatus:
        for after in OrderStatus:
            order_id, seq = await begin_and_move(database, before)
            kept = await rows(database, order_id)
            try:
                await move(database, order_id, seq + 1, after)
                taken.add((before, after))
            except Refused:
                assert await rows(database, order_id) == kept
    assert taken == legal


async def test_an_order_begins_pending(database: RawDatabase) -> None:
    for status in OrderStatus:
        if status is not PENDING:
            with pytest.raises(Refused):
                await begin(database, status)


async def test_a_status_that_nobody_knows_is_refused(database: RawDatabase) -> None:
    order_id = await begin(database)
    event = {**event_of(order_id, 2, FAILED), "status": "done"}
    with pytest.raises(Refused):
        await write(database, {"order_id": order_id, "seq": 2, "status": "done"}, event)


@pytest.mark.parametrize("seq", [-1, 0, 1, 2, 4, 5, 1_000])
async def test_a_history_has_no_gap_and_no_seq_twice(database: RawDatabase, seq: int) -> None:
    order_id, last = await begin_and_move(database, ROUTING)
    assert last == 2
    kept = await rows(database, order_id)
    with pytest.raises(Refused):
        await move(database, order_id, seq, OrderStatus.BUILDING)
    assert await rows(database, order_id) == kept
    await move(database, order_id, 3, OrderStatus.BUILDING)


async def test_a_history_does_not_begin_in_the_middle(database: RawDatabase) -> None:
    order_id = new_order_id()
    with pytest.raises(Refused):
        await write(database, {**ORDER, "order_id": order_id, "seq": 2}, event_of(order_id, 2, ROUTING))


@pytest.mark.parametrize("first", sorted(TERMINAL))
@pytest.mark.parametrize("second", sorted(TERMINAL))
async def test_no_second_end_follows_the_first(database: RawDatabase, first: OrderStatus, second: OrderStatus) -> None:
    order_id, seq = await begin_and_move(database, first)
    with pytest.raises(Refused):
        await move(database, order_id, seq + 1, second)
    with pytest.raises(Refused):
        await append(database, event_of(order_id, seq + 1, second))


CHANGED_EVENT = {"order_id": None, "seq": 9, "status": "failed", "attempt": 7, "at_ms": 7, "data": '{"a":1}'}


@pytest.mark.parametrize("column", sorted(CHANGED_EVENT))
async def test_a_written_event_never_changes(database: RawDatabase, column: str) -> None:
    order_id, _ = await begin_and_move(database, ROUTING)
    value = CHANGED_EVENT[column] or await begin(database)
    with pytest.raises(Refused):
        await database.run(f"update order_events set {column} = {{0}} where order_id = {{1}}", [value, order_id])


@pytest.mark.parametrize("table", ["order_events", "attempts", "orders"])
async def test_nothing_is_ever_deleted(database: RawDatabase, table: str) -> None:
    order_id, _ = await begin_and_move(database, SUBMITTED)
    kept = await rows(database, order_id)
    with pytest.raises(Refused):
        await database.run(f"delete from {table} where order_id = {{0}}", [order_id])
    with pytest.raises(Refused):
        await database.run(f"delete from {table}")
    if isinstance(database, RawPostgres):
        with pytest.raises(Refused):
            await database.run(f"truncate {table} cascade")
    assert await rows(database, order_id) == kept


@pytest.mark.parametrize(("table", "column"), [("order_events", "data"), ("attempts", "raw"), ("orders", "account")])
async def test_nothing_is_ever_replaced(tmp_path: Path, table: str, column: str) -> None:
    """Only SQLite has `insert or replace`, which deletes a row that conflicts with the new one."""
    world = SqliteWorld(tmp_path / "orders.sqlite3")
    await migrate(world)
    database = await open_raw(world.path)
    order_id, _ = await begin_and_move(database, SUBMITTED)
    kept = await rows(database, order_id)
    names = [row[1] for row in await database.run(f"pragma table_info({table})")]
    values = ", ".join("'other'" if name == column else name for name in names)
    try:
        with pytest.raises(Refused):
            await database.run(f"insert or replace into {table} select {values} from {table}")
        assert await rows(database, order_id) == kept
    finally:
        await database.close()


# --- the order ---


OTHER: dict[str, Any] = {
    "order_id": None,
    "account": "other",
    "idempotency_key": "other",
    "request_digest": "other",
    "client_order_id": "other",
    "token_in": "USDT",
    "token_in_mint": "other",
    "token_in_decimals": 8,
    "token_out": "BONK",
    "token_out_mint": "other",
    "token_out_decimals": 7,
    "amount_in": 1_001,
    "slippage_bps": 51,
    "metadata": '{"a":2}',
    "created_at_ms": 999,
}


@pytest.mark.parametrize("column", sorted(OTHER))
async def test_what_was_asked_for_stays(database: RawDatabase, column: str) -> None:
    order_id = await begin(database)
    value = OTHER[column] or new_order_id()
    with pytest.raises(Refused):
        await database.run(f"update orders set {column} = {{0}} where order_id = {{1}}", [value, order_id])


async def test_the_fence_is_never_lowered(database: RawDatabase) -> None:
    order_id = await begin(database)
    change = "update orders set fence = fence + {0} where order_id = {1}"
    with pytest.raises(Refused):
        await database.run(change, [-1, order_id])
    await database.run(change, [1, order_id])
    with pytest.raises(Refused):
        await move(database, order_id, 2, ROUTING, fence=5)


@pytest.mark.parametrize(
    "change",
    [
        {"seq": 2},
        {"seq": 1, "status": "routing"},
        {"seq": 2, "status": "routing"},
        {"seq": 0},
        {"status": "cancelled", "due_at_ms": None, "reason_code": "no_route"},
    ],
    ids=str,
)
async def test_an_order_never_says_what_its_history_does_not(database: RawDatabase, change: dict[str, Any]) -> None:
    order_id = await begin(database)
    with pytest.raises(Refused):
        await write(database, {"order_id": order_id, **change}, None)


@pytest.mark.parametrize(
    ("says", "event"), [(ROUTING, CANCELLED), (CANCELLED, ROUTING), (ROUTING, FAILED), (FAILED, CANCELLED)]
)
async def test_an_order_and_its_last_event_say_the_same(
    database: RawDatabase, says: OrderStatus, event: OrderStatus
) -> None:
    order_id = await begin(database)
    attempt = int(event is ROUTING)
    order = {"order_id": order_id, "seq": 2, "attempt": attempt, **resting(says)}
    with pytest.raises(Refused, match="_match_"):
        await write(database, order, event_of(order_id, 2, event, attempt))


async def test_an_order_and_its_last_event_count_the_same_attempts(database: RawDatabase) -> None:
    order_id = await begin(database)
    for says, event in ((0, 1), (2, 1), (1, 0), (1, 2), (0, 0), (2, 2)):
        order = {"order_id": order_id, "seq": 2, "attempt": says, **resting(ROUTING)}
        with pytest.raises(Refused):
            await write(database, order, event_of(order_id, 2, ROUTING, event))


LEFT_BY_THE_LAST_EVENT: dict[str, Any] = {
    "attempt": 2,
    "updated_at_ms": 7,
    "venue": "other",
    "quotes": '["other"]',
    "min_amount_out": 7,
    "amount_out": 7,
    "tx_signature": "other",
    "reason_code": "no_route",
    "reason_message": "other",
}


@pytest.mark.parametrize("column", sorted(LEFT_BY_THE_LAST_EVENT))
async def test_an_order_changes_by_an_event_alone(database: RawDatabase, column: str) -> None:
    order_id, _ = await begin_and_move(database, SUBMITTED)
    value = LEFT_BY_THE_LAST_EVENT[column]
    with pytest.raises(Refused, match="orders_change_with_an_event"):
        await database.run(f"update orders set {column} = {{0}} where order_id = {{1}}", [value, order_id])


async def test_an_order_does_not_go_back_in_its_history(database: RawDatabase) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    for earlier, status in ((1, "pending"), (seq - 1, "building")):
        with pytest.raises(Refused):
            await write(database, {"order_id": order_id, "seq": earlier, "status": status}, None)


async def test_an_order_is_not_stored_without_its_first_event(database: RawDatabase) -> None:
    order = {**ORDER, "order_id": new_order_id(), "idempotency_key": None, "request_digest": None}
    with pytest.raises(Refused):
        await write(database, order, None)


async def test_an_event_is_not_stored_without_its_order(database: RawDatabase) -> None:
    event = event_of(new_order_id(), 1, PENDING)
    with pytest.raises(Refused):
        await append(database, event)


async def test_an_event_is_not_stored_ahead_of_its_order(database: RawDatabase) -> None:
    event = event_of(await begin(database), 2, ROUTING)
    with pytest.raises(Refused):
        await append(database, event)


@pytest.mark.parametrize("status", sorted(TERMINAL))
async def test_an_order_at_its_end_never_changes_again(database: RawDatabase, status: OrderStatus) -> None:
    order_id, _ = await begin_and_move(database, status)
    for change in ("amount_out = 2", "fence = fence + 1", "reason_message = 'other'", "tx_signature = 'other'"):
        with pytest.raises(Refused):
            await database.run(f"update orders set {change} where order_id = {{0}}", [order_id])


@pytest.mark.parametrize(
    "change",
    [
        "due_at_ms = null",
        "lease_until_ms = 1",
        "worker = 'one', lease_until_ms = 1",
        "worker = 'one'",
        "due_at_ms = null, lease_until_ms = 1",
        "amount_in = 0",
        "slippage_bps = 0",
        "slippage_bps = 1001",
        "attempt = -1",
        "request_digest = null",
    ],
)
async def test_an_order_either_waits_or_is_held_and_stays_within_its_bounds(database: RawDatabase, change: str) -> None:
    order_id = await begin(database)
    with pytest.raises(Refused):
        await database.run(f"update orders set {change} where order_id = {{0}}", [order_id])


@pytest.mark.parametrize(
    ("status", "change"),
    [
        (CONFIRMED, {"amount_out": None}),
        (CONFIRMED, {"amount_out": 0}),
        (CONFIRMED, {"due_at_ms": 1}),
        (FAILED, {"reason_code": None}),
        (FAILED, {"worker": "one", "lease_until_ms": 1}),
    ],
    ids=str,
)
async def test_an_end_is_a_whole_one(database: RawDatabase, status: OrderStatus, change: dict[str, Any]) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    with pytest.raises(Refused):
        await move(database, order_id, seq + 1, status, **change)


async def test_an_event_belongs_to_the_account_of_its_order(database: RawDatabase) -> None:
    order_id = new_order_id()
    order = {**ORDER, "order_id": order_id, "idempotency_key": f"key of {order_id}", **resting(PENDING)}
    with pytest.raises(Refused, match="order_events_match_order"):
        await write(database, order, {**event_of(order_id, 1, PENDING), "account": "other"})


async def test_one_key_makes_one_order_in_an_account(database: RawDatabase) -> None:
    key = f"key {new_order_id()}"
    await begin(database, idempotency_key=key)
    with pytest.raises(Refused):
        await begin(database, idempotency_key=key)
    await begin(database, idempotency_key=key, account="other")
    for _ in range(2):
        await begin(database, idempotency_key=None, request_digest=None)
