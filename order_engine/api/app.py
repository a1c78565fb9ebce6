"""The ASGI application: the table of routes, and the edge around it."""

import asyncio
import contextlib
import re
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any, Final

import msgspec
import uuid_utils
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from order_engine import __version__, observe
from order_engine.api import compat, orders, streams
from order_engine.api.context import ApiContext, require_known_origin, require_short_head
from order_engine.api.openapi import Operation, Parameter, build_document
from order_engine.api.problems import EdgeRefusal, problem_response
from order_engine.api.schemas import (
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
from order_engine.domain.errors import OrderEngineError

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_SERVER_ERROR: Final = 500
_NOT_FOUND: Final = 404

_KEY: Final = Parameter(
    "Idempotency-Key",
    "header",
    "1-255 visible ASCII characters. The same key with the same body answers the first 202 again.",
    {"type": "string", "minLength": 1, "maxLength": 255},
)
_AFTER: Final = Parameter("after", "query", "Only events with a greater seq.", {"type": "integer", "minimum": 0})
_UNKNOWN: Final = {404: ("No such order", None)}
_BAD: Final = {400: ("Not JSON", None), 413: ("The body is over 16 KiB", None), 422: ("A field is wrong", None)}
_BUSY: Final = {429: ("Too many orders in a minute", None), 503: ("The database does not answer", None)}


def _text(name: str, description: str) -> Parameter:
    return Parameter(name, "query", description, {"type": "string"})


_V1: Final = (
    Operation(
        "POST",
        "/v1/orders",
        orders.post_order,
        "orders",
        "Accept a market order",
        {202: ("The order, durable", OrderView), **_BAD, 415: ("Not application/json", None), **_BUSY},
        body=MarketOrderRequest,
        examples={"market": {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5"}},
        parameters=(_KEY,),
    ),
    Operation(
        "GET",
        "/v1/orders",
        orders.list_orders,
        "orders",
        "List orders, newest first",
        {200: ("A page", OrderListView), 422: ("A filter is wrong", None), 503: _BUSY[503]},
        parameters=(
            _text("status", "One of the statuses."),
            _text("type", "market"),
            _text("tokenIn", "Symbol or mint."),
            _text("tokenOut", "Symbol or mint."),
            _text("clientOrderId", "The client's own name."),
            _text("createdAfter", "RFC 3339."),
            _text("createdBefore", "RFC 3339."),
            Parameter("limit", "query", "At most 100.", {"type": "integer", "minimum": 1, "maximum": 100}),
            _text("cursor", "The nextCursor of the page before."),
        ),
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}",
        orders.get_order,
        "orders",
        "Return an order with its attempts",
        {200: ("The order", OrderView), **_UNKNOWN, 503: _BUSY[503]},
        description="Where no order has this id, it is looked up as a clientOrderId; the newest with it is returned.",
    ),
    Operation(
        "DELETE",
        "/v1/orders/{orderId}",
        orders.cancel_order,
        "orders",
        "Cancel an order that is not signed yet",
        {200: ("The cancelled order", OrderView), **_UNKNOWN, 409: ("Too late", None), 503: _BUSY[503]},
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}/events",
        orders.list_events,
        "orders",
        "Return an order's history",
        {200: ("The events", EventListView), **_UNKNOWN, 422: ("after is wrong", None), 503: _BUSY[503]},
        parameters=(_AFTER,),
    ),
    Operation(
        "GET",
        "/v1/orders/{orderId}/stream",
        streams.stream_events,
        "orders",
        "Follow an order's life, past first, as server-sent events",
        {
            200: ("One event a line, its seq as id", None),
            406: ("Ask for text/event-stream", None),
            **_UNKNOWN,
            422: ("after is wrong", None),
            503: _BUSY[503],
        },
        description="The same path speaks WebSocket: one event a text frame, closed with 1000 after the terminal one.",
        parameters=(
            _AFTER,
            Parameter("Last-Event-ID", "header", "Wins over after.", {"type": "integer", "minimum": 0}),
        ),
        answer_kind="text/event-stream",
    ),
    Operation(
        "GET",
        "/v1/attempts",
        orders.list_attempts,
        "orders",
        "List signed transactions whose outcome is not proven yet, oldest first",
        {200: ("The attempts in doubt", AttemptsInDoubtView), 422: ("A filter is wrong", None), 503: _BUSY[503]},
        parameters=(
            _text("inDoubt", "true"),
            Parameter("limit", "query", "At most 1,000.", {"type": "integer", "minimum": 1, "maximum": 1_000}),
        ),
    ),
    Operation(
        "POST",
        "/v1/quotes",
        orders.post_quotes,
        "market",
        "What each venue would give now; no side effect",
        {200: ("The offers, best first", QuoteListView), **_BAD, 415: ("Not application/json", None)},
        body=QuoteRequest,
        examples={"quote": {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1.5"}},
    ),
    Operation(
        "GET", "/v1/tokens", orders.list_tokens, "market", "What can be traded", {200: ("Tokens", TokenListView)}
    ),
    Operation(
        "GET", "/v1/venues", orders.list_venues, "market", "How the venues are doing", {200: ("Venues", VenueListView)}
    ),
    Operation("GET", "/health", orders.get_health, "process", "The process serves", {200: ("It does", HealthView)}),
    Operation(
        "GET",
        "/ready",
        orders.get_ready,
        "process",
        "Whether orders can be taken",
        {200: ("Ready, or degraded", ReadyView), 503: ("The database does not answer", None)},
    ),
)

_COMPATIBILITY: Final = (
    Operation(
        "POST",
        "/api/orders/execute",
        compat.execute_order,
        "compatibility",
        "Rows A, B, C and D: place an order",
        {202: ("orderId, jobId, idempotent, websocket and wsUrl", None), **_BAD, **_BUSY},
        examples={
            "A": {"type": "MARKET", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1, "slippageBps": 50},
            "B": {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1},
            "C": {"orderType": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5},
            "D": {"type": "market", "amount": 1, "symbol": "SOL/USDC"},
        },
        parameters=(Parameter("x-idempotency-key", "header", "Row C's key.", {"type": "string"}),),
        description=(
            "WebSocket on the same path: with `?orderId=` an order's life from its start; without it the "
            "first frame is the order, and the answer and the order's life come back on the same socket."
        ),
    ),
    Operation(
        "POST",
        "/enqueue",
        compat.enqueue,
        "compatibility",
        "Row D: enqueue a default market order",
        {202: ("orderId and jobId", None), **_BAD, **_BUSY},
        examples={"D": {"orderId": "order-123", "payload": {"note": "kept as metadata"}}},
        description="WebSocket `/ws` tells every job's life, `/ws?jobId=` one job's from its start.",
    ),
    Operation(
        "GET",
        "/api/orders/{orderId}",
        compat.get_snapshot,
        "compatibility",
        "Rows A and C: the order with every event",
        {200: ("The snapshot", None), **_UNKNOWN, 503: _BUSY[503]},
        description="Row E's WebSocket is `/orders/{orderId}`: the stream with upper-case statuses.",
    ),
    Operation(
        "GET",
        "/api/orders/{orderId}/events",
        compat.get_history,
        "compatibility",
        "Rows A and C: the ordered history",
        {200: ("The history", None), **_UNKNOWN, 503: _BUSY[503]},
    ),
)

OPERATIONS: Final[Sequence[Operation]] = (*_V1, *_COMPATIBILITY)

_DESCRIPTION: Final = (
    "Order execution for swaps on Solana DEXs. Amounts are decimal text in whole tokens, times are RFC 3339 "
    "UTC, errors are RFC 9457 problem documents with a stable `code`."
)


def build_app(context: ApiContext) -> ASGIApp:
    """Return the whole API for one engine."""
    by_path: dict[str, dict[str, Any]] = {}
    for operation in OPERATIONS:
        by_path.setdefault(operation.path, {})[operation.method] = operation.handler
    routes: list[BaseRoute] = [
        Route(path, _by_method(handlers), methods=[*handlers]) for path, handlers in by_path.items()
    ]
    routes += [
        WebSocketRoute("/v1/orders/{orderId}/stream", streams.stream_websocket),
        WebSocketRoute("/api/orders/execute", compat.execute_websocket),
        WebSocketRoute("/orders/{orderId}", compat.upper_websocket),
        WebSocketRoute("/ws", compat.jobs_websocket),
        Route("/", _to_docs),
        Route("/docs", _docs),
        Route("/openapi.json", _document),
        WebSocketRoute("/{path:path}", _no_such_websocket),
        Mount("/docs/assets", StaticFiles(packages=[("swagger_ui", "static")])),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            OrderEngineError: _on_error,
            EdgeRefusal: _on_error,
            HTTPException: _on_http_error,
            Exception: _on_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.context = context
    document = build_document(OPERATIONS, __version__, _DESCRIPTION)
    app.state.document = msgspec.json.encode(document)
    return Edge(app, context.allowed_origins)


# What every order comes through: no router and no layers of handlers on its way.
_HOT: Final = {("POST", "/v1/orders"): orders.post_order}


class Edge:
    """Around every request: its id, the origins that may call, and an answer even to a bug."""

    def __init__(self, app: Starlette, allowed_origins: frozenset[str]) -> None:
        """`allowed_origins`: see ALLOWED_ORIGINS."""
        self._app = app
        self._allowed_origins = allowed_origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        if scope["type"] == "websocket":
            # What cancels is the server, when a stream takes too long to end after a signal.
            with contextlib.suppress(asyncio.CancelledError):
                await self._app(scope, receive, send)
            return
        has_begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                message["headers"] = [*message["headers"], (b"x-request-id", request_id.encode())]
            await send(message)

        try:
            require_short_head(scope)
            require_known_origin(Headers(scope=scope), self._allowed_origins)
            await self._route(scope, receive, send_with_id)
        except EdgeRefusal as error:
            await problem_response(error, request_id)(scope, receive, send_with_id)
        except ClientDisconnect:
            return  # Nobody is left to answer.
        except asyncio.CancelledError:
            # The server cancels what is still open some time after a signal: a stream ends like any other.
            stopping = EdgeRefusal(503, "stopping", "This process is stopping")
            end = _end_of_stream if has_begun else problem_response(stopping, request_id)
            await end(scope, receive, send_with_id)
        except Exception as error:  # noqa: BLE001 - a bug, which the handler above has answered
            observe.request_crashed(request_id, scope["path"], error)
            if not has_begun:
                answer = await _on_error(Request(scope), error)
                await answer(scope, receive, send_with_id)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        handler = _HOT.get((scope["method"], scope["path"]))
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except (OrderEngineError, EdgeRefusal) as error:
            response = await _on_error(request, error)
        await response(scope, receive, send)


async def _end_of_stream(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _by_method(handlers: Mapping[str, Any]) -> Any:
    """Return one endpoint for all methods of a path, so that a 405 can name every one of them."""

    async def endpoint(request: Request[Any]) -> Response:
        response: Response = await handlers["GET" if request.method == "HEAD" else request.method](request)
        return response

    return endpoint


async def _no_such_websocket(websocket: WebSocket[Any]) -> None:
    refusal = _no_such_path(websocket.url.path)
    await websocket.send_denial_response(problem_response(refusal, websocket.scope.get("request_id", "")))


def _no_such_path(path: str) -> EdgeRefusal:
    return EdgeRefusal(_NOT_FOUND, "no_such_path", f"There is nothing at {path[:200]!r}; see /docs.")


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return str(uuid_utils.uuid4())


async def _on_error(request: Request[Any], error: Exception) -> Response:
    is_post = request.scope.get("method") == "POST"
    return problem_response(error, request.scope.get("request_id", ""), may_be_stored=is_post)


async def _on_http_error(request: Request[Any], error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - what it was registered for
    path = request.url.path[:200]
    if error.status_code == _NOT_FOUND and path == "/ws":
        refusal = EdgeRefusal(426, "websocket_only", "This path speaks WebSocket.", {"Upgrade": "websocket"})
    elif error.status_code == _NOT_FOUND:
        refusal = _no_such_path(path)
    else:
        message = f"{request.method} {path!r}: {error.detail}."
        refusal = EdgeRefusal(error.status_code, "http_error", message, error.headers)
    return problem_response(refusal, request.scope.get("request_id", ""))


async def _to_docs(_request: Request[Any]) -> Response:
    return RedirectResponse("/docs")


async def _document(request: Request[Any]) -> Response:
    return Response(request.app.state.document, media_type="application/json")


async def _docs(_request: Request[Any]) -> Response:
    page = resources.files("order_engine.api").joinpath("docs.html").read_text("utf-8")
    return HTMLResponse(page)
