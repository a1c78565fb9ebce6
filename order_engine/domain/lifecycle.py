"""The state machine, all of it: one table, and the only code that sets a status."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from order_engine.domain.errors import OrderEngineError, ReasonCode
from order_engine.domain.event_data import event_data, first_event_data, route_quotes
from order_engine.domain.events import (
    AttemptFailed,
    Fact,
    OrderCancelled,
    OrderEvent,
    OrderFailed,
    RouteCompared,
    SwapConfirmed,
    TransactionBuilt,
    TransactionSigned,
)
from order_engine.domain.order import EpochMs, Order, OrderId, OrderStatus, SwapRequest

_S = OrderStatus

# For each status, the statuses that may follow it. The migrations of both stores hold the same pairs,
# the documents' diagram is drawn from this table, and tests keep all of them equal.
TRANSITIONS: Final[Mapping[OrderStatus, frozenset[OrderStatus]]] = {
    _S.PENDING: frozenset({_S.ROUTING, _S.FAILED, _S.CANCELLED}),
    _S.ROUTING: frozenset({_S.BUILDING, _S.RETRYING, _S.FAILED, _S.CANCELLED}),
    _S.BUILDING: frozenset({_S.SUBMITTED, _S.RETRYING, _S.FAILED, _S.CANCELLED}),
    _S.SUBMITTED: frozenset({_S.CONFIRMED, _S.RETRYING, _S.FAILED}),
    _S.RETRYING: frozenset({_S.ROUTING, _S.FAILED, _S.CANCELLED}),
    _S.CONFIRMED: frozenset(),
    _S.FAILED: frozenset(),
    _S.CANCELLED: frozenset(),
}

TERMINAL: Final = frozenset(status for status, following in TRANSITIONS.items() if not following)
# Statuses in which no worker holds the order: it has ended, or it waits for its next attempt.
RESTING: Final = TERMINAL | {_S.RETRYING}
CANCELLABLE: Final = frozenset(status for status, following in TRANSITIONS.items() if _S.CANCELLED in following)


class IllegalTransition(OrderEngineError):  # noqa: N818 - the usual term for state machines
    """The table does not allow it: a bug in the engine, never a client's mistake."""


def open_order(order_id: OrderId, account: str, request: SwapRequest, now_ms: EpochMs) -> tuple[Order, OrderEvent]:
    """Make a new order and its first event, `pending`, seq 1, which holds the request."""
    order = Order(order_id, account, request, _S.PENDING, 1, 0, now_ms, now_ms)
    return order, OrderEvent(order_id, account, 1, _S.PENDING, 0, now_ms, 0, first_event_data(request))


def apply(order: Order, fact: Fact, now_ms: EpochMs) -> tuple[Order, OrderEvent]:
    """Return the order after `fact`, and the event to keep.

    Time never runs backwards within one history, even when the clocks of two workers differ.
    Raises IllegalTransition if the table does not allow the fact's status now.
    """
    status = fact.status
    if status not in TRANSITIONS[order.status]:
        raise IllegalTransition(f"{order.order_id}: {order.status} -> {status}")
    at_ms = max(now_ms, order.updated_at_ms)
    seq = order.seq + 1
    attempt_number = order.attempt_number + 1 if status is _S.ROUTING else order.attempt_number
    changes = _changes(order, fact)
    after = replace(order, status=status, seq=seq, attempt_number=attempt_number, updated_at_ms=at_ms, **changes)
    event = OrderEvent(
        order.order_id,
        order.account,
        seq,
        status,
        attempt_number,
        at_ms,
        at_ms - order.created_at_ms,
        event_data(after, fact),
    )
    return after, event


def _changes(order: Order, fact: Fact) -> dict[str, Any]:
    """Return the order's fields that the fact changes, besides those that every event changes."""
    match fact:
        case RouteCompared(route, min_amount_out):
            return {
                "venue": route.winner.venue if route.winner else None,
                "quotes": msgspec.Raw(msgspec.json.encode(route_quotes(order, route))),
                "min_amount_out": min_amount_out,
                "reason_code": None,
                "reason_message": None,
            }
        case TransactionSigned(signature, _):
            return {"tx_signature": signature}
        case SwapConfirmed(amount_out, _):
            return {"amount_out": amount_out}
        case AttemptFailed(code, message, _) | OrderFailed(code, message):
            return {"reason_code": code, "reason_message": message}
        case OrderCancelled(message):
            return {"reason_code": ReasonCode.CANCELLED_BY_CLIENT, "reason_message": message}
        case TransactionBuilt():
            return {}
