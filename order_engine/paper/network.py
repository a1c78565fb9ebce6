"""The paper network: slots, blocks, forks, expiry, and the outcome of every transaction.

This is the chain's true state; `node.py` is a node's view of it. Times follow Solana's: a slot takes 400 ms, some slots
have no block (so a block height is not a slot), a blockhash is good for 150 blocks, and a block is finalized 32 slots
later.
"""

import asyncio
import hashlib
import random
from collections.abc import Callable, Sequence
from typing import Final, Protocol

import msgspec
from solders.hash import Hash
from solders.transaction import VersionedTransaction

from order_engine.batching import Batcher
from order_engine.domain.order import EpochMs
from order_engine.paper.faults import ChainFaults
from order_engine.paper.swap import PaperSwap
from order_engine.ports.chain import Commitment
from order_engine.ports.clock import Clock

SLOT_MS: Final = 400
FIRST_SLOT: Final = 1_000
VALID_BLOCKS: Final = 150
_SLOTS_A_ROUND: Final = 20  # One slot of each round has no block: the height falls behind the slot.
_CONFIRMED_AFTER_SLOTS: Final = 2
_FINALIZED_AFTER_SLOTS: Final = 32
# At a delay scale of 1: the time until a leader takes a transaction, and from then until it is confirmed.
_LANDS_AFTER_S: Final = (1.2, 2.2)
_CONFIRMED_AFTER_S: Final = 0.8
_FORK_LASTS_SLOTS: Final = (1, 8)
_LATE_SLOTS: Final = 12  # How close to its last valid block a late transaction lands.
_LANDS_WITHIN_MS: Final = 150_000  # The longest that a transaction takes from its arrival to its landing.
_MAX_FORKS_KEPT: Final = 10_000
_MAX_IN_A_BATCH: Final = 512
_MAX_IN_A_COLUMN: Final = 2**63 - 1


class LedgerEntry(PaperSwap, frozen=True, kw_only=True):
    """One transaction that has landed or will land: the chain's own record, which the engine never touches."""

    signature: str
    slot: int
    block_height: int
    lands_at_ms: int
    raw: bytes


class Ledger(Protocol):
    """Keeps the paper chain's transactions. Methods raise ChainUnavailable."""

    async def genesis_ms(self, now_ms: int) -> int:
        """Return when the chain began; the first caller's time is kept for ever."""
        ...

    async def latest_landing_ms(self) -> int:
        """Return when the last transaction lands or landed; 0 in an empty ledger."""
        ...

    async def newest(self, before: str | None, at_ms: int, limit: int) -> list[LedgerEntry]:
        """Return the transactions landed at a time and before a signature in the ledger, newest first."""
        ...

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """Keep the entries; a signature that is there stays as it is."""
        ...

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """Return the entries of those signatures that are known."""
        ...

    async def close(self) -> None:
        """Let go of the file."""
        ...


class TransactionView(msgspec.Struct, frozen=True):
    """The visible state of one transaction at one moment."""

    slot: int
    commitment: Commitment
    error: str | None


class _Fork(msgspec.Struct, frozen=True):
    """A block with the transaction that was processed, and taken back when its fork lost."""

    slot: int
    until_ms: int
    error: str | None


class PaperNetwork:
    """The truth about every transaction. One network owns its ledger, so each file has one network."""

    def __init__(
        self,
        ledger: Ledger,
        program: Callable[[bytes, EpochMs], PaperSwap],
        clock: Clock,
        delay_scale: float,
        seed: int,
        faults: ChainFaults,
    ) -> None:
        """`program` runs a swap's instruction at a time; delays and faults are drawn from the seed.

        `program` may raise any exception for an instruction that it cannot read; then nothing is executed.
        """
        self._ledger = ledger
        self._program = program
        self._clock = clock
        self._delay_scale = delay_scale
        self._faults = faults
        self._random = random.Random(f"{seed}:network")  # noqa: S311 - a simulation, to be repeated
        self._genesis_ms = 0
        self._latest_ms = 0
        self._ahead_ms = 0
        self._blockhashes: dict[Hash, int] = {}
        self._hashed_height = 0
        self._pending: dict[str, asyncio.Future[None]] = {}
        self._forks: dict[str, _Fork] = {}
        self._appends: Batcher[LedgerEntry, None] = Batcher(self._append_together, _MAX_IN_A_BATCH)
        self._finds: Batcher[str, LedgerEntry | None] = Batcher(self._find_together, _MAX_IN_A_BATCH)

    async def start(self) -> None:
        """Read when the chain began; call it before any other method."""
        now_ms = self._clock.now_ms()
        self._genesis_ms = await self._ledger.genesis_ms(now_ms)
        # A clock that was set back while nothing ran must not stop the chain until it has caught up.
        lived_ms = max(self._genesis_ms, await self._ledger.latest_landing_ms() - _LANDS_WITHIN_MS)
        self._ahead_ms = max(0, lived_ms - now_ms)

    async def close(self) -> None:
        """Finish the pending writes."""
        await self._appends.drain()
        await self._ledger.close()

    # --- time ---

    def now_ms(self) -> EpochMs:
        """Return the network's time. It never goes back, even if the machine's clock does."""
        self._latest_ms = max(self._latest_ms, self._clock.now_ms() + self._ahead_ms)
        return EpochMs(self._latest_ms)

    def slot_at(self, at_ms: int, commitment: Commitment) -> int:
        """Return the newest slot that has this commitment at a time."""
        slot = FIRST_SLOT + (at_ms - self._genesis_ms) // SLOT_MS
        if commitment is Commitment.FINALIZED:
            return slot - _FINALIZED_AFTER_SLOTS
        if commitment is Commitment.CONFIRMED:
            return slot - _CONFIRMED_AFTER_SLOTS
        return slot

    def blockhash_of(self, height: int) -> Hash:
        """Return the hash of the block at a height."""
        return Hash(hashlib.sha256(f"{self._genesis_ms}:{height}".encode()).digest())

    @property
    def genesis_hash(self) -> Hash:
        """Return the hash of block 0, which identifies this chain."""
        return self.blockhash_of(0)

    # --- transactions ---

    async def receive(self, raw: bytes) -> str:
        """Accept a transaction and return its signature; raises ValueError for other bytes.

        However often it is sent, it lands once: at a time that is drawn now, unless the network drops it or its
        blockhash would be too old by then. The decision is on disk when this returns.
        """
        transaction = VersionedTransaction.from_bytes(raw)
        signature = str(transaction.signatures[0])
        if not all(transaction.verify_with_results()):
            raise ValueError("Transaction signature verification failure")
        for _ in range(2 if self._is_drawn(self._faults.duplicate) else 1):
            if signature in self._pending or await self._finds.submit(signature) is not None:
                continue
            entry = self._schedule(signature, transaction, raw)
            if entry is not None:
                await self._keep(entry)
        return signature

    def execute(self, transaction: VersionedTransaction, at_ms: int) -> PaperSwap | None:
        """Return the swap that a transaction would execute at a time; None if no program here can read it.

        Such a transaction never lands, because the ledger keeps swaps only.
        """
        instructions = transaction.message.instructions
        if not instructions:
            return None
        try:
            execution = self._program(bytes(instructions[0].data), EpochMs(at_ms))
        except Exception:  # noqa: BLE001 - a client may send any bytes, which must not harm others
            return None
        numbers = (it for it in msgspec.structs.astuple(execution) if isinstance(it, int))
        return execution if all(abs(it) <= _MAX_IN_A_COLUMN for it in numbers) else None

    async def views(self, signatures: Sequence[str], at_ms: int, *, since_slot: int = 0) -> dict[str, TransactionView]:
        """Return the state at a time of those transactions that were visible then.

        `since_slot`: the oldest slot to look at, as in a node's cache of recent statuses.
        """
        views: dict[str, TransactionView] = {}
        for entry in await self._known(signatures):
            if entry.lands_at_ms <= at_ms and entry.slot >= since_slot:
                views[entry.signature] = TransactionView(entry.slot, self.commitment_of(entry, at_ms), entry.error)
        for signature in signatures:
            fork = self._forks.get(signature)
            is_seen = fork is not None and self._time_of(fork.slot) <= at_ms < fork.until_ms
            if fork is not None and is_seen and signature not in views:
                views[signature] = TransactionView(fork.slot, Commitment.PROCESSED, fork.error)
        return views

    async def transaction(self, signature: str, at_ms: int, least: Commitment) -> LedgerEntry | None:
        """Return a transaction that had this commitment or was finalized at a time."""
        entry = await self._finds.submit(signature)
        if entry is None or entry.lands_at_ms > at_ms:
            return None
        return entry if self.commitment_of(entry, at_ms) in (least, Commitment.FINALIZED) else None

    async def newest(self, before: str | None, at_ms: int, limit: int) -> list[LedgerEntry]:
        """Return the transactions landed at a time and before a signature in the ledger, newest first."""
        return await self._ledger.newest(before, at_ms, limit)

    def commitment_of(self, entry: LedgerEntry, at_ms: int) -> Commitment:
        """Return a landed transaction's commitment at a time, as the majority of the nodes sees it."""
        if entry.slot <= self.slot_at(at_ms, Commitment.FINALIZED):
            return Commitment.FINALIZED
        is_confirmed = at_ms >= entry.lands_at_ms + int(_CONFIRMED_AFTER_S * 1000 * self._delay_scale)
        return Commitment.CONFIRMED if is_confirmed else Commitment.PROCESSED

    async def _known(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """Look into the ledger after the pending writes of these signatures; otherwise their history would change."""
        writing = {self._pending[it] for it in signatures if it in self._pending}
        if writing:
            await asyncio.wait(writing)
        return await self._ledger.find(signatures)

    def _schedule(self, signature: str, transaction: VersionedTransaction, raw: bytes) -> LedgerEntry | None:
        """Decide when and where the transaction lands; None if it does not land this time."""
        if self._is_drawn(self._faults.drop):
            return None
        now_ms = self.now_ms()
        last_valid = self._last_valid_height(transaction.message.recent_blockhash, now_ms)
        if last_valid is None:
            return None
        lands_at_ms = now_ms + int(self._random.uniform(*_LANDS_AFTER_S) * 1000 * self._delay_scale)
        if self._is_drawn(self._faults.fork):
            slot = self.slot_at(lands_at_ms, Commitment.PROCESSED)
            taken_back_ms = self._time_of(slot + self._random.randint(*_FORK_LASTS_SLOTS))
            processed = self.execute(transaction, now_ms)
            if processed is not None:
                self._remember_fork(signature, _Fork(slot, taken_back_ms, processed.error))
            if self._random.random() < 0.5:  # noqa: PLR2004 - half of them have to be sent again
                return None
            lands_at_ms = taken_back_ms + SLOT_MS
        elif self._is_drawn(self._faults.late):
            # The last slot of the last valid block, or a little earlier.
            last_slot = slot_of(last_valid) - self._random.randrange(_LATE_SLOTS)
            lands_at_ms = max(lands_at_ms, self._time_of(last_slot))
        slot = self.slot_at(lands_at_ms, Commitment.PROCESSED)
        if block_height(slot) > last_valid:
            return None
        execution = self.execute(transaction, lands_at_ms)
        if execution is None:
            return None
        return LedgerEntry(
            **msgspec.structs.asdict(execution),
            signature=signature,
            slot=slot,
            block_height=block_height(slot),
            lands_at_ms=lands_at_ms,
            raw=raw,
        )

    async def _keep(self, entry: LedgerEntry) -> None:
        written = self._pending[entry.signature] = self._appends.submit(entry)
        try:
            await asyncio.wait([written])
        finally:
            # The sender may have disconnected; other requests must still wait for the write to disk.
            written.add_done_callback(lambda _: self._pending.pop(entry.signature, None))
        written.result()

    async def _append_together(self, entries: Sequence[LedgerEntry]) -> Sequence[None]:
        await self._ledger.append(entries)
        return [None] * len(entries)

    async def _find_together(self, signatures: Sequence[str]) -> Sequence[LedgerEntry | None]:
        found = {entry.signature: entry for entry in await self._ledger.find(signatures)}
        return [found.get(signature) for signature in signatures]

    def _last_valid_height(self, blockhash: Hash, now_ms: int) -> int | None:
        """Return up to which height this blockhash is good; None for one that is too old or foreign."""
        tip = block_height(self.slot_at(now_ms, Commitment.PROCESSED))
        for height in range(max(self._hashed_height + 1, tip - 2 * VALID_BLOCKS), tip + 1):
            self._blockhashes[self.blockhash_of(height)] = height
        self._hashed_height = max(self._hashed_height, tip)
        while len(self._blockhashes) > 2 * VALID_BLOCKS:
            del self._blockhashes[next(iter(self._blockhashes))]
        height_of_hash = self._blockhashes.get(blockhash)
        return None if height_of_hash is None else height_of_hash + VALID_BLOCKS

    def _remember_fork(self, signature: str, fork: _Fork) -> None:
        self._forks[signature] = fork
        if len(self._forks) > _MAX_FORKS_KEPT:
            del self._forks[next(iter(self._forks))]

    def _time_of(self, slot: int) -> int:
        return self._genesis_ms + (slot - FIRST_SLOT) * SLOT_MS

    def _is_drawn(self, rate: float) -> bool:
        return rate > 0 and self._random.random() < rate


def block_height(slot: int) -> int:
    """Return how many blocks there are up to a slot."""
    return slot - slot // _SLOTS_A_ROUND


def slot_of(height: int) -> int:
    """Return the last slot at which the chain has this height."""
    slot = height + height // (_SLOTS_A_ROUND - 1)
    while block_height(slot + 1) <= height:
        slot += 1
    while block_height(slot) > height:
        slot -= 1
    return slot
