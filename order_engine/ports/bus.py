"""What hurries: the queue of ready orders, the live feed and the rate windows."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import (
    OrderId,
)


class ReadyQueue(Protocol):
    """Order ids that wait for a worker. Disposable: what it loses, the sweeper finds."""

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """Hand over the ids soon; never blocks and never fails."""

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """Return up to `limit` ids, waiting up to `timeout_s` for the first one."""


class Subscription(Protocol):
    """The live events of one order, or of all. Leaving the context ends it."""

    async def next(self, timeout_s: float) -> Sequence[OrderEvent]:
        """Return the events that came since the last call; empty after `timeout_s` without any.

        Events can be missing or come twice; whoever needs all of them reads the log.
        """

    def wake(self) -> None:
        """End the current wait for events, or the next one."""

    async def __aenter__(self) -> Self:
        """Begin to receive; when this returns, nothing published from now on is missed for good."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop receiving."""


class EventBus(Protocol):
    """The live feed. Disposable: what it loses, the streams read from the log."""

    @property
    def is_connected(self) -> bool:
        """False while events may be passing by unseen."""

    @property
    def trouble(self) -> str | None:
        """Why the bus does not do all of its work, such as "READONLY You can't write ..."; None while it does."""

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """Send committed events to every subscriber soon; never blocks and never fails."""

    def subscribe(self, order_id: OrderId | None) -> Subscription:
        """Return a subscription to one order's events, or with None to all."""


class RateVerdict(msgspec.Struct, frozen=True):
    """Whether there was room in the window, and what is left of it."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimiter(Protocol):
    """Counts what happens per key and minute."""

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """Count `cost` against the key if it fits in `per_minute`; a cost of 0 only looks.

        Never raises for a lost server: each process then counts on its own.
        """
