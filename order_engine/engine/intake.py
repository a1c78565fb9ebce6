"""Accepts orders, and cancels them for their clients."""

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from order_engine.batching import GroupCommit
from order_engine.domain.errors import (
    CancelTooLate,
    Fenced,
    IdempotencyConflict,
    OrderNotFound,
    Paused,
    RateLimited,
)
from order_engine.domain.events import OrderCancelled, OrderEvent
from order_engine.domain.lifecycle import CANCELLABLE, TERMINAL, apply, open_order
from order_engine.domain.order import Order, OrderId, OrderStatus, SwapRequest
from order_engine.engine.pauses import Pauses
from order_engine.meters import Meters
from order_engine.ports.bus import EventBus, RateLimiter, RateVerdict, ReadyQueue
from order_engine.ports.clock import Clock
from order_engine.ports.store import Accepted, Announce, IdempotencyKey, NewOrder, OrderReader, Write

_CANCEL_TRIES: Final = 20
CANCELLED: Final = OrderCancelled("Cancelled by the client.")


class Submission(msgspec.Struct, frozen=True):
    """The answer to a request: the order as it was first answered, and the caller's rate window."""

    order: Order
    is_replay: bool
    rate: RateVerdict | None


class Intake:
    """Turns validated requests into stored orders."""

    def __init__(  # noqa: PLR0913 - the ports it speaks through
        self,
        store: GroupCommit,
        reader: OrderReader,
        limiter: RateLimiter,
        clock: Clock,
        new_order_id: Callable[[], OrderId],
        max_orders_per_min: int,
        pauses: Pauses,
        meters: Meters,
    ) -> None:
        """`max_orders_per_min` is per client; 0 means no limit."""
        self._store = store
        self._reader = reader
        self._limiter = limiter
        self._clock = clock
        self._new_order_id = new_order_id
        self._max_orders_per_min = max_orders_per_min
        self._pauses = pauses
        self._meters = meters

    async def submit_order(
        self, account: str, client: str, request: SwapRequest, idempotency: IdempotencyKey | None
    ) -> Submission:
        """Store the order and return it; committed when this returns.

        The same key with the same request returns the first answer again, even over the rate limit.
        Raises IdempotencyConflict for the same key with another request, RateLimited, Paused,
        StoreUnavailable.
        """
        if (pause := self._pauses.find(account)) is not None:
            known = None if idempotency is None else await self.find_answer(account, idempotency)
            if known is None:
                raise Paused(pause.reason)
            return known
        rate = await self._count(account, client)
        if rate is not None and not rate.is_allowed:
            known = None if idempotency is None else await self.find_answer(account, idempotency)
            if known is None:
                message = f"More than {rate.limit} orders in a minute; try again in {rate.reset_s} s."
                raise RateLimited(message, rate.limit, rate.reset_s)
            return msgspec.structs.replace(known, rate=rate)
        order, event = open_order(self._new_order_id(), account, request, self._clock.now_ms())
        accepted = await self._store.accept(NewOrder(order, event, idempotency))
        if not accepted.is_replay:
            self._meters.accepted()
        return _answer(accepted, idempotency, rate)

    async def find_answer(self, account: str, idempotency: IdempotencyKey) -> Submission | None:
        """Return the first answer to this key, or None; raises IdempotencyConflict for another request's key."""
        known = await self._reader.find_by_key(account, idempotency.key)
        return None if known is None else _answer(known, idempotency, None)

    async def cancel_order(self, account: str, order_id: OrderId) -> Order:
        """Cancel the order and return it; a cancelled order is returned as it is.

        Raises OrderNotFound, CancelTooLate, StoreUnavailable.
        """
        for _ in range(_CANCEL_TRIES):
            order = await self._store.get(account, order_id)
            if order is None:
                raise OrderNotFound(order_id)
            if order.status is OrderStatus.CANCELLED:
                return order
            if order.status not in CANCELLABLE:
                raise CancelTooLate(_why_too_late(order))
            after, event = apply(order, CANCELLED, self._clock.now_ms())
            try:
                await self._store.record(Write(after, (event,), order.seq, fence=None))
            except Fenced:
                continue  # The order moved on between the read and the write: look again.
            return after
        raise CancelTooLate("The order changes too fast to be cancelled; try again.")

    async def _count(self, account: str, client: str) -> RateVerdict | None:
        if self._max_orders_per_min == 0:
            return None
        return await self._limiter.hit(f"orders:{account}:{client}", self._max_orders_per_min)


def announcer(ready: ReadyQueue, bus: EventBus) -> Announce:
    """Return the function that a store calls after each commit: it queues new orders and publishes every event."""

    def announce(events: Sequence[OrderEvent]) -> None:
        bus.publish(events)
        new = [event.order_id for event in events if event.status is OrderStatus.PENDING]
        if new:
            ready.push(new)

    return announce


def _answer(accepted: Accepted, idempotency: IdempotencyKey | None, rate: RateVerdict | None) -> Submission:
    order = accepted.order
    if not accepted.is_replay:
        return Submission(order, is_replay=False, rate=rate)
    if idempotency is not None and accepted.digest != idempotency.digest:
        message = f"This idempotency key belongs to order {order.order_id}, whose request is different."
        raise IdempotencyConflict(message)
    first, _ = open_order(order.order_id, order.account, order.request, order.created_at_ms)
    return Submission(first, is_replay=True, rate=rate)


def _why_too_late(order: Order) -> str:
    if order.status in TERMINAL:
        return f"The order is {order.status} already."
    return "The order's transaction is signed and may execute; it cannot be cancelled any more."
