"""OrderStore, the queue: a worker claims an order, and holds it until its lease lapses."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import pytest

from order_engine.domain.errors import Fenced
from order_engine.domain.order import OrderId
from order_engine.ports.store import LONGEST_LEASE_MS, Claim
from tests.contracts.orders import (
    CANCELLED,
    FAILED,
    LONG_MS,
    ROUTED,
    Life,
    SingleStore,
    claim_new,
    new_order,
    outcome_of,
    pause,
)
from tests.contracts.waiting import until
from tests.contracts.worlds import PostgresWorld, SqliteWorld, StoreWorld

pytestmark = pytest.mark.asyncio


async def accepted(store: SingleStore, count: int) -> list[OrderId]:
    """Accept `count` new orders and return their ids."""
    wanted = [new_order() for _ in range(count)]
    await asyncio.gather(*(store.accept(new) for new in wanted))
    return [new.order.order_id for new in wanted]


def ids(claims: Sequence[Claim]) -> list[OrderId]:
    return sorted(claim.order.order_id for claim in claims)


async def taken(store: SingleStore, order_id: OrderId) -> Claim | None:
    """Claim this order if it is due or its lease has lapsed; None if the store does not give it."""
    claims = {claim.order.order_id: claim for claim in await store.claim_due("another", 100, LONG_MS)}
    return claims.get(order_id)


# --- claim ---


async def test_a_new_order_is_claimed_at_once_although_it_is_in_its_grace(world: StoreWorld) -> None:
    store = await world.open(grace_ms=LONG_MS)
    new = new_order(client_order_id="mine")
    await store.accept(new)
    assert await store.claim("worker", [new.order.order_id], LONG_MS) == [Claim(new.order, fence=1, claims=1)]


async def test_an_order_that_is_held_is_not_claimed(world: StoreWorld) -> None:
    store = await world.open()
    held, free = await accepted(store, 2)
    await store.claim("worker", [held], LONG_MS)
    assert ids(await store.claim("another", [held, free, held, free], LONG_MS)) == [free]
    assert await store.claim("worker", [held], LONG_MS) == []


async def test_what_is_unknown_or_at_its_end_is_not_claimed(world: StoreWorld) -> None:
    store = await world.open(grace_ms=0)
    ended = await claim_new(store)
    await store.record(ended.write(FAILED))
    unknown = new_order().order.order_id
    assert await store.claim("worker", [ended.order.order_id, unknown], LONG_MS) == []
    assert await store.claim("worker", [], LONG_MS) == []
    assert await store.claim_due("worker", 10, LONG_MS) == []


async def test_an_order_between_attempts_is_claimed_only_when_it_is_due(world: StoreWorld) -> None:
    store = await world.open()
    soon, late = await claim_new(store), await claim_new(store)
    for life, pause_ms in ((soon, 20), (late, LONG_MS)):
        await store.record(life.write(ROUTED))
        await store.record(life.write(pause(pause_ms)))
    await world.pass_ms(21)

    both = [soon.order.order_id, late.order.order_id]
    (claim,) = await store.claim("worker", both, LONG_MS)
    assert claim == Claim(soon.order, fence=soon.fence + 1, claims=1)


@pytest.mark.parametrize("way", ["announced", "due"])
async def test_two_stores_that_claim_at_once_never_get_the_same_order(world: StoreWorld, way: str) -> None:
    stores = [await world.open(grace_ms=0), await world.open(grace_ms=0)]
    wanted = await accepted(stores[0], 120)

    async def take(store: SingleStore, at: int) -> list[Claim]:
        if way == "announced":
            return await store.claim(f"worker {at}", wanted[at:] + wanted[:at], LONG_MS)
        return await store.claim_due(f"worker {at}", 15, LONG_MS)

    claims = [it for batch in await asyncio.gather(*(take(stores[at % 2], at) for at in range(16))) for it in batch]
    while rest := await stores[0].claim_due("the last", 100, LONG_MS):
        claims += rest
    assert ids(claims) == sorted(wanted)
    assert {claim.fence for claim in claims} == {1}


# --- fences and claims ---


async def test_each_claim_raises_the_fence_by_one_and_is_counted(world: StoreWorld) -> None:
    store = await world.open()
    (order_id,) = await accepted(store, 1)
    (claim,) = await store.claim("worker", [order_id], 1)
    for number in (2, 3):
        assert (claim.fence, claim.claims) == (number - 1, number - 1)
        await world.pass_ms(2)
        (claim,) = await store.claim_due(f"worker {number}", 10, 1)
    assert (claim.fence, claim.claims) == (3, 3)


async def test_an_event_starts_the_count_of_claims_again(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store, lease_ms=1)
    await world.pass_ms(2)
    (second,) = await store.claim_due("worker", 10, 1)
    life = Life(second.order, second.fence)
    await store.record(life.write(ROUTED))
    await world.pass_ms(2)

    (third,) = await store.claim_due("worker", 10, 1)
    assert third == Claim(life.order, fence=3, claims=1)


async def test_a_released_order_is_free_at_once_and_its_claim_does_not_count(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    order_id = life.order.order_id
    await store.record(life.write(ROUTED))
    await store.release("worker", {order_id: 1})
    (again,) = await store.claim("another", [order_id], LONG_MS)
    assert again == Claim(life.order, fence=2, claims=1)
    await store.release("another", {order_id: 2})
    assert await taken(store, order_id) == Claim(life.order, fence=3, claims=1)


async def test_nobody_releases_what_another_holds(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    order_id = life.order.order_id
    await store.release("worker", {order_id: 2})
    await store.release("another", {order_id: 1})
    assert await store.claim("another", [order_id], LONG_MS) == []
    await store.record(life.write(ROUTED))


async def test_the_worker_that_released_an_order_can_write_no_more(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    await store.release("worker", {life.order.order_id: 1})
    with pytest.raises(Fenced):
        await store.record(life.write(ROUTED))


# --- due orders ---


async def test_lapsed_leases_come_before_what_is_due_and_no_more_than_the_limit(world: StoreWorld) -> None:
    store = await world.open(grace_ms=0)
    due = await accepted(store, 3)
    await world.pass_ms(2)
    lapsed = await accepted(store, 2)
    assert len(await store.claim("dead", lapsed, 1)) == 2
    await world.pass_ms(2)

    assert ids(await store.claim_due("worker", 1, LONG_MS))[0] in lapsed
    second = ids(await store.claim_due("worker", 2, LONG_MS))
    assert len(second) == 2
    assert len(set(second) & set(lapsed)) == 1
    assert set(ids(await store.claim_due("worker", 5, LONG_MS))) == set(due) - set(second)
    assert await store.claim_due("worker", 5, LONG_MS) == []


async def test_what_has_waited_longest_comes_first(world: StoreWorld) -> None:
    store = await world.open(grace_ms=0)
    first = await accepted(store, 2)
    await world.pass_ms(5)
    second = await accepted(store, 2)
    await world.pass_ms(5)
    assert ids(await store.claim_due("worker", 2, LONG_MS)) == sorted(first)
    assert ids(await store.claim_due("worker", 2, LONG_MS)) == sorted(second)


async def test_what_is_in_its_grace_or_held_or_due_later_is_not_due(world: StoreWorld) -> None:
    store = await world.open(grace_ms=LONG_MS)
    await accepted(store, 1)
    await claim_new(store)
    later = await claim_new(store)
    await store.record(later.write(ROUTED))
    await store.record(later.write(pause(LONG_MS)))
    assert await store.claim_due("worker", 10, LONG_MS) == []


async def test_an_order_whose_announcement_was_lost_is_due_after_its_grace(world: StoreWorld) -> None:
    store = await world.open(grace_ms=30)
    (order_id,) = await accepted(store, 1)
    await world.pass_ms(31)
    assert ids(await store.claim_due("worker", 10, LONG_MS)) == [order_id]


# --- leases ---


async def test_a_renewed_lease_holds_and_one_that_is_not_lapses(world: StoreWorld) -> None:
    store = await world.open()
    renewed, left = await claim_new(store, lease_ms=20), await claim_new(store, lease_ms=20)
    assert await store.renew("worker", {renewed.order.order_id: 1}, LONG_MS) == {renewed.order.order_id}
    await world.pass_ms(21)
    assert ids(await store.claim_due("another", 10, LONG_MS)) == [left.order.order_id]
    await store.record(renewed.write(ROUTED))


async def test_only_the_holder_with_its_fence_renews(world: StoreWorld) -> None:
    store = await world.open()
    one, two = await claim_new(store), await claim_new(store)
    fences = {one.order.order_id: 1, two.order.order_id: 2, new_order().order.order_id: 1}
    assert await store.renew("worker", fences, LONG_MS) == {one.order.order_id}
    assert await store.renew("another", {one.order.order_id: 1}, LONG_MS) == set()
    assert await store.renew("worker", {}, LONG_MS) == set()


async def test_a_refused_renewal_extends_nothing(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store, lease_ms=1)
    await store.renew("worker", {life.order.order_id: 2}, LONG_MS)
    await store.renew("another", {life.order.order_id: 1}, LONG_MS)
    await world.pass_ms(2)
    assert await taken(store, life.order.order_id) is not None


async def test_whoever_lost_the_order_renews_and_releases_no_more(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store, lease_ms=1)
    order_id = life.order.order_id
    await world.pass_ms(2)
    assert await taken(store, order_id) is not None

    assert await store.renew("worker", {order_id: 1}, LONG_MS) == set()
    await store.release("worker", {order_id: 1})
    assert await store.renew("another", {order_id: 2}, LONG_MS) == {order_id}


@pytest.mark.parametrize("fact", [FAILED, CANCELLED, pause(LONG_MS)], ids=["failed", "cancelled", "retrying"])
async def test_an_order_at_rest_is_held_by_nobody(world: StoreWorld, fact: object) -> None:
    store = await world.open()
    life = await claim_new(store, lease_ms=1)
    await store.record(life.write(ROUTED))
    await store.record(life.write(fact))
    await world.pass_ms(2)
    assert await store.renew("worker", {life.order.order_id: 1}, LONG_MS) == set()
    assert await taken(store, life.order.order_id) is None


@pytest.mark.parametrize("way", ["renew", "release"])
@pytest.mark.parametrize("is_newest_first", [True, False])
async def test_leases_are_renewed_and_released_while_their_orders_are_written_in_another_order(
    postgres_world: PostgresWorld, way: str, *, is_newest_first: bool
) -> None:
    store = await postgres_world.open()
    lives = await asyncio.gather(*(claim_new(store) for _ in range(3)))
    lives.sort(key=lambda life: life.order.order_id, reverse=is_newest_first)
    first, second, third = (life.order.order_id for life in lives)
    fences = {third: 1, first: 1}

    async def both_wait() -> bool:
        return await postgres_world.waiting_for_locks() == 2

    # If both locked the orders as given, they would deadlock: the writing holds the first and waits for the
    # second; the leasing holds the third and waits for the first; then the writing needs the third.
    async with postgres_world.locked(second):
        writing = [store.record(life.write(ROUTED)) for life in lives]
        await until(postgres_world.waiting_for_locks)
        call = store.renew("worker", fences, LONG_MS) if way == "renew" else store.release("worker", fences)
        leasing = asyncio.ensure_future(outcome_of(call))
        with suppress(TimeoutError):  # it is fine if they never both wait
            await until(both_wait, patience_s=1)

    assert await leasing == (set(fences) if way == "renew" else None)
    assert {type(await outcome_of(it)) for it in writing} <= {type(None), Fenced}


async def test_what_a_former_life_of_the_only_process_holds_is_free_at_once(tmp_path: Path) -> None:
    world = SqliteWorld(tmp_path / "orders.sqlite3")
    store = await world.open()
    held, ended, waiting = await claim_new(store), await claim_new(store), new_order()
    await store.record(ended.write(ROUTED))
    await store.record(ended.write(FAILED))
    await store.accept(waiting)
    assert await store.claim_due("another", 10, LONG_MS) == []

    assert await store.take_back_leases() == 1
    (claim,) = await store.claim_due("another", 10, LONG_MS)
    # The count of claims goes on, so that an order that kills its process is finally parked.
    assert claim == Claim(held.order, fence=2, claims=2)
    assert isinstance(await outcome_of(store.record(held.write(ROUTED))), Fenced)
    await world.close()


async def test_a_clock_that_was_set_back_holds_up_no_order(world: StoreWorld) -> None:
    """A due time that is further ahead than the longest pause is due; a lease longer than the longest has lapsed."""
    store = await world.open(grace_ms=60_000)
    waiting = await claim_new(store)
    await store.record(waiting.write(ROUTED))
    await store.record(waiting.write(pause(600_000)))
    held = await claim_new(store, lease_ms=2 * LONGEST_LEASE_MS)
    in_time = await claim_new(store)
    assert ids(await store.claim_due("worker", 10, LONG_MS, 700_000)) == [held.order.order_id]
    assert ids(await store.claim_due("worker", 10, LONG_MS, 590_000)) == [waiting.order.order_id]
    assert await store.claim_due("worker", 10, LONG_MS, 590_000) == []
    assert await store.renew("worker", {in_time.order.order_id: in_time.fence or 0}, LONG_MS)
