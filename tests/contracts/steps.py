"""Writes built by hand, lawful or not, and the answer that a store must give to each."""

from typing import Any, Final, NamedTuple

import msgspec

from order_engine.domain.errors import Fenced, ReasonCode
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import AttemptOutcome, OrderStatus, SignedAttempt
from order_engine.ports.store import ProvenOutcome, Write
from tests.contracts.orders import EVIDENCE, Life, attempt_of
from tests.contracts.raw import ROUTING, SUBMITTED
from tests.contracts.situations import LIVE, NOTHING, is_lawful

FENCES: Final = {"right": 0, "older": -1, "newer": 1, "none": None}


class Step(NamedTuple):
    """A write: the order's next status, the attempt's change, and the seq and fence that the write expects."""

    status: OrderStatus
    attempt: str
    seqs_on: int
    fence: str


def answer_to(step: Step, before: OrderStatus, *, has_signed: bool, is_held: bool) -> type[Exception] | None:
    """The error of the write: Fenced, Exception if the database refuses it, None if the write is taken.

    `has_signed` says whether the attempt that the step names was signed.
    """
    is_held_by_writer = step.fence == "right" and is_held
    if step.seqs_on or not (is_held_by_writer or step.fence == "none"):
        return Fenced
    # A proof changes nothing if its attempt does not exist.
    attempt = step.attempt if has_signed or step.attempt == LIVE else NOTHING
    return None if is_lawful(before, step.status, attempt) else Exception


def write_of(life: Life, step: Step) -> Write:
    """The step as a write; it is built by hand, because no engine builds unlawful writes."""
    assert life.fence is not None
    before = life.order
    fences_on = FENCES[step.fence]
    number = before.attempt_number + (step.status is ROUTING)
    attempt = attempt_of(msgspec.structs.replace(before, attempt_number=number))
    order = msgspec.structs.replace(
        before,
        status=step.status,
        seq=before.seq + step.seqs_on + 1,
        attempt_number=number,
        amount_out=149 if step.status is OrderStatus.CONFIRMED else before.amount_out,
        reason_code=ReasonCode.NO_ROUTE if step.status in TERMINAL else before.reason_code,
        tx_signature=attempt.signature if step.status is SUBMITTED else before.tx_signature,
    )
    event = OrderEvent(
        order.order_id, order.account, order.seq, order.status, number, before.updated_at_ms, 0, msgspec.Raw(b"{}")
    )
    return Write(
        order,
        (event,),
        before.seq + step.seqs_on,
        None if fences_on is None else life.fence + fences_on,
        **_what_becomes_of(attempt, step.attempt),
    )


def _what_becomes_of(attempt: SignedAttempt, what: str) -> dict[str, Any]:
    if what in (NOTHING, LIVE):
        return {"signed": attempt if what == LIVE else None}
    return {"proven": ProvenOutcome(attempt.attempt_number, AttemptOutcome(what), EVIDENCE)}
