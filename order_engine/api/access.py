"""Keys, tickets, pauses, the audit log and cancelling many orders at once."""

from typing import Any, Final

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from order_engine.api.access_schemas import (
    AuditView,
    BulkCancelView,
    KeyListView,
    KeyRequest,
    PauseListView,
    PauseRequest,
    RefusedCancel,
    ResumeRequest,
    TicketView,
    view_audit,
    view_key,
    view_new_key,
    view_pause,
)
from order_engine.api.context import account_of, client_of, context_of, json_response, read_body, require_json
from order_engine.api.json_body import decode_strict
from order_engine.api.order_filters import parse_bulk_filter, read_query
from order_engine.api.parsing import parse_integer, parse_order_id
from order_engine.api.schemas import time_text
from order_engine.domain.access import Caller, Scope, is_account, is_plain
from order_engine.domain.errors import InvalidRequest, KeyNotFound, Refused
from order_engine.domain.lifecycle import CANCELLABLE
from order_engine.domain.order import Order
from order_engine.ports.access import Actor
from order_engine.ports.store import OrderFilter

_DAY_MS: Final = 24 * 60 * 60 * 1000
_MAX_AUDIT: Final = 1_000
_DEFAULT_AUDIT: Final = 50
MAX_BULK_CANCEL: Final = 1_000
_LARGEST_NUMBER: Final = 2**31 - 1
_key_decoder: Final = msgspec.json.Decoder(KeyRequest)
_pause_decoder: Final = msgspec.json.Decoder(PauseRequest)
_resume_decoder: Final = msgspec.json.Decoder(ResumeRequest)


async def make_key(request: Request[Any]) -> Response:
    """Make an API key; its secret is in this answer only."""
    wire: KeyRequest = await _body(request, _key_decoder)
    _require_account(wire.account)
    _require_plain(wire.label, "label")
    expires_in_ms = None if wire.expires_in_days is None else wire.expires_in_days * _DAY_MS
    scopes = frozenset(Scope(it) for it in wire.scopes)
    callers = context_of(request).callers
    secret, key = await callers.make_key(wire.account, scopes, wire.label, expires_in_ms, actor_of(request))
    return json_response(view_new_key(key, secret), headers={"Cache-Control": "no-store"})


async def list_keys(request: Request[Any]) -> Response:
    """List all keys without their secrets."""
    keys = await context_of(request).access.list_keys()
    return json_response(KeyListView([view_key(key) for key in keys]))


async def revoke_key(request: Request[Any]) -> Response:
    """Revoke a key: within 5 s no process accepts it, and its streams end."""
    name: str = request.path_params["keyId"]
    key_id = parse_order_id(name)
    revoked = None if key_id is None else await context_of(request).callers.revoke(key_id, actor_of(request))
    if revoked is None:
        raise KeyNotFound(name)
    return json_response(view_key(revoked))


async def make_ticket(request: Request[Any]) -> Response:
    """Make a ticket that opens one stream within 30 s, for a browser that cannot send its key with it."""
    ticket, expires_at_ms = await context_of(request).callers.make_ticket(caller_of(request))
    return json_response(TicketView(ticket, time_text(expires_at_ms)), headers={"Cache-Control": "no-store"})


async def pause(request: Request[Any]) -> Response:
    """Stop accepting and signing, of one account or of all."""
    wire: PauseRequest = await _body(request, _pause_decoder)
    if wire.account is not None:
        _require_account(wire.account)
    _require_plain(wire.reason, "reason")
    await context_of(request).access.pause(wire.account, wire.reason, actor_of(request))
    return await _pauses(request)


async def resume(request: Request[Any]) -> Response:
    """End a pause."""
    wire: ResumeRequest = await _body(request, _resume_decoder)
    if wire.account is not None:
        _require_account(wire.account)
    await context_of(request).access.resume(wire.account, actor_of(request))
    return await _pauses(request)


async def list_audit(request: Request[Any]) -> Response:
    """List the audit log, newest first."""
    asked = read_query(request, frozenset({"limit", "cursor"}))
    limit = parse_integer(asked.get("limit", str(_DEFAULT_AUDIT)), "limit", 1, _MAX_AUDIT)
    before = parse_integer(asked["cursor"], "cursor", 1, _LARGEST_NUMBER) if "cursor" in asked else None
    found = await context_of(request).access.audit(before, limit + 1)
    page = found[:limit]
    cursor = page[-1].number if len(found) > limit else None
    return json_response(AuditView([view_audit(entry) for entry in page], cursor))


async def cancel_orders(request: Request[Any]) -> Response:
    """Cancel the caller's orders that match a filter; `dryRun=true` only counts them."""
    context, account = context_of(request), account_of(request)
    order_filter, is_dry_run = parse_bulk_filter(request, context.tokens)
    matching: list[Order] = []
    for status in sorted(CANCELLABLE):
        if order_filter.status in (None, status):
            narrowed: OrderFilter = msgspec.structs.replace(order_filter, status=status)
            matching += await context.reader.find(narrowed, MAX_BULK_CANCEL + 1 - len(matching))
    has_more = len(matching) > MAX_BULK_CANCEL
    matching = matching[:MAX_BULK_CANCEL]
    view = BulkCancelView(is_dry_run, len(matching), [], [], has_more)
    if not is_dry_run:
        for order in matching:
            try:
                await context.intake.cancel_order(account, order.order_id)
                view.cancelled.append(order.order_id)
            except Refused as error:
                view.refused.append(RefusedCancel(order.order_id, error.code, str(error)))
        details = {"filter": str(request.query_params), "cancelled": len(view.cancelled), "refused": len(view.refused)}
        told = msgspec.Raw(msgspec.json.encode(details))
        await context.access.note_audit("orders.cancel", account, told, actor_of(request))
    return json_response(view)


def caller_of(request: Request[Any]) -> Caller:
    """Return who makes the request."""
    caller: Caller = request.scope["caller"]
    return caller


def actor_of(request: Request[Any]) -> Actor:
    """Return the caller as the audit log names it."""
    return Actor(caller_of(request).key_id, client_of(request))


async def _pauses(request: Request[Any]) -> Response:
    context = context_of(request)
    await context.pauses.look()
    return json_response(PauseListView([view_pause(it) for it in await context.access.pauses()]))


async def _body(request: Request[Any], decoder: "msgspec.json.Decoder[Any]") -> Any:
    require_json(request.headers)
    return decode_strict(await read_body(request), decoder)


def _require_account(name: str) -> None:
    if not is_account(name):
        raise InvalidRequest(
            "account", "must be 1-64 letters, digits, `_`, `.` and `-`, and begin with a letter or digit"
        )


def _require_plain(text: str, field: str) -> None:
    if not is_plain(text):
        raise InvalidRequest(field, "must not contain control characters")
