"""How fast a node may be asked: a node that limits us says when to come back, and pauses grow while it does."""

from collections.abc import Callable
from typing import Final

_FIRST_PAUSE_S: Final = 0.25
_MAX_PAUSE_S: Final = 10.0
# After a pause the sends go first: a transaction that is late expires, a look that is late is only late.
_LOOKS_LATER_S: Final = 0.1
_MAX_DIGITS: Final = 7


class Pacing:
    """The pauses of one address. Pure: it is told the time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s`: a clock that nobody sets back."""
        self._now_s = now_s
        self._pause_s = 0.0
        self._rests_until_s = 0.0

    def note_limited(self, retry_after_s: float | None) -> None:
        """The node refused because it is asked too often; `retry_after_s`: when to come back, if it says."""
        now_s = self._now_s()
        if now_s < self._rests_until_s:
            return  # Another request of the same moment was refused too: one pause, not two.
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _MAX_PAUSE_S)
        asked_s = 0.0 if retry_after_s is None else min(retry_after_s, _MAX_PAUSE_S)
        self._rests_until_s = now_s + max(self._pause_s, asked_s)

    def note_answered(self) -> None:
        """The node answered."""
        self._pause_s = 0.0

    def wait_s(self, *, is_send: bool) -> float:
        """Return how long to wait before the next request; 0 while nothing limits us."""
        left_s = self._rests_until_s - self._now_s()
        if left_s <= 0:
            return 0.0
        return left_s if is_send else left_s + _LOOKS_LATER_S


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None for none, and for a date, which needs the node's clock."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS else None
