"""A stream tells an order's whole life in order, once, although the bus loses, repeats or mixes up events."""

import asyncio
import contextlib
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from order_engine.bus.memory import MemoryEventBus
from order_engine.domain.errors import StoreUnavailable
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import apply
from order_engine.domain.order import EpochMs, OrderId, OrderStatus
from order_engine.engine import order_stream
from order_engine.engine.order_stream import follow_order, next_in_line
from tests.unit.samples import FACTS, QUICK, START_MS, S, histories, new_order, order_id_of

ID = order_id_of(1)
lives = histories(complete=True).map(lambda history: [event for _, event in history])


@pytest.fixture(scope="module", autouse=True)
def _short_waits() -> Iterator[None]:
    """Read events that the bus lost from the log at once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(order_stream, "POLL_CONNECTED_S", 0.001)
        patch.setattr(order_stream, "POLL_LOST_S", 0.001)
        yield


class Log:
    """An order's history for a stream: the events that are committed so far; the first `outages` reads fail."""

    def __init__(self, committed: Sequence[OrderEvent], outages: int = 0) -> None:
        self.committed = [*committed]
        self.outages = outages
        self.reads: list[int] = []

    async def history(self, order_id: OrderId, after: int) -> list[OrderEvent]:
        self.reads.append(after)
        if self.outages:
            self.outages -= 1
            raise StoreUnavailable("down")
        found = [event for event in self.committed if event.order_id == order_id and event.seq > after]
        await asyncio.sleep(0)  # Other tasks run while the answer is on its way.
        return found


async def follow(log: Log, bus: MemoryEventBus, after: int = 0) -> list[OrderEvent]:
    seen: list[OrderEvent] = []
    async with asyncio.timeout(5), contextlib.aclosing(follow_order(log, bus, "default", ID, after)) as batches:
        async for batch in batches:
            assert batch
            seen += batch
    return seen


def life_of(*statuses: OrderStatus) -> list[OrderEvent]:
    order, event = new_order()
    life = [event]
    for status in statuses:
        order, event = apply(order, FACTS[status], EpochMs(START_MS))
        life.append(event)
    return life


def of_another_order(event: OrderEvent) -> OrderEvent:
    return replace(event, order_id=order_id_of(2))


SHORT_LIFE = life_of(S.ROUTING, S.BUILDING, S.SUBMITTED, S.CONFIRMED)


# --- the next events -----------------------------------------------------------------------------


@QUICK
@given(lives, st.data())
def test_what_follows_without_a_gap_is_passed_on_whole_and_in_order(
    life: list[OrderEvent], data: st.DataObject
) -> None:
    seq = data.draw(st.integers(0, len(life)))
    until = data.draw(st.integers(seq, len(life)))
    stale = data.draw(st.lists(st.sampled_from(life[:seq] or life[:1]), max_size=3)) if seq else []
    twice = data.draw(st.lists(st.sampled_from(life[seq:until]), max_size=3)) if seq < until else []
    arrived = data.draw(st.permutations([*life[seq:until], *stale, *twice]))
    assert next_in_line(arrived, seq) == life[seq:until]


@QUICK
@given(lives, st.data())
def test_nothing_is_passed_on_over_a_gap(life: list[OrderEvent], data: st.DataObject) -> None:
    arrived = data.draw(st.lists(st.sampled_from(life), max_size=12))
    seq = data.draw(st.integers(0, len(life)))
    passed = next_in_line(arrived, seq)
    wanted = sorted({event.seq for event in arrived if event.seq > seq})
    has_gap = wanted != [*range(seq + 1, seq + 1 + len(wanted))]
    assert [event.seq for event in passed] == ([] if has_gap else wanted)


# --- the stream ----------------------------------------------------------------------------------


@st.composite
def feeds(draw: st.DrawFn) -> tuple[list[OrderEvent], int, int, list[tuple[list[OrderEvent], int]], int]:
    """A life, the number of past events, a cursor among them, the events published after each commit, outages."""
    life = draw(lives)
    past = draw(st.integers(1, len(life)))
    after = draw(st.integers(0, past))
    published = [
        (draw(st.lists(st.sampled_from(life[: seq + 1]), max_size=3)), draw(st.integers(0, 3)))
        for seq in range(past, len(life))
    ]
    return life, past, after, published, draw(st.integers(0, 3))


@QUICK
@given(feeds())
def test_lost_repeated_and_mixed_up_events_make_no_gap_and_no_duplicate(feed: tuple) -> None:
    life, past, after, published, outages = feed

    async def run() -> list[OrderEvent]:
        log, bus = Log(life[:past], outages), MemoryEventBus()
        following = asyncio.create_task(follow(log, bus, after))
        for event, (told, turns) in zip(life[past:], published, strict=True):
            for _ in range(turns):
                await asyncio.sleep(0)
            log.committed.append(event)
            bus.publish(told)
        return await following

    assert asyncio.run(run()) == life[after:]


@QUICK
@given(lives)
def test_every_cursor_gets_what_follows_it_and_the_last_ends_at_once(life: list[OrderEvent]) -> None:
    async def run() -> None:
        for after in range(len(life) + 1):
            log = Log(life)
            assert await follow(log, MemoryEventBus(), after) == life[after:]
            assert len(log.reads) == 1

    asyncio.run(run())


@pytest.mark.asyncio
async def test_what_happens_between_the_first_read_and_its_answer_comes_live(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_stream, "POLL_CONNECTED_S", 3_600)
    life, bus = SHORT_LIFE, MemoryEventBus()
    log = Log(life[:2])
    following = asyncio.create_task(follow(log, bus))
    while not log.reads:
        await asyncio.sleep(0)
    log.committed += life[2:]
    bus.publish(life[2:])
    assert await following == life
    assert log.reads == [0]


@pytest.mark.asyncio
async def test_a_live_event_over_a_gap_is_read_from_the_log_with_what_was_lost(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(order_stream, "POLL_CONNECTED_S", 3_600)
    life, bus = SHORT_LIFE, MemoryEventBus()
    log = Log(life[:1])
    async with asyncio.timeout(5), contextlib.aclosing(follow_order(log, bus, "default", ID, 0)) as batches:
        assert await anext(batches) == life[:1]
        log.committed += life[1:3]
        bus.publish(life[2:3])
        assert await anext(batches) == life[1:3]
        assert log.reads == [0, 1]


@pytest.mark.asyncio
async def test_another_order_s_events_are_not_passed_on() -> None:
    life, bus = SHORT_LIFE, MemoryEventBus()
    log = Log(life[:1])
    following = asyncio.create_task(follow(log, bus))
    while not log.reads:
        await asyncio.sleep(0)
    bus.publish([of_another_order(event) for event in life])
    log.committed += [of_another_order(event) for event in life]
    await asyncio.sleep(0)
    assert not following.done()
    log.committed += life[1:]
    assert await following == life


@pytest.mark.asyncio
async def test_a_lost_feed_is_made_up_for_by_reading() -> None:
    life, bus = SHORT_LIFE, MemoryEventBus()
    bus.is_connected = False
    log = Log(life[:1])
    following = asyncio.create_task(follow(log, bus))
    for event in life[1:]:
        await asyncio.sleep(0)
        log.committed.append(event)
    assert await following == life


@pytest.mark.asyncio
async def test_a_store_that_does_not_answer_delays_the_stream_and_ends_nothing() -> None:
    log = Log(SHORT_LIFE, outages=20)
    assert await follow(log, MemoryEventBus()) == SHORT_LIFE
    assert log.reads == [0] * 21


@pytest.mark.asyncio
async def test_a_stream_that_ended_or_was_left_listens_no_more() -> None:
    bus = MemoryEventBus()
    await follow(Log(SHORT_LIFE), bus)
    async with contextlib.aclosing(follow_order(Log(SHORT_LIFE[:1]), bus, "default", ID, 0)) as batches:
        await anext(batches)
        assert ("default", ID) in bus._fanout._by_topic
    assert not bus._fanout._by_topic
