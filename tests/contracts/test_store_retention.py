"""Orders that ended long ago are deleted when the store is told to, and nothing else ever is."""

import asyncio

import pytest

from order_engine.domain.order import AttemptOutcome
from tests.contracts.orders import CONFIRMED, FAILED, ROUTED, claim_new, kept, new_order, sign_new
from tests.contracts.raw import open_raw
from tests.contracts.worlds import SqliteWorld, StoreWorld

pytestmark = pytest.mark.asyncio

LONG_AGO_MS = 3_600_000
ALL_MS = -LONG_AGO_MS  # all that ended until an hour from now: the clocks of ids and of a store differ here


async def test_only_what_ended_is_deleted_with_all_that_is_kept_of_it(world: StoreWorld) -> None:
    store = await world.open()
    confirmed = await sign_new(store)
    await store.record(confirmed.settle(CONFIRMED, AttemptOutcome.LANDED))
    failed = await claim_new(store)
    await store.record(failed.write(FAILED))
    waiting, held, in_doubt = new_order(), await claim_new(store), await sign_new(store)
    await store.accept(waiting)
    await store.record(held.write(ROUTED))
    lives = [waiting.order.order_id, held.order.order_id, in_doubt.order.order_id]
    before = [await kept(store, order_id) for order_id in lives]

    assert await store.delete_ended(LONG_AGO_MS, 10) == 0
    assert await store.delete_ended(ALL_MS, 10) == 2
    assert await store.delete_ended(ALL_MS, 10) == 0
    for gone in (confirmed, failed):
        assert await kept(store, gone.order.order_id) == (None, [], [])
    assert [await kept(store, order_id) for order_id in lives] == before
    await store.record(in_doubt.settle(CONFIRMED, AttemptOutcome.LANDED))


async def test_no_more_than_asked_for_go_at_once_the_oldest_first(world: StoreWorld) -> None:
    store = await world.open()
    ended = []
    for _ in range(5):
        life = await claim_new(store)
        await store.record(life.write(FAILED))
        ended.append(life.order.order_id)
        await asyncio.sleep(0.002)
    assert await store.delete_ended(ALL_MS, 2) == 2
    assert [(await kept(store, it))[0] is None for it in ended] == [True, True, False, False, False]
    found = await asyncio.gather(*(store.delete_ended(ALL_MS, 2) for _ in range(3)))
    assert sum(found) == 3


async def test_a_key_goes_with_its_order(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store, key="again")
    await store.record(life.write(FAILED))
    assert await store.delete_ended(ALL_MS, 1) == 1
    assert not (await store.accept(new_order("again"))).is_replay


async def test_afterwards_the_database_refuses_deletion_as_before(world: StoreWorld) -> None:
    store = await world.open()
    life = await sign_new(store)
    await store.record(life.settle(CONFIRMED, AttemptOutcome.LANDED))
    await store.delete_ended(LONG_AGO_MS, 1)
    raw = await open_raw(world.path if isinstance(world, SqliteWorld) else world.url)  # type: ignore[attr-defined]
    try:
        for table in ("attempts", "order_events", "orders"):
            with pytest.raises(Exception, match=r"kept|never changes"):
                await raw.run(f"delete from {table} where order_id is not null")
    finally:
        await raw.close()
    assert (await kept(store, life.order.order_id))[0] is not None
