"""Outages: single errors are normal, an outage that lasts is logged."""

from collections.abc import Callable
from typing import Final

_TELL_AFTER_S: Final = 5.0


class Outage:
    """Logs an outage once when it has lasted 5 s, and once when it ends."""

    def __init__(
        self, now_s: Callable[[], float], tell_lost: Callable[[Exception], None], tell_recovered: Callable[[], None]
    ) -> None:
        """`tell_lost` is called when the outage has lasted 5 s, `tell_recovered` when it ends."""
        self._now_s = now_s
        self._tell_lost = tell_lost
        self._tell_recovered = tell_recovered
        self._since_s: float | None = None
        self._is_told = False

    def note_failure(self, error: Exception) -> None:
        """The chain did not answer."""
        now_s = self._now_s()
        if self._since_s is None:
            self._since_s = now_s
        if not self._is_told and now_s - self._since_s > _TELL_AFTER_S:
            self._is_told = True
            self._tell_lost(error)

    def note_success(self) -> None:
        """The chain answered."""
        self._since_s = None
        if self._is_told:
            self._is_told = False
            self._tell_recovered()
