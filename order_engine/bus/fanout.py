"""Delivers events to the subscriptions of this process."""

import asyncio
from collections import deque
from collections.abc import Sequence
from types import TracebackType
from typing import Final, Self

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import OrderId

# A subscription with more waiting events loses the oldest; its reader then reads them from the log.
MAX_WAITING_EVENTS: Final = 1_024


class Fanout:
    """Delivers events to the subscriptions that want them; costs nothing without subscriptions."""

    def __init__(self) -> None:
        """Start without subscriptions."""
        # Dictionaries stand for sets that keep their order: the same seed gives the same history.
        self._by_order: dict[OrderId | None, dict[FanoutSubscription, None]] = {}

    def deliver(self, events: Sequence[OrderEvent]) -> None:
        """Give each event to the subscriptions to its order, and to the subscriptions to all orders."""
        to_all = self._by_order.get(None, ())
        for event in events:
            for subscription in self._by_order.get(event.order_id, ()):
                subscription.put(event)
            for subscription in to_all:
                subscription.put(event)

    def wake_all(self) -> None:
        """Tell every subscription that events may have been missed, so that its reader looks at the log."""
        for subscriptions in self._by_order.values():
            for subscription in subscriptions:
                subscription.wake()

    def subscribe(self, order_id: OrderId | None) -> "FanoutSubscription":
        """Return a subscription to one order, or to all orders with None."""
        return FanoutSubscription(self, order_id)

    def add(self, order_id: OrderId | None, subscription: "FanoutSubscription") -> None:
        """Begin to deliver to the subscription."""
        self._by_order.setdefault(order_id, {})[subscription] = None

    async def opened(self, order_id: OrderId | None) -> None:
        """Return when events of the order arrive here; within one process they always do."""

    def remove(self, order_id: OrderId | None, subscription: "FanoutSubscription") -> None:
        """Stop delivering to it."""
        remaining = self._by_order[order_id]
        remaining.pop(subscription, None)
        if not remaining:
            del self._by_order[order_id]


class FanoutSubscription:
    """See Subscription."""

    def __init__(self, fanout: Fanout, order_id: OrderId | None) -> None:
        """Use Fanout.subscribe."""
        self._fanout = fanout
        self._order_id = order_id
        self._waiting: deque[OrderEvent] = deque(maxlen=MAX_WAITING_EVENTS)
        self._woken: asyncio.Future[None] | None = None
        self._is_woken = False

    async def __aenter__(self) -> Self:
        """See Subscription."""
        self._fanout.add(self._order_id, self)
        try:
            await self._fanout.opened(self._order_id)
        except BaseException:
            self._fanout.remove(self._order_id, self)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See Subscription."""
        self._fanout.remove(self._order_id, self)

    def put(self, event: OrderEvent) -> None:
        """Queue the event; the oldest one goes when there are too many."""
        self._waiting.append(event)
        self.wake()

    def wake(self) -> None:
        """End the current wait, or the next one."""
        self._is_woken = True
        if self._woken is not None and not self._woken.done():
            self._woken.set_result(None)

    async def next(self, timeout_s: float) -> Sequence[OrderEvent]:
        """See Subscription."""
        if not self._is_woken:
            loop = asyncio.get_running_loop()
            self._woken = loop.create_future()
            timer = loop.call_later(timeout_s, self.wake)
            try:
                await self._woken
            finally:
                timer.cancel()
                self._woken = None
        self._is_woken = False
        events = [*self._waiting]
        self._waiting.clear()
        return events
