"""The Solana cluster, as the engine uses it."""

from collections.abc import Collection, Mapping, Sequence
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.tokens import Token

# `SwapResult.error` contains this when the swap would have given less than its minimum out.
SLIPPAGE_ERROR: Final = "SlippageToleranceExceeded"


class Commitment(StrEnum):
    """How sure the cluster is of a block: a processed one can still lose its fork."""

    PROCESSED = "processed"
    CONFIRMED = "confirmed"
    FINALIZED = "finalized"


class UnsignedTransaction(msgspec.Struct, frozen=True):
    """The result of a venue's build: a serialized Solana message, and its instructions in words.

    Signing replaces the message's blockhash.
    """

    message: bytes
    steps: tuple[str, ...]


# getSignatureStatuses takes no more signatures in one call.
MAX_SIGNATURES_IN_A_CALL: Final = 256


class Blockhash(msgspec.Struct, frozen=True):
    """A recent blockhash; a transaction that carries it can land up to `last_valid_block_height`.

    `finalized` was finalized when the blockhash was read: a transaction that is signed from now on
    lands after it. `slot`: of the blockhash. `genesis_hash` names the cluster.
    """

    blockhash: str
    last_valid_block_height: int
    finalized: ChainPoint
    slot: int
    genesis_hash: str


class SignedTransaction(msgspec.Struct, frozen=True):
    """A transaction whose id (`signature`, base58) is known before it is sent. `owner`: the key that signed it."""

    signature: str
    raw: bytes
    owner: str
    last_valid_block_height: int
    signed_point: ChainPoint
    blockhash_slot: int
    genesis_hash: str


class SignatureStatus(msgspec.Struct, frozen=True):
    """A transaction that the chain knows. `error` is None when it executed, else the chain's error."""

    slot: int
    commitment: Commitment
    error: str | None


class SignatureStatuses(msgspec.Struct, frozen=True):
    """Answers with history search, by a node that has finalized `context_slot` and answers as of it or later.

    The node's history begins at `history_from_slot` (None: unknown); older transactions are not found.
    A node on a losing fork still advances its latest slot, so that slot alone would not show that the
    node knows the blocks that the others finalized.
    A signature in neither `statuses` nor `unclear` was not found; an unclear one proves nothing.
    """

    context_slot: int
    statuses: Mapping[str, SignatureStatus]
    unclear: Collection[str] = ()
    history_from_slot: int | None = None


class SwapResult(msgspec.Struct, frozen=True):
    """A transaction's result: the base units that it gave, or the program's error if it gave none."""

    amount_out: int | None
    error: str | None


class LandedMemo(msgspec.Struct, frozen=True):
    """A transaction of our wallet that executed, and the order that it was signed for."""

    memo: str
    signature: str
    slot: int


class Chain(Protocol):
    """One Solana cluster seen through its RPC. Every method may raise ChainUnavailable.

    All methods but `send_many` only read: cancelling them has no effect on the chain.
    """

    @property
    def genesis_hash(self) -> str | None:
        """The cluster of every answer so far; None before the first answer."""

    async def latest_blockhash(self) -> Blockhash:
        """Return a blockhash fresh enough to sign with."""

    async def send_many(self, raws: Sequence[bytes]) -> Sequence[Exception | None]:
        """Offer transactions to the network; return an error or None for each. None proves nothing.

        Repeating it is harmless. If the caller is cancelled, some of them may have been sent.
        """

    async def finalized_point(self) -> ChainPoint:
        """Return the finalized block height and slot."""

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        """Look up to MAX_SIGNATURES_IN_A_CALL signatures at once, in the whole history."""

    async def swap_results(self, wanted: Sequence[tuple[str, str, Token]]) -> Sequence[SwapResult | Exception | None]:
        """Return the result of each landed transaction: (signature, owner, token out), read for that owner.

        None while the node that answers does not know the transaction.
        """


class Assembly(Protocol):
    """Makes the bytes that are signed and sent. Pure."""

    def with_blockhash(self, transaction: UnsignedTransaction, blockhash: Blockhash, owner: str) -> bytes:
        """Return the message to sign; raises VenueFailed, and ForeignFeePayer if another wallet than `owner` pays."""

    def signed(self, message: bytes, signature: bytes, blockhash: Blockhash, owner: str) -> SignedTransaction:
        """Return the transaction of a message and the signature of its owner."""
