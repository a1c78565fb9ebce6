"""What an order is."""

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
    """Where an order is in its life; domain/lifecycle.py says what may follow what."""

    PENDING = "pending"
    ROUTING = "routing"
    BUILDING = "building"
    SUBMITTED = "submitted"
    CONFIRMED = "confirmed"
    RETRYING = "retrying"
    FAILED = "failed"
    CANCELLED = "cancelled"


class SwapRequest(msgspec.Struct, frozen=True):
    """What the client wants: sell exactly `amount_in` base units of one token for another.

    The tokens are kept whole, with mint and decimals, so that a later change of the registry
    cannot change what an accepted order means. `metadata` is the client's own JSON object, kept
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
    account: str
    request: SwapRequest
    status: OrderStatus
    seq: int
    attempt_number: int
    created_at_ms: EpochMs
    updated_at_ms: EpochMs
    venue: str | None = None
    quotes: msgspec.Raw = EMPTY_LIST
    min_amount_out: BaseUnits | None = None
    amount_out: BaseUnits | None = None
    tx_signature: str | None = None
    reason_code: ReasonCode | None = None
    reason_message: str | None = None

    @property
    def is_in_doubt(self) -> bool:
        """True while a transaction is signed and its outcome is not proven yet."""
        return self.status is OrderStatus.SUBMITTED


class AttemptOutcome(StrEnum):
    """What the chain proved about one signed transaction."""

    LANDED = "landed"
    REVERTED = "reverted"
    EXPIRED = "expired"


class SignedAttempt(msgspec.Struct, frozen=True):
    """One signed transaction of an order. Without an outcome it is live: it may still execute.

    It can land up to `last_valid_block_height`, in no slot before that of `signed_point` (the finalized
    point when it was signed), and only on the cluster with this genesis hash. `blockhash_slot`: the slot
    of the blockhash that it carries, from which 150 blocks are counted.
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
