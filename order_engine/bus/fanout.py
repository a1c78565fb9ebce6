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


# An order of an account, or None for all of the account's orders.
Topic = tuple[str, OrderId | None]


class Fanout:
    """Delivers events to the subscriptions that want them; costs nothing without subscriptions."""

    def __init__(self) -> None:
        """Start without subscriptions."""
        # Dictionaries stand for sets that keep their order: the same seed gives the same history.
        self._by_topic: dict[Topic, dict[FanoutSubscription, None]] = {}

    def deliver(self, events: Sequence[OrderEvent]) -> None:
        """Give each event to the subscriptions to its order, and to those to its account."""
        for event in events:
            for subscription in self._by_topic.get((event.account, event.order_id), ()):
                subscription.put(event)
            for subscription in self._by_topic.get((event.account, None), ()):
                subscription.put(event)

    def wake_all(self) -> None:
        """Tell every subscription that events may have been missed, so that its reader looks at the log."""
        for subscriptions in self._by_topic.values():
            for subscription in subscriptions:
                subscription.wake()

    def subscribe(self, account: str, order_id: OrderId | None) -> "FanoutSubscription":
        """See EventBus."""
        return FanoutSubscription(self, (account, order_id))

    def add(self, topic: Topic, subscription: "FanoutSubscription") -> None:
        """Begin to deliver to the subscription."""
        self._by_topic.setdefault(topic, {})[subscription] = None

    async def opened(self, topic: Topic) -> None:
        """Return when events of the topic arrive here; within one process they always do."""

    def remove(self, topic: Topic, subscription: "FanoutSubscription") -> None:
        """Stop delivering to it."""
        remaining = self._by_topic[topic]
        remaining.pop(subscription, None)
        if not remaining:
            del self._by_topic[topic]


class FanoutSubscription:
    """See Subscription."""

    def __init__(self, fanout: Fanout, topic: Topic) -> None:
        """Use Fanout.subscribe."""
        self._fanout = fanout
        self._topic = topic
        self._waiting: deque[OrderEvent] = deque(maxlen=MAX_WAITING_EVENTS)
        self._woken: asyncio.Future[None] | None = None
        self._is_woken = False

    async def __aenter__(self) -> Self:
        """See Subscription."""
        self._fanout.add(self._topic, self)
        try:
            await self._fanout.opened(self._topic)
        except BaseException:
            self._fanout.remove(self._topic, self)
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """See Subscription."""
        self._fanout.remove(self._topic, self)

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
