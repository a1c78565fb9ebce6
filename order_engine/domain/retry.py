"""The consequence of a failed step: another attempt after a backoff, or the end of the order."""

from typing import Final

import msgspec

from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import AttemptFailed, OrderFailed

_MAX_DOUBLINGS: Final = 32


class RetryPolicy(msgspec.Struct, frozen=True):
    """How often and how fast to try again. Times in milliseconds, `jitter_percent` in 0..100."""

    max_attempts: int = 3
    backoff_ms: int = 1_000
    backoff_max_ms: int = 30_000
    jitter_percent: int = 20

    def backoff(self, attempt: int, randomness: float) -> int:
        """Return the pause after a failed attempt: doubling each time, spread by the jitter.

        `attempt` counts from 1; `randomness` is a number in [0, 1).
        """
        doublings = min(attempt - 1, _MAX_DOUBLINGS)
        pause = min(self.backoff_ms * (1 << doublings), self.backoff_max_ms)
        spread = pause * self.jitter_percent // 100
        return min(pause - spread + int(2 * spread * randomness), self.backoff_max_ms)


def after_failure(
    policy: RetryPolicy,
    attempt: int,
    code: ReasonCode,
    message: str,
    *,
    is_retryable: bool,
    randomness: float,
) -> AttemptFailed | OrderFailed:
    """Return the fact that follows a failed attempt (counted from 1); its message always tells the cause."""
    if not is_retryable:
        return OrderFailed(code, message)
    if attempt >= policy.max_attempts:
        return OrderFailed(code, f"{message} (attempt {attempt} of {policy.max_attempts}, the last)")
    told = f"{message} (attempt {attempt} of {policy.max_attempts})"
    return AttemptFailed(code, told, policy.backoff(attempt, randomness))
