"""Orders whose workers died: orders of dead processes, and poison orders, which kill every worker."""

import asyncio
from collections.abc import Sequence

import asyncpg
import pytest

from order_engine.domain.errors import WrongCluster
from order_engine.domain.order import OrderId
from order_engine.domain.quarantine import POISON
from order_engine.ports.store import Claim
from order_engine.store.postgres.store import SESSION, PostgresStore
from tests.contracts.orders import BUILT, GENESIS, LONG_MS, ROUTED, Life, SingleStore, claim_new, sign_new
from tests.contracts.test_store_queue import accepted
from tests.contracts.worlds import PostgresWorld, StoreWorld

pytestmark = pytest.mark.asyncio


async def claimed_in_vain(world: StoreWorld, store: SingleStore, order_ids: Sequence[OrderId]) -> None:
    """Let workers claim the orders and die until these are poison orders, and wait until the orders are due."""
    for _ in range(POISON.claims - 1):
        await world.pass_ms(2)
        assert len(await store.claim_due("dies", 10, 1)) == len(order_ids)
    await world.pass_ms(600)


async def test_of_orders_that_were_claimed_in_vain_too_often_a_worker_gets_one_at_a_time(world: StoreWorld) -> None:
    store = await world.open()
    suspects = await accepted(store, 3)
    await store.claim("dies", suspects, 1)
    await claimed_in_vain(world, store, suspects)
    fresh = await accepted(store, 2)
    assert await store.claim_due("one", 10, LONG_MS) == []
    (one,) = await store.claim_poison("one", 0, LONG_MS)
    assert (one.order.order_id in suspects, one.claims) == (True, POISON.claims + 1)
    assert len(await store.claim("one", fresh, LONG_MS)) == 2
    assert await store.claim_poison("one", 0, LONG_MS) == []
    (other,) = await store.claim_poison("other", 0, LONG_MS)

    await store.record(Life(one.order, one.fence).write(ROUTED))
    (third,) = await store.claim_poison("one", 0, LONG_MS)
    assert {it.order.order_id for it in (one, other, third)} == {*suspects}


async def test_a_suspect_waits_longer_after_each_claim_and_as_long_as_the_worker_says(world: StoreWorld) -> None:
    store = await world.open()
    (order_id,) = await accepted(store, 1)
    await store.claim("dies", [order_id], 1)
    await claimed_in_vain(world, store, [order_id])
    (claim,) = await store.claim_poison("busy", 60_000, 1)
    await world.pass_ms(600)
    assert await store.claim_poison("idle", 0, 1) == []
    await world.pass_ms(500)
    assert await store.claim_poison("busy", 60_000, 1) == []
    (again,) = await store.claim_poison("idle", 0, 1)
    assert (again.claims, again.fence) == (claim.claims + 1, claim.fence + 1)


async def test_a_suspect_that_is_released_stays_one(world: StoreWorld) -> None:
    store = await world.open()
    (order_id,) = await accepted(store, 1)
    await store.claim("dies", [order_id], 1)
    await claimed_in_vain(world, store, [order_id])
    (claim,) = await store.claim_poison("one", 0, LONG_MS)
    await store.release("one", {order_id: claim.fence})
    await world.pass_ms(600)
    assert await store.claim("other", [order_id], LONG_MS) == []
    assert await store.claim_due("other", 10, LONG_MS) == []
    (again,) = await store.claim_poison("other", 0, LONG_MS)
    assert (again.order.order_id, again.claims) == (order_id, claim.claims)


async def test_what_is_in_doubt_is_taken_apart_too(world: StoreWorld) -> None:
    store = await world.open()
    life = await sign_new(store)
    order_id = life.order.order_id
    await store.renew("worker", {order_id: life.fence}, 1)
    await world.pass_ms(2)
    for number in range(1, POISON.claims + 4):
        await world.pass_ms(2)
        (claim,) = await store.claim_due("dies", 10, 1)
        assert (claim.order.is_in_doubt, claim.claims) == (True, number)
    await world.pass_ms(4_100)
    assert await store.claim_due("worker", 10, LONG_MS) == []
    (claim,) = await store.claim_poison("worker", 0, LONG_MS)
    assert (claim.order.is_in_doubt, claim.claims) == (True, POISON.claims + 4)


async def test_orders_of_a_process_that_ended_are_due_long_before_their_lease_lapses(
    postgres_world: PostgresWorld,
) -> None:
    def session_of(name: str) -> str:
        return f"{SESSION}{name}"

    async def opened(name: str) -> PostgresStore:
        return SingleStore(
            await PostgresStore.open(postgres_world.url, None, lambda _: None, LONG_MS, session_of(name))
        )

    gone, lives, looks = await opened("gone"), await opened("lives"), await opened("looks")
    (left,) = await accepted(gone, 1)
    (held,) = await accepted(lives, 1)
    await gone.claim(session_of("gone"), [left], LONG_MS)
    await lives.claim(session_of("lives"), [held], LONG_MS)
    for _ in range(3):
        await looks.expire_dead_leases()
    assert await looks.claim_due(session_of("looks"), 10, LONG_MS) == []
    await gone.close()
    claims = await until_claimed(looks, session_of("looks"))
    assert [(it.order.order_id, it.fence, it.claims) for it in claims] == [(left, 2, 2)]
    for _ in range(3):
        await looks.expire_dead_leases()
    assert await looks.claim_due(session_of("looks"), 10, LONG_MS) == []
    await lives.close()
    await looks.close()


async def until_claimed(store: PostgresStore, worker: str) -> list[Claim]:
    """Claim due orders as a worker does, again and again until there are some."""
    async with asyncio.timeout(10):
        while not (claims := await store.claim_due(worker, 10, LONG_MS)):
            await store.expire_dead_leases()
    return claims


async def test_the_cluster_may_change_until_something_is_signed_for_it(world: StoreWorld) -> None:
    store = await world.open()
    assert [await store.pin_cluster(it) for it in ("one", "other", GENESIS)] == ["one", "other", GENESIS]
    await sign_new(store)
    assert [await store.pin_cluster(it) for it in ("other", GENESIS)] == [GENESIS, GENESIS]


async def test_what_is_signed_for_another_cluster_than_the_kept_one_is_refused(world: StoreWorld) -> None:
    """Two engines with different chains begin at once; the cluster that was pinned last is the valid one."""
    late, early = await world.open(), await world.open()
    await late.pin_cluster("another")
    life = await claim_new(early)
    for write in (life.write(ROUTED), life.write(BUILT)):
        await early.record(write)
    with pytest.raises(WrongCluster, match="cluster"):
        await early.record(life.sign())
    assert await early.attempts(life.order.order_id) == []
    assert await early.pin_cluster("a third one") == "a third one"


async def test_a_signing_and_another_cluster_at_the_same_moment_do_not_both_have_their_way(
    postgres_world: PostgresWorld,
) -> None:
    store = await postgres_world.open()
    life = await claim_new(store)
    for write in (life.write(ROUTED), life.write(BUILT)):
        await store.record(write)
    keeping = await asyncpg.connect(postgres_world.url)
    try:
        async with keeping.transaction():
            await keeping.execute("update cluster set genesis_hash = 'another'")
            signing = asyncio.ensure_future(store.record(life.sign()))
            done, _ = await asyncio.wait([signing], timeout=0.5)
            assert not done
        with pytest.raises(WrongCluster, match="cluster"):
            await signing
    finally:
        await keeping.close()
    assert await store.pin_cluster(GENESIS) == GENESIS
