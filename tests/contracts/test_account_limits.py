"""The limits of an account: both stores refuse an order beyond one in the statement that would accept it."""

import asyncio
from typing import Any

import pytest
import pytest_asyncio

from order_engine.domain.account_limits import AccountLimits
from order_engine.domain.errors import LimitExceeded, ReasonCode
from order_engine.domain.events import OrderFailed
from order_engine.domain.money import BaseUnits
from order_engine.ports.access import Actor
from order_engine.ports.store import OrderFilter
from tests.contracts.orders import ACCOUNT, LONG_MS, SOL, USDC, SingleStore, claim_new, new_order
from tests.contracts.worlds import StoreWorld

pytestmark = pytest.mark.asyncio

OPERATOR = Actor(None, "command line")
ONE_SOL = BaseUnits(1_000_000_000)


@pytest_asyncio.fixture
async def store(world: StoreWorld) -> SingleStore:
    return await world.open()


async def limit(store: SingleStore, **limits: Any) -> None:
    await store.access().set_limits(AccountLimits(account=ACCOUNT, **limits), OPERATOR)


async def refused(store: SingleStore, **changes: Any) -> LimitExceeded:
    with pytest.raises(LimitExceeded) as caught:
        await store.accept(new_order(**changes))
    return caught.value


@pytest.mark.parametrize("processes", [1, 2])
async def test_of_64_orders_at_once_a_daily_limit_admits_exactly_10(world: StoreWorld, processes: int) -> None:
    stores = [await world.open() for _ in range(processes)]
    await limit(stores[0], amount_per_day={SOL.mint: 10 * ONE_SOL})
    placing = (stores[at % processes].accept(new_order(amount_in=ONE_SOL)) for at in range(64))
    results = await asyncio.gather(*placing, return_exceptions=True)
    refusals = [it for it in results if isinstance(it, BaseException)]
    assert len(refusals) == 54
    assert all(isinstance(it, LimitExceeded) for it in refusals)
    assert len(await stores[0].find(OrderFilter(ACCOUNT), 100)) == 10
    last = await refused(stores[0], amount_in=ONE_SOL)
    assert (last.limit, last.used) == ("10", "10 SOL")
    assert last.frees_at_ms is not None
    # Other tokens and other accounts have their own.
    await stores[0].accept(new_order(token_in=USDC, token_out=SOL))
    await stores[0].accept(new_order(account="other", amount_in=ONE_SOL))


async def test_an_order_may_not_sell_more_than_its_limit(store: SingleStore) -> None:
    await limit(store, amount_per_order={SOL.mint: ONE_SOL})
    await store.accept(new_order(amount_in=ONE_SOL))
    assert (await refused(store, amount_in=ONE_SOL + 1)).limit == "1"


async def test_open_orders_make_room_when_they_end(store: SingleStore) -> None:
    await limit(store, open_orders=1)
    life = await claim_new(store)
    assert (await refused(store)).used == "1"
    await store.record(life.write(OrderFailed(ReasonCode.NO_ROUTE, "none")))
    await store.accept(new_order())


async def test_orders_a_minute_are_spread_after_the_burst(world: StoreWorld, store: SingleStore) -> None:
    await limit(store, orders_per_minute=600, burst=3)
    for _ in range(3):
        await store.accept(new_order())
    refusal = await refused(store)
    assert refusal.retry_after_s == 1
    await world.pass_ms(110)
    await store.accept(new_order())


async def test_a_replay_is_never_refused_and_uses_nothing(store: SingleStore) -> None:
    await limit(store, open_orders=1, orders_per_minute=1, amount_per_day={SOL.mint: ONE_SOL})
    first = new_order("key", amount_in=ONE_SOL)
    await store.accept(first)
    for _ in range(3):
        again = await store.accept(new_order("key", amount_in=ONE_SOL))
        assert again.is_replay
        assert again.order.order_id == first.order.order_id


async def test_limits_are_listed_and_kept_in_the_audit_log(store: SingleStore) -> None:
    limits = AccountLimits(account=ACCOUNT, open_orders=3, burst=2, amount_per_day={SOL.mint: 2**70})
    await store.access().set_limits(limits, OPERATOR)
    assert await store.access().limits() == [limits]
    [entry] = await store.access().audit(None, 10)
    assert (entry.action, entry.subject) == ("limits.set", ACCOUNT)
    await store.claim_due("worker", 1, LONG_MS)
