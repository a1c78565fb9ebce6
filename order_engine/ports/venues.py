"""The venues, as the engine uses them."""

from typing import Protocol

from order_engine.domain.order import (
    Order,
    SwapRequest,
)
from order_engine.domain.routing import Quote
from order_engine.ports.chain import UnsignedTransaction


class Venue(Protocol):
    """A place where a swap can be executed. Its methods send no transaction, so cancelling them has no effect."""

    @property
    def name(self) -> str:
        """The venue's name as the API shows it, lower case."""

    async def quote(self, request: SwapRequest) -> Quote:
        """Return the amount that the venue would give now, net of its fee; raise StepFailed if it cannot."""

    async def build(self, order: Order) -> UnsignedTransaction:
        """Build the order's swap with its minimum out; raise StepFailed if it would give less now."""
