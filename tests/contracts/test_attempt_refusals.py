"""Both databases refuse wrong changes of signed transactions, from every client; see test_refusals.py."""

import pytest

from order_engine.domain.order import OrderStatus
from order_engine.wiring import new_order_id
from tests.contracts.raw import (
    CONFIRMED,
    ROUTING,
    SUBMITTED,
    RawDatabase,
    Refused,
    begin_and_move,
    change,
    event_of,
    insert,
    move,
    proving,
    resting,
    rows,
    signature_of,
    signing,
    write,
)

pytestmark = pytest.mark.asyncio

BUILDING, RETRYING, FAILED = OrderStatus.BUILDING, OrderStatus.RETRYING, OrderStatus.FAILED
OUTCOMES = ["landed", "reverted", "expired"]


# --- an attempt is signed only with `submitted` ---


@pytest.mark.parametrize("status", [it for it in OrderStatus if it is not SUBMITTED])
@pytest.mark.parametrize("outcome", [None, *OUTCOMES])
async def test_an_order_that_is_not_submitted_signs_nothing(
    database: RawDatabase, status: OrderStatus, outcome: str | None
) -> None:
    order_id, _ = await begin_and_move(database, status)
    kept = await rows(database, order_id)
    evidence = None if outcome is None else "{}"
    for attempt in (1, 2):
        with pytest.raises(Refused):
            await database.run(*signing(order_id, attempt, outcome=outcome, evidence=evidence))
    assert await rows(database, order_id) == kept


async def test_no_second_attempt_is_signed_while_one_is_live(database: RawDatabase) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    for attempt in (1, 2):
        with pytest.raises(Refused):
            await database.run(*signing(order_id, attempt, signature="other"))
    for status in (RETRYING, ROUTING, BUILDING, SUBMITTED):
        seq += 1
        await move(database, order_id, seq, status)
    assert len((await rows(database, order_id))[2]) == 2


@pytest.mark.parametrize(
    ("attempt", "changes"),
    [
        (1, {"signature": "other"}),
        (2, {}),
        *((1, {"outcome": outcome, "evidence": "{}"}) for outcome in OUTCOMES),
    ],
    ids=str,
)
async def test_an_order_is_submitted_with_its_own_live_attempt(
    database: RawDatabase, attempt: int, changes: dict[str, str]
) -> None:
    order_id, seq = await begin_and_move(database, BUILDING)
    order = {"order_id": order_id, "seq": seq + 1, **resting(SUBMITTED), "tx_signature": signature_of(order_id, 1)}
    event = event_of(order_id, seq + 1, SUBMITTED, 1)
    kept = await rows(database, order_id)
    with pytest.raises(Refused, match="_match_"):
        await write(database, order, event, signing(order_id, attempt, **changes))
    with pytest.raises(Refused, match="order_events_match_attempts"):
        await write(database, order, event)
    assert await rows(database, order_id) == kept
    await write(database, order, event, signing(order_id, 1))


async def test_an_order_does_not_pass_through_submitted(database: RawDatabase) -> None:
    """An order is committed as submitted before it ends: one statement cannot do both."""
    order_id, seq = await begin_and_move(database, BUILDING)
    kept = await rows(database, order_id)
    for status, outcome in ((CONFIRMED, "landed"), (RETRYING, "expired"), (FAILED, "reverted"), (FAILED, None)):
        order = {"order_id": order_id, "seq": seq + 2, **resting(status), "tx_signature": signature_of(order_id, 1)}
        with pytest.raises(Refused):
            await database.together(
                [
                    change(order),
                    signing(order_id, 1, outcome=outcome, evidence=outcome),
                    insert("order_events", event_of(order_id, seq + 1, SUBMITTED, 1)),
                    insert("order_events", event_of(order_id, seq + 2, status, 1)),
                ]
            )
    assert await rows(database, order_id) == kept


async def test_an_attempt_belongs_to_an_order_and_a_signature_to_one_attempt(database: RawDatabase) -> None:
    with pytest.raises(Refused, match="attempts_match_order"):
        await database.run(*signing(new_order_id()))
    one, _ = await begin_and_move(database, SUBMITTED)
    two, seq = await begin_and_move(database, BUILDING)
    order = {"order_id": two, "seq": seq + 1, **resting(SUBMITTED), "tx_signature": signature_of(one, 1)}
    taken = signing(two, 1, signature=signature_of(one, 1))
    with pytest.raises(Refused):
        await write(database, order, event_of(two, seq + 1, SUBMITTED, 1), taken)


# --- an attempt is proven only with the status after `submitted` ---


@pytest.mark.parametrize("outcome", OUTCOMES)
async def test_an_outcome_comes_with_what_follows_from_it(database: RawDatabase, outcome: str) -> None:
    order_id, _ = await begin_and_move(database, SUBMITTED)
    with pytest.raises(Refused, match="attempts_match_order"):
        await database.run(*proving(order_id, 1, outcome))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(CONFIRMED, "reverted"), (CONFIRMED, "expired"), (RETRYING, "landed"), (FAILED, "landed")],
)
async def test_an_order_does_not_end_otherwise_than_its_attempt(
    database: RawDatabase, status: OrderStatus, outcome: str
) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    kept = await rows(database, order_id)
    with pytest.raises(Refused, match="order_events_match_attempts"):
        await move(database, order_id, seq + 1, status, outcome)
    assert await rows(database, order_id) == kept


@pytest.mark.parametrize("status", [CONFIRMED, RETRYING, FAILED])
async def test_an_order_whose_attempt_is_live_stays_submitted(database: RawDatabase, status: OrderStatus) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    order = {"order_id": order_id, "seq": seq + 1, **resting(status)}
    event = event_of(order_id, seq + 1, status, 1)
    for nothing in (None, proving(order_id, 7, "landed"), proving(new_order_id(), 1, "landed")):
        with pytest.raises(Refused, match="order_events_match_attempts"):
            await write(database, order, event, nothing)


async def test_an_earlier_attempt_says_nothing_of_a_later_one(database: RawDatabase) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    for status in (RETRYING, ROUTING, BUILDING, SUBMITTED):
        seq += 1
        await move(database, order_id, seq, status)
    for attempt in (1, 2):
        order = {"order_id": order_id, "seq": seq + 1, "attempt": attempt, **resting(FAILED)}
        with pytest.raises(Refused):
            await write(database, order, event_of(order_id, seq + 1, FAILED, attempt))


# --- never changed ---


@pytest.mark.parametrize("first", OUTCOMES)
async def test_an_outcome_is_written_once(database: RawDatabase, first: str) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    await move(database, order_id, seq + 1, CONFIRMED if first == "landed" else RETRYING, first)
    for changes in ("outcome = 'landed'", "outcome = 'expired'", "outcome = null, evidence = null", "evidence = '1'"):
        with pytest.raises(Refused, match="attempts_decided_once"):
            await database.run(f"update attempts set {changes} where order_id = {{0}}", [order_id])


@pytest.mark.parametrize(
    "changes",
    [
        "outcome = 'confirmed', evidence = 'proof'",
        "outcome = 'landed'",
        "evidence = 'proof'",
        "outcome = 'expired', evidence = 'proof', signature = 'other'",
        "outcome = 'expired', evidence = 'proof', attempt = 2",
        "outcome = 'expired', evidence = 'proof', last_valid_block_height = 151",
        "outcome = 'expired', evidence = 'proof', signed_at_ms = 1001",
        "outcome = 'expired', evidence = 'proof', raw = signature",
        "outcome = 'expired', evidence = 'proof', signed_slot = 91",
        "outcome = 'expired', evidence = 'proof', genesis_hash = 'another'",
        "signed_at_ms = 1001",
    ],
)
async def test_a_signed_transaction_never_changes_and_its_outcome_has_evidence(
    database: RawDatabase, changes: str
) -> None:
    order_id, seq = await begin_and_move(database, SUBMITTED)
    order = {"order_id": order_id, "seq": seq + 1, **resting(RETRYING)}
    event = event_of(order_id, seq + 1, RETRYING, 1)
    statement = f"update attempts set {changes} where order_id = {{0}}".replace("raw = signature", "raw = {1}")
    values = [order_id, b"other"] if "{1}" in statement else [order_id]
    with pytest.raises(Refused):
        await database.run(statement, values)
    with pytest.raises(Refused):
        await write(database, order, event, (statement, values))
    await write(database, order, event, proving(order_id, 1, "expired"))
