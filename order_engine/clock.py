"""The machine's clocks: the one that people set, and one that nobody sets back."""

import time

from order_engine.domain.order import EpochMs


class SystemClock:
    """A Clock that tells the time of day; it can be set back and forth."""

    def now_ms(self) -> EpochMs:
        """See Clock."""
        return EpochMs(time.time_ns() // 1_000_000)


class SteadyClock:
    """A Clock that begins at a time of day, and from then on counts what passes, whoever sets the machine's clock."""

    def __init__(self) -> None:
        """Begin now."""
        self._began_ms = time.time_ns() // 1_000_000 - _monotonic_ms()

    def now_ms(self) -> EpochMs:
        """See Clock."""
        return EpochMs(self._began_ms + _monotonic_ms())


def _monotonic_ms() -> int:
    return time.monotonic_ns() // 1_000_000
