"""Reads the filters of a list of orders from a query."""

from collections.abc import Mapping
from typing import Any, Final

import msgspec
from starlette.requests import Request

from order_engine.api.context import account_of
from order_engine.api.parsing import parse_integer, parse_order_id, parse_time, single_value
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.lifecycle import CANCELLABLE
from order_engine.domain.order import EpochMs, OrderStatus
from order_engine.domain.tokens import TokenRegistry
from order_engine.ports.store import OrderFilter

DEFAULT_PAGE: Final = 50
_MAX_ON_A_PAGE: Final = 100
_TIME_FILTERS: Final = ("createdAfter", "createdBefore", "endedAfter", "endedBefore")
# Admins alone may name another account than their own; the door has checked it.
_FILTERS: Final = frozenset({"status", "type", "tokenIn", "tokenOut", "clientOrderId", "account"} | {*_TIME_FILTERS})
_LIST_PARAMETERS: Final = _FILTERS | {"limit", "cursor"}
_BULK_PARAMETERS: Final = _FILTERS | {"dryRun"}


def read_query(request: Request[Any], known: frozenset[str]) -> dict[str, str]:
    """Return the query's parameters; refuses an unknown or repeated one."""
    asked: dict[str, str] = {}
    for name in request.query_params:
        if name not in known:
            message = f"is not a filter; known are {', '.join(sorted(known))}"
            raise InvalidRequest(name, message, code="unknown_field")
        asked[name] = single_value(request.query_params.getlist(name), name) or ""
    return asked


def parse_list_filter(request: Request[Any], tokens: TokenRegistry) -> tuple[OrderFilter, int]:
    """Return the filter of a list and the length of its page. Raises InvalidRequest."""
    asked = read_query(request, _LIST_PARAMETERS)
    order_filter = _parse_filter(request, asked, tokens)
    cursor = asked.get("cursor")
    before_id = None if cursor is None else parse_order_id(cursor)
    if cursor is not None and before_id is None:
        raise InvalidRequest("cursor", "must be the nextCursor of the page before")
    limit = parse_integer(asked.get("limit", str(DEFAULT_PAGE)), "limit", 1, _MAX_ON_A_PAGE)
    return msgspec.structs.replace(order_filter, before=before_id), limit


def parse_bulk_filter(request: Request[Any], tokens: TokenRegistry) -> tuple[OrderFilter, bool]:
    """Return the filter of a bulk cancel, and whether it is a dry run. Raises InvalidRequest."""
    asked = read_query(request, _BULK_PARAMETERS)
    order_filter = _parse_filter(request, asked, tokens)
    if order_filter.status is not None and order_filter.status not in CANCELLABLE:
        raise InvalidRequest("status", f"must be one that can be cancelled: {', '.join(sorted(CANCELLABLE))}")
    dry_run = asked.get("dryRun", "false")
    if dry_run not in ("true", "false"):
        raise InvalidRequest("dryRun", "must be true or false")
    return order_filter, dry_run == "true"


def _parse_filter(request: Request[Any], asked: Mapping[str, str], tokens: TokenRegistry) -> OrderFilter:
    status, token_in, token_out = asked.get("status"), asked.get("tokenIn"), asked.get("tokenOut")
    if status is not None and status not in {*OrderStatus}:
        raise InvalidRequest("status", f"must be one of {', '.join(OrderStatus)}")
    if asked.get("type", "market") != "market":
        raise InvalidRequest("type", "must be market")
    client_order_id = asked.get("clientOrderId")
    if client_order_id is not None and "\0" in client_order_id:
        raise InvalidRequest("clientOrderId", "must not contain NUL characters")
    created_after, created_before, ended_after, ended_before = (
        EpochMs(parse_time(asked[it], it)) if it in asked else None for it in _TIME_FILTERS
    )
    return OrderFilter(
        account_of(request),
        None if status is None else OrderStatus(status),
        None if token_in is None else tokens.resolve(token_in, "tokenIn").symbol,
        None if token_out is None else tokens.resolve(token_out, "tokenOut").symbol,
        client_order_id,
        created_after,
        created_before,
        ended_after,
        ended_before,
    )
