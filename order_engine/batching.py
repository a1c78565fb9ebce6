"""Many callers, one call: items that arrive during a flush go out together in the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final, Generic, TypeVar

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import Order, OrderId
from order_engine.meters import Meters
from order_engine.ports.store import Accepted, NewOrder, Store, Write

Item = TypeVar("Item")
Result = TypeVar("Result")

_MAX_IN_A_CALL: Final = 512


class Batcher(Generic[Item, Result]):
    """Collects items into batches without a timer; each caller gets its own result or error.

    The first item starts a flush at the loop's next turn. So all items of one turn go out together,
    and a lone item does not wait for others.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        max_batch: int,
        overlap_after_s: float | None = None,
    ) -> None:
        """`flush` gets up to `max_batch` items and returns one result or error for each, in order.

        With `overlap_after_s`, the next flush starts after that time even if the one before it is not
        done. Use it only for items whose order does not matter.
        """
        self._flush = flush
        self._max_batch = max_batch
        self._overlap_after_s = overlap_after_s
        self._in_flight: set[asyncio.Task[None]] = set()
        self._waiting: deque[tuple[Item, asyncio.Future[Result]]] = deque()
        self._flushing: asyncio.Task[None] | None = None

    def submit(self, item: Item) -> asyncio.Future[Result]:
        """Queue the item now; the future is done when its batch is. Not awaiting it is fine."""
        future: asyncio.Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting.append((item, future))
        if self._flushing is None:
            self._flushing = asyncio.create_task(self._run())
        return future

    async def drain(self) -> None:
        """Return when everything submitted so far is done."""
        flushing = {*self._in_flight, *([self._flushing] if self._flushing is not None else [])}
        if flushing:
            await asyncio.wait(flushing)

    async def _run(self) -> None:
        try:
            while self._waiting:
                size = min(len(self._waiting), self._max_batch)
                batch = [self._waiting.popleft() for _ in range(size)]
                if self._overlap_after_s is None:
                    await self._flush_one(batch)
                else:
                    flush = asyncio.create_task(self._flush_one(batch))
                    self._in_flight.add(flush)
                    flush.add_done_callback(self._in_flight.discard)
                    await asyncio.wait([flush], timeout=self._overlap_after_s)
        finally:
            self._flushing = None

    async def _flush_one(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - any error belongs to the waiting callers
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                fail(future, result)
            else:
                future.set_result(result)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Set the error and mark it as seen, so that asyncio does not log it if the caller never reads it."""
    future.set_exception(error)
    future.exception()


class GroupCommit:
    """A store for callers with one order: requests of the same moment go out in one call, one commit.

    No timers: a lone request goes out at once, and requests that arrive during a call go out
    together in the next one. Errors of the store reach the caller. A caller that is cancelled stops
    waiting; its request is still carried out.
    """

    def __init__(self, store: Store, meters: Meters) -> None:
        """`store` does the work; this class only collects the requests."""
        self._store = store
        self._meters = meters
        self._accepts: Batcher[NewOrder, Accepted] = Batcher(self._accept_many, _MAX_IN_A_CALL)
        self._writes: Batcher[Write, None] = Batcher(self._record_many, _MAX_IN_A_CALL)
        self._gets: Batcher[tuple[str, OrderId], Order | None] = Batcher(store.get_many, _MAX_IN_A_CALL)
        self._histories: Batcher[tuple[OrderId, int], Sequence[OrderEvent]] = Batcher(store.histories, _MAX_IN_A_CALL)

    async def accept(self, new_order: NewOrder) -> Accepted:
        """See OrderStore.accept_many."""
        return await self._accepts.submit(new_order)

    def record(self, write: Write) -> Awaitable[None]:
        """Queue the write now, in order; the awaitable returns when it is committed."""
        return self._writes.submit(write)

    async def get(self, account: str, order_id: OrderId) -> Order | None:
        """See OrderReader.get_many."""
        return await self._gets.submit((account, order_id))

    async def history(self, order_id: OrderId, after: int) -> Sequence[OrderEvent]:
        """See EventLog.histories."""
        return await self._histories.submit((order_id, after))

    async def _accept_many(self, new_orders: Sequence[NewOrder]) -> Sequence[Accepted | Exception]:
        self._meters.batched("accept", len(new_orders))
        return await self._store.accept_many(new_orders)

    async def _record_many(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        self._meters.batched("record", len(writes))
        return await self._store.record_many(writes)

    async def drain(self) -> None:
        """Return when every queued write is done."""
        await self._accepts.drain()
        await self._writes.drain()
