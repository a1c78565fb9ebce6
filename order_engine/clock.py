"""The machine's clocks: the time of day, which people can set, and one that never goes back."""

import time

from order_engine.domain.order import EpochMs


class SystemClock:
    """A Clock that tells the time of day; it can be set back and forth."""

    def now_ms(self) -> EpochMs:
        """See Clock."""
        return EpochMs(time.time_ns() // 1_000_000)


class SteadyClock:
    """A Clock that begins at the time of day and then counts elapsed time, even if the machine's clock is set."""

    def __init__(self) -> None:
        """Begin now."""
        self._began_ms = time.time_ns() // 1_000_000 - _monotonic_ms()

    def now_ms(self) -> EpochMs:
        """See Clock."""
        return EpochMs(self._began_ms + _monotonic_ms())


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
