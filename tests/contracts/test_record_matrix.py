"""Every write from every situation, with every fence and seq: the stores take exactly the lawful ones."""

import asyncio
from collections.abc import Iterator, Sequence
from itertools import product
from typing import NamedTuple

import pytest

from order_engine.domain.errors import Fenced
from order_engine.domain.events import Fact
from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import AttemptOutcome, OrderStatus
from tests.contracts.orders import (
    BUILT,
    CANCELLED,
    CONFIRMED,
    FAILED,
    LONG_MS,
    ROUTED,
    Life,
    SingleStore,
    kept,
    new_order,
    outcome_of,
    pause,
)
from tests.contracts.raw import ROUTING, SUBMITTED
from tests.contracts.situations import WHAT_BECOMES_OF_THE_ATTEMPT, Situation, situations_at
from tests.contracts.steps import FENCES, Step, answer_to, write_of
from tests.contracts.worlds import StoreWorld

pytestmark = pytest.mark.asyncio

FACTS: dict[OrderStatus, Fact] = {
    OrderStatus.ROUTING: ROUTED,
    OrderStatus.BUILDING: BUILT,
    OrderStatus.RETRYING: pause(0),
    OrderStatus.CONFIRMED: CONFIRMED,
    OrderStatus.FAILED: FAILED,
    OrderStatus.CANCELLED: CANCELLED,
}
MAX_AT_ONCE = 40


class Place(NamedTuple):
    """An order's situation, and whether a worker holds the order."""

    situation: Situation
    is_held: bool

    def answer_to(self, step: Step) -> type[Exception] | None:
        """The error of the write: Fenced, Exception if the database refuses it, None if the write is taken."""
        has_signed = self.situation.has_signed(self.situation.attempt + (step.status is ROUTING))
        return answer_to(step, self.situation.status, has_signed=has_signed, is_held=self.is_held)


def places_at(status: OrderStatus) -> Iterator[Place]:
    for situation in situations_at(status):
        yield Place(situation, is_held=False)
        if status not in TERMINAL:
            yield Place(situation, is_held=True)


def every_step() -> Iterator[Step]:
    return map(Step._make, product(OrderStatus, WHAT_BECOMES_OF_THE_ATTEMPT, (-1, 0, 1), FENCES))


async def bring_to(store: SingleStore, place: Place) -> Life:
    """Bring a new order to the place; `fence` is that of its last claim."""
    new = new_order()
    await store.accept(new)
    life = await claim(store, Life(new.order, None))
    for status in place.situation.path:
        if life.order.status is OrderStatus.RETRYING:
            life = await claim(store, life)
        if status is SUBMITTED:
            await store.record(life.sign())
        elif life.order.status is SUBMITTED:
            is_landed = status is OrderStatus.CONFIRMED
            outcome = AttemptOutcome.LANDED if is_landed else AttemptOutcome(place.situation.outcome or "expired")
            await store.record(life.settle(FACTS[status], outcome))
        else:
            await store.record(life.write(FACTS[status]))
    rests = life.order.status in TERMINAL | {OrderStatus.RETRYING}
    if place.is_held and rests:
        return await claim(store, life)
    if not place.is_held and not rests:
        assert life.fence is not None
        await store.release("worker", {life.order.order_id: life.fence})
    return life


async def claim(store: SingleStore, life: Life) -> Life:
    (claimed,) = await store.claim("worker", [life.order.order_id], LONG_MS)
    return Life(claimed.order, claimed.fence)


async def answers_to(store: SingleStore, lives: Sequence[Life], steps: Sequence[Step]) -> list[object]:
    """The answers to one step for each order, all in one batch."""
    writes = [write_of(life, step) for life, step in zip(lives, steps, strict=False)]
    return await asyncio.gather(*(outcome_of(store.record(write)) for write in writes))


def is_as_expected(answer: object, expected: type[Exception] | None) -> bool:
    if expected is None or expected is Fenced:
        return answer is None if expected is None else isinstance(answer, Fenced)
    return isinstance(answer, Exception) and not isinstance(answer, Fenced)


@pytest.mark.parametrize("before", OrderStatus)
async def test_a_write_is_taken_fenced_or_refused_as_fence_seq_and_lifecycle_say(
    world: StoreWorld, before: OrderStatus
) -> None:
    store = await world.open()
    for place in places_at(before):
        by_answer: dict[type[Exception] | None, list[Step]] = {}
        for step in every_step():
            by_answer.setdefault(place.answer_to(step), []).append(step)
        assert (None in by_answer) == bool(TRANSITIONS[before])

        lawful = by_answer.pop(None, [])
        lives = [await bring_to(store, place) for _ in lawful]
        assert await answers_to(store, lives, lawful) == [None] * len(lawful), place
        # Refused writes never change an order, so all of them use the same orders.
        lives = await asyncio.gather(*(bring_to(store, place) for _ in range(MAX_AT_ONCE)))
        unchanged = [await kept(store, life.order.order_id) for life in lives]
        for expected, steps in by_answer.items():
            for first in range(0, len(steps), MAX_AT_ONCE):
                few = steps[first : first + MAX_AT_ONCE]
                answers = await answers_to(store, lives, few)
                wrong = [it for it in zip(few, answers, strict=True) if not is_as_expected(it[1], expected)]
                assert not wrong, (place, expected)
        assert [await kept(store, life.order.order_id) for life in lives] == unchanged
