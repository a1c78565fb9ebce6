"""A chain that knows the truth and tells it badly, for the tests of settlement."""

from collections.abc import Awaitable, Iterable, Sequence
from typing import Any

import msgspec

from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import ChainUnavailable
from order_engine.domain.order import EpochMs, SignedAttempt
from order_engine.domain.tokens import Token
from order_engine.ports.chain import Blockhash, Commitment, SignatureStatus, SignatureStatuses, SwapResult
from tests.unit.samples import START_MS, ManualClock

SLOT_MS = 400
FINALIZED_BEHIND = 32
HEIGHT_BEHIND = 100  # Block heights are smaller than slots, so that a test fails if the code mixes them up.
LAST_VALID = 1_050
SIGNED_SLOT = 900
SIGNED = ChainPoint(SIGNED_SLOT - HEIGHT_BEHIND, SIGNED_SLOT)
# The blockhash is good for 150 blocks, and no slot is skipped here.
BLOCKHASH_SLOT = LAST_VALID - 150 + HEIGHT_BEHIND
RAW = b"the signed bytes"
OWNER = "0wner"
SIGNATURE = "5igna7ure"

LIES = ("slot as height", "height of another fork", "jump of the height", "jump of both", "constant height")
TROUBLES = ("none", "send lost", "answer lost", "no height", "no status", "old height", "lagging node", *LIES)


def attempt_of(signature: str = SIGNATURE, raw: bytes = RAW, last_valid: int = LAST_VALID) -> SignedAttempt:
    return SignedAttempt(1, signature, raw, OWNER, last_valid, SIGNED, BLOCKHASH_SLOT, EpochMs(START_MS), "genesis")


class ScriptedChain:
    """The methods of a Chain that settlement uses. Each look meets the next trouble of the script.

    A transaction that reaches the network lands `lands_after` slots later, once, unless the height is then
    past the last valid one. The network drops it if `lands_after` is None.
    """

    def __init__(self, clock: ManualClock, troubles: Iterable[str], lands_after: int | None, error: str | None) -> None:
        self._clock = clock
        self._troubles = iter(troubles)
        self._trouble = "none"
        self._lands_after = lands_after
        self._error = error
        self.genesis_hash = "genesis"
        self.landed_slot: int | None = None
        self.sent: list[tuple[int, bytes]] = []
        self.calls: list[str] = []
        self.looked_up: list[list[str]] = []

    def heal(self) -> None:
        self._troubles = iter(())
        self._trouble = "none"

    @property
    def slot(self) -> int:
        return 1_000 + (self._clock.ms - START_MS) // SLOT_MS

    async def send(self, raw: bytes) -> None:
        self.calls.append("send")
        self.sent.append((self._clock.ms, raw))
        if self._trouble == "send lost":
            raise ChainUnavailable("refused")
        if self._lands_after is not None and self.landed_slot is None:
            slot = self.slot + self._lands_after
            if slot - HEIGHT_BEHIND <= LAST_VALID:
                self.landed_slot = slot
        if self._trouble == "answer lost":
            raise ChainUnavailable("timed out")

    async def finalized_point(self) -> ChainPoint:
        self.calls.append("finalized")
        self._clock.ms += 3 * SLOT_MS
        self._trouble = next(self._troubles, "none")
        if self._trouble == "no height":
            raise ChainUnavailable("502")
        slot = self.slot - FINALIZED_BEHIND - (500 if self._trouble == "old height" else 0)
        height = slot - HEIGHT_BEHIND
        told = {
            "slot as height": ChainPoint(slot, slot),
            "height of another fork": ChainPoint(height + 16, slot),
            "jump of the height": ChainPoint(height + 5_000, slot),
            "jump of both": ChainPoint(height + 5_000, slot + 5_000),
            "constant height": ChainPoint(LAST_VALID + 1, slot),
        }
        return told.get(self._trouble, ChainPoint(height, slot))

    async def latest_blockhash(self) -> Blockhash:
        if self._trouble == "no height":
            raise ChainUnavailable("502")
        slot = self.slot - FINALIZED_BEHIND
        return Blockhash(
            "hash", self.slot - 2 - HEIGHT_BEHIND + 150, ChainPoint(slot - HEIGHT_BEHIND, slot), slot, "genesis"
        )

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        self.calls.append("statuses")
        self.looked_up.append([*signatures])
        if self._trouble == "no status":
            raise ChainUnavailable("429")
        seen_slot = self.slot - (FINALIZED_BEHIND + 150 if self._trouble == "lagging node" else 0)
        statuses = {}
        if self.landed_slot is not None and self.landed_slot <= seen_slot:
            age = seen_slot - self.landed_slot
            commitment = Commitment.PROCESSED if age < 2 else Commitment.CONFIRMED
            statuses = dict.fromkeys(signatures, SignatureStatus(self.landed_slot, commitment, self._error))
        return SignatureStatuses(seen_slot, statuses, history_from_slot=0)

    async def send_many(self, raws: Sequence[bytes]) -> Sequence[Exception | None]:
        return [await self._answer(self.send(raw)) for raw in raws]

    async def swap_results(self, wanted: Sequence[tuple[str, str, Token]]) -> Sequence[SwapResult | Exception | None]:
        return [await self._answer(self.swap_result()) for _ in wanted]

    async def _answer(self, answering: Awaitable[Any]) -> Any:
        try:
            return await answering
        except ChainUnavailable as error:
            return error

    async def swap_result(self) -> SwapResult | None:
        self.calls.append("result")
        self._trouble = next(self._troubles, "none")
        if self._trouble in ("no status", "no height"):
            raise ChainUnavailable("429")
        if self._trouble == "lagging node":
            return None
        return SwapResult(7 if self._error is None else None, self._error)


class SlowChainAhead(ScriptedChain):
    """Every number is ahead by 250 slots, and each status is told 80 s after the node looked it up."""

    AHEAD = 250

    async def finalized_point(self) -> ChainPoint:
        told = await super().finalized_point()
        return ChainPoint(told.block_height + self.AHEAD, told.slot + self.AHEAD)

    async def latest_blockhash(self) -> Blockhash:
        told = await super().latest_blockhash()
        finalized = ChainPoint(told.finalized.block_height + self.AHEAD, told.finalized.slot + self.AHEAD)
        return msgspec.structs.replace(
            told, last_valid_block_height=told.last_valid_block_height + self.AHEAD, finalized=finalized
        )

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        told = await super().signature_statuses(signatures)
        self._clock.ms += 80_000
        return msgspec.structs.replace(told, context_slot=told.context_slot + self.AHEAD)
