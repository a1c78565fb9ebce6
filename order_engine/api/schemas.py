"""What goes over the wire: the shapes of requests, orders and events, and their making."""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Final, Literal

import msgspec
from msgspec import Meta, UnsetType

from order_engine.domain.events import OrderEvent
from order_engine.domain.money import format_amount
from order_engine.domain.order import Attempt, Order, price_text
from order_engine.domain.tokens import Token
from order_engine.ports.store import FeedPage, InDoubt

MAX_BODY_BYTES: Final = 16 * 1024
MAX_METADATA_BYTES: Final = 4 * 1024
MAX_METADATA_DEPTH: Final = 32

AmountText = Annotated[
    msgspec.Raw,
    Meta(
        description="Whole tokens as decimal text; a JSON number is taken exactly, never through a float.",
        extra_json_schema={"oneOf": [{"type": "string"}, {"type": "number"}], "examples": ["1.5"]},
    ),
]
MetadataObject = Annotated[
    msgspec.Raw,
    Meta(
        description="The client's own JSON object, at most 4 KiB, returned as it came.",
        extra_json_schema={"type": "object"},
    ),
]
TokenName = Annotated[str, Meta(description="Symbol or mint.", examples=["SOL", "USDC"])]
ClientOrderId = Annotated[str, Meta(description="The client's own name for the order: 1-64 visible ASCII characters.")]


class MarketOrderRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """An order to sell exactly `amountIn` of one token for another at the best venue's price."""

    type: Literal["market"]
    token_in: TokenName
    token_out: TokenName
    amount_in: AmountText
    slippage_bps: Annotated[int, Meta(ge=1, le=1000)] | None = None
    client_order_id: ClientOrderId | None = None
    metadata: MetadataObject = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class QuoteRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """What to quote."""

    token_in: TokenName
    token_out: TokenName
    amount_in: AmountText
    slippage_bps: Annotated[int, Meta(ge=1, le=1000)] | None = None


class ReasonView(msgspec.Struct, rename="camel"):
    """Why an order ended, or is waiting for another attempt."""

    code: str
    message: str


class AttemptView(msgspec.Struct, rename="camel"):
    """One signed transaction; `outcome` is null until the chain has proven it."""

    attempt: int
    tx_signature: str
    last_valid_block_height: int
    signed_at: str
    outcome: str | None
    evidence: msgspec.Raw | None


class AttemptInDoubtView(msgspec.Struct, rename="camel"):
    """A signed transaction whose outcome nobody has proven yet.

    `blocks_to_expiry`: how many blocks have yet to be finalized before it can be proven dead if it
    has not landed; null while the chain does not answer.
    """

    order_id: str
    attempt: int
    tx_signature: str
    last_valid_block_height: int
    blocks_to_expiry: int | None
    signed_at: str
    age_ms: int


class AttemptsInDoubtView(msgspec.Struct, rename="camel"):
    """The attempts in doubt, oldest first; the height is null while the chain does not answer."""

    finalized_block_height: int | None
    attempts: list[AttemptInDoubtView]


class OrderView(msgspec.Struct, rename="camel"):
    """The order resource."""

    order_id: str
    client_order_id: str | None
    type: str
    status: str
    in_doubt: bool
    token_in: str
    token_out: str
    amount_in: str
    slippage_bps: int
    min_amount_out: str | None
    venue: str | None
    quotes: msgspec.Raw
    amount_out: str | None
    price: str | None
    tx_signature: str | None
    reason: ReasonView | None
    metadata: msgspec.Raw | None
    attempt: int
    created_at: str
    updated_at: str
    seq: int
    links: dict[str, str]
    attempts: list[AttemptView] | UnsetType = msgspec.UNSET
    waiting_for: str | UnsetType | None = msgspec.UNSET


class EventView(msgspec.Struct, rename="camel"):
    """One event: the same in every stream, in `/events`, in the CLI and in the log."""

    order_id: str
    seq: int
    status: str
    attempt: int
    at: str
    elapsed_ms: int
    data: msgspec.Raw


class EventListView(msgspec.Struct, rename="camel"):
    """A history in order."""

    order_id: str
    events: list[EventView]


class FeedView(msgspec.Struct, rename="camel"):
    """Events of many orders, each order's in the order of its seq; `cursor` stands after the last one."""

    cursor: str
    events: list[EventView]


class OrderListView(msgspec.Struct, rename="camel"):
    """A page of orders, newest first; `nextCursor` is null on the last one."""

    orders: list[OrderView]
    next_cursor: str | None


class QuoteView(msgspec.Struct, rename="camel"):
    """What one venue would give now, net of fees; `error` says why it would give nothing."""

    venue: str
    chosen: bool
    amount_out: str | None
    min_amount_out: str | None
    fee_bps: int | None
    price_impact_bps: int | None
    error: str | None


class QuoteListView(msgspec.Struct, rename="camel"):
    """Every venue's offer, best first."""

    token_in: str
    token_out: str
    amount_in: str
    slippage_bps: int
    venue: str | None
    margin_bps: int | None
    quotes: list[QuoteView]


class VenueView(msgspec.Struct, rename="camel"):
    """How a venue is doing: whether it quoted one SOL in USDC when last asked, and how fast."""

    name: str
    ok: bool
    latency_ms: int
    checked_at: str
    error: str | None


class VenueListView(msgspec.Struct):
    """Every venue."""

    venues: list[VenueView]


class TokenListView(msgspec.Struct):
    """Every token that can be traded."""

    tokens: list[Token]


class HealthView(msgspec.Struct):
    """The process serves."""

    status: Literal["ok"]


class ReadyView(msgspec.Struct):
    """Whether orders can be taken and ended, in sentences why not, and the state of each part."""

    status: Literal["ready", "degraded", "unavailable"]
    reasons: list[str]
    dependencies: dict[str, str]


# --- out -----------------------------------------------------------------------------------------


def time_text(epoch_ms: int) -> str:
    """Return RFC 3339 in UTC with milliseconds."""
    seconds, milliseconds = divmod(epoch_ms, 1000)
    return f"{_second_text(seconds)}.{milliseconds:03d}Z"


@functools.lru_cache(maxsize=1024)
def _second_text(seconds: int) -> str:
    """Most times that are told at one moment are of the same few seconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def view_order(
    order: Order,
    attempts: Sequence[Attempt] | None = None,
    waiting_for: str | UnsetType | None = msgspec.UNSET,
) -> OrderView:
    """Return the resource; without `attempts` or `waiting_for` it has no such field."""
    request = order.request
    decimals_out = request.token_out.decimals
    path = f"/v1/orders/{order.order_id}"
    return OrderView(
        order_id=order.order_id,
        client_order_id=request.client_order_id,
        type="market",
        status=order.status.value,
        in_doubt=order.is_in_doubt,
        token_in=request.token_in.symbol,
        token_out=request.token_out.symbol,
        amount_in=format_amount(request.amount_in, request.token_in.decimals),
        slippage_bps=request.slippage_bps,
        min_amount_out=_amount(order.min_amount_out, decimals_out),
        venue=order.venue,
        quotes=order.quotes,
        amount_out=_amount(order.amount_out, decimals_out),
        price=None if order.amount_out is None else price_text(request, order.amount_out),
        tx_signature=order.tx_signature,
        reason=ReasonView(order.reason_code, order.reason_message or "") if order.reason_code else None,
        metadata=request.metadata,
        attempt=order.attempt,
        created_at=time_text(order.created_at_ms),
        updated_at=time_text(order.updated_at_ms),
        seq=order.seq,
        links={"self": path, "events": f"{path}/events", "stream": f"{path}/stream"},
        attempts=msgspec.UNSET if attempts is None else [view_attempt(it) for it in attempts],
        waiting_for=waiting_for,
    )


def view_in_doubt(found: InDoubt, height: int | None, now_ms: int) -> AttemptInDoubtView:
    """Return an attempt in doubt, as of a finalized block height."""
    attempt = found.attempt
    return AttemptInDoubtView(
        found.order_id,
        attempt.attempt,
        attempt.signature,
        attempt.last_valid_block_height,
        None if height is None else max(0, attempt.last_valid_block_height + 1 - height),
        time_text(attempt.signed_at_ms),
        max(0, now_ms - attempt.signed_at_ms),
    )


def view_attempt(attempt: Attempt) -> AttemptView:
    """Return the attempt without its raw bytes."""
    return AttemptView(
        attempt.attempt,
        attempt.signature,
        attempt.last_valid_block_height,
        time_text(attempt.signed_at_ms),
        attempt.outcome,
        attempt.evidence,
    )


def view_event(event: OrderEvent) -> EventView:
    """Return the event as every reader sees it."""
    return EventView(
        event.order_id,
        event.seq,
        event.status.value,
        event.attempt,
        time_text(event.at_ms),
        event.elapsed_ms,
        event.data,
    )


def view_feed(page: FeedPage) -> FeedView:
    """Return a page of the feed as every watcher sees it."""
    return FeedView(page.cursor, [view_event(event) for event in page.events])


def _amount(base_units: int | None, decimals: int) -> str | None:
    return None if base_units is None else format_amount(base_units, decimals)
