"""Counts what is in doubt, when a worker starts and as long as it runs."""

import asyncio
from typing import Final

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable
from order_engine.ports.store import OrderReader

_COUNT_EVERY_S: Final = 5.0
_TELL_EVERY: Final = 12  # counts


async def watch_in_doubt(reader: OrderReader, role: str) -> None:
    """Keep the numbers of attempts without an outcome, and tell all numbers now and then.

    Nobody has to be told to prove them: an order that is `submitted` is always held or due, so
    each is claimed and proven as soon as its lease has lapsed.
    """
    turn = 0
    while True:
        try:
            found = await reader.count_in_doubt()
            if turn == 0:
                observe.in_doubt_at_start(found.count, found.oldest_ms)
            observe.in_doubt_counted(found.count, found.oldest_ms)
        except StoreUnavailable as error:
            observe.store_unavailable("watch", error)
        except Exception as error:  # noqa: BLE001 - whoever is to be alarmed depends on these numbers
            observe.loop_crashed("watch", error)
        turn += 1
        if turn % _TELL_EVERY == 0:
            observe.tell_numbers(role)
        await asyncio.sleep(_COUNT_EVERY_S)
