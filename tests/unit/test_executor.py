"""A worker drops its order without an alarm if the client cancels the order meanwhile."""

import asyncio
import random
from pathlib import Path

import pytest

from order_engine.counters import Counters
from order_engine.domain.errors import Fenced
from order_engine.domain.events import Fact
from order_engine.domain.lifecycle import apply
from order_engine.domain.order import EpochMs, Order, OrderStatus, SwapRequest
from order_engine.domain.retry import RetryPolicy
from order_engine.domain.routing import Quote
from order_engine.engine.executor import ExecutionPolicy, Executor
from order_engine.engine.intake import CANCELLED
from order_engine.engine.settlement import Settlement
from order_engine.engine.signing import Signing
from order_engine.ports.chain import UnsignedTransaction
from order_engine.ports.store import Claim, Write
from tests.contracts.orders import FAILED, SingleStore, claim_new
from tests.contracts.worlds import SqliteWorld
from tests.unit.chains import ASSEMBLY, WALLET, message_of, open_chain_world
from tests.unit.samples import quote


class MovingVenue:
    """A venue that builds a swap, and meanwhile moves the order on as another process would."""

    name = "raydium"

    def __init__(self, store: SingleStore, fact: Fact) -> None:
        self._store = store
        self._fact = fact

    async def quote(self, _request: SwapRequest) -> Quote:
        return quote(self.name, 225_000_000)

    async def build(self, order: Order) -> UnsignedTransaction:
        # The executor does not wait until the route is stored, so the test must.
        while (kept := await self._store.get(order.account, order.order_id)) is None or kept.seq < order.seq:
            await asyncio.sleep(0)
        after, event = apply(kept, self._fact, EpochMs(kept.updated_at_ms))
        await self._store.record(Write(after, (event,), kept.seq, None))
        return UnsignedTransaction(message_of(order.order_id), ())


@pytest.mark.asyncio
@pytest.mark.parametrize(("fact", "is_alarm"), [(CANCELLED, False), (FAILED, True)], ids=["cancelled", "by another"])
async def test_a_write_after_a_cancellation_is_no_alarm(tmp_path: Path, fact: Fact, *, is_alarm: bool) -> None:
    stores = SqliteWorld(tmp_path / "orders.sqlite3")
    store = await stores.open()
    life = await claim_new(store)
    async with open_chain_world() as world:
        settlement = Settlement(world.chain, world.clock.now_s, 0, 1, Counters())
        executor = Executor(
            {"raydium": MovingVenue(store, fact)},
            Signing(world.chain, ASSEMBLY, WALLET, settlement.silence),
            store,
            store,
            settlement,
            world.clock,
            random.random,
            ExecutionPolicy(RetryPolicy(), quote_timeout_s=1, max_claims=5),
            Counters(),
        )
        claim = Claim(life.order, life.fence or 0, 1)
        if is_alarm:
            with pytest.raises(Fenced):
                await executor.run(claim)
        else:
            await executor.run(claim)
    kept = await store.get(life.order.account, life.order.order_id)
    assert kept is not None
    assert kept.status is (OrderStatus.FAILED if is_alarm else OrderStatus.CANCELLED)
    assert await store.attempts(life.order.order_id) == []
    await stores.close()
