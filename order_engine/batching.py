"""Group commit: what arrives while a flush is in flight goes out together in the next one."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


class Batcher(Generic[Item, Result]):
    """Collects items into batches without a timer; each caller gets its own result or error.

    The first item starts a flush at the loop's next turn, so what was submitted in one turn goes
    out together and a lone item waits for nobody.
    """

    def __init__(
        self,
        flush: Callable[[Sequence[Item]], Awaitable[Sequence[Result | Exception]]],
        most: int,
        patience_s: float | None = None,
    ) -> None:
        """`flush` gets up to `most` items and returns one result or error for each, in order.

        With `patience_s`, the next flush does not wait longer than that for the one before it; for
        items whose order does not matter.
        """
        self._flush = flush
        self._most = most
        self._patience_s = patience_s
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
                size = min(len(self._waiting), self._most)
                batch = [self._waiting.popleft() for _ in range(size)]
                if self._patience_s is None:
                    await self._flush_one(batch)
                else:
                    flush = asyncio.create_task(self._flush_one(batch))
                    self._in_flight.add(flush)
                    flush.add_done_callback(self._in_flight.discard)
                    await asyncio.wait([flush], timeout=self._patience_s)
        finally:
            self._flushing = None

    async def _flush_one(self, batch: list[tuple[Item, asyncio.Future[Result]]]) -> None:
        try:
            results = await self._flush([item for item, _ in batch])
        except asyncio.CancelledError:
            for _, future in batch:
                future.cancel()
            raise
        except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to those who wait
            results = [error] * len(batch)
        for (_, future), result in zip(batch, results, strict=True):
            if future.done():
                continue
            if isinstance(result, Exception):
                fail(future, result)
            else:
                future.set_result(result)


def fail(future: "asyncio.Future[Any]", error: Exception) -> None:
    """Set the error; nobody has to look at it for it not to be reported as forgotten."""
    future.set_exception(error)
    future.exception()
