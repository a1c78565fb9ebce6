"""The state machine, all of it: one table, and the only code that sets a status."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from order_engine.domain.errors import OrderEngineError, ReasonCode
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
from order_engine.domain.money import format_amount
from order_engine.domain.order import EpochMs, Order, OrderId, OrderStatus, SwapRequest, price_text
from order_engine.domain.routing import RankedQuote

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
CANCELLABLE: Final = frozenset(status for status, following in TRANSITIONS.items() if _S.CANCELLED in following)


class IllegalTransition(OrderEngineError):  # noqa: N818 - the usual term for state machines
    """The table does not allow it: a bug in the engine, never a client's mistake."""


def open_order(order_id: OrderId, account: str, request: SwapRequest, now_ms: EpochMs) -> tuple[Order, OrderEvent]:
    """Make a new order and its first event, `pending`, seq 1, which holds the request."""
    order = Order(order_id, account, request, _S.PENDING, 1, 0, now_ms, now_ms)
    asked = {
        "clientOrderId": request.client_order_id,
        "type": "market",
        "tokenIn": request.token_in.symbol,
        "tokenOut": request.token_out.symbol,
        "amountIn": format_amount(request.amount_in, request.token_in.decimals),
        "slippageBps": request.slippage_bps,
    }
    return order, OrderEvent(order_id, 1, _S.PENDING, 0, now_ms, 0, msgspec.Raw(msgspec.json.encode(asked)))


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
    changes, details = _consequences(order, fact)
    after = replace(order, status=status, seq=seq, attempt_number=attempt_number, updated_at_ms=at_ms, **changes)
    event = OrderEvent(
        order.order_id,
        seq,
        status,
        attempt_number,
        at_ms,
        at_ms - order.created_at_ms,
        msgspec.Raw(msgspec.json.encode(details)),
    )
    return after, event


def _consequences(  # noqa: PLR0911 - one answer for each fact
    order: Order, fact: Fact
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the changed fields of the order, and the data of the event.

    Amounts in the event are decimal text in whole tokens, as everywhere on the wire.
    """
    decimals_out = order.request.token_out.decimals
    match fact:
        case RouteCompared(route, min_amount_out):
            quotes = [_told(ranked, decimals_out) for ranked in route.ranked]
            changes = {
                "venue": route.winner.venue if route.winner else None,
                "quotes": msgspec.Raw(msgspec.json.encode(quotes)),
                "min_amount_out": min_amount_out,
                "reason_code": None,
                "reason_message": None,
            }
            details: dict[str, Any] = {
                "quotes": quotes,
                "venue": changes["venue"],
                "marginBps": route.margin_bps,
                "minAmountOut": _text(min_amount_out, decimals_out),
            }
            return changes, details
        case TransactionBuilt(venue, steps):
            minimum = _text(order.min_amount_out, decimals_out)
            return {}, {"venue": venue, "steps": steps, "minAmountOut": minimum}
        case TransactionSigned(signature, last_valid_block_height):
            return {"tx_signature": signature}, {
                "venue": order.venue,
                "txSignature": signature,
                "lastValidBlockHeight": last_valid_block_height,
            }
        case SwapConfirmed(amount_out, slot):
            return {"amount_out": amount_out}, {
                "venue": order.venue,
                "txSignature": order.tx_signature,
                "amountOut": _text(amount_out, decimals_out),
                "price": price_text(order.request, amount_out),
                "slot": slot,
            }
        case AttemptFailed(code, message, retry_in_ms):
            return _because(code, message, retryInMs=retry_in_ms)
        case OrderFailed(code, message):
            return _because(code, message)
        case OrderCancelled(message):
            return _because(ReasonCode.CANCELLED_BY_CLIENT, message)


def _text(base_units: int | None, decimals: int) -> str | None:
    return None if base_units is None else format_amount(base_units, decimals)


def _because(code: ReasonCode, message: str, **more: int) -> tuple[dict[str, Any], dict[str, Any]]:
    changes = {"reason_code": code, "reason_message": message}
    return changes, {"reason": {"code": code, "message": message}, **more}


def _told(ranked: RankedQuote, decimals_out: int) -> dict[str, Any]:
    told: dict[str, Any] = {"venue": ranked.venue, "chosen": ranked.lost_because is None}
    if ranked.quote is not None:
        told["amountOut"] = format_amount(ranked.quote.amount_out, decimals_out)
        told["feeBps"] = ranked.quote.fee_bps
        told["priceImpactBps"] = ranked.quote.price_impact_bps
    if ranked.lost_because is not None:
        told["lostBecause"] = ranked.lost_because
    return told
