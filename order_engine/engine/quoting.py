"""Asks every venue at once, under one deadline."""

import asyncio
from collections.abc import Iterable

from order_engine import observe
from order_engine.domain.errors import QuoteTimedOut, StepFailed, VenueFailed
from order_engine.domain.order import SwapRequest
from order_engine.domain.routing import Quote, QuoteFailure
from order_engine.ports.venues import Venue


async def ask_venues(venues: Iterable[Venue], request: SwapRequest, timeout_s: float) -> list[Quote | QuoteFailure]:
    """Return every venue's answer; a venue that is slow, broken or buggy loses only its own quote."""
    asking = [(venue.name, asyncio.create_task(_quote(venue, request))) for venue in venues]
    tasks = [task for _, task in asking]
    try:
        await asyncio.wait(tasks, timeout=timeout_s)
        return [task.result() if task.done() else _too_late(name, timeout_s) for name, task in asking]
    finally:
        for task in tasks:
            task.cancel()


async def ask_venue(venue: Venue, request: SwapRequest, timeout_s: float) -> Quote | QuoteFailure:
    """Return the venue's quote, or why there is none."""
    (answer,) = await ask_venues([venue], request, timeout_s)
    return answer


async def _quote(venue: Venue, request: SwapRequest) -> Quote | QuoteFailure:
    try:
        return await venue.quote(request)
    except StepFailed as error:
        return QuoteFailure(venue.name, error)
    except TimeoutError as error:
        return QuoteFailure(venue.name, QuoteTimedOut(f"gave up: {error}" if str(error) else "gave up waiting"))
    except Exception as error:  # noqa: BLE001 - an adapter's bug
        observe.venue_crashed(venue.name, error)
        return QuoteFailure(venue.name, VenueFailed(f"unexpected {type(error).__name__}"))


def _too_late(name: str, timeout_s: float) -> QuoteFailure:
    return QuoteFailure(name, QuoteTimedOut(f"no quote within {timeout_s:g} s"))
