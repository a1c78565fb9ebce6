"""An order's event stream: the past from the log, then live events, without gap or duplicate."""

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Final

from order_engine import observe
from order_engine.batching import GroupCommit
from order_engine.domain.errors import StoreUnavailable
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import OrderId
from order_engine.ports.bus import EventBus

# How long a stream waits for live events before it reads the log: with the bus connected, and without it.
POLL_CONNECTED_S: Final = 1.5
POLL_LOST_S: Final = 1.0


async def follow_order(
    orders: GroupCommit, bus: EventBus, account: str, order_id: OrderId, after: int
) -> AsyncGenerator[Sequence[OrderEvent], None]:
    """Yield the order's events with a seq greater than `after`, exactly once each and in order.

    Ends after the terminal event. Subscribes before it reads, so that no event is missed between
    the two; passes a live event on only when its seq is the next one, and reads the log otherwise.
    """
    async with bus.subscribe(account, order_id) as live:
        # One event before the cursor tells whether the cursor stands at the end.
        events = await _read(orders, order_id, max(after - 1, 0))
        if events and events[-1].seq <= after and events[-1].status in TERMINAL:
            return
        if not events:
            return  # Every order has a first event, so this order was deleted.
        events = [event for event in events if event.seq > after]
        seq = after
        while True:
            if events:
                seq = events[-1].seq
                yield events
                if events[-1].status in TERMINAL:
                    return
            arrived = await live.next(POLL_CONNECTED_S if bus.is_connected else POLL_LOST_S)
            events = next_in_line(arrived, seq) or await _read(orders, order_id, seq)


def next_in_line(arrived: Sequence[OrderEvent], seq: int) -> list[OrderEvent]:
    """Return the arrived events that follow seq without a gap; an empty list if one is missing."""
    following: dict[int, OrderEvent] = {event.seq: event for event in arrived if event.seq > seq}
    if not following or max(following) != seq + len(following):
        return []
    return [following[number] for number in sorted(following)]


async def _read(orders: GroupCommit, order_id: OrderId, after: int) -> Sequence[OrderEvent]:
    while True:
        try:
            return await orders.history(order_id, after)
        except StoreUnavailable as error:
            observe.store_unavailable("stream", error)
            await asyncio.sleep(POLL_LOST_S)
