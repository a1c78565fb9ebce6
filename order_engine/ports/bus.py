"""The fast paths between processes: the queue of ready orders, the live events and the rate windows."""

from collections.abc import Sequence
from types import TracebackType
from typing import Protocol, Self

import msgspec

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import (
    OrderId,
)


class ReadyQueue(Protocol):
    """Order ids that wait for a worker. Disposable: the sweeper finds every order whose id is lost.

    A cancelled `pop` may lose the ids that it took.
    """

    def push(self, order_ids: Sequence[OrderId]) -> None:
        """Hand over the ids soon; never blocks and never fails."""

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        """Return up to `limit` ids, waiting up to `timeout_s` for the first one."""


class Subscription(Protocol):
    """The live events of one order, or of an account. Leaving the context ends it.

    A cancelled `next` leaves the events that wait to the next call. A cancelled entry receives nothing.
    """

    async def next(self, timeout_s: float) -> Sequence[OrderEvent]:
        """Return the events that came since the last call; empty after `timeout_s` without any.

        Events can be missing or come twice; a reader that needs all of them reads the log.
        """

    def wake(self) -> None:
        """End the current wait for events, or the next one."""

    async def __aenter__(self) -> Self:
        """Begin to receive: each event published after this returns arrives, or is read from the log later."""

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Stop receiving."""


class EventBus(Protocol):
    """Carries live events between processes. Disposable: streams read lost events from the log."""

    @property
    def is_connected(self) -> bool:
        """False while events may be missed."""

    @property
    def trouble(self) -> str | None:
        """Why a part of the bus does not work, such as "READONLY You can't write ..."; None while all of it works."""

    def publish(self, events: Sequence[OrderEvent]) -> None:
        """Send committed events to every subscriber soon; never blocks and never fails."""

    def subscribe(self, account: str, order_id: OrderId | None) -> Subscription:
        """Return a subscription to the events of one order of the account, or with None to all of the account's."""


class RateVerdict(msgspec.Struct, frozen=True):
    """Whether there was room in the window, and how much room is left."""

    is_allowed: bool
    limit: int
    remaining: int
    reset_s: int


class RateLimiter(Protocol):
    """Counts the uses of a key per minute. A cancelled call may still be counted."""

    async def hit(self, key: str, per_minute: int, cost: int = 1) -> RateVerdict:
        """Count `cost` against the key if it fits in `per_minute`; a cost of 0 only looks.

        A lost server raises no error: each process then counts on its own.
        """
