"""The data of events: JSON with camelCase names, amounts as decimal text in whole tokens, as everywhere on the wire."""

from typing import Any

import msgspec

from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import (
    AttemptFailed,
    Fact,
    OrderCancelled,
    OrderFailed,
    RouteCompared,
    SwapConfirmed,
    TransactionBuilt,
    TransactionSigned,
)
from order_engine.domain.money import format_amount, format_known_amount
from order_engine.domain.order import Order, SwapRequest, price_text
from order_engine.domain.routing import RankedQuote, Route


def first_event_data(request: SwapRequest) -> msgspec.Raw:
    """Return the data of `pending`: the request."""
    return _encoded(
        {
            "clientOrderId": request.client_order_id,
            "type": "market",
            "tokenIn": request.token_in.symbol,
            "tokenOut": request.token_out.symbol,
            "amountIn": format_amount(request.amount_in, request.token_in.decimals),
            "slippageBps": request.slippage_bps,
        }
    )


def event_data(order: Order, fact: Fact) -> msgspec.Raw:
    """Return the data of the event of a fact; `order` is the order after it."""
    return _encoded(_data(order, fact))


def route_quotes(order: Order, route: Route) -> list[dict[str, Any]]:
    """Return the quotes of a route, the best first, each with the reason why it lost."""
    return [_quote(ranked, order.request.token_out.decimals) for ranked in route.ranked]


def _data(order: Order, fact: Fact) -> dict[str, Any]:  # noqa: PLR0911 - one answer for each fact
    decimals_out = order.request.token_out.decimals
    match fact:
        case RouteCompared(route, min_amount_out):
            return {
                "quotes": order.quotes,
                "venue": order.venue,
                "marginBps": route.margin_bps,
                "minAmountOut": format_known_amount(min_amount_out, decimals_out),
            }
        case TransactionBuilt(venue, steps):
            return {
                "venue": venue,
                "steps": steps,
                "minAmountOut": format_known_amount(order.min_amount_out, decimals_out),
            }
        case TransactionSigned(signature, last_valid_block_height):
            return {"venue": order.venue, "txSignature": signature, "lastValidBlockHeight": last_valid_block_height}
        case SwapConfirmed(amount_out, slot):
            return {
                "venue": order.venue,
                "txSignature": order.tx_signature,
                "amountOut": format_known_amount(amount_out, decimals_out),
                "price": price_text(order.request, amount_out),
                "slot": slot,
            }
        case AttemptFailed(code, message, retry_in_ms):
            return {"reason": {"code": code, "message": message}, "retryInMs": retry_in_ms}
        case OrderFailed(code, message):
            return {"reason": {"code": code, "message": message}}
        case OrderCancelled(message):
            return {"reason": {"code": ReasonCode.CANCELLED_BY_CLIENT, "message": message}}


def _encoded(told: dict[str, Any]) -> msgspec.Raw:
    return msgspec.Raw(msgspec.json.encode(told))


def _quote(ranked: RankedQuote, decimals_out: int) -> dict[str, Any]:
    told: dict[str, Any] = {"venue": ranked.venue, "chosen": ranked.lost_because is None}
    if ranked.quote is not None:
        told["amountOut"] = format_amount(ranked.quote.amount_out, decimals_out)
        told["feeBps"] = ranked.quote.fee_bps
        told["priceImpactBps"] = ranked.quote.price_impact_bps
    if ranked.lost_because is not None:
        told["lostBecause"] = ranked.lost_because
    return told
