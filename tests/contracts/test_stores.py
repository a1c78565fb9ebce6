"""OrderStore, the way in: the promises of accept, and the events that are announced."""

import asyncio
import time
from collections.abc import Sequence

import msgspec
import pytest

from order_engine.domain.errors import ClientOrderIdTaken, Fenced
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import apply
from order_engine.domain.money import MAX_BASE_UNITS
from order_engine.domain.order import EpochMs, OrderId
from order_engine.ports.store import CLIENT_ORDER_ID_KEPT_MS, Accepted, OrderFilter, Write
from tests.contracts.orders import (
    ACCOUNT,
    BUILT,
    CANCELLED,
    LONG_MS,
    ROUTED,
    Life,
    claim_new,
    kept,
    new_order,
    outcome_of,
    unlawful,
)
from tests.contracts.waiting import until
from tests.contracts.worlds import StoreWorld

pytestmark = pytest.mark.asyncio

NOTHING = (None, [], [])


async def test_an_accepted_order_is_there_with_its_event_and_its_key_when_the_store_is_opened_again(
    world: StoreWorld,
) -> None:
    store = await world.open()
    new = new_order("key", client_order_id="mine", metadata=msgspec.Raw(b'{"a": [1,2.50]}'))
    assert await store.accept(new) == Accepted(new.order, is_replay=False, digest=None)
    await store.close()

    again = await world.open()
    assert await kept(again, new.order.order_id) == (new.order, [new.event], [])
    found = await again.find_by_key(ACCOUNT, "key")
    assert found == Accepted(new.order, is_replay=True, digest="digest of the first")


async def test_what_was_asked_for_is_kept_to_the_last_bit(world: StoreWorld) -> None:
    store = await world.open()
    metadata = msgspec.Raw('{ "b":1, "a":"\\u00e9 é 😀", "n":1e400, "b":2 }'.encode())
    new = new_order(account="кот 'or 1=1 --", amount_in=MAX_BASE_UNITS, slippage_bps=1000, metadata=metadata)
    await store.accept(new)

    order = await store.get("кот 'or 1=1 --", new.order.order_id)
    assert order == new.order
    assert order.request.metadata is not None
    assert bytes(order.request.metadata) == bytes(metadata)


async def test_a_replay_answers_with_the_first_order_and_its_digest_and_stores_nothing(world: StoreWorld) -> None:
    store = await world.open()
    first, second = new_order("key"), new_order("key", digest="another digest", amount_in=7)
    await store.accept(first)

    assert await store.accept(second) == Accepted(first.order, is_replay=True, digest="digest of the first")
    assert await kept(store, second.order.order_id) == NOTHING
    assert await store.find(OrderFilter(ACCOUNT), 10) == [first.order]


async def test_a_replay_answers_with_the_order_as_it_is_now(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store, key="key")
    await store.record(life.write(ROUTED))

    assert (await store.accept(new_order("key"))).order == life.order


@pytest.mark.parametrize("stores", [1, 2])
async def test_two_hundred_accepts_at_once_with_one_key_make_one_order(world: StoreWorld, stores: int) -> None:
    opened = [await world.open() for _ in range(stores)]
    wanted = [new_order("key", digest=f"digest {number}") for number in range(200)]
    answers = await asyncio.gather(*(opened[at % stores].accept(new) for at, new in enumerate(wanted)))

    (first,) = [at for at, answer in enumerate(answers) if not answer.is_replay]
    assert {answer.order.order_id for answer in answers} == {wanted[first].order.order_id}
    assert {answer.digest for answer in answers if answer.is_replay} == {f"digest {first}"}
    assert len(await opened[0].find(OrderFilter(ACCOUNT), 500)) == 1
    assert world.announced == [wanted[first].event]


async def test_many_keys_at_once_in_two_stores_in_opposite_order_make_one_order_each(world: StoreWorld) -> None:
    one, other = await world.open(), await world.open()
    keys = [f"key {number}" for number in range(64)]
    answers = await asyncio.gather(
        *(one.accept(new_order(key, client_order_id=key)) for key in keys),
        *(other.accept(new_order(key, client_order_id=key)) for key in reversed(keys)),
    )

    assert sum(not answer.is_replay for answer in answers) == len(keys)
    assert sorted(order.request.client_order_id or "" for order in await one.find(OrderFilter(ACCOUNT), 500)) == sorted(
        keys
    )
    assert len({answer.order.order_id for answer in answers}) == len(keys) == len(world.announced)


async def test_a_key_belongs_to_one_account(world: StoreWorld) -> None:
    store = await world.open()
    ours, theirs = new_order("key"), new_order("key", account="other")
    assert not (await store.accept(ours)).is_replay
    assert not (await store.accept(theirs)).is_replay

    found = await store.find_by_key("other", "key")
    assert found is not None
    assert found.order == theirs.order
    assert await store.find_by_key("third", "key") is None
    assert await store.find_by_key(ACCOUNT, "KEY") is None


async def test_equal_orders_without_a_key_are_different_orders(world: StoreWorld) -> None:
    store = await world.open()
    await asyncio.gather(*(store.accept(new_order()) for _ in range(5)))
    assert len(await store.find(OrderFilter(ACCOUNT), 10)) == 5


# The database refuses 0; 40,000 is too large for PostgreSQL's smallint.
@pytest.mark.parametrize("slippage_bps", [0, 40_000])
async def test_an_order_that_cannot_be_stored_fails_alone(world: StoreWorld, slippage_bps: int) -> None:
    store = await world.open()
    wanted = [new_order(f"key {number}") for number in range(9)]
    wanted.insert(4, new_order("bad", slippage_bps=slippage_bps))
    answers = await asyncio.gather(*(outcome_of(store.accept(new)) for new in wanted))

    good = [it for it in answers if isinstance(it, Accepted)]
    assert isinstance(answers[4], Exception)
    assert [answer.order for answer in good] == [new.order for new in wanted if new is not wanted[4]]
    assert await kept(store, wanted[4].order.order_id) == NOTHING
    assert await store.find_by_key(ACCOUNT, "bad") is None
    assert sorted(it.order_id for it in world.announced) == sorted(it.order.order_id for it in good)


async def test_an_event_is_announced_after_its_commit(world: StoreWorld) -> None:
    seen: list[tuple[OrderId, int, int]] = []

    def announce(events: Sequence[OrderEvent]) -> None:
        seen.extend((event.order_id, event.seq, world.committed(event.order_id)) for event in events)

    store = await world.open(announce=announce)
    life = await claim_new(store)
    for write in (life.write(ROUTED), life.write(BUILT)):
        await store.record(write)

    assert [(order_id, seq) for order_id, seq, _ in seen] == [(life.order.order_id, seq) for seq in (1, 2, 3)]
    assert all(committed >= seq for _, seq, committed in seen)


async def test_each_committed_event_is_announced_once_and_nothing_that_was_refused(world: StoreWorld) -> None:
    store = await world.open()
    first = new_order("key")
    await store.accept(first)
    await store.accept(new_order("key"))
    assert world.announced == [first.event]

    (claim,) = await store.claim("worker", [first.order.order_id], LONG_MS)
    life, stranger = Life(claim.order, claim.fence), Life(claim.order, claim.fence + 1)
    with pytest.raises(Fenced):
        await store.record(stranger.write(ROUTED))
    await store.record(life.write(ROUTED))
    assert isinstance(await outcome_of(store.record(unlawful(life))), Exception)
    assert world.announced == [first.event, *life.events]


async def test_a_caller_who_gives_up_waiting_does_not_keep_the_commit_from_being_announced(world: StoreWorld) -> None:
    store = await world.open()
    new = new_order()
    caller = asyncio.ensure_future(store.accept(new))
    await asyncio.sleep(0)
    caller.cancel()

    assert await until(lambda: store.get(ACCOUNT, new.order.order_id)) == new.order
    last = new_order()
    await store.accept(last)
    assert world.announced == [new.event, last.event]


async def test_one_order_at_a_time_has_a_client_order_id(world: StoreWorld) -> None:
    store, other = await world.open(), await world.open()
    news = [new_order(client_order_id="mine") for _ in range(20)]
    answers = await asyncio.gather(
        *((store, other)[place % 2].accept(new) for place, new in enumerate(news)), return_exceptions=True
    )
    [accepted] = [it for it in answers if isinstance(it, Accepted)]
    refused = [it for it in answers if isinstance(it, ClientOrderIdTaken)]
    assert {it.existing_order_id for it in refused} == {accepted.order.order_id}
    assert len(refused) == len(news) - 1
    # Another account may use the same name, and "Mine" is another name; one order is called "mine".
    await store.accept(new_order(client_order_id="mine", account="other"))
    await store.accept(new_order(client_order_id="Mine"))
    assert len(await store.find(OrderFilter(ACCOUNT, client_order_id="mine"), 9)) == 1


async def test_a_known_key_answers_its_order_although_the_client_order_id_is_taken(world: StoreWorld) -> None:
    store = await world.open()
    new = new_order("key", client_order_id="mine")
    await store.accept(new)
    again = await store.accept(new_order("key", client_order_id="mine"))
    assert (again.order, again.is_replay) == (new.order, True)
    with pytest.raises(ClientOrderIdTaken):
        await store.accept(new_order("another key", client_order_id="mine"))


async def test_a_client_order_id_is_free_a_day_after_the_end_of_its_order(world: StoreWorld) -> None:
    store = await world.open()
    now_ms = time.time_ns() // 1_000_000
    for ended_ago_ms, is_free in ((CLIENT_ORDER_ID_KEPT_MS + 60_000, True), (CLIENT_ORDER_ID_KEPT_MS - 60_000, False)):
        new = new_order(client_order_id="mine", at_ms=now_ms - ended_ago_ms)
        await store.accept(new)
        cancelled, event = apply(new.order, CANCELLED, EpochMs(now_ms - ended_ago_ms))
        await store.record(Write(cancelled, (event,), 1, None))
        if not is_free:
            with pytest.raises(ClientOrderIdTaken, match=new.order.order_id):
                await store.accept(new_order(client_order_id="mine"))
