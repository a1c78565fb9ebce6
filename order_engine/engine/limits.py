"""Limits the requests of each caller per minute."""

from order_engine.domain.errors import RateLimited
from order_engine.ports.bus import RateLimiter, RateVerdict


class CallerLimit:
    """A limit on one kind of request, counted for each caller."""

    def __init__(self, limiter: RateLimiter, kind: str, per_minute: int) -> None:
        """`kind` is a plural for keys and sentences, such as quotes; `per_minute` 0 means no limit."""
        self._limiter = limiter
        self._kind = kind
        self._per_minute = per_minute

    async def count(self, account: str, client: str) -> RateVerdict | None:
        """Count the request and return the caller's window, None without a limit. Raises RateLimited."""
        if self._per_minute == 0:
            return None
        rate = await self._limiter.hit(f"{self._kind}:{account}:{client}", self._per_minute)
        if not rate.is_allowed:
            message = f"More than {rate.limit} {self._kind} in a minute; try again in {rate.reset_s} s."
            raise RateLimited(message, rate.limit, rate.reset_s)
        return rate
