"""The time, as the engine asks for it."""

from typing import Protocol

from order_engine.domain.order import (
    EpochMs,
)


class Clock(Protocol):
    """Tells the time; the event loop does the sleeping."""

    def now_ms(self) -> EpochMs:
        """Return milliseconds since 1970 UTC."""
