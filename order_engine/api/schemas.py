"""The types on the wire: requests, orders and events, and the functions that build them."""

import functools
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta, UnsetType

from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import OrderEvent
from order_engine.domain.money import MAX_AMOUNT_TEXT, format_amount, format_known_amount
from order_engine.domain.order import AttemptOutcome, Order, OrderStatus, SignedAttempt, price_text
from order_engine.domain.tokens import Token
from order_engine.ports.store import InDoubt, LogPage

MAX_BODY_BYTES: Final = 16 * 1024
MAX_METADATA_BYTES: Final = 4 * 1024
MAX_METADATA_DEPTH: Final = 32


def amount_schema() -> dict[str, Any]:
    """Return the schema of an amount that a client sends; its limits also depend on the token."""
    text = {
        "type": "string",
        "maxLength": MAX_AMOUNT_TEXT,
        "pattern": r"^([1-9][0-9]*(\.[0-9]+)?|0\.[0-9]*[1-9][0-9]*)$",
    }
    return {
        "description": "Whole tokens as decimal text; a JSON number is taken exactly, not through a float. Above zero, "
        "no more decimals than the token has.",
        "oneOf": [text, {"type": "number", "exclusiveMinimum": 0}],
        "examples": ["1.5"],
    }


AmountText = Annotated[msgspec.Raw, Meta(extra_json_schema=amount_schema())]
MetadataObject = Annotated[
    msgspec.Raw,
    Meta(
        description="The client's own JSON object, at most 4 KiB and 32 levels deep, without NUL; returned as it came.",
        extra_json_schema={"type": ["object", "null"]},
    ),
]
# The document's own schema of this name lists the tokens that the engine knows.
TOKEN_SCHEMA: Final = "TokenName"  # noqa: S105 - a currency
TokenName = Annotated[str, Meta(extra_json_schema={"$ref": f"#/components/schemas/{TOKEN_SCHEMA}"})]
# Neither `.` nor `..`: a client would take them for steps of a path.
CLIENT_ORDER_ID_PATTERN: Final = r"^([!-\-/-~]|[!-\-/-~][!-~]|\.[!-\-/-~]|[!-~]{3,64})$"
ClientOrderId = Annotated[
    str,
    Meta(
        description="The client's own name for the order: 1-64 visible ASCII characters, neither `.` nor `..`.",
        extra_json_schema={"pattern": CLIENT_ORDER_ID_PATTERN},
    ),
]
SlippageBps = Annotated[int, Meta(ge=1, le=1000, description="1 bps is 0.01 %. Default: DEFAULT_SLIPPAGE_BPS.")]

UUID_PATTERN: Final = "^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
OrderIdText = Annotated[str, Meta(pattern=UUID_PATTERN, description="A UUIDv7.")]
AmountView = Annotated[str, Meta(pattern=r"^(0|[1-9][0-9]*)(\.[0-9]+)?$", description="Whole tokens.")]
TimeText = Annotated[str, Meta(pattern="^[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[.][0-9]{3}Z$")]
StatusText = Annotated[str, Meta(extra_json_schema={"enum": [*OrderStatus]})]
OutcomeText = Annotated[str, Meta(extra_json_schema={"enum": [*AttemptOutcome]})]
ReasonText = Annotated[str, Meta(extra_json_schema={"enum": [*ReasonCode]})]
Signature = Annotated[str, Meta(pattern="^[1-9A-HJ-NP-Za-km-z]{64,88}$", description="Base58.")]
Count = Annotated[int, Meta(ge=0)]
JsonObject = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "object"})]
JsonObjects = Annotated[msgspec.Raw, Meta(extra_json_schema={"type": "array", "items": {"type": "object"}})]


class MarketOrderRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """An order to sell exactly `amountIn` of one token for another at the best venue's price."""

    type: Literal["market"]
    token_in: TokenName
    token_out: TokenName
    amount_in: AmountText
    slippage_bps: SlippageBps | None = None
    client_order_id: ClientOrderId | None = None
    metadata: MetadataObject = msgspec.field(default_factory=lambda: msgspec.Raw(b"null"))


class QuoteRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """The swap to quote."""

    token_in: TokenName
    token_out: TokenName
    amount_in: AmountText
    slippage_bps: SlippageBps | None = None


class ReasonView(msgspec.Struct, rename="camel"):
    """Why an order ended, or is waiting for another attempt."""

    code: ReasonText
    message: str


class AttemptView(msgspec.Struct, rename="camel"):
    """One signed transaction; `outcome` is null until the chain has proven it."""

    attempt: Count
    tx_signature: Signature
    last_valid_block_height: Count
    signed_at: TimeText
    outcome: OutcomeText | None
    evidence: JsonObject | None


class AttemptInDoubtView(msgspec.Struct, rename="camel"):
    """A signed transaction whose outcome is not proven yet.

    `blocks_to_expiry`: how many blocks have yet to be finalized before it can be proven dead if it
    has not landed; null while the chain does not answer.
    """

    order_id: OrderIdText
    attempt: Count
    tx_signature: Signature
    last_valid_block_height: Count
    blocks_to_expiry: Count | None
    signed_at: TimeText
    age_ms: Count


class AttemptsInDoubtView(msgspec.Struct, rename="camel"):
    """The attempts in doubt, oldest first; the height is null while the chain does not answer."""

    finalized_block_height: Count | None
    attempts: list[AttemptInDoubtView]


class OrderView(msgspec.Struct, rename="camel"):
    """The order resource."""

    order_id: OrderIdText
    client_order_id: ClientOrderId | None
    type: Literal["market"]
    status: StatusText
    in_doubt: bool
    token_in: str
    token_out: str
    amount_in: AmountView
    slippage_bps: SlippageBps
    min_amount_out: AmountView | None
    venue: str | None
    quotes: JsonObjects
    amount_out: AmountView | None
    price: AmountView | None
    tx_signature: Signature | None
    reason: ReasonView | None
    metadata: JsonObject | None
    attempt: Count
    created_at: TimeText
    updated_at: TimeText
    seq: Annotated[int, Meta(ge=1)]
    links: dict[str, str]
    attempts: list[AttemptView] | UnsetType = msgspec.UNSET
    waiting_for: str | UnsetType | None = msgspec.UNSET


class EventView(msgspec.Struct, rename="camel"):
    """One event: the same in every stream, in `/events`, in the CLI and in the log."""

    order_id: OrderIdText
    seq: Annotated[int, Meta(ge=1)]
    status: StatusText
    attempt: Count
    at: TimeText
    elapsed_ms: int
    data: JsonObject


class EventListView(msgspec.Struct, rename="camel"):
    """A history in order."""

    order_id: OrderIdText
    events: list[EventView]


class FeedView(msgspec.Struct, rename="camel"):
    """Events of many orders, each order's in the order of its seq; `cursor` stands after the last one."""

    cursor: str
    events: list[EventView]


class OrderListView(msgspec.Struct, rename="camel"):
    """A page of orders, newest first; `nextCursor` is null on the last one."""

    orders: list[OrderView]
    next_cursor: OrderIdText | None


class QuoteView(msgspec.Struct, rename="camel"):
    """One venue's offer now, net of fees; `error` says why it makes no offer."""

    venue: str
    chosen: bool
    amount_out: AmountView | None
    min_amount_out: AmountView | None
    fee_bps: Count | None
    price_impact_bps: Count | None
    error: str | None


class QuoteListView(msgspec.Struct, rename="camel"):
    """Every venue's offer, best first."""

    token_in: str
    token_out: str
    amount_in: AmountView
    slippage_bps: SlippageBps
    venue: str | None
    margin_bps: Count | None
    quotes: list[QuoteView]


class VenueView(msgspec.Struct, rename="camel"):
    """How a venue is doing: whether it quoted one SOL in USDC when last asked, and how fast."""

    name: str
    ok: bool
    latency_ms: int
    checked_at: TimeText
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
    """Most times in one answer are within the same few seconds."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def view_order(
    order: Order,
    attempts: Sequence[SignedAttempt] | None = None,
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
        min_amount_out=format_known_amount(order.min_amount_out, decimals_out),
        venue=order.venue,
        quotes=order.quotes,
        amount_out=format_known_amount(order.amount_out, decimals_out),
        price=None if order.amount_out is None else price_text(request, order.amount_out),
        tx_signature=order.tx_signature,
        reason=ReasonView(order.reason_code, order.reason_message or "") if order.reason_code else None,
        metadata=request.metadata,
        attempt=order.attempt_number,
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
        attempt.attempt_number,
        attempt.signature,
        attempt.last_valid_block_height,
        None if height is None else max(0, attempt.last_valid_block_height + 1 - height),
        time_text(attempt.signed_at_ms),
        max(0, now_ms - attempt.signed_at_ms),
    )


def view_attempt(attempt: SignedAttempt) -> AttemptView:
    """Return the attempt without its raw bytes."""
    return AttemptView(
        attempt.attempt_number,
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
        event.attempt_number,
        time_text(event.at_ms),
        event.elapsed_ms,
        event.data,
    )


def view_feed(page: LogPage) -> FeedView:
    """Return a page of the account stream as every watcher sees it."""
    return FeedView(page.cursor, [view_event(event) for event in page.events])
