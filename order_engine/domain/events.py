"""The facts that can happen to an order, in the past tense, and the event that records each."""

from typing import Any, ClassVar

import msgspec

from order_engine.domain.errors import ReasonCode
from order_engine.domain.money import BaseUnits
from order_engine.domain.order import EpochMs, OrderId, OrderStatus
from order_engine.domain.routing import Route


class OrderEvent(msgspec.Struct, frozen=True):
    """One line of an order's history: seq 1..n without a gap, written once and never changed.

    `data` is a JSON object, already encoded: it is encoded once and sent many times.
    """

    order_id: OrderId
    account: str
    seq: int
    status: OrderStatus
    attempt_number: int
    at_ms: EpochMs
    elapsed_ms: int
    data: msgspec.Raw

    def details(self) -> dict[str, Any]:
        """Return `data` decoded."""
        details: dict[str, Any] = msgspec.json.decode(self.data)
        return details


class RouteCompared(msgspec.Struct, frozen=True):
    """The venues answered. If one won, its quote fixes the minimum out."""

    status: ClassVar = OrderStatus.ROUTING
    route: Route
    min_amount_out: BaseUnits | None


class TransactionBuilt(msgspec.Struct, frozen=True):
    """The winning venue built the swap; `steps` are its instructions in order."""

    status: ClassVar = OrderStatus.BUILDING
    venue: str
    steps: tuple[str, ...]


class TransactionSigned(msgspec.Struct, frozen=True):
    """The transaction is signed and will be sent as soon as this is committed."""

    status: ClassVar = OrderStatus.SUBMITTED
    signature: str
    last_valid_block_height: int


class SwapConfirmed(msgspec.Struct, frozen=True):
    """The chain proved that the swap executed."""

    status: ClassVar = OrderStatus.CONFIRMED
    amount_out: BaseUnits
    slot: int


class AttemptFailed(msgspec.Struct, frozen=True):
    """An attempt failed, provably without a swap, and another one follows after the backoff."""

    status: ClassVar = OrderStatus.RETRYING
    code: ReasonCode
    message: str
    retry_in_ms: int


class OrderFailed(msgspec.Struct, frozen=True):
    """The order ended without a swap, and none can happen any more."""

    status: ClassVar = OrderStatus.FAILED
    code: ReasonCode
    message: str


class OrderCancelled(msgspec.Struct, frozen=True):
    """The client cancelled before anything was signed."""

    status: ClassVar = OrderStatus.CANCELLED
    message: str


Fact = (
    RouteCompared | TransactionBuilt | TransactionSigned | SwapConfirmed | AttemptFailed | OrderFailed | OrderCancelled
)
