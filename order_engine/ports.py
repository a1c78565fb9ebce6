"""What the engine needs from the world: roles that adapters play. Only wiring.py knows who plays them."""

from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from enum import StrEnum
from types import TracebackType
from typing import Final, Protocol, Self

import msgspec

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import (
    Attempt,
    AttemptOutcome,
    EpochMs,
    Order,
    OrderId,
    OrderStatus,
    SwapRequest,
)
from order_engine.domain.routing import Quote
from order_engine.domain.tokens import Token


class Clock(Protocol):
    """Tells the time; sleeping is the event loop's business."""

    def now_ms(self) -> EpochMs:
        """Return milliseconds since 1970 UTC."""


# --- the chain -----------------------------------------------------------------------------------


# What `SwapResult.error` contains when the swap would have given less than its minimum out.
SLIPPAGE_ERROR: Final = "SlippageToleranceExceeded"


class Commitment(StrEnum):
    """How sure the cluster is of a block: a processed one can still lose its fork."""

    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


class UnsignedTransaction(msgspec.Struct, frozen=True):
    """What a venue built: a serialized Solana message, and its instructions for a person.

    Whatever blockhash the message has is replaced when it is signed.
    """

    message: bytes
    steps: tuple[str, ...]


# getSignatureStatuses takes no more signatures in one call.
MOST_SIGNATURES_IN_A_CALL: Final = 256


class Blockhash(msgspec.Struct, frozen=True):
    """A recent blockhash; a transaction that carries it can land up to `last_valid_block_height`.

    `finalized_slot` was finalized when it was read, so that what is signed from now on lands after it.
    `genesis_hash`: of the cluster that it is a blockhash of.
    """

    blockhash: str
    last_valid_block_height: int
    finalized_slot: int
    genesis_hash: str


class SignedTransaction(msgspec.Struct, frozen=True):
    """A transaction whose id (`signature`, base58) is known before it is sent."""

    signature: str
    raw: bytes
    last_valid_block_height: int
    signed_slot: int
    genesis_hash: str


class FinalizedPoint(msgspec.Struct, frozen=True):
    """The finalized block height and its slot, read in one answer."""

    block_height: int
    slot: int


class SignatureStatus(msgspec.Struct, frozen=True):
    """A transaction that the chain knows. `error` is None when it executed, else what the chain says of it."""

    slot: int
    commitment: Commitment
    error: str | None


class SignatureStatuses(msgspec.Struct, frozen=True):
    """Answers with history search, by a node that has finalized `context_slot` and answers as of it or later.

    Its history begins at `history_from_slot`: what landed before is not found either; None is unknown.
    On a losing fork a node's latest slot moves on all the same, so that slot alone would not show
    that what the others finalized is known to it.
    A signature that is in neither was not found; of one that is `unclear` nothing can be said.
    """

    context_slot: int
    statuses: Mapping[str, SignatureStatus]
    unclear: Collection[str] = ()
    history_from_slot: int | None = None


class SwapResult(msgspec.Struct, frozen=True):
    """What a transaction did: the base units it gave, or the program's own words for why it gave none."""

    amount_out: int | None
    error: str | None


class Chain(Protocol):
    """One Solana cluster seen through its RPC. Every method may raise ChainUnavailable."""

    @property
    def genesis_hash(self) -> str | None:
        """The cluster that every answer so far was of; None before the first."""

    async def latest_blockhash(self) -> Blockhash:
        """Return a blockhash fresh enough to sign with."""

    def sign(self, transaction: UnsignedTransaction, blockhash: Blockhash) -> SignedTransaction:
        """Sign with our wallet; raises ForeignFeePayer for a message that another wallet pays for. Sends nothing."""

    async def send(self, raw: bytes) -> None:
        """Offer the bytes to the network. Repeating it is harmless; returning proves nothing."""

    async def finalized_point(self) -> FinalizedPoint:
        """Return the finalized block height and slot."""

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        """Look up to MOST_SIGNATURES_IN_A_CALL signatures at once, in the whole history."""

    async def swap_result(self, signature: str, token_out: Token) -> SwapResult | None:
        """Return what a transaction that landed did; None while the node that answers does not know it."""


# --- the venues ----------------------------------------------------------------------------------


class Venue(Protocol):
    """A place where a swap can be executed."""

    @property
    def name(self) -> str:
        """The venue's name as the API shows it, lower case."""

    async def quote(self, request: SwapRequest) -> Quote:
        """Return what the venue would give now, net of its fee; raise StepFailed if it cannot."""

    async def build(self, order: Order) -> UnsignedTransaction:
        """Build the order's swap with its minimum out; raise StepFailed if it would give less now."""


# --- the store -----------------------------------------------------------------------------------


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A client's key, unique per account, and the digest of the request it came with."""

    key: str
    digest: str


class NewOrder(msgspec.Struct, frozen=True):
    """An order to accept: its first event, and its idempotency key if the client gave one."""

    order: Order
    event: OrderEvent
    idempotency: IdempotencyKey | None


class Accepted(msgspec.Struct, frozen=True):
    """The stored order. `is_replay`: the key was known; `digest` is that of the first request."""

    order: Order
    is_replay: bool
    digest: str | None


class Claim(msgspec.Struct, frozen=True):
    """The right to work on an order until the lease lapses. `claims` counts those since its last event."""

    order: Order
    fence: int
    claims: int


class ProvenOutcome(msgspec.Struct, frozen=True):
    """What the chain proved of one attempt, with the answers that prove it (a JSON object)."""

    attempt: int
    outcome: AttemptOutcome
    evidence: msgspec.Raw


class Write(msgspec.Struct, frozen=True):
    """Events to append to one order, and the order after them: all of it is stored, or nothing.

    It is refused (Fenced) unless the order is still at `expected_seq` and, with a `fence`, still
    held by it. Without a fence (a client's cancellation) a worker that holds the order loses it.
    A status `retrying` frees the order and makes it due in `due_in_ms` by the database's clock.
    """

    order: Order
    events: tuple[OrderEvent, ...]
    expected_seq: int
    fence: int | None
    due_in_ms: int = 0
    signed: Attempt | None = None
    proven: ProvenOutcome | None = None


# Claims without an event after which an order is suspected of killing its workers: from then on it is
# taken apart from others, so that what it does to its worker costs them nothing.
SUSPECT_CLAIMS: Final = 3


class OrderStore(Protocol):
    """Keeps every fact. May raise StoreUnavailable; then what was being written may or may not be kept."""

    async def accept(self, new: NewOrder) -> Accepted:
        """Store the order, its first event and its idempotency key; committed when this returns."""

    async def claim(self, worker: str, order_ids: Sequence[OrderId], lease_ms: int) -> list[Claim]:
        """Take those of the orders that nobody holds and that wait for a worker now."""

    async def claim_due(self, worker: str, limit: int, lease_ms: int) -> list[Claim]:
        """Take up to `limit` orders whose lease lapsed or that have been due for a while, but no suspects."""

    async def claim_suspect(self, worker: str, waited_ms: int, lease_ms: int) -> list[Claim]:
        """Take one order that was claimed SUSPECT_CLAIMS times in vain, unless the worker holds one already.

        It has lapsed for longer after each claim in vain, and for `waited_ms` at least once it died as
        a suspect. One in doubt, which is never parked, is a suspect some claims later. An event clears
        an order of the suspicion.
        """

    async def end_leases_of_the_gone(self) -> None:
        """Let the orders of processes that have ended lapse at once, as far as the store knows of their end.

        Safe whatever it believes, since it is the fence that keeps two workers apart.
        """

    async def renew(self, worker: str, claims: Mapping[OrderId, int], lease_ms: int) -> set[OrderId]:
        """Extend the leases (order id -> fence); return the orders that are still held."""

    async def release(self, worker: str, claims: Mapping[OrderId, int]) -> None:
        """Give back unfinished orders (order id -> fence), due now and uncounted as claims."""

    def record(self, write: Write) -> Awaitable[None]:
        """Queue the write at once, in order; the awaitable returns when it is committed."""

    async def delete_ended(self, older_than_ms: int, limit: int) -> int:
        """Delete up to `limit` of the oldest orders that ended so long ago, with all that is kept of them.

        Returns how many. An idempotency key goes with its order.
        """

    async def keep_genesis(self, genesis_hash: str) -> str:
        """Keep the cluster's genesis hash, for ever once an attempt is signed; return the one that is kept.

        An attempt that was signed for another cluster than the kept one is refused.
        """


class OrderFilter(msgspec.Struct, frozen=True):
    """What to list: each field that is not None narrows. Newest first, strictly before `before`."""

    account: str
    status: OrderStatus | None = None
    token_in: str | None = None
    token_out: str | None = None
    client_order_id: str | None = None
    created_after_ms: EpochMs | None = None
    created_before_ms: EpochMs | None = None
    before: OrderId | None = None


class InDoubt(msgspec.Struct, frozen=True):
    """A signed transaction whose outcome nobody has proven yet."""

    order_id: OrderId
    attempt: Attempt


class InDoubtCount(msgspec.Struct, frozen=True):
    """How many attempts have no outcome, and how long ago the oldest was signed."""

    count: int
    oldest_ms: int


class OrderReader(Protocol):
    """Reads what is kept. May raise StoreUnavailable."""

    async def get(self, account: str, order_id: OrderId) -> Order | None:
        """Return the order, or None if this account has no such order."""

    async def attempts(self, order_id: OrderId) -> list[Attempt]:
        """Return every signed transaction of the order, first one first."""

    async def in_doubt(self, account: str, limit: int) -> list[InDoubt]:
        """Return up to `limit` attempts of the account without an outcome, the oldest first."""

    async def count_in_doubt(self) -> InDoubtCount:
        """Return how many attempts of all accounts have no outcome."""

    async def history(self, order_id: OrderId, after: int) -> list[OrderEvent]:
        """Return the events with a seq greater than `after`, in order."""

    async def find(self, order_filter: OrderFilter, limit: int) -> list[Order]:
        """Return up to `limit` orders that match, newest first."""

    async def find_by_key(self, account: str, key: str) -> Accepted | None:
        """Return the order that was accepted with this idempotency key."""

    async def ping(self) -> None:
        """Return if the database answers."""


# --- the bus -------------------------------------------------------------------------------------


class ReadyQueue(Protocol):
    """Order ids that wait for a worker. Disposable: what it loses, the sweeper finds."""

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """Hand over the ids soon; never blocks and never fails."""

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """Return up to `limit` ids, waiting up to `timeout_s` for the first one."""


class Subscription(Protocol):
    """The live events of one order, or of all. Leaving the context ends it."""

    async def next(self, timeout_s: float) -> Sequence[OrderEvent]:
        """Return the events that came since the last call; empty after `timeout_s` without any.

        Events can be missing or come twice; whoever needs all of them reads the log.
        """

    async def __aenter__(self) -> Self:
        """Begin to receive; when this returns, nothing published from now on is missed for good."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop receiving."""


class EventBus(Protocol):
    """The live feed. Disposable: what it loses, the streams read from the log."""

    @property
    def is_connected(self) -> bool:
        """False while events may be passing by unseen."""

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """Send committed events to every subscriber soon; never blocks and never fails."""

    def subscribe(self, order_id: OrderId | None) -> Subscription:
        """Return a subscription to one order's events, or with None to all."""


class RateVerdict(msgspec.Struct, frozen=True):
    """Whether there was room in the window, and what is left of it."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimiter(Protocol):
    """Counts what happens per key and minute."""

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """Count `cost` against the key if it fits in `per_minute`; a cost of 0 only looks.

        Never raises for a lost server: each process then counts on its own.
        """


Announce = Callable[[Sequence[OrderEvent]], None]
"""Called by a store with the events of each committed batch, after the commit."""
