"""The strict v1 API: orders, quotes, tokens, venues and the process's health."""

from typing import Any, Final

import msgspec
from starlette.requests import HTTPConnection, Request
from starlette.responses import Response

from order_engine.api.context import (
    account_of,
    client_of,
    context_of,
    json_response,
    limit_headers,
    rate_headers,
    read_body,
    require_json,
)
from order_engine.api.order_filters import DEFAULT_PAGE, parse_list_filter, read_query
from order_engine.api.parsing import (
    parse_integer,
    parse_key,
    parse_order,
    parse_order_id,
    parse_parts,
    parse_quote,
    single_value,
)
from order_engine.api.problems import ACCEPTED, OK, status_of
from order_engine.api.schemas import (
    AttemptsInDoubtView,
    EventListView,
    HealthView,
    OrderListView,
    QuoteListView,
    QuoteView,
    ReadyView,
    TokenListView,
    VenueListView,
    VenueView,
    time_text,
    view_event,
    view_in_doubt,
    view_order,
)
from order_engine.domain.errors import ChainUnavailable, InvalidRequest, OrderNotFound, Unavailable
from order_engine.domain.fingerprint import fingerprint
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.money import BaseUnits, format_amount, min_out
from order_engine.domain.order import Order, SwapRequest
from order_engine.domain.routing import Quote, choose_quote
from order_engine.engine.intake import Submission
from order_engine.engine.quoting import ask_venue, ask_venues
from order_engine.engine.waiting import waiting_for
from order_engine.ports.clock import Clock
from order_engine.ports.store import IdempotencyKey, OrderFilter
from order_engine.ports.venues import Venue

_MAX_ATTEMPTS: Final = 1_000
_MAX_SEQ: Final = 2**31 - 1
_VERSION_AT, _VERSION = 14, "7"
_ATTEMPT_PARAMETERS: Final = frozenset({"inDoubt", "limit"})


async def post_order(request: Request[Any]) -> Response:
    """Accept an order: committed when this answers."""
    context = context_of(request)
    require_json(request.headers)
    if "x-idempotency-key" in request.headers:
        # Ignored, a repeated request would place a second order.
        raise InvalidRequest("X-Idempotency-Key", "is not read here; send the key as Idempotency-Key")
    key = parse_key(request.headers.getlist("idempotency-key"), "Idempotency-Key")
    body = await read_body(request)
    try:
        swap = parse_order(body, context.tokens, context.default_slippage_bps)
    except InvalidRequest:
        # The same bytes are the same request, even if the token is gone or has other decimals now.
        known = None if key is None else await _find_answer(request, body, key)
        if known is None:
            raise
        submission = known
    else:
        idempotency = None if key is None else IdempotencyKey(key, fingerprint(parse_parts(body)))
        submission = await submit_order(request, swap, idempotency)
    headers = {"Location": f"/v1/orders/{submission.order.order_id}", **rate_headers(submission)}
    if submission.is_replay:
        headers["Idempotent-Replayed"] = "true"
    return json_response(view_order(submission.order, ()), ACCEPTED, headers)


async def _find_answer(request: Request[Any], body: bytes, key: str) -> Submission | None:
    """Return the first answer to this body and key, if there is one."""
    try:
        parts = parse_parts(body)
    except (InvalidRequest, msgspec.MsgspecError, RecursionError):
        return None
    return await context_of(request).intake.find_answer(account_of(request), IdempotencyKey(key, fingerprint(parts)))


async def submit_order(
    connection: HTTPConnection[Any], swap: SwapRequest, idempotency: IdempotencyKey | None
) -> Submission:
    """Accept an order of the caller; see Intake. Every route that places orders goes through here."""
    context, account = context_of(connection), account_of(connection)
    # A look-up prefers an id over a name, so a name that equals another order's id could not be found. Ids are UUIDs of
    # version 7: a name of any other form, such as most clients' UUIDs, needs no check.
    order_id = None if swap.client_order_id is None else parse_order_id(swap.client_order_id)
    is_like_ours = order_id is not None and order_id[_VERSION_AT] == _VERSION
    if order_id is not None and is_like_ours and await context.orders.get(account, order_id) is not None:
        raise InvalidRequest("clientOrderId", "must not be the id of another order")
    return await context.intake.submit_order(account, client_of(connection), swap, idempotency)


async def list_orders(request: Request[Any]) -> Response:
    """List orders, newest first."""
    context = context_of(request)
    order_filter, limit = parse_list_filter(request, context.tokens)
    found = await context.reader.find(order_filter, limit + 1)
    page = found[:limit]
    cursor = page[-1].order_id if len(found) > limit else None
    return json_response(OrderListView([view_order(order) for order in page], cursor))


async def get_order(request: Request[Any]) -> Response:
    """Return one order with its attempts."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    attempts = await context.reader.attempts(order.order_id)
    wait = None if order.status in TERMINAL else waiting_for(order, await context.health.report())
    return json_response(view_order(order, attempts, wait))


async def list_attempts(request: Request[Any]) -> Response:
    """List the attempts whose outcome is not proven yet, oldest first."""
    context = context_of(request)
    asked = read_query(request, _ATTEMPT_PARAMETERS)
    if asked.get("inDoubt", "true") != "true":
        raise InvalidRequest("inDoubt", "must be true: an order's own attempts are part of the order")
    limit = parse_integer(asked.get("limit", str(DEFAULT_PAGE)), "limit", 1, _MAX_ATTEMPTS)
    found = await context.reader.in_doubt(account_of(request), limit)
    try:
        height: int | None = (await context.chain.finalized_point()).block_height
    except ChainUnavailable:
        height = None
    now_ms = context.clock.now_ms()
    return json_response(AttemptsInDoubtView(height, [view_in_doubt(it, height, now_ms) for it in found]))


async def cancel_order(request: Request[Any]) -> Response:
    """Cancel an order that is not signed yet."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    cancelled = await context.intake.cancel_order(account_of(request), order.order_id)
    return json_response(view_order(cancelled, await context.reader.attempts(order.order_id), None))


async def list_events(request: Request[Any]) -> Response:
    """Return an order's history."""
    context = context_of(request)
    order = await find_order(request, request.path_params["orderId"])
    after = parse_after(single_value(request.query_params.getlist("after"), "after"))
    events = await context.orders.history(order.order_id, after)
    return json_response(EventListView(order.order_id, [view_event(event) for event in events]))


async def post_quotes(request: Request[Any]) -> Response:
    """Ask every venue for its price now. Changes nothing."""
    context = context_of(request)
    require_json(request.headers)
    swap = parse_quote(await read_body(request), context.tokens, context.default_slippage_bps)
    rate = await context.quote_limit.count(account_of(request), client_of(request))
    answers = await ask_venues(context.venues.values(), swap, context.quote_timeout_s)
    route = choose_quote(answers)
    quotes = [_view_quote(swap, ranked.venue, ranked.quote, ranked.lost_because) for ranked in route.ranked]
    view = QuoteListView(
        swap.token_in.symbol,
        swap.token_out.symbol,
        format_amount(swap.amount_in, swap.token_in.decimals),
        swap.slippage_bps,
        route.winner.venue if route.winner else None,
        route.margin_bps,
        quotes,
    )
    return json_response(view, OK, limit_headers(rate))


async def list_tokens(request: Request[Any]) -> Response:
    """List the tokens that can be traded."""
    return json_response(TokenListView([*context_of(request).tokens.tokens]))


async def list_venues(request: Request[Any]) -> Response:
    """Tell how the venues are doing, by asking each for the price of one SOL in USDC."""
    context = context_of(request)
    rate = await context.quote_limit.count(account_of(request), client_of(request))
    sol, usdc = (context.tokens.resolve(symbol, "") for symbol in ("SOL", "USDC"))
    probe = SwapRequest(sol, usdc, BaseUnits(10**sol.decimals), context.default_slippage_bps)
    venues = [
        await _view_venue(venue, probe, context.quote_timeout_s, context.clock) for venue in context.venues.values()
    ]
    return json_response(VenueListView(venues), OK, limit_headers(rate))


async def get_health(_request: Request[Any]) -> Response:
    """Answer while the process serves."""
    return json_response(HealthView("ok"))


async def get_ready(request: Request[Any]) -> Response:
    """Tell whether orders can be accepted and executed, and if not, why."""
    report = await context_of(request).health.report()
    view = ReadyView(report.status, [*report.reasons], report.parts)
    return json_response(view, status_of(Unavailable) if report.status == "unavailable" else OK)


async def find_order(connection: HTTPConnection[Any], name: str) -> Order:
    """Return the caller's order with this id or, where there is none, the newest with this client's id."""
    context, account = context_of(connection), account_of(connection)
    order_id = parse_order_id(name)
    order = None if order_id is None else await context.orders.get(account, order_id)
    if order is None and "\0" not in name:
        found = await context.reader.find(OrderFilter(account, client_order_id=name), 1)
        order = found[0] if found else None
    if order is None:
        raise OrderNotFound(name)
    return order


def parse_after(text: str | None, field: str = "after") -> int:
    """Return the seq after which to read; none means from the start."""
    return 0 if text is None else parse_integer(text, field, 0, _MAX_SEQ)


def _view_quote(swap: SwapRequest, venue: str, quote: Quote | None, lost_because: str | None) -> QuoteView:
    if quote is None:
        return QuoteView(venue, False, None, None, None, None, lost_because)  # noqa: FBT003 - a view
    decimals = swap.token_out.decimals
    return QuoteView(
        venue,
        lost_because is None,
        format_amount(quote.amount_out, decimals),
        format_amount(min_out(quote.amount_out, swap.slippage_bps), decimals),
        quote.fee_bps,
        quote.price_impact_bps,
        None,
    )


async def _view_venue(venue: Venue, probe: SwapRequest, timeout_s: float, clock: Clock) -> VenueView:
    asked_ms = clock.now_ms()
    answer = await ask_venue(venue, probe, timeout_s)
    answered_ms = clock.now_ms()
    error = None if isinstance(answer, Quote) else str(answer.error)
    return VenueView(venue.name, error is None, answered_ms - asked_ms, time_text(answered_ms), error)
