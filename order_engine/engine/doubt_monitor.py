"""Counts the attempts in doubt, when a worker starts and every 5 s while it runs."""

from typing import Final

from order_engine import observe
from order_engine.counters import Counters
from order_engine.ports.clock import Clock
from order_engine.ports.store import OrderReader

_COUNT_EVERY_S: Final = 5.0
_TELL_EVERY: Final = 12  # turns
_SET_BACK_MS: Final = 2_000


class DoubtMonitor:
    """Counts the attempts without an outcome, and logs all counters about once a minute.

    Also logs that the machine's clock was set back: times in events and logs then repeat.

    Counting is enough here: an order that is `submitted` is always held or due, so a worker claims
    and proves it as soon as its lease has lapsed.
    """

    def __init__(self, reader: OrderReader, clock: Clock, role: str, counters: Counters) -> None:
        """`role`: of this process, for the log."""
        self._reader = reader
        self._clock = clock
        self._role = role
        self._counters = counters
        self._turns = 0
        self._has_counted = False
        self._latest_ms = clock.now_ms()

    async def count(self) -> float:
        """Count once; returns the pause before the next turn, in s. Raises StoreUnavailable."""
        self._watch_clock()
        self._turns += 1
        if self._turns % _TELL_EVERY == 0:
            observe.log_counters(self._counters, self._role)
        found = await self._reader.count_in_doubt()
        if not self._has_counted:
            observe.in_doubt_at_start(found.count, found.oldest_ms)
            self._has_counted = True
        observe.in_doubt_counted(self._counters, found.count, found.oldest_ms)
        return _COUNT_EVERY_S

    def _watch_clock(self) -> None:
        now_ms = self._clock.now_ms()
        if now_ms < self._latest_ms - _SET_BACK_MS:
            observe.clock_set_back(self._latest_ms - now_ms)
        self._latest_ms = now_ms
