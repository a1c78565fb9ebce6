"""How fast we may ask a node: each refusal in a row doubles our pause, up to 10 s."""

from collections.abc import Callable
from typing import Final

_FIRST_PAUSE_S: Final = 0.25
_MAX_PAUSE_S: Final = 10.0
# After a pause, sends go 0.1 s before other requests: a late transaction can expire, a late read does no harm.
_LOOKS_LATER_S: Final = 0.1
_MAX_DIGITS: Final = 7


class Pacing:
    """The pauses of one address. Pure: it is told the time."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        """`now_s`: a monotonic clock."""
        self._now_s = now_s
        self._pause_s = 0.0
        self._rests_until_s = 0.0

    def note_limited(self, retry_after_s: float | None) -> None:
        """Start a pause: the node refused a request. `retry_after_s`: the pause that it asks for, or None."""
        now_s = self._now_s()
        if now_s < self._rests_until_s:
            return  # A pause is running: refusals of the same moment count as one.
        self._pause_s = min(max(2 * self._pause_s, _FIRST_PAUSE_S), _MAX_PAUSE_S)
        asked_s = 0.0 if retry_after_s is None else min(retry_after_s, _MAX_PAUSE_S)
        self._rests_until_s = now_s + max(self._pause_s, asked_s)

    def note_answered(self) -> None:
        """Forget the earlier refusals: the node answered."""
        self._pause_s = 0.0

    def wait_s(self, *, is_send: bool) -> float:
        """Return how long to wait before the next request; 0 while nothing limits us."""
        left_s = self._rests_until_s - self._now_s()
        if left_s <= 0:
            return 0.0
        return left_s if is_send else left_s + _LOOKS_LATER_S


def retry_after_s(header: str | None) -> float | None:
    """Return the seconds of a Retry-After header; None without one, and for a date, which needs the node's clock."""
    text = (header or "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < _MAX_DIGITS else None
