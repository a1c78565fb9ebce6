"""Requests to the edge without a server: the application behind it answers with the client and the URL that it saw."""

import asyncio
import json
from typing import Any

from starlette.applications import Starlette
from starlette.requests import HTTPConnection, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route, WebSocketRoute
from starlette.websockets import WebSocket

from order_engine.api.context import client_of
from order_engine.api.edge import EdgeMiddleware, EdgePolicy
from order_engine.api.hosts import parse_host_names, parse_networks, parse_origins, parse_public_url
from order_engine.meters import Meters
from tests.doors import OpenDoor

PROXY = "10.0.0.7"
POLICY = EdgePolicy(
    parse_host_names("orders.example.com, api"),
    parse_origins("https://app.example.com,chrome-extension://abcdef,http://app.example.com:8080"),
    parse_networks("10.0.0.0/24, fd00::/8"),
    parse_public_url("https://engine.example.org"),
)
BARE = EdgePolicy()
# A policy without PUBLIC_URL, so that a request keeps its own host.
PROXIED = EdgePolicy(frozenset({"orders.example.com"}), trusted_proxies=parse_networks("10.0.0.0/24,127.0.0.1"))
KINDS = ("http", "websocket")


class Answer:
    """An answer of the edge."""

    def __init__(self, messages: list[dict[str, Any]]) -> None:
        start = messages[0]
        self.is_open = start["type"] == "websocket.accept"
        self.status = 101 if self.is_open else start["status"]
        self.raw_headers = [] if self.is_open else start["headers"]
        self.headers = {name.decode(): value.decode("latin-1") for name, value in self.raw_headers}
        self.body = b"".join(it.get("body", b"") for it in messages[1:])

    @property
    def json(self) -> Any:
        return json.loads(self.body)


async def _seen(request: Request) -> Response:
    if request.url.path == "/crash":
        raise ZeroDivisionError
    if request.url.path == "/stream":
        return StreamingResponse(iter(["x"]), headers={"Cache-Control": "no-cache"}, media_type="text/event-stream")
    return JSONResponse(_seen_of(request))


async def _seen_websocket(websocket: WebSocket) -> None:
    # A refused handshake has a body, which tells the client and the URL that the handler saw.
    await websocket.send_denial_response(JSONResponse(_seen_of(websocket)))


def _seen_of(connection: HTTPConnection) -> Any:
    return {"client": client_of(connection), "url": str(connection.url)}


async def ask(policy: EdgePolicy, kind: str, *headers: tuple[str, str], **scope: Any) -> Answer:
    app = Starlette(routes=[Route("/{path:path}", _seen), WebSocketRoute("/{path:path}", _seen_websocket)])
    raw = [(name.lower().encode(), value.encode("utf-8")) for name, value in headers]
    whole: dict[str, Any] = {
        "type": kind,
        "http_version": "1.1",
        "method": "GET",
        "path": "/x",
        "raw_path": b"/x",
        "query_string": b"",
        "root_path": "",
        "scheme": "http" if kind == "http" else "ws",
        "client": ("203.0.113.5", 5),
        "subprotocols": [],
        "headers": raw,
        "server": ("127.0.0.1", 3000),
        "extensions": {"websocket.http.response": {}},
        **scope,
    }
    messages: list[dict[str, Any]] = []

    arrived = False

    async def receive() -> dict[str, Any]:
        nonlocal arrived
        if arrived:
            await asyncio.Event().wait()  # The client says nothing more, and stays.
        arrived = True
        return {"type": "websocket.connect"} if kind == "websocket" else {"type": "http.request", "body": b""}

    async def send(message: Any) -> None:
        messages.append(message)

    await EdgeMiddleware(app, policy, OpenDoor(), {}, Meters())(whole, receive, send)
    return Answer(messages)
