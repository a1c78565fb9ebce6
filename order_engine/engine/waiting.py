"""Tells the owner of an order, in words, which step the order waits for."""

from typing import Final

from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import Order, OrderStatus
from order_engine.engine.health import Report

_WAITS: Final = {
    OrderStatus.PENDING: "a worker to take it",
    OrderStatus.ROUTING: "its swap to be built by {venue}",
    OrderStatus.BUILDING: "a recent blockhash to be signed with",
    OrderStatus.SUBMITTED: "the chain to prove that its transaction landed, reverted or expired",
    OrderStatus.RETRYING: "its next attempt, after a pause",
}
# Orders in these statuses cannot go on without the chain.
_NEEDS_CHAIN: Final = frozenset({OrderStatus.BUILDING, OrderStatus.SUBMITTED})


def waiting_for(order: Order, report: Report) -> str | None:
    """Return the step that the order waits for, and the obstacle if there is one; None for an ended order."""
    if order.status in TERMINAL:
        return None
    wait = _WAITS[order.status].format(venue=order.venue)
    if report.status == "unavailable":
        return f"{wait}; {report.reasons[0]}"
    if not report.has_workers:
        return f"{wait}; no worker is running"
    if order.status in _NEEDS_CHAIN and report.chain_trouble is not None:
        return f"{wait}; {report.chain_trouble}"
    return wait
