"""Items that arrive during a flush go out together, and each caller gets its own answer."""

import asyncio
import gc
import itertools
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.batching import Batcher, GroupCommit
from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.lifecycle import CANCELLABLE, TERMINAL, apply
from order_engine.domain.order import EpochMs, Order, SignedAttempt
from order_engine.meters import Meters
from order_engine.ports.store import Write
from order_engine.store.folding import fold_writes
from tests.unit.samples import FACTS, QUICK, START_MS, S, histories, new_order, order_id_of, order_in


class Gate:
    """A flush that doubles numbers once the gate is open; each negative number gets its own error."""

    def __init__(self, *, is_open: bool = False) -> None:
        self.batches: list[list[int]] = []
        self.failure: Exception | None = None
        self._open = asyncio.Event()
        if is_open:
            self._open.set()

    def open(self) -> None:
        self._open.set()

    async def flush(self, items: Sequence[int]) -> Sequence[int | Exception]:
        self.batches.append([*items])
        await self._open.wait()
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return [ValueError(str(item)) if item < 0 else 2 * item for item in items]


async def turns(count: int = 3) -> None:
    for _ in range(count):
        await asyncio.sleep(0)


@pytest.mark.asyncio
async def test_a_lone_item_goes_at_once() -> None:
    gate = Gate()
    future = Batcher(gate.flush, 10).submit(1)
    await turns(1)
    assert gate.batches == [[1]]
    assert not future.done()
    gate.open()
    assert await future == 2


@pytest.mark.asyncio
async def test_what_is_submitted_in_one_turn_goes_out_together() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate.flush, 10)
    assert await asyncio.gather(*(batcher.submit(number) for number in range(5))) == [0, 2, 4, 6, 8]
    assert gate.batches == [[0, 1, 2, 3, 4]]


@pytest.mark.asyncio
async def test_what_arrives_during_a_flush_goes_out_together_in_the_next() -> None:
    gate = Gate()
    batcher = Batcher(gate.flush, 10)
    futures = [batcher.submit(0)]
    for number in range(1, 5):
        await turns()
        futures.append(batcher.submit(number))
    assert gate.batches == [[0]]
    gate.open()
    assert await asyncio.gather(*futures) == [0, 2, 4, 6, 8]
    assert gate.batches == [[0], [1, 2, 3, 4]]


@pytest.mark.asyncio
async def test_no_batch_is_larger_than_the_most() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate.flush, 3)
    await asyncio.gather(*(batcher.submit(number) for number in range(8)))
    assert gate.batches == [[0, 1, 2], [3, 4, 5], [6, 7]]


@pytest.mark.asyncio
async def test_the_batcher_starts_again_after_it_ran_dry() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate.flush, 3)
    for number in range(3):
        assert await batcher.submit(number) == 2 * number
        await turns()
    assert gate.batches == [[0], [1], [2]]


@pytest.mark.asyncio
async def test_one_item_s_error_is_its_own() -> None:
    batcher = Batcher(Gate(is_open=True).flush, 10)
    results = await asyncio.gather(*(batcher.submit(it) for it in (1, -1, 2)), return_exceptions=True)
    assert (results[0], results[2]) == (2, 4)
    assert isinstance(results[1], ValueError)


@pytest.mark.asyncio
async def test_a_flush_that_fails_fails_its_batch_and_not_the_next() -> None:
    gate = Gate()
    failure = gate.failure = OSError("gone")
    batcher = Batcher(gate.flush, 2)
    futures = [batcher.submit(number) for number in range(3)]
    gate.open()
    results = await asyncio.gather(*futures[:2], return_exceptions=True)
    assert results == [failure, failure]
    assert await futures[2] == 4


@pytest.mark.asyncio
@pytest.mark.parametrize("is_in_flight", [True, False])
async def test_one_waiter_s_cancellation_disturbs_no_other(is_in_flight: bool) -> None:  # noqa: FBT001
    gate = Gate()
    batcher = Batcher(gate.flush, 10)

    async def wait_for(number: int) -> int:
        return await batcher.submit(number)

    first = asyncio.create_task(wait_for(0))
    if not is_in_flight:
        await turns()
    tasks = [first, *(asyncio.create_task(wait_for(number)) for number in (1, 2, 3))]
    await turns()
    tasks[2].cancel()
    await turns()
    gate.open()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(results[2], asyncio.CancelledError)
    assert (results[0], results[1], results[3]) == (0, 2, 6)
    assert gate.batches == ([[0, 1, 2, 3]] if is_in_flight else [[0], [1, 2, 3]])


@pytest.mark.asyncio
async def test_an_error_that_nobody_waits_for_is_no_trouble() -> None:
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: complaints.append(context))
    batcher = Batcher(Gate(is_open=True).flush, 10)
    batcher.submit(-1)
    await batcher.drain()
    await turns()
    gc.collect()
    assert complaints == []
    assert await batcher.submit(1) == 2


@pytest.mark.asyncio
async def test_draining_waits_for_everything_submitted() -> None:
    gate = Gate(is_open=True)
    batcher = Batcher(gate.flush, 2)
    await batcher.drain()
    futures = [batcher.submit(number) for number in range(5)]
    await batcher.drain()
    assert all(future.done() for future in futures)


# --- folding the writes of a batch ---------------------------------------------------------------

FENCE = 7


def chain_of_writes(history: list, fence: int | None) -> list[Write]:
    """The writes of one worker in one go: they stop where the order rests."""
    writes = []
    for (before, _), (after, event) in itertools.pairwise(history):
        writes.append(Write(after, (event,), before.seq, fence))
        if after.status in TERMINAL | {S.RETRYING}:
            break
    return writes


def cancellation(read: Order) -> Write:
    """The write of a client that has read the order in this state and cancels it."""
    after, event = apply(read, FACTS[S.CANCELLED], EpochMs(START_MS))
    return Write(after, (event,), read.seq, None)


@st.composite
def batches(draw: st.DrawFn) -> list[Write]:
    """Writes of two orders: for each, those of the holder, those of a former holder, and up to one cancellation."""
    sources: list[list[Write]] = []
    for number in (1, 2):
        history = draw(histories(complete=True, number=number))
        held = chain_of_writes(history, FENCE)
        stale = chain_of_writes(history, FENCE - 1)[: draw(st.integers(0, 3))]
        read = draw(st.sampled_from([order for order, _ in history if order.status in CANCELLABLE]))
        sources += [held, stale, [cancellation(read)][: draw(st.integers(0, 1))]]
    batch = []
    while any(sources):
        batch.append(draw(st.sampled_from([source for source in sources if source])).pop(0))
    return batch


class Rows:
    """The rows of a database: it takes a write if the seq and the fence still fit."""

    def __init__(self) -> None:
        self.rows = {order_id_of(number): (1, FENCE) for number in (1, 2)}

    def takes(self, write: Write) -> bool:
        seq, fence = self.rows[write.order.order_id]
        if write.expected_seq != seq or write.fence not in (None, fence):
            return False
        self.rows[write.order.order_id] = (write.order.seq, fence + (write.fence is None))
        return True


@QUICK
@given(batches())
def test_a_folded_batch_ends_as_its_writes_would_one_by_one(batch: list[Write]) -> None:
    apart = Rows()
    expected = [apart.takes(write) for write in batch]
    folded = Rows()
    results: dict[int, bool] = {}
    for turn in fold_writes(batch):
        for write, places in turn:
            taken = folded.takes(write)
            results |= dict.fromkeys(places, taken)
    assert [results[place] for place in range(len(batch))] == expected
    assert folded.rows == apart.rows


@QUICK
@given(batches())
def test_each_turn_writes_an_order_once_and_loses_no_event(batch: list[Write]) -> None:
    folded = fold_writes(batch)
    places = [place for turn in folded for _, places in turn for place in places]
    assert sorted(places) == [*range(len(batch))]
    for turn in folded:
        ids = [write.order.order_id for write, _ in turn]
        assert len(ids) == len(set(ids))
        for write, stood_for in turn:
            assert [*write.events] == [event for place in stood_for for event in batch[place].events]
            assert write.expected_seq == batch[stood_for[0]].expected_seq
            assert write.order == batch[stood_for[-1]].order


def test_a_signed_transaction_survives_the_folding() -> None:
    building, submitted = order_in(S.BUILDING), order_in(S.SUBMITTED)
    attempt = SignedAttempt(
        1, "5igna7ure", b"raw", "owner", 1_150, ChainPoint(850, 900), 930, EpochMs(START_MS), "genesis"
    )
    confirmed = order_in(S.CONFIRMED)
    [[(write, places)]] = fold_writes(
        [
            Write(submitted, (), building.seq, FENCE, signed=attempt),
            Write(confirmed, (), submitted.seq, FENCE),
        ]
    )
    assert (write.signed, write.order, write.expected_seq, places) == (attempt, confirmed, building.seq, [0, 1])


def test_the_cancellations_of_two_clients_are_never_one_write() -> None:
    pending, routing = order_in(S.PENDING), order_in(S.ROUTING)
    rows = Rows()
    assert rows.takes(Write(routing, (), pending.seq, FENCE))
    folded = fold_writes([cancellation(pending), cancellation(routing)])
    assert [(places, rows.takes(write)) for turn in folded for write, places in turn] == [([0], False), ([1], True)]


def test_orders_that_need_another_turn_share_it() -> None:
    batch = []
    for number in (1, 2):
        pending, _ = new_order(number)
        routing, event = apply(pending, FACTS[S.ROUTING], EpochMs(START_MS))
        batch += [Write(routing, (event,), 1, FENCE), cancellation(pending)]
    assert [[places for _, places in turn] for turn in fold_writes(batch)] == [[[0], [2]], [[1], [3]]]


# --- group commit ---


class CountingStore:
    """A store whose every call is counted with its number of items; it refuses odd writes."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    async def accept_many(self, new_orders: Sequence[object]) -> Sequence[object]:
        self.calls.append(("accept", len(new_orders)))
        return [f"accepted {it}" for it in new_orders]

    async def record_many(self, writes: Sequence[int]) -> Sequence[Exception | None]:
        self.calls.append(("record", len(writes)))
        return [ValueError(str(it)) if it % 2 else None for it in writes]

    async def get_many(self, wanted: Sequence[object]) -> Sequence[object]:
        self.calls.append(("get", len(wanted)))
        return [it if account == "ours" else None for account, it in wanted]

    async def histories(self, wanted: Sequence[object]) -> Sequence[object]:
        self.calls.append(("history", len(wanted)))
        return [[after + 1] for _, after in wanted]


@pytest.mark.asyncio
async def test_requests_of_one_moment_are_one_call_each_with_its_own_answer() -> None:
    store = CountingStore()
    orders = GroupCommit(store, Meters())
    accepted = asyncio.gather(*(orders.accept(number) for number in range(3)))
    recorded = asyncio.gather(*(orders.record(number) for number in range(3)), return_exceptions=True)
    found = asyncio.gather(orders.get("ours", "a"), orders.get("other", "b"))
    read = asyncio.gather(orders.history("a", 4), orders.history("b", 0))
    assert await accepted == ["accepted 0", "accepted 1", "accepted 2"]
    assert [type(it) for it in await recorded] == [type(None), ValueError, type(None)]
    assert await found == ["a", None]
    assert await read == [[5], [1]]
    assert sorted(store.calls) == [("accept", 3), ("get", 2), ("history", 2), ("record", 3)]


@pytest.mark.asyncio
async def test_a_queued_write_is_carried_out_though_its_caller_is_gone() -> None:
    store = CountingStore()
    orders = GroupCommit(store, Meters())
    orders.record(2)
    caller = asyncio.create_task(orders.accept(1))
    await asyncio.sleep(0)
    caller.cancel()
    await orders.drain()
    assert sorted(store.calls) == [("accept", 1), ("record", 1)]
