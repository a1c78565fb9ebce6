"""Asking every venue at once, under one deadline."""

import asyncio
from collections.abc import Iterable

from order_engine import observe
from order_engine.domain.errors import QuoteTimedOut, StepFailed, VenueFailed
from order_engine.domain.order import SwapRequest
from order_engine.domain.routing import Quote, QuoteFailure
from order_engine.ports import Venue


async def ask_venues(venues: Iterable[Venue], request: SwapRequest, timeout_s: float) -> list[Quote | QuoteFailure]:
    """Return every venue's answer; one that is slow, broken or buggy costs its own quote only."""
    return await asyncio.gather(*(ask_venue(venue, request, timeout_s) for venue in venues))


async def ask_venue(venue: Venue, request: SwapRequest, timeout_s: float) -> Quote | QuoteFailure:
    """Return the venue's quote, or why there is none."""
    try:
        async with asyncio.timeout(timeout_s):
            return await venue.quote(request)
    except TimeoutError:
        return QuoteFailure(venue.name, QuoteTimedOut(f"no quote within {timeout_s:g} s"))
    except StepFailed as error:
        return QuoteFailure(venue.name, error)
    except Exception as error:  # noqa: BLE001 - an adapter's bug
        observe.venue_crashed(venue.name, error)
        return QuoteFailure(venue.name, VenueFailed(f"unexpected {type(error).__name__}"))
