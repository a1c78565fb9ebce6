"""Every change of an order from every situation: both databases take exactly the lawful ones.

The product of situations, statuses, seqs, fences, rests and attempts, written by a plain connection.
"""

from collections.abc import Iterator
from itertools import product
from typing import Any, NamedTuple

import pytest

from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import OrderId, OrderStatus
from tests.contracts.raw import (
    ORDER,
    ROUTING,
    SUBMITTED,
    RawDatabase,
    Refused,
    Statement,
    begin_and_follow,
    event_of,
    proving,
    resting,
    rows,
    signature_of,
    signing,
    write,
)
from tests.contracts.situations import (
    LIVE,
    NOTHING,
    WHAT_BECOMES_OF_THE_ATTEMPT,
    Situation,
    is_lawful,
    situations_at,
)

pytestmark = pytest.mark.asyncio

RESTS: dict[str, dict[str, Any]] = {
    "waits": {"due_at_ms": 1_000, "worker": None, "lease_until_ms": None},
    "is held": {"due_at_ms": None, "worker": "one", "lease_until_ms": 1_000},
    "neither": {"due_at_ms": None, "worker": None, "lease_until_ms": None},
}


class Step(NamedTuple):
    """One change to try: the order's row after the change, its event and its attempt."""

    status: OrderStatus
    seqs_on: int
    fences_on: int
    rest: str
    attempt: str
    attempts_on: int = 0


def every_step() -> Iterator[Step]:
    yield from map(Step._make, product(OrderStatus, (0, 1, 2), (-1, 0, 1), RESTS, WHAT_BECOMES_OF_THE_ATTEMPT, [0]))
    # A wrong attempt number is never lawful.
    yield from map(Step._make, product(OrderStatus, [1], [0], RESTS, WHAT_BECOMES_OF_THE_ATTEMPT, (-1, 1)))


def may_be_taken(situation: Situation, step: Step) -> bool:
    return (
        (step.seqs_on, step.attempts_on) == (1, 0)
        and step.fences_on >= 0
        and (step.rest == "neither") == (step.status in TERMINAL)
        and is_lawful(situation.status, step.status, step.attempt)
    )


async def attempt(database: RawDatabase, order_id: OrderId, situation: Situation, step: Step) -> bool:
    """Try the step; return whether the database took it."""
    seq = 1 + len(situation.path) + step.seqs_on
    number = situation.attempt + (step.status is ROUTING) + step.attempts_on
    order = {
        **resting(step.status),
        **RESTS[step.rest],
        "order_id": order_id,
        "seq": seq,
        "attempt": number,
        "fence": ORDER["fence"] + step.fences_on,
    }
    if step.status is SUBMITTED:
        order["tx_signature"] = signature_of(order_id, number)
    try:
        change = change_of_attempt(order_id, situation, step.attempt, number)
        await write(database, order, event_of(order_id, seq, step.status, number), change)
    except Refused:
        return False
    return True


async def attempt_alone(database: RawDatabase, order_id: OrderId, situation: Situation) -> None:
    """Try every change of an attempt while its order keeps its status."""
    for number, what in product(range(situation.attempt + 3), WHAT_BECOMES_OF_THE_ATTEMPT):
        if change := change_of_attempt(order_id, situation, what, number):
            with pytest.raises(Refused):
                await database.run(*change)


def change_of_attempt(order_id: OrderId, situation: Situation, what: str, number: int) -> Statement | None:
    if what == NOTHING:
        return None
    outcome = None if what == LIVE else what
    if situation.has_signed(number):
        return proving(order_id, number, outcome)
    return signing(order_id, number, outcome=outcome, evidence=None if outcome is None else "{}")


@pytest.mark.parametrize("before", OrderStatus)
async def test_exactly_the_lawful_steps_are_taken_and_the_others_leave_nothing_behind(
    database: RawDatabase, before: OrderStatus
) -> None:
    for situation in situations_at(before):
        order_id, _ = await begin_and_follow(database, situation.path, situation.outcome)
        kept = await rows(database, order_id)
        taken = set()
        lawful = {step for step in every_step() if may_be_taken(situation, step)}
        for step in every_step():
            # A lawful step gets a new order. Refused steps change nothing, so they share one order.
            tried = order_id
            if step in lawful:
                tried, _ = await begin_and_follow(database, situation.path, situation.outcome)
            if await attempt(database, tried, situation, step):
                taken.add(step)
        await attempt_alone(database, order_id, situation)
        assert taken == lawful, situation
        assert await rows(database, order_id) == kept
        assert bool(lawful) == (before not in TERMINAL)
