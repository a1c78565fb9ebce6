"""The simulated chain: real signatures, slots and block heights, expiry, and a ledger of its own."""

import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from solders.hash import Hash
from solders.keypair import Keypair

from order_engine.domain.order import EpochMs
from order_engine.engine.batch import Batcher
from order_engine.ports import (
    Blockhash,
    Clock,
    FinalizedPoint,
    SignatureStatus,
    SignatureStatuses,
    SignedTransaction,
    UnsignedTransaction,
)

SLOT_MS: Final = 400
_FIRST_SLOT: Final = 1_000
_SKIPPED_SLOT: Final = 20  # One slot in so many has no block: the height falls behind the slot.
_FINALIZED_AFTER_SLOTS: Final = 32
_VALID_BLOCKS: Final = 150
_LANDS_AFTER_S: Final = (2.0, 3.0)
_BLOCKHASH_KEPT_MS: Final = 1_000
_MOST_IN_A_BATCH: Final = 512


class LedgerEntry(msgspec.Struct, frozen=True):
    """One transaction that landed or will: the chain's own record, which the engine never touches.

    `error` is None when the swap executed. `memo` is the id of the order that it was signed for.
    """

    signature: str
    memo: str
    attempt: int
    venue: str
    token_in: str
    token_out: str
    amount_in: int
    min_amount_out: int
    amount_out: int | None
    error: str | None
    slot: int
    block_height: int
    lands_at_ms: int


class Ledger(Protocol):
    """Where the paper chain keeps what happened. Methods raise ChainUnavailable."""

    async def genesis_ms(self, now_ms: int) -> int:
        """Return when the chain began; the first caller's time is kept for ever."""
        ...

    async def seal(self, until_ms: int) -> None:
        """Refuse from now on what would land at this time or before: it is finalized."""
        ...

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep the entries that land after what is sealed; a signature that is there stays as it is."""
        ...

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """Return the entries of those signatures that are known."""
        ...

    async def close(self) -> None:
        """Let go of the file or the connection."""
        ...


class Execution(msgspec.Struct, frozen=True):
    """What the program did with a message: `amount_out` base units, or the error of its refusal."""

    memo: str
    attempt: int
    venue: str
    token_in: str
    token_out: str
    amount_in: int
    min_amount_out: int
    amount_out: int | None
    error: str | None


class _SignedMessage(msgspec.Struct, frozen=True):
    signature: str
    message: bytes
    blockhash: str
    last_valid_block_height: int


class PaperChain:
    """A Chain that executes swaps on paper, as one program of all venues decides."""

    def __init__(
        self,
        ledger: Ledger,
        program: Callable[[bytes, EpochMs], Execution],
        clock: Clock,
        delay_scale: float,
        seed: int,
    ) -> None:
        """`program` runs a message at a time; the wallet's key and the delays come from the seed."""
        self._ledger = ledger
        self._program = program
        self._clock = clock
        self._delay_scale = delay_scale
        self._random = random.Random(f"{seed}:chain")  # noqa: S311 - a simulation, to be repeated
        self._wallet = Keypair.from_seed(hashlib.sha256(f"{seed}:wallet".encode()).digest())
        self._genesis_ms: int | None = None
        self._sealed_slot = 0
        self._blockhash: tuple[int, Blockhash] | None = None
        self._appends: Batcher[LedgerEntry, None] = Batcher(self._append_together, _MOST_IN_A_BATCH)

    async def latest_blockhash(self) -> Blockhash:
        """See Chain."""
        now_ms = self._clock.now_ms()
        if self._blockhash is None or now_ms - self._blockhash[0] > _BLOCKHASH_KEPT_MS:
            height = _block_height(await self._slot_at(now_ms))
            digest = hashlib.sha256(f"{await self._genesis()}:{height}".encode()).digest()
            self._blockhash = (now_ms, Blockhash(str(Hash(digest)), height + _VALID_BLOCKS))
        return self._blockhash[1]

    def sign(self, transaction: UnsignedTransaction, blockhash: Blockhash) -> SignedTransaction:
        """See Chain."""
        payload = blockhash.blockhash.encode() + transaction.message
        signature = str(self._wallet.sign_message(payload))
        signed = _SignedMessage(signature, transaction.message, blockhash.blockhash, blockhash.last_valid_block_height)
        return SignedTransaction(signature, msgspec.msgpack.encode(signed), blockhash.last_valid_block_height)

    async def send(self, raw: bytes) -> None:
        """See Chain. A transaction that would land after its last valid height never lands."""
        signed = msgspec.msgpack.decode(raw, type=_SignedMessage)
        delay_ms = int(self._random.uniform(*_LANDS_AFTER_S) * 1000 * self._delay_scale)
        lands_at_ms = EpochMs(self._clock.now_ms() + delay_ms)
        slot = await self._slot_at(lands_at_ms)
        if _block_height(slot) > signed.last_valid_block_height:
            return
        execution = self._program(signed.message, lands_at_ms)
        entry = LedgerEntry(
            signed.signature,
            **msgspec.structs.asdict(execution),
            slot=slot,
            block_height=_block_height(slot),
            lands_at_ms=lands_at_ms,
        )
        await self._appends.submit(entry)

    async def finalized_point(self) -> FinalizedPoint:
        """See Chain."""
        slot = await self._slot_at(self._clock.now_ms()) - _FINALIZED_AFTER_SLOTS
        if slot > self._sealed_slot:
            # What is finalized stays so: a sender that was paused cannot land anything before it.
            await self._ledger.seal(await self._genesis() + (slot + 1 - _FIRST_SLOT) * SLOT_MS - 1)
            self._sealed_slot = slot
        return FinalizedPoint(_block_height(slot), slot)

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        """See Chain."""
        now_ms = self._clock.now_ms()
        context_slot = await self._slot_at(now_ms)
        entries = await self._ledger.find(signatures)
        landed = [entry for entry in entries if entry.lands_at_ms <= now_ms]
        return SignatureStatuses(
            context_slot,
            {it.signature: SignatureStatus(it.slot, it.error, it.amount_out) for it in landed},
        )

    async def close(self) -> None:
        """Finish what was being written."""
        await self._appends.drain()
        await self._ledger.close()

    async def _append_together(self, entries: Sequence[LedgerEntry]) -> Sequence[None]:
        await self._ledger.append(entries)
        return [None] * len(entries)

    async def _slot_at(self, at_ms: int) -> int:
        return _FIRST_SLOT + (at_ms - await self._genesis()) // SLOT_MS

    async def _genesis(self) -> int:
        if self._genesis_ms is None:
            self._genesis_ms = await self._ledger.genesis_ms(self._clock.now_ms())
        return self._genesis_ms


def _block_height(slot: int) -> int:
    return slot - slot // _SKIPPED_SLOT
