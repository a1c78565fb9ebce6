"""A venue whose quotes are measured."""

from collections.abc import Callable

from order_engine.domain.errors import StepFailed
from order_engine.domain.order import Order, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.meters import Meters
from order_engine.ports.chain import UnsignedTransaction
from order_engine.ports.venues import Venue


class MeasuredVenue:
    """A Venue around another one."""

    def __init__(self, venue: Venue, meters: Meters, now_s: Callable[[], float]) -> None:
        """`now_s`: a monotonic clock."""
        self._venue = venue
        self._meters = meters
        self._now_s = now_s

    @property
    def name(self) -> str:
        """See Venue."""
        return self._venue.name

    async def quote(self, request: SwapRequest) -> Quote:
        """See Venue."""
        begun_s = self._now_s()
        reason: str | None = "cancelled"
        try:
            quote = await self._venue.quote(request)
            reason = None
        except StepFailed as error:
            reason = error.reason.value
            raise
        finally:
            self._meters.quoted(self.name, self._now_s() - begun_s, reason)
        return quote

    async def build(self, order: Order) -> UnsignedTransaction:
        """See Venue."""
        return await self._venue.build(order)
