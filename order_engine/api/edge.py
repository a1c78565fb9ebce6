"""The checks that every request passes before a handler sees it, HTTP and WebSocket alike."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

import msgspec
import uuid_utils
from starlette.applications import Starlette
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from order_engine import observe
from order_engine.api.door import Door
from order_engine.api.headers import RawHeaders, completed, cross_origin_headers, preflight_headers
from order_engine.api.hosts import (
    LOOPBACK_NAMES,
    Host,
    Network,
    Origin,
    is_within,
    limit_key,
    parse_address,
    parse_host,
    parse_origin,
)
from order_engine.api.problems import MAX_HEAD_BYTES, NO_CONTENT, PROBLEM_CODE, RequestRejected, problem_response
from order_engine.api.proxies import Passed, read_forwarding
from order_engine.domain.errors import OrderEngineError
from order_engine.meters import Meters

Handler = Callable[[Request[Any]], Awaitable[Response]]

_REQUEST_ID = re.compile(rb"[\x21-\x7e]{1,128}")
_STARTS: Final = frozenset({"http.response.start", "websocket.http.response.start"})
_WEBSOCKET_SCHEMES: Final = {"http": "ws", "https": "wss"}


class EdgePolicy(msgspec.Struct, frozen=True):
    """The hosts, origins and proxies that the edge accepts; each field is the setting of its name."""

    allowed_hosts: frozenset[str] = frozenset()
    allowed_origins: frozenset[Origin] = frozenset()
    trusted_proxies: tuple[Network, ...] = ()
    public_url: Origin | None = None

    def admit(self, scope: Scope) -> RawHeaders:
        """Check the request's host and origin; returns the CORS headers of its answer.

        Afterwards the scope's client, scheme and `Host` are those that the client itself used, or
        those of PUBLIC_URL. Raises RequestRejected.
        """
        raw_headers = scope["headers"]
        host = _host_of([value for name, value in raw_headers if name == b"host"], scope)
        self._require_known(host)
        host = self._look_behind_proxy(scope) or host
        origins = [value for name, value in raw_headers if name == b"origin"]
        for origin in origins:
            self._require_known_origin(origin.decode("latin-1"), host)
        if self.public_url is not None:
            _rewrite_address(scope, self.public_url.scheme, self.public_url.netloc)
        return cross_origin_headers(origins[0]) if origins else []

    def is_trusted_proxy(self, address: str) -> bool:
        """Return whether the address is one of TRUSTED_PROXIES."""
        peer = parse_address(address) if self.trusted_proxies else None
        return peer is not None and is_within(peer, self.trusted_proxies)

    def forwarded_client(self, scope: Mapping[str, Any]) -> str | None:
        """Return the client that a trusted proxy names, as limits count it; None for any other request."""
        if not self._comes_through_proxy(scope):
            return None
        client = read_forwarding(Headers(raw=scope["headers"]), self.trusted_proxies).client
        return None if client is None else limit_key(client)

    def _comes_through_proxy(self, scope: Mapping[str, Any]) -> bool:
        client = scope.get("client")
        return client is not None and self.is_trusted_proxy(client[0])

    def _require_known(self, host: Host | None) -> None:
        """Refuse a foreign host name: its owner may have pointed it here, so that its pages could read everything.

        This attack is DNS rebinding. An address cannot be pointed elsewhere.
        """
        if host is None or host.name in LOOPBACK_NAMES or host.name in self.allowed_hosts or host.is_address:
            return
        if self.public_url is not None and host.name == self.public_url.name:
            return
        message = f"This engine does not answer for the host {host.name[:100]!r}; ALLOWED_HOSTS lists its names."
        raise RequestRejected("host_not_allowed", message)

    def _look_behind_proxy(self, scope: Scope) -> Host | None:
        """Put the client that a trusted proxy names into the scope; returns the host that this client asked for."""
        if not self._comes_through_proxy(scope):
            return None
        passed = read_forwarding(Headers(scope=scope), self.trusted_proxies)
        host = None
        if passed.host is not None:
            host = parse_host(passed.host)
            if host is None:
                raise RequestRejected(
                    "bad_host",
                    "The proxy names a host that is not `name` or `name:port`, with a port from 1 to 65535.",
                )
            self._require_known(host)
        _apply(passed, scope)
        return host

    def _require_known_origin(self, text: str, host: Host | None) -> None:
        """Refuse a browser's request from a page of another site: its user may not know of it."""
        origin = parse_origin(text)
        if origin is not None and (
            origin.name in LOOPBACK_NAMES
            or origin in self.allowed_origins
            or origin == self.public_url
            or (host is not None and origin.is_at(host))
        ):
            return
        message = f"Pages of {text[:100]} may not call this engine; ALLOWED_ORIGINS lists those that may."
        raise RequestRejected("origin_not_allowed", message)


class EdgeMiddleware:
    """Wraps every request: checks host, origin and caller, and answers even if a handler has a bug."""

    def __init__(
        self, app: Starlette, policy: EdgePolicy, door: Door, hot: Mapping[tuple[str, str], Handler], meters: Meters
    ) -> None:
        """`hot`: handlers by method and path that are called without the router and its layers."""
        self._app = app
        self._policy = policy
        self._door = door
        self._hot = hot
        self._meters = meters

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one connection."""
        await self._serve(scope, receive, send)
        if (code := scope.get(PROBLEM_CODE)) is not None:
            self._meters.refused(code)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        request_id = _request_id(scope)
        scope["request_id"] = request_id
        more: RawHeaders = [(b"x-request-id", request_id.encode())]
        has_begun = False

        async def send_with_headers(message: Message) -> None:
            nonlocal has_begun
            if message["type"] in _STARTS:
                has_begun = True
                message["headers"] = completed(message["headers"], more)
            await send(message)

        try:
            more += self._policy.admit(scope)
            _require_short_head(scope)
            if _is_preflight(scope):
                await _preflight(scope, receive, send_with_headers)
                return
            await self._route(scope, receive, send_with_headers)
        except RequestRejected as error:
            await problem_response(error, request_id)(scope, receive, send_with_headers)
        except (Exception, asyncio.CancelledError) as error:
            if scope["type"] == "websocket":
                # The server cancels a stream that takes too long to end after a signal.
                if not isinstance(error, asyncio.CancelledError):
                    raise
            elif (end := _last_words(error, scope, has_begun=has_begun)) is not None:
                await end(scope, receive, send_with_headers)

    async def _route(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            scope["caller"] = await self._door.admit(scope)
        except OrderEngineError as error:
            await problem_response(error, scope["request_id"])(scope, receive, send)
            return
        handler = self._hot.get((scope.get("method", ""), scope["path"]))
        if handler is None:
            await self._app(scope, receive, send)
            return
        scope["app"] = self._app
        request = Request(scope, receive)
        try:
            response = await handler(request)
        except (OrderEngineError, RequestRejected) as error:
            response = error_response(request, error)
        await response(scope, receive, send)


def _last_words(error: BaseException, scope: Scope, *, has_begun: bool) -> ASGIApp | None:
    """Return the rest of the answer to a request that an exception ended; None if nothing more can be sent."""
    if isinstance(error, ClientDisconnect):
        return None  # The client is gone.
    if isinstance(error, asyncio.CancelledError):
        # The server cancels requests that are still open some time after a signal; a stream then ends normally.
        stopping = RequestRejected("stopping", "This process is stopping")
        return _end_of_stream if has_begun else problem_response(stopping, scope["request_id"])
    assert isinstance(error, Exception)  # noqa: S101 - the caller catches no other
    observe.request_crashed(scope["request_id"], scope["path"], error)
    return None if has_begun else error_response(Request(scope), error)


def error_response(request: Request[Any], error: Exception) -> Response:
    """Return the problem document for an error of a handler."""
    is_post = request.scope.get("method") == "POST"
    return problem_response(error, request.scope.get("request_id", ""), may_be_stored=is_post)


def _host_of(values: Sequence[bytes], scope: Scope) -> Host | None:
    """Return the host that is asked; None for an HTTP/1.0 client that names none."""
    if not values and scope["http_version"] == "1.0":
        return None
    host = parse_host(values[0].decode("latin-1")) if len(values) == 1 else None
    if host is None:
        message = "Send the header `Host` once, as `name` or `name:port`, with a port from 1 to 65535."
        raise RequestRejected("bad_host", message, {"Connection": "close"})
    return host


def _apply(passed: Passed, scope: Scope) -> None:
    if passed.client is not None:
        scope["client"] = (passed.client, 0)
    if passed.scheme is not None or passed.host is not None:
        _rewrite_address(scope, passed.scheme, passed.host)


def _rewrite_address(scope: Scope, scheme: str | None, host: str | None) -> None:
    if scheme is not None:
        scope["scheme"] = _WEBSOCKET_SCHEMES[scheme] if scope["type"] == "websocket" else scheme
    if host is not None:
        kept = [it for it in scope["headers"] if it[0] != b"host"]
        scope["headers"] = [(b"host", host.encode("latin-1")), *kept]


def _require_short_head(scope: Scope) -> None:
    """Refuse a path, a query and headers that are too long together."""
    head_bytes = len(scope["raw_path"]) + len(scope["query_string"])
    head_bytes += sum(len(name) + len(value) for name, value in scope["headers"])
    if head_bytes > MAX_HEAD_BYTES:
        message = f"Path, query and headers must be at most {MAX_HEAD_BYTES} bytes together."
        raise RequestRejected("head_too_large", message, {"Connection": "close"})


def _is_preflight(scope: Scope) -> bool:
    if scope.get("method") != "OPTIONS":
        return False
    names = {name for name, _ in scope["headers"]}
    return {b"origin", b"access-control-request-method"} <= names


async def _preflight(scope: Scope, _receive: Receive, send: Send) -> None:
    asks = any(name == b"access-control-request-private-network" for name, _ in scope["headers"])
    headers = preflight_headers(asks_for_private_network=asks)
    await send({"type": "http.response.start", "status": NO_CONTENT, "headers": headers})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def _end_of_stream(_scope: Scope, _receive: Receive, send: Send) -> None:
    await send({"type": "http.response.body", "body": b"", "more_body": False})


def _request_id(scope: Scope) -> str:
    for name, value in scope["headers"]:
        if name == b"x-request-id" and _REQUEST_ID.fullmatch(value):
            return str(value.decode())
    return str(uuid_utils.uuid4())
