"""Answers to clients of the five compatible systems: one object that carries the keys of all rows."""

from collections.abc import Sequence
from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection

from order_engine.api.schemas import time_text
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.money import format_amount
from order_engine.domain.order import Order, OrderStatus
from order_engine.engine.intake import Submission

# BullMQ's states of a job, and how far it is in percent.
_JOB_STATES: Final = {
    OrderStatus.PENDING: ("waiting", 0),
    OrderStatus.ROUTING: ("active", 25),
    OrderStatus.BUILDING: ("active", 50),
    OrderStatus.SUBMITTED: ("active", 75),
    OrderStatus.RETRYING: ("delayed", 0),
    OrderStatus.CONFIRMED: ("completed", 100),
    OrderStatus.FAILED: ("failed", 100),
    OrderStatus.CANCELLED: ("failed", 100),
}


def answer_of(connection: HTTPConnection[Any], submission: Submission, note: str | None) -> dict[str, Any]:
    """Return the one answer that carries every row's keys; `note` names the defaults in the order."""
    order = submission.order
    scheme = "wss" if connection.url.scheme in ("https", "wss") else "ws"
    answer: dict[str, Any] = {
        "ok": True,
        "orderId": order.order_id,
        "jobId": order.order_id,
        "status": order.status,
        "idempotent": submission.is_replay,
        "websocket": f"/api/orders/execute?orderId={order.order_id}",
        "wsUrl": f"{scheme}://{connection.url.netloc}/ws?jobId={order.order_id}",
        **_traded(order),
    }
    return answer if note is None else {**answer, "note": note}


def job_of(order: Order, events: Sequence[OrderEvent]) -> dict[str, Any]:
    """Return the order as BullMQ writes a job to JSON, with its state; a value that is not known yet is null."""
    request = order.request
    state, progress = _JOB_STATES[order.status]
    started = next((event.at_ms for event in events if event.status is OrderStatus.ROUTING), None)
    is_ended = order.status in TERMINAL
    return {
        "id": order.order_id,
        "name": "market",
        "data": {
            "orderId": request.client_order_id or order.order_id,
            "type": "market",
            **_traded(order),
            "slippageBps": request.slippage_bps,
            "payload": request.metadata,
        },
        "opts": {"jobId": order.order_id, "delay": 0},
        "state": state,
        "progress": progress,
        "delay": 0,
        "attemptsStarted": order.attempt_number,
        "attemptsMade": order.attempt_number,
        "timestamp": order.created_at_ms,
        "processedOn": started,
        "finishedOn": order.updated_at_ms if is_ended else None,
        "returnvalue": events[-1].data if order.status is OrderStatus.CONFIRMED and events else None,
        "failedReason": order.reason_message if state == "failed" else None,
        "stacktrace": [],
    }


def compat_event(event: OrderEvent) -> dict[str, Any]:
    """Return the event as `market_execute`, `minimal` and `typed` show it: v1's data, under their names too."""
    return _named_event(event, event.status.value)


def compat_frame(event: OrderEvent) -> str:
    """Return a frame of `market_execute`, `minimal` and `typed`."""
    return msgspec.json.encode(compat_event(event)).decode()


def upper_frame(event: OrderEvent) -> str:
    """Return a frame of `upper_case`."""
    return msgspec.json.encode(_named_event(event, event.status.upper())).decode()


def job_frame(event: OrderEvent) -> str:
    """Return the event as the `job_queue` shape has it."""
    details = event.details()
    shown: dict[str, Any] = {
        "event": "job:progress",
        "jobId": event.order_id,
        "orderId": event.order_id,
        "seq": event.seq,
        "status": event.status,
        "timestamp": time_text(event.at_ms),
        "attempt": event.attempt_number,
        "data": event.data,
    }
    if event.status is OrderStatus.PENDING:
        shown["event"] = "waiting"
    elif event.status is OrderStatus.CONFIRMED:
        shown |= {"event": "job:completed", "returnvalue": event.data}
    elif event.status in TERMINAL:
        shown |= {"event": "job:failed", "failedReason": details["reason"]["message"]}
    return msgspec.json.encode(shown).decode()


def _traded(order: Order) -> dict[str, str]:
    request = order.request
    return {
        "tokenIn": request.token_in.symbol,
        "tokenOut": request.token_out.symbol,
        "amountIn": format_amount(request.amount_in, request.token_in.decimals),
    }


def _named_event(event: OrderEvent, status: str) -> dict[str, Any]:
    details = event.details()
    shown: dict[str, Any] = {
        "orderId": event.order_id,
        "seq": event.seq,
        "status": status,
        "timestamp": time_text(event.at_ms),
        "attempt": event.attempt_number,
        "data": event.data,
    }
    names = {"venue": "dex", "txSignature": "txHash", "price": "executedPrice", "amountOut": "amountOut"}
    shown |= {name: details[key] for key, name in names.items() if details.get(key) is not None}
    if "reason" in details:
        shown["error"] = details["reason"]["message"]
    return shown
