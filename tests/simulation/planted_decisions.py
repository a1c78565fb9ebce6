"""Planted bugs in how an outcome is decided: see planted.py."""

import asyncio
import contextlib
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from order_engine.chain import client
from order_engine.chain.client import SolanaChain
from order_engine.chain.rpc import JsonRpc, Request
from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import ChainUnavailable, ReasonCode
from order_engine.domain.events import OrderFailed, SwapConfirmed
from order_engine.domain.money import BaseUnits
from order_engine.domain.order import AttemptOutcome, SignedAttempt
from order_engine.engine import settlement
from order_engine.engine.executor import Executor, OrderWriter
from order_engine.engine.settlement import Observation, Proof, Settlement
from order_engine.paper import network
from order_engine.ports.chain import Commitment, SwapResult
from order_engine.ports.store import Claim, ProvenOutcome
from tests.simulation.planted import EVIDENCE, PLANTED, planted

__all__ = ["PLANTED"]


@planted
def an_rpc_error_means_not_on_chain(patch: pytest.MonkeyPatch) -> None:
    """The OpenZeppelin relayer: an error counts as the answer that the chain has no such transaction."""
    real = Settlement._look_at

    async def look_at(self: Any, asked_at_s: float, finalized: ChainPoint, signatures: Sequence[str]) -> Any:
        nothing = Observation(asked_at_s, finalized, finalized.slot, None, 0)
        looked = await real(self, asked_at_s, finalized, signatures)
        return [nothing if isinstance(it, Exception) else it for it in looked]

    patch.setattr(Settlement, "_look_at", look_at)


@planted
def status_first_and_expiry_second(patch: pytest.MonkeyPatch) -> None:
    """The OpenZeppelin relayer: a height is compared with a status that was read before it."""

    async def look(self: Any, signatures: Sequence[str]) -> Any:
        answer = await self._chain.signature_statuses(signatures)
        finalized = await self._chain.finalized_point()
        # That rule compares no context slot: it takes both answers as they are.
        return [Observation(self._now_s(), finalized, finalized.slot, answer.statuses.get(it), 0) for it in signatures]

    patch.setattr(Settlement, "_look_together", look)


def ask_for_the_height_at(patch: pytest.MonkeyPatch, commitment: Commitment) -> None:
    """Ask getEpochInfo at another commitment, and let its height alone decide."""
    point = msgspec.structs.replace(client._POINT, params=[{"commitment": commitment.value}])
    patch.setattr(client, "_POINT", point)
    the_height_alone_decides(patch)


async def believe(*_: Any) -> None:
    """Ask no other method."""


def the_height_alone_decides(patch: pytest.MonkeyPatch) -> None:
    """Take away the slots, the time and the second method that guard against a false height: they hide these bugs."""

    def is_past(_blockhash_slot: int, last_valid: int, point: ChainPoint, _elapsed_ms: int) -> bool:
        return point.block_height > last_valid

    patch.setattr(Settlement, "_require_corroborated", believe)
    patch.setattr(settlement, "is_past_expiry", is_past)


@planted
def any_height_is_believed(patch: pytest.MonkeyPatch) -> None:
    """For example a slot in place of the height: each attempt looks expired, and is signed again."""
    patch.setattr(settlement, "why_impossible", lambda *_: None)
    patch.setattr(ChainPoint, "agrees_with", lambda *_: True)
    the_height_alone_decides(patch)


@planted
def expiry_at_the_confirmed_height(patch: pytest.MonkeyPatch) -> None:
    """A node on a losing fork has not seen the transactions in the last valid blocks."""
    ask_for_the_height_at(patch, Commitment.CONFIRMED)


@planted
def expiry_at_the_processed_height(patch: pytest.MonkeyPatch) -> None:
    ask_for_the_height_at(patch, Commitment.PROCESSED)


@planted
def the_blockhash_is_no_longer_valid(patch: pytest.MonkeyPatch) -> None:
    """isBlockhashValid looks at the newest block, so it answers false before the last valid blocks are final."""
    real = settlement.decide

    def decide(observation: Observation, attempt: SignedAttempt, elapsed_ms: int) -> AttemptOutcome | None:
        newest = network.block_height(observation.finalized.slot + network._FINALIZED_AFTER_SLOTS)
        point = msgspec.structs.replace(observation.finalized, block_height=newest)
        return real(msgspec.structs.replace(observation, finalized=point), attempt, elapsed_ms)

    patch.setattr(settlement, "decide", decide)
    the_height_alone_decides(patch)


@planted
def no_look_at_the_context_slot(patch: pytest.MonkeyPatch) -> None:
    real = settlement.decide

    def decide(observation: Observation, attempt: SignedAttempt, elapsed_ms: int) -> AttemptOutcome | None:
        return real(msgspec.structs.replace(observation, context_slot=10**9), attempt, elapsed_ms)

    patch.setattr(settlement, "decide", decide)


@planted
def no_history_search(patch: pytest.MonkeyPatch) -> None:
    """The status cache forgets; a worker that comes late finds nothing and believes it."""

    real = JsonRpc.ask_one_node

    def without_options(request: Request) -> Request:
        if request.method != "getSignatureStatuses":
            return request
        return msgspec.structs.replace(request, params=request.params[:1])

    async def ask_one_node(self: Any, requests: Sequence[Request]) -> Any:
        return await real(self, [without_options(it) for it in requests])

    patch.setattr(JsonRpc, "ask_one_node", ask_one_node)


@planted
def a_processed_block_is_believed(patch: pytest.MonkeyPatch) -> None:
    """The fork of the block may lose, and then the swap never happened."""
    real_decide, real_results = settlement.decide, SolanaChain.swap_results

    def decide(observation: Observation, attempt: SignedAttempt, elapsed_ms: int) -> AttemptOutcome | None:
        if observation.status is not None:
            sure = msgspec.structs.replace(observation.status, commitment=Commitment.CONFIRMED)
            observation = msgspec.structs.replace(observation, status=sure)
        return real_decide(observation, attempt, elapsed_ms)

    async def swap_results(self: Any, wanted: Any) -> Any:
        return [it or SwapResult(10**18, None) for it in await real_results(self, wanted)]

    patch.setattr(settlement, "decide", decide)
    patch.setattr(SolanaChain, "swap_results", swap_results)


@planted
def a_timeout_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """hummingbot: marked FAILED by the clock while the swap may still land."""
    real = Executor._settle

    async def settle(self: Any, journal: OrderWriter, attempt: SignedAttempt) -> None:
        try:
            async with asyncio.timeout(20.0):
                await real(self, journal, attempt)
        except TimeoutError:
            proven = ProvenOutcome(attempt.attempt_number, AttemptOutcome.EXPIRED, EVIDENCE)
            journal.append(OrderFailed(ReasonCode.TRANSACTION_EXPIRED, "timed out"), proven=proven)

    patch.setattr(Executor, "_settle", settle)


@planted
def an_error_on_send_is_a_failure(patch: pytest.MonkeyPatch) -> None:
    """thirdweb engine: "already processed" and a lost reply end the order."""
    real = Settlement.prove

    async def prove(self: Any, attempt: SignedAttempt, *bounds: Any) -> Proof:
        try:
            await self._sends.submit(attempt.raw)
        except ChainUnavailable:
            return Proof(ProvenOutcome(attempt.attempt_number, AttemptOutcome.EXPIRED, EVIDENCE), None, None)
        return await real(self, attempt, *bounds)

    patch.setattr(Settlement, "prove", prove)


@planted
def sent_is_confirmed(patch: pytest.MonkeyPatch) -> None:
    """Fire and forget: the RPC accepted the transaction, so it counts as executed."""

    async def settle(self: Any, journal: OrderWriter, attempt: SignedAttempt) -> None:
        with contextlib.suppress(ChainUnavailable):
            await self._settlement._sends.submit(attempt.raw)
        proven = ProvenOutcome(attempt.attempt_number, AttemptOutcome.LANDED, EVIDENCE)
        journal.append(SwapConfirmed(BaseUnits(1), 1), proven=proven)

    patch.setattr(Executor, "_settle", settle)


@planted
def found_is_executed(patch: pytest.MonkeyPatch) -> None:
    """A transaction that landed with an error is counted as a swap."""
    real = Settlement.prove

    async def prove(self: Any, attempt: SignedAttempt, *bounds: Any) -> Proof:
        proof = await real(self, attempt, *bounds)
        if proof.outcome.outcome is not AttemptOutcome.REVERTED:
            return proof
        landed = ProvenOutcome(attempt.attempt_number, AttemptOutcome.LANDED, EVIDENCE)
        return Proof(landed, proof.slot, SwapResult(1, None))

    patch.setattr(Settlement, "prove", prove)


@planted
def doubt_is_given_up_after_some_claims(patch: pytest.MonkeyPatch) -> None:
    """A submitted order is parked like any other."""
    real = Executor.run

    async def run(self: Any, claim: Claim) -> None:
        if claim.order.is_in_doubt and claim.claims >= 2:
            journal = OrderWriter(self._store, self._clock, claim, self._counters)
            proven = ProvenOutcome(claim.order.attempt_number, AttemptOutcome.EXPIRED, EVIDENCE)
            journal.append(OrderFailed(ReasonCode.PARKED, "parked"), proven=proven)
            await journal.commit()
        else:
            await real(self, claim)

    patch.setattr(Executor, "run", run)
