"""Counts the attempts in doubt, when a worker starts and every 5 s while it runs."""

import asyncio
from typing import Final

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable
from order_engine.ports.clock import Clock
from order_engine.ports.store import OrderReader

_COUNT_EVERY_S: Final = 5.0
_TELL_EVERY: Final = 12  # counts
_SET_BACK_MS: Final = 2_000


async def monitor_doubt(reader: OrderReader, clock: Clock, role: str) -> None:
    """Count the attempts without an outcome every 5 s, and log all counters about once a minute.

    Also logs that the machine's clock was set back: times in events and logs then repeat.

    Counting is enough here: an order that is `submitted` is always held or due, so a worker claims
    and proves it as soon as its lease has lapsed.
    """
    turn = 0
    latest_ms = clock.now_ms()
    while True:
        now_ms = clock.now_ms()
        if now_ms < latest_ms - _SET_BACK_MS:
            observe.clock_set_back(latest_ms - now_ms)
        latest_ms = now_ms
        try:
            found = await reader.count_in_doubt()
            if turn == 0:
                observe.in_doubt_at_start(found.count, found.oldest_ms)
            observe.in_doubt_counted(found.count, found.oldest_ms)
        except StoreUnavailable as error:
            observe.store_unavailable("watch", error)
        except Exception as error:  # noqa: BLE001 - alarms depend on these numbers
            observe.loop_crashed("watch", error)
        turn += 1
        if turn % _TELL_EVERY == 0:
            observe.log_counters(role)
        await asyncio.sleep(_COUNT_EVERY_S)
