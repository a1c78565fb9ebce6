"""The ASGI application: the routes."""

from collections.abc import Mapping
from importlib import resources
from typing import Any

import msgspec
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp
from starlette.websockets import WebSocket

from order_engine.api import orders, streams
from order_engine.api.access_routes import ACCESS_OPERATIONS
from order_engine.api.context import ApiContext
from order_engine.api.door import Door
from order_engine.api.edge import EdgeMiddleware, EdgePolicy, error_response
from order_engine.api.headers import PAGE_POLICY
from order_engine.api.metrics import get_metrics
from order_engine.api.names import NamedRoute, NamedWebSocketRoute
from order_engine.api.openapi import build_document
from order_engine.api.problems import RequestRejected, problem_response, status_of
from order_engine.api.routes import COMPAT_OPERATIONS, COMPAT_WEBSOCKETS, V1_OPERATIONS
from order_engine.domain.errors import OrderEngineError


def build_app(context: ApiContext, policy: EdgePolicy) -> ASGIApp:
    """Return the whole API for one engine."""
    operations = [*V1_OPERATIONS, *ACCESS_OPERATIONS, *(COMPAT_OPERATIONS if context.has_compat_routes else ())]
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
        Route("/docs/start.js", _docs_script),
        Route("/openapi.json", _document),
        Route("/metrics", get_metrics),
        WebSocketRoute("/{path:path}", _no_such_websocket),
        Mount("/docs/assets", _Assets(packages=[("swagger_ui", "static")])),
    ]
    app = Starlette(
        routes=routes,
        exception_handlers={
            OrderEngineError: _on_error,
            RequestRejected: _on_error,
            HTTPException: _on_http_error,
            Exception: _on_error,
        },
    )
    app.router.redirect_slashes = False
    app.state.context = context
    document = build_document(operations, context.tokens)
    app.state.document = msgspec.json.encode(document)
    # Every order uses this path, so it bypasses the router and the layers of handlers.
    return EdgeMiddleware(
        app, policy, Door(context.callers), {("POST", "/v1/orders"): orders.post_order}, context.counters.meters
    )


def _by_method(handlers: Mapping[str, Any]) -> Any:
    """Return one endpoint for all methods of a path, so that a 405 can name every one of them."""

    async def endpoint(request: Request[Any]) -> Response:
        response: Response = await handlers["GET" if request.method == "HEAD" else request.method](request)
        return response

    return endpoint


async def _no_such_websocket(websocket: WebSocket[Any]) -> None:
    refusal = _no_such_path(websocket.url.path)
    await websocket.send_denial_response(problem_response(refusal, websocket.scope.get("request_id", "")))


def _no_such_path(path: str) -> RequestRejected:
    return RequestRejected("no_such_path", f"There is nothing at {path[:200]!r}; see /docs.")


async def _on_error(request: Request[Any], error: Exception) -> Response:
    return error_response(request, error)


async def _on_http_error(request: Request[Any], error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101 - it is registered for this class
    path = request.url.path[:200]
    not_found = status_of("no_such_path")
    if error.status_code == not_found and path in ("/ws", "/ws-exec"):
        refusal = RequestRejected("websocket_only", "This path speaks WebSocket.", {"Upgrade": "websocket"})
    elif error.status_code == not_found:
        refusal = _no_such_path(path)
    else:
        message = f"{request.method} {path!r}: {error.detail}."
        refusal = RequestRejected("http_error", message, error.headers, error.status_code)
    return problem_response(refusal, request.scope.get("request_id", ""))


async def _to_docs(_request: Request[Any]) -> Response:
    return RedirectResponse("/docs")


async def _document(request: Request[Any]) -> Response:
    return Response(request.app.state.document, media_type="application/json")


async def _docs(_request: Request[Any]) -> Response:
    return HTMLResponse(_own_file("docs.html"), headers={"Content-Security-Policy": PAGE_POLICY})


async def _docs_script(_request: Request[Any]) -> Response:
    return Response(_own_file("docs.js"), media_type="text/javascript")


def _own_file(name: str) -> str:
    return resources.files("order_engine.api").joinpath(name).read_text("utf-8")


class _Assets(StaticFiles):
    """The files of Swagger UI, which change only with the package."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:
        """See StaticFiles."""
        response = super().file_response(*args, **kwargs)
        response.headers["Cache-Control"] = "max-age=3600"
        return response
