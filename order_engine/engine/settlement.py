"""Proves the outcome of signed transactions. Nothing here guesses.

The rules, in this order:

1. Read the finalized block height and its slot from one answer. Compare them with the point that was
   finalized when the transaction was signed (domain/chain_point.py): numbers that cannot follow from
   it prove nothing.
2. Only then look the signature up, with history search; believe the answer only if it was given
   as of that slot or a later one, by a node that has finalized it (a node that lags, or follows a
   losing fork, knows less than the height from step 1).
3. Found at `confirmed` or better without an error: landed; with an error: reverted; the transaction's
   own result must agree, and its slot and amount must be possible. Not found although the
   finalized point is past the expiry, by a node whose history goes back to before the signing:
   expired, and no copy of the bytes can execute any more.
4. Anything else is unknown: every RPC error and timeout, and a block that is only processed, whose
   fork may lose. Send the same bytes again, wait, look again. Time alone never turns unknown into
   an outcome.
"""

import asyncio
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final

import msgspec

from order_engine import observe
from order_engine.batching import Batcher
from order_engine.counters import Counters
from order_engine.domain.chain_point import (
    MAX_AGE_BLOCKS,
    ChainPoint,
    is_past_expiry,
    latest_possible_slot,
    why_impossible,
)
from order_engine.domain.errors import ChainUnavailable, ImpossibleAnswer, WrongCluster
from order_engine.domain.order import AttemptOutcome, SignedAttempt
from order_engine.domain.tokens import Token
from order_engine.engine.outage import Outage
from order_engine.ports.chain import (
    MAX_SIGNATURES_IN_A_CALL,
    Chain,
    Commitment,
    SignatureStatus,
    SwapResult,
)
from order_engine.ports.store import ProvenOutcome

# One height serves all looks for 0.4 s. An older height proves less, never more: it is read before
# every status that it is compared with.
_HEIGHT_KEPT_S: Final = 0.4
_MAX_LOOKS: Final = 64 * MAX_SIGNATURES_IN_A_CALL
# A hanging node delays the requests that it got, but later requests only for 0.5 s.
_OVERLAP_AFTER_S: Final = 0.5
_MAX_IN_A_CALL: Final = 500
# The first pause between two looks, as a fraction of the later ones.
_FIRST_PAUSE: Final = 1 / 8
_TELL_DOUBT_EVERY_S: Final = 120.0


class Observation(msgspec.Struct, frozen=True):
    """One look at the chain: the finalized point read first, and the status answer after it.

    `asked_at_s`: when the finalized point was asked for, by a monotonic clock.
    """

    asked_at_s: float
    finalized: ChainPoint
    context_slot: int
    status: SignatureStatus | None
    history_from_slot: int | None


class Proof(msgspec.Struct, frozen=True):
    """A proven outcome, and the transaction's slot and result (None when it expired)."""

    outcome: ProvenOutcome
    slot: int | None
    result: SwapResult | None


def decide(observation: Observation, attempt: SignedAttempt, elapsed_ms: int) -> AttemptOutcome | None:
    """Return the outcome that an observation with possible numbers proves; None means unknown.

    `elapsed_ms`: the time from the signing to the request. An answer can take long, so the time after
    the request does not count.
    """
    if observation.context_slot < observation.finalized.slot:
        return None
    signed = attempt.signed_point
    if observation.status is not None:
        # Nothing lands before it is signed: one of the two slots is false. The transaction still exists, so
        # believe it once it is finalized and no fork can remove it.
        is_slot_false = observation.status.slot < signed.slot
        sure = (Commitment.FINALIZED,) if is_slot_false else (Commitment.CONFIRMED, Commitment.FINALIZED)
        if observation.status.commitment not in sure:
            return None
        return AttemptOutcome.LANDED if observation.status.error is None else AttemptOutcome.REVERTED
    has_whole_history = observation.history_from_slot is not None and observation.history_from_slot <= signed.slot
    if has_whole_history and is_past_expiry(
        attempt.blockhash_slot, attempt.last_valid_block_height, observation.finalized, elapsed_ms
    ):
        return AttemptOutcome.EXPIRED
    return None


class _Proving:
    """One attempt to prove, and the numbers that are possible for it."""

    def __init__(
        self, attempt: SignedAttempt, token_out: Token, min_amount_out: int, began_s: float, age_ms: int
    ) -> None:
        """`began_s`: now, by a monotonic clock; `age_ms`: the time since the signing, by the wall clock."""
        self.attempt = attempt
        self.token_out = token_out
        self.min_amount_out = min_amount_out
        self._began_s = began_s
        self._age_ms = age_ms

    def elapsed_ms(self, now_s: float) -> int:
        """Return the time from the signing to `now_s`."""
        # A wall clock that was set back makes the attempt look too young; the time that passed here always counts.
        return max(0, self._age_ms) + int((now_s - self._began_s) * 1000)

    def why_impossible(self, observation: Observation, elapsed_ms: int) -> str | None:
        """Return why the numbers cannot follow from those of the signing; None if they can."""
        attempt = self.attempt
        if observation.context_slot > latest_possible_slot(attempt.blockhash_slot, elapsed_ms):
            return f"slot {observation.context_slot} is further than a cluster gets in {elapsed_ms} ms"
        return why_impossible(attempt.signed_point, attempt.blockhash_slot, observation.finalized, elapsed_ms)

    def is_possible(self, result: SwapResult, outcome: AttemptOutcome) -> bool:
        """Return whether the transaction can have this result, given its outcome and its minimum out."""
        if outcome is AttemptOutcome.LANDED:
            return result.amount_out is not None and result.amount_out >= self.min_amount_out
        return result.error is not None


class Settlement:
    """Sends signed transactions until their outcome is proven; those in flight share their requests."""

    def __init__(
        self, chain: Chain, now_s: Callable[[], float], poll_s: float, resend_s: float, counters: Counters
    ) -> None:
        """`now_s`: a monotonic clock.

        `poll_s`: the pause between two looks at a signature; the first three are an eighth, a quarter
        and half of it, because the first look is often a moment too early. `resend_s`: the pause
        between two sends.
        """
        self._chain = chain
        self._now_s = now_s
        self._poll_s = poll_s
        self._resend_s = resend_s
        self._counters = counters
        self._looks: Batcher[str, Observation] = Batcher(self._look_together, _MAX_LOOKS, _OVERLAP_AFTER_S)
        self._sends: Batcher[bytes, None] = Batcher(chain.send_many, _MAX_IN_A_CALL, _OVERLAP_AFTER_S)
        self._results: Batcher[tuple[str, str, Token], SwapResult | None] = Batcher(
            chain.swap_results, _MAX_IN_A_CALL, _OVERLAP_AFTER_S
        )
        self._height: tuple[float, ChainPoint] | None = None
        self.silence = Outage(now_s, partial(observe.chain_lost, counters), observe.chain_recovered)
        self._refusals = Outage(now_s, observe.sends_refused, observe.sends_accepted)
        self._lies = Outage(now_s, partial(observe.chain_not_believed, counters), observe.chain_believed)

    async def prove(self, attempt: SignedAttempt, token_out: Token, min_amount_out: int, age_ms: int) -> Proof:
        """Send the committed bytes until the chain proves an outcome. Ends only with a proof.

        `min_amount_out`: the minimum of base units that the transaction gives. `age_ms`: the time since
        the attempt was signed. Raises WrongCluster if the attempt was signed for another cluster:
        this chain can prove nothing about it.
        """
        send_at_s = self._now_s()
        proving = _Proving(attempt, token_out, min_amount_out, send_at_s, age_ms)
        tell_at_s = send_at_s + _TELL_DOUBT_EVERY_S
        pause_s = self._poll_s * _FIRST_PAUSE
        refusal: str | None = None
        doubt = "not found yet"
        while True:
            self._require_cluster_of(attempt)
            if self._now_s() >= send_at_s:
                send_at_s = self._now_s() + self._resend_s
                refusal = await self._send(attempt)
            try:
                proof = await self._look(proving, refusal)
            except ImpossibleAnswer as error:
                self.silence.note_success()
                self._lies.note_failure(error)
                doubt = str(error)
            except ChainUnavailable as error:
                self.silence.note_failure(error)
                doubt = str(error)
            else:
                self.silence.note_success()
                self._lies.note_success()
                if proof is not None:
                    self._require_cluster_of(attempt)
                    return proof
            if self._now_s() >= tell_at_s:
                tell_at_s = self._now_s() + _TELL_DOUBT_EVERY_S
                observe.still_in_doubt(attempt.signature, refusal or doubt)
            await asyncio.sleep(pause_s)
            pause_s = min(2 * pause_s, self._poll_s)

    def _require_cluster_of(self, attempt: SignedAttempt) -> None:
        if self._chain.genesis_hash not in (None, attempt.genesis_hash):
            raise WrongCluster(
                f"{attempt.signature} was signed for the cluster {attempt.genesis_hash}, but this chain is another"
            )

    async def _send(self, attempt: SignedAttempt) -> str | None:
        """Offer the bytes; return the error or None. Even after an error the chain may have them."""
        try:
            await self._sends.submit(attempt.raw)
        except ChainUnavailable as error:
            observe.send_failed(self._counters)
            self._refusals.note_failure(error)
            return str(error)
        self._refusals.note_success()
        return None

    async def _look(self, proving: _Proving, refusal: str | None) -> Proof | None:
        attempt = proving.attempt
        observation = await self._looks.submit(attempt.signature)
        asked_after_ms = proving.elapsed_ms(observation.asked_at_s)
        outcome = decide(observation, attempt, asked_after_ms)
        why_impossible = proving.why_impossible(observation, proving.elapsed_ms(self._now_s()))
        if why_impossible is not None and outcome in (None, AttemptOutcome.EXPIRED):
            # A transaction that was found needs no height to prove its outcome.
            raise ImpossibleAnswer(f"the chain's numbers cannot be true: {why_impossible}")
        if outcome is None:
            return None
        if outcome is AttemptOutcome.EXPIRED:
            await self._require_corroborated(attempt, asked_after_ms)
        result: SwapResult | None = None
        if observation.status is not None:
            result = await self._results.submit((attempt.signature, attempt.owner, proving.token_out))
            if result is None or not proving.is_possible(result, outcome):
                # The proof needs the result, and two answers that contradict each other prove nothing.
                return None
        evidence = msgspec.Raw(msgspec.json.encode(_evidence(attempt.signed_point, observation, result, refusal)))
        slot = observation.status.slot if observation.status is not None else None
        return Proof(ProvenOutcome(attempt.attempt_number, outcome, evidence), slot, result)

    async def _require_corroborated(self, attempt: SignedAttempt, elapsed_ms: int) -> None:
        """Check the expiry by another RPC method: the newest blockhash must be past it too."""
        newest = await self._chain.latest_blockhash()
        is_past = is_past_expiry(attempt.blockhash_slot, attempt.last_valid_block_height, newest.finalized, elapsed_ms)
        if not is_past or newest.last_valid_block_height - MAX_AGE_BLOCKS <= attempt.last_valid_block_height:
            raise ImpossibleAnswer(
                "the chain's newest blockhash contradicts the height that the transaction expired at"
            )

    async def _look_together(self, signatures: Sequence[str]) -> Sequence[Observation | Exception]:
        asked_at_s, finalized = await self._finalized()
        parts = [
            signatures[at : at + MAX_SIGNATURES_IN_A_CALL] for at in range(0, len(signatures), MAX_SIGNATURES_IN_A_CALL)
        ]
        looked = await asyncio.gather(*(self._look_at(asked_at_s, finalized, part) for part in parts))
        return [it for part in looked for it in part]

    async def _look_at(
        self, asked_at_s: float, finalized: ChainPoint, signatures: Sequence[str]
    ) -> Sequence[Observation | Exception]:
        try:
            answer = await self._chain.signature_statuses(signatures)
        except ChainUnavailable as error:
            return [error] * len(signatures)
        return [
            ChainUnavailable("the chain's status cannot be read")
            if signature in answer.unclear
            else Observation(
                asked_at_s, finalized, answer.context_slot, answer.statuses.get(signature), answer.history_from_slot
            )
            for signature in signatures
        ]

    async def _finalized(self) -> tuple[float, ChainPoint]:
        now_s = self._now_s()
        if self._height is None or now_s - self._height[0] >= _HEIGHT_KEPT_S:
            self._height = (now_s, await self._chain.finalized_point())
        return self._height


def _evidence(
    signed: ChainPoint, observation: Observation, result: SwapResult | None, refusal: str | None
) -> dict[str, object]:
    evidence: dict[str, object] = {
        "signedBlockHeight": signed.block_height,
        "signedSlot": signed.slot,
        "finalizedBlockHeight": observation.finalized.block_height,
        "finalizedSlot": observation.finalized.slot,
        "contextSlot": observation.context_slot,
    }
    if observation.status is None:
        evidence["status"] = "not found, with history search"
        evidence["historyFromSlot"] = observation.history_from_slot
        evidence["lastSendError"] = refusal
    else:
        evidence["slot"] = observation.status.slot
        evidence["commitment"] = observation.status.commitment
        evidence["error"] = observation.status.error
    if result is not None:
        evidence["amountOut"] = None if result.amount_out is None else str(result.amount_out)
        evidence["programError"] = result.error
    return evidence
