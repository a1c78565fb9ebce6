"""OrderStore, the history: the writes that record takes, and the writes that it refuses."""

import asyncio
from collections.abc import Awaitable, Callable

import msgspec
import pytest

from order_engine.domain.errors import Fenced
from order_engine.domain.events import Fact
from order_engine.domain.order import AttemptOutcome, OrderStatus
from order_engine.ports.store import Claim, ProvenOutcome, Write
from tests.contracts.orders import (
    ACCOUNT,
    BUILT,
    CANCELLED,
    CONFIRMED,
    EVIDENCE,
    FAILED,
    LONG_MS,
    ROUTED,
    Life,
    SingleStore,
    attempt_of,
    claim_new,
    kept,
    outcome_of,
    pause,
    sign_new,
    signed,
    unlawful,
)
from tests.contracts.worlds import StoreWorld

pytestmark = pytest.mark.asyncio

LANDED, EXPIRED = AttemptOutcome.LANDED, AttemptOutcome.EXPIRED


def copy_of(life: Life, fence: int | None) -> Life:
    """The same order in the hands of another process."""
    return Life(life.order, fence)


async def test_a_whole_life_is_kept_event_by_event(world: StoreWorld) -> None:
    store = await world.open()
    life = await sign_new(store)
    await store.record(life.settle(pause(0), EXPIRED))
    (claim,) = await store.claim("another", [life.order.order_id], LONG_MS)
    second = Life(claim.order, claim.fence)
    for write in (
        second.write(ROUTED),
        second.write(BUILT),
        second.sign(),
        second.settle(CONFIRMED, LANDED),
    ):
        await store.record(write)

    order, history, attempts = await kept(store, life.order.order_id)
    assert order == second.order
    assert history == world.announced
    assert [event.seq for event in world.announced] == [*range(1, 10)]
    assert history[1:] == [*life.events, *second.events]
    assert [(it.attempt_number, it.outcome, it.evidence) for it in attempts] == [
        (1, EXPIRED, EVIDENCE),
        (2, LANDED, EVIDENCE),
    ]
    assert second.order.status is OrderStatus.CONFIRMED
    assert second.order.amount_out == CONFIRMED.amount_out


async def test_unawaited_writes_of_one_turn_are_all_kept_in_their_order(world: StoreWorld) -> None:
    store = await world.open()
    lives = [await claim_new(store) for _ in range(20)]
    waiting: list[Awaitable[None]] = []
    for life in lives:
        waiting += [store.record(life.write(ROUTED))]
    for life in lives:
        waiting += [store.record(life.write(BUILT)), store.record(life.sign())]
    await asyncio.gather(*waiting[-2:])
    await asyncio.gather(*waiting)

    for life in lives:
        order, history, attempts = await kept(store, life.order.order_id)
        assert order == life.order
        assert history[1:] == life.events
        assert attempts == [attempt_of(life.order)]
        assert [it for it in world.announced if it.order_id == life.order.order_id] == history


async def test_awaiting_the_last_write_is_enough(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    store.record(life.write(ROUTED))
    store.record(life.write(BUILT))
    await store.record(life.sign())
    assert world.committed(life.order.order_id) == 4


async def test_signing_and_proving_in_one_turn_keeps_both(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    writes = [life.write(ROUTED), life.write(BUILT), life.sign(), life.settle(CONFIRMED, LANDED)]
    await asyncio.gather(*(store.record(write) for write in writes))

    (attempt,) = await store.attempts(life.order.order_id)
    assert attempt.outcome is LANDED
    assert await store.get(ACCOUNT, life.order.order_id) == life.order


# --- fences ---


async def lost_lease(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store, lease_ms=1)
    await world.pass_ms(2)
    assert len(await store.claim_due("another", 10, LONG_MS)) == 1
    return life


async def newer_fence(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store)
    return copy_of(life, life.fence + 1)


async def no_claim(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store)
    return copy_of(life, 0)


async def older_seq(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store)
    stale = copy_of(life, life.fence)
    await store.record(life.write(ROUTED))
    return stale


async def newer_seq(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store)
    life.write(ROUTED)
    return life


async def released(world: StoreWorld, store: SingleStore) -> Life:
    life = await claim_new(store)
    await store.release("worker", {life.order.order_id: life.fence})
    return life


@pytest.mark.parametrize("prepare", [lost_lease, newer_fence, no_claim, older_seq, newer_seq, released])
async def test_whoever_has_not_both_fence_and_seq_is_fenced_and_writes_nothing(
    world: StoreWorld, prepare: Callable[[StoreWorld, SingleStore], Awaitable[Life]]
) -> None:
    store = await world.open()
    life = await prepare(world, store)
    before, announced = await kept(store, life.order.order_id), [*world.announced]
    attempt = msgspec.structs.replace(attempt_of(life.order), attempt_number=1)
    fact = BUILT if life.order.status is OrderStatus.ROUTING else ROUTED
    refused = msgspec.structs.replace(life.write(fact), signed=attempt)

    with pytest.raises(Fenced):
        await store.record(refused)
    assert await kept(store, life.order.order_id) == before
    assert world.announced == announced


async def test_a_fenced_proof_changes_no_attempt(world: StoreWorld) -> None:
    store = await world.open()
    life = await sign_new(store)
    before = await kept(store, life.order.order_id)
    with pytest.raises(Fenced):
        await store.record(copy_of(life, life.fence + 1).settle(CONFIRMED, LANDED))
    assert await kept(store, life.order.order_id) == before


async def test_a_late_write_changes_nothing_for_the_worker_that_took_over(world: StoreWorld) -> None:
    store = await world.open()
    late = await claim_new(store, lease_ms=1)
    await world.pass_ms(2)
    (claim,) = await store.claim_due("another", 10, LONG_MS)
    life = Life(claim.order, claim.fence)
    outcomes = await asyncio.gather(
        outcome_of(store.record(late.write(ROUTED))), outcome_of(store.record(life.write(ROUTED)))
    )
    assert isinstance(outcomes[0], Fenced)
    assert outcomes[1] is None
    assert (await kept(store, life.order.order_id))[0] == life.order


async def test_a_cancellation_takes_the_order_from_its_worker(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    client = copy_of(life, None)
    await store.record(client.write(CANCELLED))

    with pytest.raises(Fenced):
        await store.record(life.write(ROUTED))
    assert await store.renew("worker", {life.order.order_id: life.fence}, LONG_MS) == set()
    assert await kept(store, life.order.order_id) == (client.order, [world.announced[0], *client.events], [])


@pytest.mark.parametrize("is_client_first", [True, False])
async def test_of_a_cancellation_and_a_write_in_one_turn_the_first_one_wins(
    world: StoreWorld, *, is_client_first: bool
) -> None:
    store = await world.open()
    worker = await claim_new(store)
    client = copy_of(worker, None)
    writes = [client.write(CANCELLED), worker.write(ROUTED)]
    if not is_client_first:
        writes.reverse()
    first, second = await asyncio.gather(*(outcome_of(store.record(write)) for write in writes))

    assert first is None
    assert isinstance(second, Fenced)
    assert (await kept(store, worker.order.order_id))[0] == writes[0].order


async def test_a_worker_that_goes_on_in_the_turn_of_a_cancellation_writes_all_or_nothing(world: StoreWorld) -> None:
    store = await world.open()
    worker = await claim_new(store)
    client = copy_of(worker, None)
    writes = [worker.write(ROUTED), client.write(CANCELLED), worker.write(BUILT), worker.sign()]
    outcomes = await asyncio.gather(*(outcome_of(store.record(write)) for write in writes))

    assert [outcomes[at] for at in (0, 2, 3)] == [None, None, None]
    assert isinstance(outcomes[1], Fenced)
    assert (await kept(store, worker.order.order_id))[1][1:] == worker.events


# --- rest ---


async def test_an_order_that_waits_for_its_next_attempt_is_free_and_due_after_the_pause(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    await store.record(life.write(ROUTED))
    await store.record(life.write(pause(30)))
    assert await store.renew("worker", {life.order.order_id: life.fence}, LONG_MS) == set()
    await world.pass_ms(31)
    assert await store.claim_due("another", 10, LONG_MS) == [Claim(life.order, fence=2, claims=1)]


@pytest.mark.parametrize("is_one_turn", [True, False])
async def test_whoever_let_an_order_rest_must_claim_it_again_to_go_on(world: StoreWorld, *, is_one_turn: bool) -> None:
    store = await world.open()
    life = await claim_new(store)
    await store.record(life.write(ROUTED))
    rest = store.record(life.write(pause(LONG_MS)))
    at_rest = life.order
    if not is_one_turn:
        await rest
    assert isinstance(await outcome_of(store.record(life.write(ROUTED))), Fenced)
    await rest
    assert await store.get(ACCOUNT, life.order.order_id) == at_rest


@pytest.mark.parametrize("fact", [FAILED, CANCELLED], ids=["failed", "cancelled"])
async def test_after_the_end_nothing_is_written(world: StoreWorld, fact: object) -> None:
    store = await world.open(grace_ms=0)
    life = await claim_new(store, lease_ms=1)
    stale = copy_of(life, life.fence)
    await store.record(life.write(fact))
    before = await kept(store, life.order.order_id)
    await world.pass_ms(2)

    assert await store.claim_due("another", 10, LONG_MS) == []
    assert isinstance(await outcome_of(store.record(stale.write(ROUTED))), Fenced)
    assert isinstance(await outcome_of(store.record(unlawful(copy_of(life, None)))), Exception)
    assert await kept(store, life.order.order_id) == before


# --- writes that no database may take ---


def too_long(life: Life) -> Write:
    """A write whose attempt number is too large for its column."""
    write = life.write(ROUTED)
    return msgspec.structs.replace(write, order=msgspec.structs.replace(write.order, attempt_number=2**70))


@pytest.mark.parametrize("make_bad", [unlawful, too_long])
async def test_a_bad_write_fails_alone(world: StoreWorld, make_bad: Callable[[Life], Write]) -> None:
    store = await world.open()
    lives = [await claim_new(store) for _ in range(9)]
    bad = lives.pop(4)
    before = await kept(store, bad.order.order_id)
    writes = [life.write(ROUTED) for life in lives]
    writes.insert(4, make_bad(bad))
    outcomes = await asyncio.gather(*(outcome_of(store.record(write)) for write in writes))

    assert isinstance(outcomes[4], Exception)
    assert not isinstance(outcomes[4], Fenced)
    assert await kept(store, bad.order.order_id) == before
    assert [outcomes[at] for at in range(9) if at != 4] == [None] * 8
    assert [await store.get(ACCOUNT, life.order.order_id) for life in lives] == [life.order for life in lives]


async def test_a_bad_write_takes_no_earlier_one_of_its_order_along(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    good = store.record(life.write(ROUTED))
    bad = store.record(unlawful(life))
    outcomes = [await outcome_of(good), await outcome_of(bad)]

    assert outcomes[0] is None
    assert isinstance(outcomes[1], Exception)
    assert (await kept(store, life.order.order_id))[1][1:] == life.events


@pytest.mark.parametrize(
    ("fact", "outcome"),
    [(CONFIRMED, LANDED), (FAILED, EXPIRED), (pause(0), EXPIRED)],
    ids=["landed", "failed", "rests"],
)
@pytest.mark.parametrize("proven_attempt", [None, 0, 2, 7])
async def test_an_order_whose_attempt_is_live_goes_nowhere_without_its_proof(
    world: StoreWorld, fact: Fact, outcome: AttemptOutcome, proven_attempt: int | None
) -> None:
    """A write with a proof of an attempt that does not exist is refused; the store does not just drop the proof."""
    store = await world.open()
    life = await sign_new(store)
    before, announced = await kept(store, life.order.order_id), [*world.announced]
    proven = None if proven_attempt is None else ProvenOutcome(proven_attempt, outcome, EVIDENCE)
    refused = await outcome_of(store.record(copy_of(life, life.fence).write(fact, proven=proven)))

    assert isinstance(refused, Exception)
    assert not isinstance(refused, Fenced)
    assert await kept(store, life.order.order_id) == before
    assert world.announced == announced
    await store.record(life.settle(fact, outcome))


@pytest.mark.parametrize("outcome", AttemptOutcome)
async def test_an_order_ends_as_its_attempt_did(world: StoreWorld, outcome: AttemptOutcome) -> None:
    store = await world.open()
    life = await sign_new(store)
    wrong = FAILED if outcome is LANDED else CONFIRMED
    refused = await outcome_of(store.record(copy_of(life, life.fence).settle(wrong, outcome)))
    assert isinstance(refused, Exception)
    assert not isinstance(refused, Fenced)
    await store.record(life.settle(CONFIRMED if outcome is LANDED else FAILED, outcome))


async def test_an_order_is_not_submitted_without_its_attempt(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    for fact in (ROUTED, BUILT):
        await store.record(life.write(fact))
    attempt = attempt_of(life.order)
    other = msgspec.structs.replace(attempt, signature="other")
    for wrong in (None, other, msgspec.structs.replace(attempt, attempt_number=2)):
        write = copy_of(life, life.fence).write(signed(attempt), signed=wrong)
        assert isinstance(await outcome_of(store.record(write)), Exception)
    await store.record(life.sign())
