"""The table of routes: the handler of each, and its entry in the OpenAPI document."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

from starlette.routing import WebSocketRoute

from order_engine.api import access, compat, orders, streams
from order_engine.api.access_schemas import BulkCancelView
from order_engine.api.compat_schemas import (
    JOB_BODY,
    ORDER_BODY,
    CompatibleAnswer,
    CompatibleHistory,
    CompatibleSnapshot,
    JobView,
)
from order_engine.api.names import NamedWebSocketRoute
from order_engine.api.openapi import Operation, Parameter
from order_engine.api.problems import ACCEPTED, NO_CONTENT, OK, compatible_status, status_of
from order_engine.api.schemas import (
    TOKEN_SCHEMA,
    UUID_PATTERN,
    AttemptsInDoubtView,
    EventListView,
    HealthView,
    MarketOrderRequest,
    OrderListView,
    OrderView,
    QuoteListView,
    QuoteRequest,
    ReadyView,
    TokenListView,
    VenueListView,
)
from order_engine.domain.errors import (
    CancelTooLate,
    ClientOrderIdTaken,
    InvalidRequest,
    OrderNotFound,
    RateLimited,
    Unavailable,
)
from order_engine.domain.lifecycle import CANCELLABLE
from order_engine.domain.order import OrderStatus

_SEQ: Final = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
_KEY: Final = Parameter(
    "Idempotency-Key",
    "header",
    "1-255 visible ASCII characters. The same key with the same body answers the first 202 again.",
    {"type": "string", "pattern": "^[!-~]{1,255}$"},
)
_AFTER: Final = Parameter("after", "query", "Only events with a greater seq.", _SEQ)
_INVALID: Final = status_of(InvalidRequest)
_UNKNOWN: Final = {status_of(OrderNotFound): ("No such order", None)}
_BAD: Final = {_INVALID: ("A field is wrong; `field` names it", None)}
_PLACING: Final = {
    status_of(ClientOrderIdTaken): (
        "Another order has this client order id, or a limit of the account is reached",
        None,
    ),
    status_of(RateLimited): ("Too many orders in a minute, or too much for this day", None),
}
_MANY_QUOTES: Final = {status_of(RateLimited): ("Too many quotes in a minute", None)}
_RATE: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_COMPAT_BAD: Final = {compatible_status(_INVALID): ("A field is wrong, or the body is not JSON; `error` says it", None)}


def _message(description: str, **more: Any) -> Mapping[str, Any]:
    """Return the schema of a server-sent event."""
    properties = {"id": {"type": "string"}, "data": {"type": "string", "description": description}, **more}
    return {"type": "object", "properties": properties, "required": ["data"]}


def _text(name: str, description: str, **schema: Any) -> Parameter:
    return Parameter(name, "query", description, {"type": "string", **schema})


def _token(name: str) -> Parameter:
    return Parameter(name, "query", "Symbol or mint.", {"$ref": f"#/components/schemas/{TOKEN_SCHEMA}"})


_FILTERS: Final = (
    _text("account", "Another account; for keys with the scope admin.", pattern="^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"),
    _text("type", "The only type.", enum=["market"]),
    _token("tokenIn"),
    _token("tokenOut"),
    _text("clientOrderId", "The client's own name.", pattern="^[^\\u0000]*$"),
    _text("createdAfter", "RFC 3339.", format="date-time"),
    _text("createdBefore", "RFC 3339.", format="date-time"),
    _text("endedAfter", "RFC 3339: orders whose terminal event is later.", format="date-time"),
    _text("endedBefore", "RFC 3339: orders whose terminal event is earlier.", format="date-time"),
)

V1_OPERATIONS: Final[Sequence[Operation]] = (
    Operation(
        "POST",
        "/v1/orders",
        orders.post_order,
        "orders",
        "Accept a market order",
        {ACCEPTED: ("The order, durable", OrderView), **_BAD, **_PLACING},
        body=MarketOrderRequest,
        examples={"market": {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5"}},
        parameters=(_KEY,),
        headers=("Location", "Idempotent-Replayed", *_RATE),
    ),
    Operation(
        "GET",
        "/v1/orders",
        orders.list_orders,
        "orders",
        "List orders, newest first",
        {OK: ("A page", OrderListView), _INVALID: ("A filter is wrong", None)},
        parameters=(
            _text("status", "The orders' current status.", enum=[*OrderStatus]),
            *_FILTERS,
            Parameter("limit", "query", "At most 100.", {"type": "integer", "minimum": 1, "maximum": 100}),
            _text("cursor", "The nextCursor of the page before.", pattern=UUID_PATTERN),
        ),
    ),
    Operation(
        "DELETE",
        "/v1/orders",
        access.cancel_orders,
        "orders",
        "Cancel all orders that match, at most 1,000 at once",
        {OK: ("What was cancelled, and why the rest was not", BulkCancelView), **_BAD},
        parameters=(
            _text("dryRun", "true: count the matching orders and change nothing.", enum=["true", "false"]),
            _text("status", "Only orders in this status.", enum=sorted(CANCELLABLE)),
            *_FILTERS,
        ),
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}",
        orders.get_order,
        "orders",
        "Return an order with its attempts",
        {OK: ("The order", OrderView), **_UNKNOWN},
        description="If no order has this id, the newest order with this clientOrderId is returned.",
    ),
    Operation(
        "DELETE",
        "/v1/orders/{orderId}",
        orders.cancel_order,
        "orders",
        "Cancel an order that is not signed yet",
        {OK: ("The cancelled order", OrderView), **_UNKNOWN, status_of(CancelTooLate): ("Too late", None)},
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}/events",
        orders.list_events,
        "orders",
        "Return an order's history",
        {OK: ("The events", EventListView), **_UNKNOWN, _INVALID: ("after is wrong", None)},
        parameters=(_AFTER,),
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}/stream",
        streams.stream_events,
        "orders",
        "Follow an order's life, past first, as server-sent events",
        {
            OK: ("One event a message, its seq as id", None),
            NO_CONTENT: ("The order has ended and `after` is its last event; do not come back", None),
            status_of("not_acceptable"): ("Ask for text/event-stream", None),
            **_UNKNOWN,
            _INVALID: ("after is wrong", None),
        },
        description="The same path speaks WebSocket: one event a text frame, closed with 1000 after the terminal one.",
        parameters=(
            _AFTER,
            Parameter(
                "Last-Event-ID",
                "header",
                "Wins over after; an empty one is ignored.",
                {"type": "string", "pattern": "^(0|[1-9][0-9]{0,9})?$"},
            ),
        ),
        answer_kind="text/event-stream",
        stream=_message("An EventView as JSON.", event={"type": "string", "enum": [*OrderStatus]}),
    ),
    Operation(
        "GET",
        "/v1/stream",
        streams.feed_events,
        "orders",
        "Follow every order, from any moment on, as server-sent events",
        {
            OK: ("Many events a message, the cursor after them as id", None),
            status_of("not_acceptable"): ("Ask for text/event-stream", None),
            _INVALID: ("after is not a cursor of this stream", None),
        },
        description=(
            "Each message is `{cursor, events}`, each order's events in the order of their seq; the first one has "
            "no events. Reconnect with your last cursor as `after` and you get every event committed since, exactly "
            "once; `after=0` begins with the first event ever. Without `after`, the stream begins now. The same "
            "path speaks WebSocket: one message per text frame."
        ),
        parameters=(
            _text("after", "The cursor of the last message seen, or 0."),
            Parameter("Last-Event-ID", "header", "Wins over after; an empty one is ignored.", {"type": "string"}),
        ),
        answer_kind="text/event-stream",
        stream=_message("A cursor and EventViews as JSON."),
    ),
    Operation(
        "GET",
        "/v1/attempts",
        orders.list_attempts,
        "orders",
        "List signed transactions whose outcome is not proven yet, oldest first",
        {OK: ("The attempts in doubt", AttemptsInDoubtView), _INVALID: ("A filter is wrong", None)},
        parameters=(
            _text("inDoubt", "Attempts whose outcome is proven are part of their order.", enum=["true"]),
            Parameter("limit", "query", "At most 1,000.", {"type": "integer", "minimum": 1, "maximum": 1_000}),
        ),
    ),
    Operation(
        "POST",
        "/v1/quotes",
        orders.post_quotes,
        "market",
        "Quote a swap at each venue now; no side effect",
        {
            OK: ("The offers, best first", QuoteListView),
            **_BAD,
            status_of(RateLimited): ("Too many quotes in a minute", None),
        },
        body=QuoteRequest,
        examples={"quote": {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5"}},
        headers=_RATE,
    ),
    Operation("GET", "/v1/tokens", orders.list_tokens, "market", "List the tokens", {OK: ("Tokens", TokenListView)}),
    Operation(
        "GET",
        "/v1/venues",
        orders.list_venues,
        "market",
        "Show the venues' health",
        {OK: ("Venues", VenueListView), **_MANY_QUOTES},
        description="Each venue is asked for a quote, so the request counts as a quote.",
        headers=_RATE,
    ),
    Operation("GET", "/health", orders.get_health, "process", "The process serves", {OK: ("It does", HealthView)}),
    Operation(
        "GET",
        "/ready",
        orders.get_ready,
        "process",
        "Tell whether orders can be accepted",
        {OK: ("Ready, or degraded", ReadyView), status_of(Unavailable): ("Not ready", ReadyView)},
    ),
)

COMPAT_OPERATIONS: Final[Sequence[Operation]] = (
    Operation(
        "POST",
        "/api/orders/execute",
        compat.execute_order,
        "compatibility",
        "`market_execute`, `minimal`, `typed` and `job_queue`: place an order",
        {OK: ("Placed", CompatibleAnswer), **_COMPAT_BAD, **_PLACING},
        body=ORDER_BODY,
        examples={
            "market_execute": {
                "type": "MARKET",
                "tokenIn": "SOL",
                "tokenOut": "USDC",
                "amountIn": 1,
                "slippageBps": 50,
            },
            "minimal": {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1},
            "typed": {"orderType": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5},
            "job_queue": {"type": "market", "amount": 1, "symbol": "SOL/USDC"},
            "job_queue, one symbol": {"type": "market", "amount": 1, "symbol": "TOKEN"},
        },
        parameters=(Parameter("x-idempotency-key", "header", "The key as `typed` names it.", _KEY.schema),),
        headers=_RATE,
        description=(
            "A field of no row, and two fields that contradict each other, are refused by name. On the paper chain "
            "alone, an order that names no pair trades SOL for USDC, one that names no amount sells 1, and `note` says "
            "so; a symbol that names no pair is kept in the order's metadata. "
            "WebSocket on the same path: with `?orderId=` an order's life from its start; without it the "
            "first frame is the order, and the answer and the order's life come back on the same socket."
        ),
    ),
    Operation(
        "POST",
        "/enqueue",
        compat.enqueue,
        "compatibility",
        "`job_queue`: enqueue a default market order",
        {OK: ("Placed now or before; orderId is the client's", CompatibleAnswer), **_COMPAT_BAD, **_PLACING},
        body=JOB_BODY,
        headers=_RATE,
        examples={"job_queue": {"orderId": "order-123", "payload": {"note": "kept as metadata"}}},
        description=(
            "The payload's type, symbol, amount and slippageBps are honoured; all of the payload is kept as metadata. "
            "The same orderId again answers the first job. WebSocket `/ws` tells every job's life, `/ws?jobId=` one "
            'job\'s from its start. WebSocket `/ws-exec` takes `{"type": "market", "payload": {"amount": 1, "symbol": '
            '"TOKEN"}}` as its first frame, answers it, and tells the life of that job.'
        ),
    ),
    Operation(
        "GET",
        "/jobs/{orderId}",
        compat.get_job,
        "compatibility",
        "`job_queue`: the order as BullMQ writes a job to JSON",
        {OK: ("The job", JobView), **_UNKNOWN},
    ),
    Operation(
        "GET",
        "/api/orders/{orderId}",
        compat.get_snapshot,
        "compatibility",
        "`market_execute` and `typed`: the order with every event",
        {OK: ("The snapshot", CompatibleSnapshot), **_UNKNOWN},
        description="`upper_case` has a WebSocket at `/orders/{orderId}`: the stream with upper-case statuses.",
    ),
    Operation(
        "GET",
        "/api/orders/{orderId}/events",
        compat.get_history,
        "compatibility",
        "`market_execute` and `typed`: the ordered history",
        {OK: ("The history", CompatibleHistory), **_UNKNOWN},
    ),
)

COMPAT_WEBSOCKETS: Final = (
    WebSocketRoute("/api/orders/execute", compat.execute_websocket),
    NamedWebSocketRoute("/orders/{orderId}", compat.upper_websocket),
    WebSocketRoute("/ws", compat.jobs_websocket),
    WebSocketRoute("/ws-exec", compat.exec_websocket),
)
