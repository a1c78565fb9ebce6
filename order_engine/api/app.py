"""The ASGI application: the routes, and the edge around them."""

import asyncio
import contextlib
import re
from collections.abc import Mapping
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
from order_engine.api import orders, streams
from order_engine.api.context import ApiContext, require_known_origin, require_short_head
from order_engine.api.names import NamedRoute, NamedWebSocketRoute
from order_engine.api.openapi import build_document
from order_engine.api.problems import EdgeRefusal, problem_response
from order_engine.api.routes import COMPAT_OPERATIONS, COMPAT_WEBSOCKETS, V1_OPERATIONS
from order_engine.domain.errors import OrderEngineError

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_SERVER_ERROR: Final = 500
_NOT_FOUND: Final = 404

_DESCRIPTION: Final = (
    "Order execution for swaps on Solana DEXs. Amounts are decimal text in whole tokens, times are RFC 3339 "
    "UTC, errors are RFC 9457 problem documents with a stable `code`."
)


def build_app(context: ApiContext) -> ASGIApp:
    """Return the whole API for one engine."""
    operations = [*V1_OPERATIONS, *(COMPAT_OPERATIONS if context.has_compat_routes else ())]
    by_path: dict[str, dict[str, Any]] = {}
    for operation in operations:
        by_path.setdefault(operation.path, {})[operation.method] = operation.handler
    routes: list[BaseRoute] = [
        NamedRoute(path, _by_method(handlers), methods=[*handlers]) for path, handlers in by_path.items()
    ]
    routes += [
        NamedWebSocketRoute("/v1/orders/{orderId}/stream", streams.stream_websocket),
        WebSocketRoute("/v1/stream", streams.feed_websocket),
        *(COMPAT_WEBSOCKETS if context.has_compat_routes else ()),
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
    document = build_document(operations, __version__, _DESCRIPTION)
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
    if error.status_code == _NOT_FOUND and path in ("/ws", "/ws-exec"):
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
