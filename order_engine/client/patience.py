"""How long a client repeats a call, and how long it pauses before each repetition."""

import random
import time
from typing import Final

RETRY_FOR_S: Final = 60.0
# While the engine says that a limit is reached: a sliding window frees its last place after two minutes.
LIMITED_FOR_S: Final = 130.0
# While no engine has ever answered: probably none is running, and a new user waits for the error message.
UNANSWERED_FOR_S: Final = 20.0
_TRY_S: Final = 10.0
_SHORTEST_TRY_S: Final = 1.0
_FIRST_PAUSE_S: Final = 0.1
_LONGEST_PAUSE_S: Final = 2.0
# The maximum pause that a server may ask for, other than at a limit.
_LONGEST_ASKED_S: Final = 10.0
_MAX_DOUBLINGS: Final = 10


class Patience:
    """The bound of one client, shared by all of its calls."""

    def __init__(self, retry_for_s: float | None) -> None:
        """None: the bounds above."""
        if retry_for_s is not None and not retry_for_s >= 0:
            message = "retry_for_s must be 0 or more seconds"
            raise ValueError(message)
        self._retry_for_s = retry_for_s
        self._random = random.SystemRandom()
        self.is_engine_there = False

    def bound_s(self, *, is_limited: bool) -> float:
        """Seconds for which a call is repeated."""
        if self._retry_for_s is not None:
            return self._retry_for_s
        if is_limited:
            return LIMITED_FOR_S
        return RETRY_FOR_S if self.is_engine_there else UNANSWERED_FOR_S

    def spread(self, pause_s: float) -> float:
        """Return the pause with jitter, so that many clients do not come back at the same moment."""
        return pause_s * self._random.uniform(0.5, 1.0)


class Retry:
    """The tries of one call, or of one outage of a stream."""

    def __init__(self, patience: Patience) -> None:
        """The first try begins now."""
        self._patience = patience
        self.begin_again()

    def begin_again(self) -> None:
        """Count from now on, because the engine has answered."""
        self._began_s = time.monotonic()
        self._tries = 0
        self._is_limited = False

    @property
    def left_s(self) -> float:
        """Seconds that are left for further tries."""
        return self._began_s + self._bound_s - time.monotonic()

    @property
    def _bound_s(self) -> float:
        return self._patience.bound_s(is_limited=self._is_limited)

    @property
    def try_s(self) -> float:
        """Seconds that the next try may take."""
        if self._bound_s == 0:
            return _TRY_S
        return min(_TRY_S, max(self.left_s, _SHORTEST_TRY_S))

    def pause_s(self, asked_s: float | None = None, *, is_limited: bool = False) -> float | None:
        """Return the pause before the next try, or None when it is time to give up.

        `asked_s`: the server's Retry-After. `is_limited`: the engine's rate limit refused, so an earlier try is
        useless.
        """
        self._is_limited = is_limited
        left_s = self.left_s
        own_s = self._patience.spread(min(_LONGEST_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(self._tries, _MAX_DOUBLINGS)))
        self._tries += 1
        if left_s <= 0:
            return None
        if asked_s is None:
            return min(own_s, left_s)
        if is_limited:
            return None if asked_s > left_s else asked_s + own_s
        return min(max(own_s, min(asked_s, _LONGEST_ASKED_S)), left_s)
