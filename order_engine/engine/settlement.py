"""Proving what became of a signed transaction. Nothing here guesses.

The rules, in this order:

1. Read the finalized block height and its slot from one answer.
2. Only then look the signature up, with history search; believe the answer only if it was given
   as of that slot or a later one (a lagging node knows less than the height we hold against it).
3. Found without an error: landed. Found with an error: reverted. Not found although the finalized
   height is past the last valid height: expired, and no copy of the bytes can execute any more.
4. Anything else, every RPC error and timeout included, is unknown: send the same bytes again, wait,
   look again. Time alone never turns unknown into an outcome.
"""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from order_engine import observe
from order_engine.domain.errors import ChainUnavailable
from order_engine.domain.order import Attempt, AttemptOutcome, OrderId
from order_engine.engine.batch import Batcher
from order_engine.ports import Chain, Clock, FinalizedPoint, ProvenOutcome, SignatureStatus

# getSignatureStatuses takes no more signatures in one call.
MOST_SIGNATURES_IN_A_CALL: Final = 256


class Sighting(msgspec.Struct, frozen=True):
    """One look at the chain: the finalized point read first, and the status answer after it."""

    finalized: FinalizedPoint
    context_slot: int
    status: SignatureStatus | None


class Proof(msgspec.Struct, frozen=True):
    """A proven outcome and the status that shows it (None when expired)."""

    outcome: ProvenOutcome
    status: SignatureStatus | None


def decide(sighting: Sighting, last_valid_block_height: int) -> AttemptOutcome | None:
    """Return what the sighting proves; None means unknown."""
    if sighting.context_slot < sighting.finalized.slot:
        return None
    if sighting.status is not None:
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
        self._looks: Batcher[str, Sighting] = Batcher(self._look_together, MOST_SIGNATURES_IN_A_CALL)

    async def prove(self, order_id: OrderId, attempt: Attempt) -> Proof:
        """Send the committed bytes until the chain proves an outcome. Ends only with a proof."""
        send_at_ms = 0
        is_told = False
        while True:
            try:
                if self._clock.now_ms() >= send_at_ms:
                    send_at_ms = self._clock.now_ms() + self._resend_ms
                    await self._chain.send(attempt.raw)
            except ChainUnavailable as error:
                # The bytes may have gone out all the same, so the look below is due either way.
                is_told = is_told or observe.attempt_in_doubt(order_id, attempt.signature, str(error))
            try:
                sighting = await self._looks.submit(attempt.signature)
            except ChainUnavailable as error:
                is_told = is_told or observe.attempt_in_doubt(order_id, attempt.signature, str(error))
            else:
                outcome = decide(sighting, attempt.last_valid_block_height)
                if outcome is not None:
                    evidence = msgspec.Raw(msgspec.json.encode(_evidence(sighting)))
                    return Proof(ProvenOutcome(attempt.attempt, outcome, evidence), sighting.status)
            await asyncio.sleep(self._poll_s)

    async def _look_together(self, signatures: Sequence[str]) -> Sequence[Sighting | Exception]:
        finalized = await self._chain.finalized_point()
        answer = await self._chain.signature_statuses(signatures)
        return [Sighting(finalized, answer.context_slot, answer.statuses.get(signature)) for signature in signatures]


def _evidence(sighting: Sighting) -> dict[str, object]:
    evidence: dict[str, object] = {
        "finalizedBlockHeight": sighting.finalized.block_height,
        "finalizedSlot": sighting.finalized.slot,
        "contextSlot": sighting.context_slot,
    }
    if sighting.status is not None:
        evidence["slot"] = sighting.status.slot
        evidence["error"] = sighting.status.error
    return evidence
