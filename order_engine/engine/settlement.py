"""Proving what became of a signed transaction. Nothing here guesses.

The rules, in this order:

1. Read the finalized block height and its slot from one answer.
2. Only then look the signature up, with history search; believe the answer only if it was given
   as of that slot or a later one (a lagging node knows less than the height we hold against it).
3. Found at `confirmed` or better without an error: landed; with an error: reverted. Not found
   although the finalized height is past the last valid height: expired, and no copy of the bytes
   can execute any more.
4. Anything else is unknown: every RPC error and timeout, and a block that is only processed, whose
   fork may lose. Send the same bytes again, wait, look again. Time alone never turns unknown into
   an outcome.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from order_engine import observe
from order_engine.domain.errors import ChainUnavailable
from order_engine.domain.order import Attempt, AttemptOutcome, EpochMs
from order_engine.domain.tokens import Token
from order_engine.engine.batch import Batcher
from order_engine.ports import (
    MOST_SIGNATURES_IN_A_CALL,
    Chain,
    Clock,
    Commitment,
    FinalizedPoint,
    ProvenOutcome,
    SignatureStatus,
    SwapResult,
)

# How long one height serves all looks. An older height proves less, never more: it is read before
# every status that it is held against.
_HEIGHT_KEPT_MS: Final = 400
_MOST_LOOKS: Final = 64 * MOST_SIGNATURES_IN_A_CALL
# A node that hangs holds up those who asked it, not those who come later.
_LOOK_PATIENCE_S: Final = 0.5
_TELL_SILENCE_AFTER_MS: Final = 5_000


class Sighting(msgspec.Struct, frozen=True):
    """One look at the chain: the finalized point read first, and the status answer after it."""

    finalized: FinalizedPoint
    context_slot: int
    status: SignatureStatus | None


class Proof(msgspec.Struct, frozen=True):
    """A proven outcome, and what the transaction did (None when it expired)."""

    outcome: ProvenOutcome
    slot: int | None
    result: SwapResult | None


def decide(sighting: Sighting, last_valid_block_height: int) -> AttemptOutcome | None:
    """Return what the sighting proves; None means unknown."""
    if sighting.context_slot < sighting.finalized.slot:
        return None
    if sighting.status is not None:
        if sighting.status.commitment is Commitment.PROCESSED:
            return None
        return AttemptOutcome.LANDED if sighting.status.error is None else AttemptOutcome.REVERTED
    if sighting.finalized.block_height > last_valid_block_height:
        return AttemptOutcome.EXPIRED
    return None


class Settlement:
    """Carries signed transactions to a proven outcome; all that are in flight share their requests."""

    def __init__(self, chain: Chain, clock: Clock, poll_s: float, resend_s: float) -> None:
        """`poll_s`: pause between two looks at one signature; `resend_s`: between two sends."""
        self._chain = chain
        self._clock = clock
        self._poll_s = poll_s
        self._resend_ms = int(resend_s * 1000)
        self._looks: Batcher[str, Sighting] = Batcher(self._look_together, _MOST_LOOKS, _LOOK_PATIENCE_S)
        self._height: tuple[EpochMs, FinalizedPoint] | None = None
        self._silent_since_ms: EpochMs | None = None
        self._is_lost = False

    async def prove(self, attempt: Attempt, token_out: Token) -> Proof:
        """Send the committed bytes until the chain proves an outcome. Ends only with a proof."""
        send_at_ms = 0
        while True:
            try:
                if self._clock.now_ms() >= send_at_ms:
                    send_at_ms = self._clock.now_ms() + self._resend_ms
                    await self._chain.send(attempt.raw)
            except ChainUnavailable as error:
                # The bytes may have gone out all the same, so the look below is due either way.
                self._note_silence(error)
            try:
                proof = await self._look(attempt, token_out)
            except ChainUnavailable as error:
                self._note_silence(error)
            else:
                self._note_answer()
                if proof is not None:
                    return proof
            await asyncio.sleep(self._poll_s)

    async def _look(self, attempt: Attempt, token_out: Token) -> Proof | None:
        sighting = await self._looks.submit(attempt.signature)
        outcome = decide(sighting, attempt.last_valid_block_height)
        if outcome is None:
            return None
        result: SwapResult | None = None
        if sighting.status is not None:
            result = await self._chain.swap_result(attempt.signature, token_out)
            if result is None or (outcome is AttemptOutcome.LANDED and not result.amount_out):
                # It is known that it landed, but not yet what it gave: that belongs to the proof.
                return None
        evidence = msgspec.Raw(msgspec.json.encode(_evidence(sighting, result)))
        slot = sighting.status.slot if sighting.status is not None else None
        return Proof(ProvenOutcome(attempt.attempt, outcome, evidence), slot, result)

    async def _look_together(self, signatures: Sequence[str]) -> Sequence[Sighting | Exception]:
        finalized = await self._finalized()
        parts = [
            signatures[at : at + MOST_SIGNATURES_IN_A_CALL]
            for at in range(0, len(signatures), MOST_SIGNATURES_IN_A_CALL)
        ]
        looked = await asyncio.gather(*(self._look_at(finalized, part) for part in parts))
        return [it for part in looked for it in part]

    async def _look_at(self, finalized: FinalizedPoint, signatures: Sequence[str]) -> Sequence[Sighting | Exception]:
        try:
            answer = await self._chain.signature_statuses(signatures)
        except ChainUnavailable as error:
            return [error] * len(signatures)
        return [Sighting(finalized, answer.context_slot, answer.statuses.get(signature)) for signature in signatures]

    async def _finalized(self) -> FinalizedPoint:
        now_ms = self._clock.now_ms()
        if self._height is None or not 0 <= now_ms - self._height[0] < _HEIGHT_KEPT_MS:
            self._height = (now_ms, await self._chain.finalized_point())
        return self._height[1]

    def _note_silence(self, error: ChainUnavailable) -> None:
        """An error now and then is the chain's everyday; what lasts is told, once."""
        now_ms = self._clock.now_ms()
        self._silent_since_ms = self._silent_since_ms or now_ms
        if not self._is_lost and now_ms - self._silent_since_ms > _TELL_SILENCE_AFTER_MS:
            self._is_lost = True
            observe.chain_lost(error)

    def _note_answer(self) -> None:
        self._silent_since_ms = None
        if self._is_lost:
            self._is_lost = False
            observe.chain_recovered()


def _evidence(sighting: Sighting, result: SwapResult | None) -> dict[str, object]:
    evidence: dict[str, object] = {
        "finalizedBlockHeight": sighting.finalized.block_height,
        "finalizedSlot": sighting.finalized.slot,
        "contextSlot": sighting.context_slot,
    }
    if sighting.status is not None:
        evidence["slot"] = sighting.status.slot
        evidence["commitment"] = sighting.status.commitment
        evidence["error"] = sighting.status.error
    if result is not None:
        evidence["amountOut"] = None if result.amount_out is None else str(result.amount_out)
        evidence["programError"] = result.error
    return evidence
