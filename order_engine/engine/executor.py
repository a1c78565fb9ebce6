"""Carries one order from its stored status to rest: terminal, or waiting for its next attempt."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import msgspec

from order_engine import observe
from order_engine.batching import GroupCommit
from order_engine.counters import Counters
from order_engine.domain.errors import (
    Fenced,
    ReasonCode,
    StepFailed,
    VenueFailed,
)
from order_engine.domain.events import (
    AttemptFailed,
    Fact,
    OrderFailed,
    RouteCompared,
    SwapConfirmed,
    TransactionBuilt,
    TransactionSigned,
)
from order_engine.domain.lifecycle import RESTING, TERMINAL, apply
from order_engine.domain.money import BaseUnits, min_out
from order_engine.domain.order import AttemptOutcome, OrderStatus, SignedAttempt
from order_engine.domain.quarantine import is_to_be_parked
from order_engine.domain.retry import RetryPolicy, after_failure
from order_engine.domain.routing import choose_quote
from order_engine.engine.quoting import ask_venues
from order_engine.engine.settlement import Proof, Settlement
from order_engine.engine.signing import Signing
from order_engine.ports.chain import SLIPPAGE_ERROR
from order_engine.ports.clock import Clock
from order_engine.ports.store import Claim, OrderReader, ProvenOutcome, Write
from order_engine.ports.venues import Venue

# How Solana's errors for a wallet with too little SOL begin: InsufficientFundsForFee, InsufficientFundsForRent.
_INSUFFICIENT_FUNDS: Final = "InsufficientFunds"


class ExecutionPolicy(msgspec.Struct, frozen=True):
    """The limits of an order's execution."""

    retry: RetryPolicy
    quote_timeout_s: float
    max_claims: int


class OrderWriter:
    """One claimed order and its writes: in order, under one fence, awaited only where it matters."""

    def __init__(self, store: GroupCommit, clock: Clock, claim: Claim, counters: Counters) -> None:
        """Start from the order as it was claimed."""
        self._counters = counters
        self._store = store
        self._clock = clock
        self._fence = claim.fence
        self._last_write: Awaitable[None] | None = None
        self.order = claim.order

    def append(
        self,
        fact: Fact,
        *,
        signed: SignedAttempt | None = None,
        proven: ProvenOutcome | None = None,
    ) -> None:
        """Apply the fact and queue its write. A crash can lose it until `commit` returns."""
        before = self.order
        self.order, event = apply(before, fact, self._clock.now_ms())
        self._counters.meters.left_status(before.status.value, self.order.updated_at_ms - before.updated_at_ms)
        due_in_ms = fact.retry_in_ms if isinstance(fact, AttemptFailed) else 0
        self._last_write = self._store.record(
            Write(self.order, (event,), before.seq, self._fence, due_in_ms, signed, proven)
        )

    async def commit(self) -> None:
        """Return when everything appended is stored; raises Fenced or StoreUnavailable.

        A write is refused unless it follows the stored one, so the last write's success proves all of them.
        """
        if self._last_write is not None:
            await self._last_write
            self._last_write = None


class Executor:
    """Carries out the domain's decisions through the ports."""

    def __init__(  # noqa: PLR0913 - the ports it speaks through
        self,
        venues: Mapping[str, Venue],
        signing: Signing,
        store: GroupCommit,
        reader: OrderReader,
        settlement: Settlement,
        clock: Clock,
        randomness: Callable[[], float],
        policy: ExecutionPolicy,
        counters: Counters,
    ) -> None:
        """`randomness` returns numbers in [0, 1) for the jitter of the backoff."""
        self._venues = venues
        self._signing = signing
        self._store = store
        self._reader = reader
        self._settlement = settlement
        self._clock = clock
        self._randomness = randomness
        self._policy = policy
        self._counters = counters

    async def run(self, claim: Claim) -> None:
        """Work on the order until it rests, as `_run` does; the client may cancel it meanwhile.

        A write after that cancellation is refused like any stale write, but raises no alarm.
        """
        try:
            await self._run(claim)
        except Fenced:
            order = await self._store.get(claim.order.account, claim.order.order_id)
            if order is None or order.status is not OrderStatus.CANCELLED:
                raise
            observe.order_taken_back(order.order_id)

    async def _run(self, claim: Claim) -> None:
        """Work on the order until it rests; everything is committed when this returns.

        Raises Fenced if another worker owns the order, StoreUnavailable if the store does not answer,
        WrongCluster if the chain is not the cluster that this engine's orders are signed for.
        After a crash the next run continues from the stored order.
        """
        writer = OrderWriter(self._store, self._clock, claim, self._counters)
        live: SignedAttempt | None = None
        if is_to_be_parked(claim.claims, self._policy.max_claims, is_in_doubt=claim.order.is_in_doubt):
            self._park(writer, claim.claims)
        elif claim.order.is_in_doubt:
            live = (await self._reader.attempts(claim.order.order_id))[-1]
        else:
            await self._route_if_needed(writer)
            if writer.order.status not in RESTING:
                live = await self._build_and_sign(writer)
        if live is not None:
            await self._settle(writer, live)
        await writer.commit()
        order = writer.order
        if order.status in TERMINAL:
            elapsed_ms = order.updated_at_ms - order.created_at_ms
            observe.order_ended(
                self._counters, order.order_id, order.status, order.attempt_number, elapsed_ms, order.reason_code
            )

    async def _route_if_needed(self, writer: OrderWriter) -> None:
        """Compare the venues, unless an earlier run did: then its minimum out still holds."""
        if writer.order.status not in (OrderStatus.PENDING, OrderStatus.RETRYING):
            return
        request = writer.order.request
        answers = await ask_venues(self._venues.values(), request, self._policy.quote_timeout_s)
        route = choose_quote(answers)
        minimum = min_out(route.winner.amount_out, request.slippage_bps) if route.winner else None
        writer.append(RouteCompared(route, minimum))
        if route.failure is not None:
            self._fail(writer, route.failure)

    async def _build_and_sign(self, writer: OrderWriter) -> SignedAttempt | None:
        """Build, sign and commit the swap; only after the commit may it be sent."""
        order = writer.order
        assert order.venue is not None  # noqa: S101 - a route without a winner came to rest
        try:
            transaction = await self._venue(order.venue).build(order)
        except StepFailed as error:
            self._fail(writer, error)
            return None
        if order.status is OrderStatus.ROUTING:
            writer.append(TransactionBuilt(order.venue, transaction.steps))
        try:
            signed = await self._signing.sign(transaction)
        except StepFailed as error:
            self._fail(writer, error)
            return None
        attempt = SignedAttempt(
            order.attempt_number,
            signed.signature,
            signed.raw,
            signed.owner,
            signed.last_valid_block_height,
            signed.signed_point,
            signed.blockhash_slot,
            self._clock.now_ms(),
            signed.genesis_hash,
        )
        fact = TransactionSigned(signed.signature, signed.last_valid_block_height)
        writer.append(fact, signed=attempt)
        await writer.commit()
        return attempt

    def _venue(self, name: str) -> Venue:
        """Return the venue that won the route; raises VenueFailed if it is not configured any more."""
        venue = self._venues.get(name)
        if venue is None:
            raise VenueFailed(f"{name} won the route, but this worker has no such venue; the next attempt asks again")
        return venue

    async def _settle(self, writer: OrderWriter, attempt: SignedAttempt) -> None:
        order = writer.order
        assert order.min_amount_out is not None  # noqa: S101 - fixed when the route was chosen
        age_ms = self._clock.now_ms() - attempt.signed_at_ms
        proof = await self._settlement.prove(attempt, order.request.token_out, order.min_amount_out, age_ms)
        if proof.outcome.outcome is AttemptOutcome.LANDED:
            assert proof.slot is not None  # noqa: S101 - a landed transaction has a status
            assert proof.result is not None  # noqa: S101 - and a result
            assert proof.result.amount_out is not None  # noqa: S101 - with the amount
            amount_out = BaseUnits(proof.result.amount_out)
            writer.append(SwapConfirmed(amount_out, proof.slot), proven=proof.outcome)
        else:
            code, message, is_retryable = explain(attempt, proof)
            self._append_failure(writer, code, message, is_retryable=is_retryable, proven=proof.outcome)

    def _fail(self, writer: OrderWriter, error: StepFailed) -> None:
        self._append_failure(writer, error.reason, str(error), is_retryable=error.is_retryable)

    def _append_failure(
        self,
        writer: OrderWriter,
        code: ReasonCode,
        message: str,
        *,
        is_retryable: bool,
        proven: ProvenOutcome | None = None,
    ) -> None:
        fact = after_failure(
            self._policy.retry,
            writer.order.attempt_number,
            code,
            message,
            is_retryable=is_retryable,
            randomness=self._randomness(),
        )
        writer.append(fact, proven=proven)

    def _park(self, writer: OrderWriter, claims: int) -> None:
        observe.order_parked(self._counters, writer.order.order_id, claims)
        message = f"claimed {claims} times without progress; nothing was signed in between"
        writer.append(OrderFailed(ReasonCode.PARKED, message))


def explain(attempt: SignedAttempt, proof: Proof) -> tuple[ReasonCode, str, bool]:
    """Return why the swap provably did not happen: code, message, and whether to sign another."""
    if proof.result is None:
        height = attempt.last_valid_block_height
        message = f"the transaction expired unexecuted at block height {height}"
        return ReasonCode.TRANSACTION_EXPIRED, message, True
    error = proof.result.error or "the chain gives no reason"
    if SLIPPAGE_ERROR in error:
        message = f"the swap would have given less than the minimum out, so the chain refused it ({error})"
        return ReasonCode.SLIPPAGE_EXCEEDED, message, True
    if _INSUFFICIENT_FUNDS in error:
        return ReasonCode.INSUFFICIENT_FUNDS, f"the wallet holds too little for the transaction: {error}", False
    return ReasonCode.TRANSACTION_REVERTED, f"the transaction reverted: {error}", False
