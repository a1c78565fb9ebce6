"""Random lives of up to 5 orders, through the stores and past them, compared with a model."""

import asyncio
from collections.abc import Awaitable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, TypeVar

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    multiple,
    precondition,
    rule,
    run_state_machine_as_test,
)

from order_engine.domain.errors import Fenced
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import CANCELLABLE, TERMINAL, TRANSITIONS
from order_engine.domain.order import Order, OrderStatus
from order_engine.ports.store import Accepted, Claim, Write
from order_engine.wiring import new_order_id
from tests.contracts.orders import ACCOUNT, LONG_MS, Life, new_order, outcome_of
from tests.contracts.raw import CONFIRMED, PENDING, RETRYING, ROUTING, SUBMITTED, RawDatabase, Refused, open_raw
from tests.contracts.situations import LIVE, NOTHING, PROVEN_DEAD, WHAT_BECOMES_OF_THE_ATTEMPT
from tests.contracts.steps import Step, answer_to, write_of
from tests.contracts.worlds import PostgresWorld, SqliteWorld

Answer = TypeVar("Answer")

# The same lives in each run: a test that fails today fails tomorrow.
LIVES: Final = settings(
    max_examples=30,
    stateful_step_count=30,
    derandomize=True,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)

MAX_ORDERS: Final = 5

# Each statement would falsify a history, an attempt or an order; so it must change nothing, in every status.
HOSTILE: Final = (
    "update orders set status = 'routing', seq = seq + 1, attempt = attempt + 1 where order_id = {0}",
    "update orders set status = 'routing' where order_id = {0} and status <> 'routing'",
    "update orders set fence = fence - 1 where order_id = {0}",
    "update orders set seq = seq - 1 where order_id = {0}",
    "update orders set attempt = attempt + 1 where order_id = {0}",
    "update orders set tx_signature = 'other' where order_id = {0}",
    "update orders set amount_in = amount_in + 1 where order_id = {0}",
    "delete from orders where order_id = {0}",
    "delete from order_events where order_id = {0}",
    "delete from attempts where order_id = {0}",
    "update order_events set status = 'failed' where order_id = {0}",
    (
        "insert into order_events (order_id, account, seq, status, attempt, at_ms, data) "
        "select order_id, account, seq + 1, 'failed', attempt, 1, '' from orders where order_id = {0}"
    ),
    "update attempts set outcome = 'landed', evidence = 'proof' where order_id = {0}",
    "update attempts set outcome = null, evidence = null where order_id = {0} and outcome is not null",
    "update attempts set last_valid_block_height = 1 where order_id = {0}",
    (
        "insert into attempts (order_id, attempt, signature, raw, owner, last_valid_block_height, signed_slot,"
        " signed_block_height, blockhash_slot, signed_at_ms, genesis_hash)"
        " select order_id, attempt + 1, 'other', 'raw', 'owner', 1, 1, 1, 1, 1, genesis_hash"
        " from cluster cross join orders where order_id = {0}"
    ),
)

GIVEN_UP: Final = (OrderStatus.FAILED, OrderStatus.CANCELLED)
TWISTS: Final = (
    *({"seqs_on": seqs_on} for seqs_on in (-1, 1)),
    *({"fence": fence} for fence in ("older", "older", "newer", "right", "none")),
    *({"attempt": attempt} for attempt in WHAT_BECOMES_OF_THE_ATTEMPT),
    *({"status": status} for status in OrderStatus),
)
# Mostly 0, which is the next status on the way to `confirmed`.
CHOICES: Final = st.lists(st.sampled_from((0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 2, 3)), min_size=4, max_size=8)


@dataclass
class Known:
    """The model of one order."""

    order: Order
    history: list[OrderEvent]
    key: str | None
    fence: int = 0
    claims: int = 0
    holder: str | None = None
    is_due: bool = False
    attempts: dict[int, str | None] = field(default_factory=dict)

    @property
    def is_claimable(self) -> bool:
        waits = self.holder is None and self.order.status not in TERMINAL
        return waits and (self.is_due or self.order.status is PENDING)

    def was_claimed(self, worker: str) -> Claim:
        self.fence += 1
        self.claims += 1
        self.holder, self.is_due = worker, False
        return Claim(self.order, self.fence, self.claims)


class StoreMachine(RuleBasedStateMachine):
    """Draws never depend on the store's answers, so that a failure can be replayed step by step."""

    orders: Bundle[int] = Bundle("orders")
    workers = st.sampled_from(("one", "two"))

    def __init__(self, place: str | Path) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = SqliteWorld(place) if isinstance(place, Path) else PostgresWorld(place)
        self.store = self.run(self.world.open())
        self.raw: RawDatabase = self.run(open_raw(place))
        self.known: list[Known] = []
        self.ticks = 0
        self.name = new_order_id()

    def run(self, awaitable: Awaitable[Answer]) -> Answer:
        return self.loop.run_until_complete(awaitable)

    # --- the store ---

    @initialize(target=orders, choices=CHOICES)
    def begin(self, choices: list[int]) -> Any:
        """Begin with 3 orders, the first of them submitted, because most rules need an order that has moved on."""
        orders = [self.accept("a"), self.accept("b"), self.accept(None)]
        self.work(0, [0, 0, 0])
        self.work(1, choices)
        return multiple(*orders)

    @precondition(lambda self: len(self.known) < MAX_ORDERS)
    @rule(target=orders, key=st.sampled_from((None, "a", "b")))
    def accept(self, key: str | None) -> Any:
        new = new_order(None if key is None else f"{key} of {self.name}")
        first = next((it for it in self.known if key is not None and it.key == key), None)
        accepted = self.run(self.store.accept(new))
        if first is not None:
            assert accepted == Accepted(first.order, is_replay=True, digest="digest of the first")
            return multiple()
        assert accepted == Accepted(new.order, is_replay=False, digest=None)
        self.known.append(Known(new.order, [new.event], key))
        return len(self.known) - 1

    @rule(at=orders, worker=workers)
    def claim(self, at: int, worker: str) -> None:
        known = self.known[at]
        is_claimable = known.is_claimable
        claims = self.run(self.store.claim(worker, [known.order.order_id], LONG_MS))
        assert claims == ([known.was_claimed(worker)] if is_claimable else [])

    @rule(worker=workers, limit=st.integers(1, 3))
    def claim_due(self, worker: str, limit: int) -> None:
        due = {it.order.order_id: it for it in self.known if it.is_due}
        lapsed = {order_id for order_id, it in due.items() if it.holder is not None}
        claims = self.run(self.store.claim_due(worker, limit, LONG_MS))
        found = {claim.order.order_id for claim in claims}
        assert len(claims) == len(found) == min(limit, len(due))
        assert found <= lapsed or lapsed <= found <= due.keys()
        assert claims == [due[claim.order.order_id].was_claimed(worker) for claim in claims]

    @rule(at=orders, worker=workers, fences_on=st.sampled_from((0, 0, -1, 1)))
    def renew(self, at: int, worker: str, fences_on: int) -> None:
        known = self.known[at]
        is_held = known.holder == worker and fences_on == 0
        held = {known.order.order_id: known.fence + fences_on}
        assert self.run(self.store.renew(worker, held, LONG_MS)) == ({known.order.order_id} if is_held else set())
        known.is_due = known.is_due and not is_held

    @rule(at=orders, worker=workers, fences_on=st.sampled_from((0, 0, -1, 1)))
    def release(self, at: int, worker: str, fences_on: int) -> None:
        known = self.known[at]
        self.run(self.store.release(worker, {known.order.order_id: known.fence + fences_on}))
        if known.holder == worker and fences_on == 0:
            known.holder, known.is_due, known.claims = None, True, max(known.claims - 1, 0)

    @rule(at=orders, choices=CHOICES)
    def work(self, at: int, choices: list[int]) -> None:
        """Do a worker's job: claim the order, unless it is held, and move it on."""
        for choice in choices:
            self.claim(at, "one")
            if self.known[at].order.status not in TERMINAL:
                self.record(at, self.lawful_step(at, choice))

    @rule(at=orders, choice=st.integers(0, 3), twist=st.sampled_from(TWISTS))
    def record_what_is_lawful_but_for_one_thing(self, at: int, choice: int, twist: dict[str, Any]) -> None:
        self.record(at, self.lawful_step(at, choice)._replace(**twist))

    @rule(at=orders, choice=st.integers(0, 2), attempt=st.sampled_from(WHAT_BECOMES_OF_THE_ATTEMPT))
    def record_an_end_with_any_proof(self, at: int, choice: int, attempt: str) -> None:
        if self.known[at].order.status is SUBMITTED:
            self.record(at, self.lawful_step(at, choice)._replace(attempt=attempt))

    @rule(at=orders, in_attempt=st.sampled_from((1, 2, 2)))
    def cancel(self, at: int, in_attempt: int) -> None:
        """Cancel only in attempt 1 or 2, so that orders are left for the other rules."""
        order = self.known[at].order
        if order.status in CANCELLABLE and order.attempt_number == in_attempt:
            self.record(at, Step(OrderStatus.CANCELLED, NOTHING, 0, "none"))

    def record(self, at: int, step: Step) -> None:
        known = self.known[at]
        before = known.order
        number = before.attempt_number + (step.status is ROUTING)
        expected = answer_to(step, before.status, has_signed=number in known.attempts, is_held=known.holder is not None)
        write = write_of(Life(before, known.fence), step)
        answer = self.run(outcome_of(self.recorded(write)))
        if expected is not None:
            assert isinstance(answer, Exception)
            assert isinstance(answer, Fenced) == (expected is Fenced)
            return
        assert answer is None
        known.order, known.claims = write.order, 0
        known.history += write.events
        known.fence += write.fence is None
        if write.signed is not None:
            known.attempts[number] = None
        if write.proven is not None and number in known.attempts:
            known.attempts[number] = write.proven.outcome.value
        if step.status in TERMINAL | {RETRYING}:
            known.holder, known.is_due = None, step.status is RETRYING

    async def recorded(self, write: Write) -> None:
        await self.store.record(write)

    def lawful_step(self, at: int, choice: int) -> Step:
        """One of the lawful steps; after the order's end no step is lawful, and any step will do."""
        known = self.known[at]
        before = known.order.status
        following = sorted(TRANSITIONS[before], key=lambda it: (it in GIVEN_UP, it is RETRYING, it))
        status = following[choice % len(following)] if following else ROUTING
        attempt = LIVE if status is SUBMITTED else NOTHING
        if before is SUBMITTED:
            attempt = "landed" if status is CONFIRMED else PROVEN_DEAD[choice % 2]
        return Step(status, attempt, 0, "none" if known.holder is None else "right")

    # --- past the store ---

    @rule(at=orders)
    def time_passes(self, at: int) -> None:
        """Set the due time or the lease's end to the past, because a test cannot move the database's clock."""
        known = self.known[at]
        if known.order.status not in TERMINAL:
            self.ticks += 1
            column = "due_at_ms" if known.holder is None else "lease_until_ms"
            change = f"update orders set {column} = {{0}} where order_id = {{1}}"
            self.run(self.raw.run(change, [self.ticks, known.order.order_id]))
            known.is_due = True

    @rule(at=orders, statement=st.sampled_from(HOSTILE))
    def somebody_writes_round_the_store(self, at: int, statement: str) -> None:
        # A statement that finds no row is not refused; the invariant checks that nothing has changed.
        with suppress(Refused):
            self.run(self.raw.run(statement, [self.known[at].order.order_id]))

    # --- the invariant ---

    @invariant()
    def everything_is_as_it_must_be(self) -> None:
        for known in self.known:
            self.run(self.check(known))

    async def check(self, known: Known) -> None:
        order_id = known.order.order_id
        assert await self.store.get(ACCOUNT, order_id) == known.order
        history = await self.store.history(order_id, 0)
        assert history == known.history
        attempts = {it.attempt_number: it.outcome and it.outcome.value for it in await self.store.attempts(order_id)}
        assert attempts == known.attempts
        query = "select fence, claims, worker from orders where order_id = {0}"
        assert await self.raw.run(query, [order_id]) == [(known.fence, known.claims, known.holder)]
        assert_lawful(known.order, history, attempts)

    def teardown(self) -> None:
        """End every order, which must work from every status; so the next life finds no order to claim."""
        try:
            for at, known in enumerate(self.known):
                if known.order.status not in TERMINAL:
                    attempt = "expired" if known.order.status is SUBMITTED else NOTHING
                    self.record(at, Step(OrderStatus.FAILED, attempt, 0, "none"))
            self.everything_is_as_it_must_be()
        finally:
            self.run(self.raw.close())
            self.run(self.world.close())
            self.loop.close()


def assert_lawful(order: Order, history: Sequence[OrderEvent], attempts: dict[int, str | None]) -> None:
    """Check the order, its history and its attempts without the model."""
    statuses = [event.status for event in history]
    assert [event.seq for event in history] == [*range(1, order.seq + 1)]
    assert statuses[0] is PENDING
    assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
    assert statuses[-1] is order.status
    assert not TERMINAL & {*statuses[:-1]}
    outcomes = [*attempts.values()]
    assert outcomes.count("landed") == (order.status is CONFIRMED)
    assert outcomes.count(None) == (order.status is SUBMITTED)
    assert order.status is not SUBMITTED or attempts[order.attempt_number] is None


def test_no_life_of_an_order_makes_it_untrue(place: str | Path) -> None:
    run_state_machine_as_test(lambda: StoreMachine(place), settings=LIVES)
