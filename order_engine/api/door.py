"""The door: every request needs an API key, unless its path is listed here. Decided before the router."""

import re
from collections.abc import Mapping
from typing import Any, Final
from urllib.parse import parse_qs

from starlette.types import Scope as Connection

from order_engine.api.hosts import parse_address
from order_engine.api.problems import RequestRejected
from order_engine.domain.access import LOCAL_CALLER, Caller, Scope, is_account
from order_engine.domain.errors import InvalidRequest, Unauthorized
from order_engine.engine.callers import Callers

# Paths that need no key: they tell nothing of any account.
_PUBLIC: Final = re.compile(r"/|/health|/ready|/openapi\.json|/docs(?:/.*)?")
_ADMIN: Final = re.compile(r"/v1/(?:keys|audit|pause|resume)(?:/.*)?")
# These change nothing, although they are POST.
_READ_ONLY_POSTS: Final = frozenset({"/v1/quotes", "/v1/tickets"})
_ORDER_SOCKET, _JOB_SOCKET = "/api/orders/execute", "/ws-exec"
_SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
_METRICS: Final = "/metrics"
# Headers of a proxy: its clients are not on this machine.
_PROXIED: Final = frozenset({b"forwarded", b"x-forwarded-for", b"via"})
_BEARER: Final = re.compile(rb"[Bb][Ee][Aa][Rr][Ee][Rr] +([!-~]+) *")
# The caller of the public paths.
_ANYONE: Final = Caller("", frozenset())


def required_scope(path: str, method: str | None, query: Mapping[str, Any] | None = None) -> Scope | None:
    """Return the scope that a request needs; None for a public path. `method` is None for a WebSocket.

    A path that is not listed here needs a key: with the scope `read` to look, with `trade` to change.
    """
    if _PUBLIC.fullmatch(path) and method in _SAFE:
        return None
    if path == _METRICS:
        return Scope.METRICS
    if _ADMIN.fullmatch(path):
        return Scope.ADMIN
    if method is None:
        places_order = path == _JOB_SOCKET or (path == _ORDER_SOCKET and "orderId" not in (query or {}))
        return Scope.TRADE if places_order else Scope.READ
    return Scope.READ if method in _SAFE or path in _READ_ONLY_POSTS else Scope.TRADE


class Door:
    """Admits callers by their API key or ticket."""

    def __init__(self, callers: Callers) -> None:
        """While the engine has no keys, everybody on this machine is the local account."""
        self._callers = callers

    async def admit(self, connection: Connection) -> Caller:
        """Return the caller. Raises Unauthorized, StoreUnavailable, and RequestRejected if a scope is missing."""
        method = connection.get("method")
        query = _query_of(connection) if method in (None, "GET", "DELETE") else {}
        needed = required_scope(connection["path"], method, query)
        if needed is None or (needed is Scope.METRICS and _is_local(connection)):
            return _ANYONE
        if self._callers.is_open:
            return _acting_for(LOCAL_CALLER, query)
        caller = await self._identify(connection, query)
        if needed not in caller.scopes:
            raise RequestRejected("forbidden", f"The API key lacks the scope {needed}.")
        return _acting_for(caller, query)

    async def _identify(self, connection: Connection, query: Mapping[str, list[str]]) -> Caller:
        values = [value for name, value in connection["headers"] if name == b"authorization"]
        tickets = query.get("ticket", [])
        if len(values) == 1 and not tickets:
            found = _BEARER.fullmatch(values[0])
            if found is not None:
                return await self._callers.identify(found[1].decode("ascii"))
        elif len(tickets) == 1 and not values and _may_use_ticket(connection):
            return await self._callers.redeem(tickets[0])
        raise Unauthorized(
            "Send an API key once, as `Authorization: Bearer oe_...`; a browser's WebSocket or EventSource sends a "
            "ticket of POST /v1/tickets as `?ticket=...` instead."
        )


def _is_local(connection: Connection) -> bool:
    """Return whether the request comes from this machine, and through no proxy."""
    client = connection.get("client")
    address = None if client is None else parse_address(client[0])
    is_proxied = any(name in _PROXIED for name, _ in connection["headers"])
    return address is not None and address.is_loopback and not is_proxied


def _acting_for(caller: Caller, query: Mapping[str, list[str]]) -> Caller:
    """Return the caller with the account that the query names, if it may see that account."""
    wanted = query.get("account", [])
    if len(wanted) != 1 or wanted[0] == caller.account:
        return caller
    if Scope.ADMIN not in caller.scopes:
        raise RequestRejected("forbidden", "Only a key with the scope admin may name another account than its own.")
    if not is_account(wanted[0]):
        raise InvalidRequest("account", "is not the name of an account")
    return Caller(wanted[0], caller.scopes, caller.key_id)


def _may_use_ticket(connection: Connection) -> bool:
    """Return whether the request is one that a browser can send no headers with: a stream."""
    path: str = connection["path"]
    return connection["type"] == "websocket" or path.endswith("/stream")


def _query_of(connection: Connection) -> Mapping[str, list[str]]:
    raw: bytes = connection["query_string"]
    return parse_qs(raw.decode("latin-1"), keep_blank_values=True) if raw else {}
