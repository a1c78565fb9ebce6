"""An order, its request and its signed attempts, as values."""

import decimal
from enum import StrEnum
from typing import Final, NewType

import msgspec

from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import ReasonCode
from order_engine.domain.money import BaseUnits
from order_engine.domain.tokens import Token

OrderId = NewType("OrderId", str)
EpochMs = NewType("EpochMs", int)

_PRICE_DIGITS: Final = 12
EMPTY_LIST: Final = msgspec.Raw(b"[]")


class OrderStatus(StrEnum):
    """The state of an order; domain/lifecycle.py says which status may follow which."""

    PENDING = "pending"
    """The order is accepted and stored; no attempt has begun."""
    ROUTING = "routing"
    """An attempt has begun: the venues were asked and their offers compared."""
    BUILDING = "building"
    """The winning venue built the swap; nothing is signed yet."""
    SUBMITTED = "submitted"
    """A transaction is signed and may execute; its outcome is not proven yet."""
    CONFIRMED = "confirmed"
    """Terminal: the chain proved that the swap executed."""
    RETRYING = "retrying"
    """An attempt failed without a swap; the next one begins after a pause."""
    FAILED = "failed"
    """Terminal: the order ended without a swap, and none can happen any more."""
    CANCELLED = "cancelled"
    """Terminal: the client cancelled the order before a transaction was signed."""


class SwapRequest(msgspec.Struct, frozen=True):
    """The client's request: sell exactly `amount_in` base units of one token for another.

    The tokens are kept whole, with mint and decimals, so that a later change of the registry
    cannot change the meaning of an accepted order. `metadata` is the client's own JSON object, kept
    byte for byte and never read.
    """

    token_in: Token
    token_out: Token
    amount_in: BaseUnits
    slippage_bps: int
    client_order_id: str | None = None
    metadata: msgspec.Raw | None = None


def price_text(request: SwapRequest, amount_out: int) -> str:
    """Return the executed price in whole tokens out per whole token in, to 12 significant digits."""
    with decimal.localcontext(prec=_PRICE_DIGITS):
        price = decimal.Decimal(amount_out * 10**request.token_in.decimals) / (
            request.amount_in * 10**request.token_out.decimals
        )
    return f"{price.normalize():f}"


class Order(msgspec.Struct, frozen=True):
    """An order as its last event left it. Only `lifecycle.apply` makes a new one."""

    order_id: OrderId
    """A UUIDv7: unique, and sorted by time."""
    account: str
    """The account that placed the order and may read it."""
    request: SwapRequest
    """The request, which never changes."""
    status: OrderStatus
    """The status of the last event."""
    seq: int
    """The number of the last event; the first is 1."""
    attempt_number: int
    """The number of the last attempt, counted from 1; 0 before the first."""
    created_at_ms: EpochMs
    """When the order was accepted, in ms since 1970 (UTC)."""
    updated_at_ms: EpochMs
    """When the last event happened, in ms since 1970 (UTC)."""
    venue: str | None = None
    """The name of the venue that won the last comparison, for example `raydium`; None if none won."""
    quotes: msgspec.Raw = EMPTY_LIST
    """The venues' answers in the last comparison, best first: an encoded JSON list."""
    min_amount_out: BaseUnits | None = None
    """The minimum that the swap may give, in base units of the token out; from the last winner's quote."""
    amount_out: BaseUnits | None = None
    """The amount that the executed swap gave, in base units of the token out; None unless confirmed."""
    tx_signature: str | None = None
    """The signature (base58) of the last signed transaction; None before the first."""
    reason_code: ReasonCode | None = None
    """Why the last attempt or the order ended without a swap; None again when the venues have answered."""
    reason_message: str | None = None
    """The same reason as a sentence."""

    @property
    def is_in_doubt(self) -> bool:
        """True while a transaction is signed and its outcome is not proven yet."""
        return self.status is OrderStatus.SUBMITTED


class AttemptOutcome(StrEnum):
    """The outcome of one signed transaction that the chain proved."""

    LANDED = "landed"
    REVERTED = "reverted"
    EXPIRED = "expired"


class SignedAttempt(msgspec.Struct, frozen=True):
    """One signed transaction of an order. Without an outcome it is live: it may still execute.

    It can land up to `last_valid_block_height`, in no slot before that of `signed_point` (the finalized
    point when it was signed), and only on the cluster with this genesis hash. `blockhash_slot`: the slot
    of its blockhash, from which the 150 blocks are counted in which it can land.
    """

    attempt_number: int
    signature: str
    raw: bytes
    owner: str
    last_valid_block_height: int
    signed_point: ChainPoint
    blockhash_slot: int
    signed_at_ms: EpochMs
    genesis_hash: str
    outcome: AttemptOutcome | None = None
    evidence: msgspec.Raw | None = None
