"""Planted bugs in how an outcome is decided: see planted.py."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from order_engine.chain import client, network, node
from order_engine.chain.client import SolanaChain
from order_engine.domain.errors import ChainUnavailable, ReasonCode
from order_engine.domain.events import OrderFailed, SwapConfirmed
from order_engine.domain.money import BaseUnits
from order_engine.domain.order import Attempt, AttemptOutcome
from order_engine.engine import settlement
from order_engine.engine.executor import Executor, Journal
from order_engine.engine.settlement import Proof, Settlement, Sighting
from order_engine.ports import Claim, Commitment, ProvenOutcome, SignatureStatuses, SwapResult
from tests.simulation.planted import EVIDENCE, PLANTED, planted

__all__ = ["PLANTED"]


@planted
def an_rpc_error_means_not_on_chain(patch: pytest.MonkeyPatch) -> None:
    """The OpenZeppelin relayer: an error while asking counts as an answer that there is nothing."""
    real = Settlement._look_together

    async def look(self: Any, signatures: Sequence[str]) -> Any:
        try:
            return await real(self, signatures)
        except ChainUnavailable:
            point = msgspec.structs.replace(await finalized_for_sure(self), block_height=10**9)
            return [Sighting(point, point.slot, None) for _ in signatures]

    patch.setattr(Settlement, "_look_together", look)


async def finalized_for_sure(self: Any) -> Any:
    """Ask until there is an answer."""
    while True:
        try:
            return await self._chain.finalized_point()
        except ChainUnavailable:
            await asyncio.sleep(0.1)


@planted
def status_first_and_expiry_second(patch: pytest.MonkeyPatch) -> None:
    """The OpenZeppelin relayer: what lands between the two questions is called expired."""

    async def look(self: Any, signatures: Sequence[str]) -> Any:
        answer = await self._chain.signature_statuses(signatures)
        await asyncio.sleep(20.0)
        finalized = await self._chain.finalized_point()
        return [Sighting(finalized, finalized.slot, answer.statuses.get(it)) for it in signatures]

    patch.setattr(Settlement, "_look_together", look)


@planted
def expiry_by_the_newest_block(patch: pytest.MonkeyPatch) -> None:
    """Not finalized: a node that lags has not seen what landed in the last valid blocks."""
    real = SolanaChain.finalized_point

    async def newest(self: Any) -> Any:
        point = await real(self)
        info = await self._ask("getEpochInfo", [{"commitment": "processed"}], client._EpochInfo)
        return msgspec.structs.replace(point, block_height=info.block_height)

    patch.setattr(SolanaChain, "finalized_point", newest)


@planted
def the_blockhash_is_no_longer_valid(patch: pytest.MonkeyPatch) -> None:
    """isBlockhashValid says no, which proves nothing about what has landed."""

    def decide(sighting: Sighting, last_valid_block_height: int) -> AttemptOutcome | None:
        if sighting.status is not None:
            return AttemptOutcome.LANDED if sighting.status.error is None else AttemptOutcome.REVERTED
        newest = sighting.finalized.block_height + network._FINALIZED_AFTER_SLOTS
        return AttemptOutcome.EXPIRED if newest > last_valid_block_height else None

    patch.setattr(settlement, "decide", decide)


@planted
def no_look_at_the_context_slot(patch: pytest.MonkeyPatch) -> None:
    real = settlement.decide

    def decide(sighting: Sighting, last_valid_block_height: int) -> AttemptOutcome | None:
        return real(msgspec.structs.replace(sighting, context_slot=10**9), last_valid_block_height)

    patch.setattr(settlement, "decide", decide)


@planted
def no_history_search(patch: pytest.MonkeyPatch) -> None:
    """The status cache forgets; a worker that comes late finds nothing and believes it."""

    async def recent(self: Any, signatures: Sequence[str]) -> SignatureStatuses:
        answer = await self._ask("getSignatureStatuses", [[*signatures]], client._StatusesAnswer)
        found = {
            it: client._status(value) for it, value in zip(signatures, answer.value, strict=True) if value is not None
        }
        return SignatureStatuses(answer.context.slot, found)

    patch.setattr(node, "_CACHED_SLOTS", 60)
    patch.setattr(SolanaChain, "signature_statuses", recent)


@planted
def a_processed_block_is_believed(patch: pytest.MonkeyPatch) -> None:
    """Its fork may lose, and then the swap never happened."""
    real_decide, real_result = settlement.decide, SolanaChain.swap_result

    def decide(sighting: Sighting, last_valid_block_height: int) -> AttemptOutcome | None:
        if sighting.status is not None:
            sure = msgspec.structs.replace(sighting.status, commitment=Commitment.CONFIRMED)
            sighting = msgspec.structs.replace(sighting, status=sure)
        return real_decide(sighting, last_valid_block_height)

    async def swap_result(self: Any, signature: str, token_out: Any) -> Any:
        return await real_result(self, signature, token_out) or SwapResult(1, None)

    patch.setattr(settlement, "decide", decide)
    patch.setattr(SolanaChain, "swap_result", swap_result)


@planted
def a_timeout_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """hummingbot: marked FAILED by the clock while the swap may still land."""
    real = Executor._settle

    async def settle(self: Any, journal: Journal, attempt: Attempt) -> None:
        try:
            async with asyncio.timeout(20.0):
                await real(self, journal, attempt)
        except TimeoutError:
            proven = ProvenOutcome(attempt.attempt, AttemptOutcome.EXPIRED, EVIDENCE)
            journal.note(OrderFailed(ReasonCode.ATTEMPTS_EXHAUSTED, "timed out"), proven=proven)

    patch.setattr(Executor, "_settle", settle)


@planted
def an_error_on_send_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """thirdweb engine: "already processed" and a lost reply end the order."""
    real = Settlement.prove

    async def prove(self: Any, attempt: Attempt, token_out: Any) -> Proof:
        try:
            await self._chain.send(attempt.raw)
        except ChainUnavailable:
            return Proof(ProvenOutcome(attempt.attempt, AttemptOutcome.EXPIRED, EVIDENCE), None, None)
        return await real(self, attempt, token_out)

    patch.setattr(Settlement, "prove", prove)


@planted
def sent_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    """Fire and forget: the RPC took it, so it will have executed."""

    async def settle(self: Any, journal: Journal, attempt: Attempt) -> None:
        with contextlib.suppress(ChainUnavailable):
            await self._chain.send(attempt.raw)
        proven = ProvenOutcome(attempt.attempt, AttemptOutcome.LANDED, EVIDENCE)
        journal.note(SwapConfirmed(BaseUnits(1), 1), proven=proven)

    patch.setattr(Executor, "_settle", settle)


@planted
def found_is_executed(patch: pytest.MonkeyPatch) -> None:
    """A transaction that landed with an error is counted as a swap."""
    real = Settlement.prove

    async def prove(self: Any, attempt: Attempt, token_out: Any) -> Proof:
        proof = await real(self, attempt, token_out)
        if proof.outcome.outcome is not AttemptOutcome.REVERTED:
            return proof
        landed = ProvenOutcome(attempt.attempt, AttemptOutcome.LANDED, EVIDENCE)
        return Proof(landed, proof.slot, SwapResult(1, None))

    patch.setattr(Settlement, "prove", prove)


@planted
def doubt_is_given_up_after_some_claims(patch: pytest.MonkeyPatch) -> None:
    """An order that is submitted is parked like any other."""
    real = Executor.run

    async def run(self: Any, claim: Claim) -> None:
        if claim.order.is_in_doubt and claim.claims >= 2:
            journal = Journal(self._store, self._clock, claim)
            proven = ProvenOutcome(claim.order.attempt, AttemptOutcome.EXPIRED, EVIDENCE)
            journal.note(OrderFailed(ReasonCode.PARKED, "parked"), proven=proven)
            await journal.commit()
        else:
            await real(self, claim)

    patch.setattr(Executor, "run", run)
