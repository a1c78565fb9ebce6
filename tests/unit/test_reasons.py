"""Why orders end: every reason code is raised, each by its own cause."""

import random
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from order_engine.counters import Counters
from order_engine.domain.errors import NoRoute, QuoteTimedOut, ReasonCode, SlippageExceeded, VenueFailed
from order_engine.domain.events import Fact
from order_engine.domain.lifecycle import apply
from order_engine.domain.order import AttemptOutcome, EpochMs, Order, OrderStatus
from order_engine.domain.retry import RetryPolicy
from order_engine.domain.routing import QuoteFailure, choose_quote
from order_engine.engine.executor import ExecutionPolicy, Executor, explain
from order_engine.engine.intake import CANCELLED
from order_engine.engine.settlement import Proof, Settlement
from order_engine.engine.signing import Signing
from order_engine.ports.chain import SLIPPAGE_ERROR, SwapResult
from order_engine.ports.store import Claim, ProvenOutcome
from tests.contracts.orders import BUILT, ROUTED, claim_new
from tests.contracts.worlds import SqliteWorld
from tests.unit.chains import ASSEMBLY, WALLET, ChainWorld, attempt_of, open_chain_world
from tests.unit.samples import START_MS, order_in


def proof_of(error: str | None) -> Proof:
    """A proof of a swap that did not happen: it reverted with this error, or expired without one."""
    outcome = AttemptOutcome.EXPIRED if error is None else AttemptOutcome.REVERTED
    result = None if error is None else SwapResult(None, error)
    return Proof(ProvenOutcome(1, outcome, msgspec.Raw(b"{}")), None, result)


async def reasons_of_signed_swaps() -> list[tuple[ReasonCode, bool]]:
    async with open_chain_world() as world:
        signed = await world.signed()
    attempt = attempt_of(signed)
    errors = (None, f'{SLIPPAGE_ERROR} {{"Custom":6001}}', '{"InsufficientFundsForRent":{}}', '"AccountNotFound"')
    explained = [explain(attempt, proof_of(error)) for error in errors]
    return [(code, is_retryable) for code, _, is_retryable in explained]


def reasons_of_quotes() -> list[ReasonCode]:
    failures = (NoRoute("no pool"), QuoteTimedOut("no quote"), VenueFailed("502"))
    routes = [choose_quote([QuoteFailure("raydium", failure)]) for failure in failures]
    return [route.failure.reason for route in routes if route.failure is not None]


async def run_claimed(world: ChainWorld, path: Path, facts: Sequence[Fact], claims: int) -> Order:
    """Claim an order, apply the facts to it, and run it with no venue configured."""
    stores = SqliteWorld(path)
    store = await stores.open()
    life = await claim_new(store)
    for fact in facts:
        await store.record(life.write(fact))
    settlement = Settlement(world.chain, world.clock.now_s, 0, 1, Counters())
    policy = ExecutionPolicy(RetryPolicy(), quote_timeout_s=1, max_claims=5)
    executor = Executor(
        {},
        Signing(world.chain, ASSEMBLY, WALLET, settlement.silence),
        store,
        store,
        settlement,
        world.clock,
        random.random,
        policy,
        Counters(),
    )
    assert life.fence is not None
    await executor.run(Claim(life.order, life.fence, claims))
    found = await store.get(life.order.account, life.order.order_id)
    assert found is not None
    await stores.close()
    return found


@pytest.mark.asyncio
@pytest.mark.parametrize("facts", [(ROUTED,), (ROUTED, BUILT)], ids=["routed", "built"])
async def test_an_order_whose_venue_is_not_configured_any_more_tries_again_with_a_fresh_route(
    tmp_path: Path, facts: Sequence[Fact]
) -> None:
    async with open_chain_world() as world:
        order = await run_claimed(world, tmp_path / "orders.sqlite3", facts, 1)
    assert (order.status, order.reason_code) == (OrderStatus.RETRYING, ReasonCode.VENUE_ERROR)
    assert "no such venue" in str(order.reason_message)


@pytest.mark.asyncio
async def test_every_reason_code_is_raised(tmp_path: Path) -> None:
    signed = await reasons_of_signed_swaps()
    assert signed == [
        (ReasonCode.TRANSACTION_EXPIRED, True),
        (ReasonCode.SLIPPAGE_EXCEEDED, True),
        (ReasonCode.INSUFFICIENT_FUNDS, False),
        (ReasonCode.TRANSACTION_REVERTED, False),
    ]
    quoted = reasons_of_quotes()
    assert quoted == [ReasonCode.NO_ROUTE, ReasonCode.QUOTE_TIMEOUT, ReasonCode.VENUE_ERROR]
    async with open_chain_world() as world:
        parked = (await run_claimed(world, tmp_path / "orders.sqlite3", (ROUTED,), 6)).reason_code
    assert parked is ReasonCode.PARKED
    cancelled = apply(order_in(OrderStatus.PENDING), CANCELLED, EpochMs(START_MS))[0].reason_code
    assert cancelled is ReasonCode.CANCELLED_BY_CLIENT
    assert {*(code for code, _ in signed), *quoted, parked, cancelled} == {*ReasonCode}
    assert SlippageExceeded("").reason in {code for code, _ in signed}
