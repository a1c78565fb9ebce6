"""The worker process: `python worker.py`."""

from typing import Any
from uuid import UUID

import uvloop
from journal import Journal
from redis.asyncio import Redis
from saq import Queue, Worker
from settings import read_settings
from venues import Venues


async def execute(context: dict[str, Any], *, order_id: str, amount_in: float, slippage_bps: int) -> None:
    """Run an order to its end; it fails if its last attempt fails."""
    try:
        await _execute(context["journal"], context["venues"], UUID(order_id), amount_in, slippage_bps)
    except Exception as error:
        job = context["job"]
        if job.attempts >= job.retries:
            await context["journal"].advance(UUID(order_id), "failed", {"error": repr(error)}, error=repr(error))
        raise


async def _execute(journal: Journal, venues: Venues, order_id: UUID, amount_in: float, slippage_bps: int) -> None:
    await journal.advance(order_id, "routing", {})
    quote = await venues.best_quote(amount_in)
    chosen = {"venue": quote.venue, "price": quote.price, "fee": quote.fee}
    await journal.advance(order_id, "building", chosen, venue=quote.venue)
    await journal.advance(order_id, "submitted", {"venue": quote.venue})
    swap = await venues.swap(quote, slippage_bps)
    told = {"txHash": swap.tx_hash, "amountOut": swap.amount_out}
    await journal.advance(order_id, "confirmed", told, tx_hash=swap.tx_hash, amount_out=swap.amount_out)


async def _started(_: dict[str, Any]) -> None:
    print("ready", flush=True)


async def main() -> None:
    """Work until SIGTERM."""
    settings = read_settings()
    queue = Queue.from_url(settings.redis_url, name=settings.queue_name)
    async with Redis.from_url(settings.redis_url) as redis:
        journal = Journal(settings, redis)
        worker = Worker(queue, [execute], concurrency=settings.concurrency, startup=_started)
        worker.context |= {"journal": journal, "venues": Venues(settings.delay_scale)}
        await worker.start()
        await journal.close()


if __name__ == "__main__":
    uvloop.run(main())
