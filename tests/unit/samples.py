"""Orders, facts, histories and a clock that the unit tests share."""

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final

from hypothesis import settings
from hypothesis import strategies as st

from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import (
    AttemptFailed,
    Fact,
    OrderCancelled,
    OrderEvent,
    OrderFailed,
    RouteCompared,
    SwapConfirmed,
    TransactionBuilt,
    TransactionSigned,
)
from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS, apply, open_order
from order_engine.domain.money import BaseUnits, Bps
from order_engine.domain.order import EpochMs, Order, OrderId, OrderStatus, SwapRequest
from order_engine.domain.routing import Quote, choose_quote
from order_engine.domain.tokens import TokenRegistry

S = OrderStatus

TOKENS: Final = TokenRegistry()
SOL, WSOL, USDC, BONK = (TOKENS.resolve(symbol, "") for symbol in ("SOL", "wSOL", "USDC", "BONK"))
REQUEST: Final = SwapRequest(SOL, USDC, BaseUnits(1_500_000_000), 50)
START_MS: Final = 1_770_000_000_000

# One decorator for every property: 100 examples are enough to mean something, and quick.
QUICK: Final = settings(max_examples=100, deadline=None)


class ManualClock:
    """A clock that stands still until a test moves it."""

    def __init__(self, ms: int = START_MS) -> None:
        self.ms = ms

    def now_ms(self) -> EpochMs:
        return EpochMs(self.ms)

    def now_s(self) -> float:
        return self.ms / 1000


def quote(venue: str, amount_out: int, impact: int = 0) -> Quote:
    return Quote(venue, REQUEST.amount_in, BaseUnits(amount_out), Bps(30), Bps(impact))


_ROUTE: Final = choose_quote([quote("raydium", 225_000_000), quote("meteora", 224_000_000)])

# For each status, a fact that leads to it.
FACTS: Final[Mapping[OrderStatus, Fact]] = MappingProxyType(
    {
        S.ROUTING: RouteCompared(_ROUTE, BaseUnits(223_875_000)),
        S.BUILDING: TransactionBuilt("raydium", ("wrap SOL into wSOL", "swap SOL for USDC on raydium")),
        S.SUBMITTED: TransactionSigned("5igna7ure", 1_150),
        S.CONFIRMED: SwapConfirmed(BaseUnits(224_500_000), 1_042),
        S.RETRYING: AttemptFailed(ReasonCode.VENUE_ERROR, "the venue refused", 1_000),
        S.FAILED: OrderFailed(ReasonCode.NO_ROUTE, "no venue trades this"),
        S.CANCELLED: OrderCancelled("Cancelled by the client."),
    }
)

# A shortest lawful path to each status.
_WAYS: Final[Mapping[OrderStatus, Sequence[OrderStatus]]] = MappingProxyType(
    {
        S.PENDING: (),
        S.ROUTING: (S.ROUTING,),
        S.BUILDING: (S.ROUTING, S.BUILDING),
        S.SUBMITTED: (S.ROUTING, S.BUILDING, S.SUBMITTED),
        S.CONFIRMED: (S.ROUTING, S.BUILDING, S.SUBMITTED, S.CONFIRMED),
        S.RETRYING: (S.ROUTING, S.RETRYING),
        S.FAILED: (S.FAILED,),
        S.CANCELLED: (S.CANCELLED,),
    }
)


def order_id_of(number: int) -> OrderId:
    return OrderId(f"0198c0de-0000-7000-8000-{number:012d}")


def new_order(number: int = 1, request: SwapRequest = REQUEST) -> tuple[Order, OrderEvent]:
    return open_order(order_id_of(number), "default", request, EpochMs(START_MS))


def order_in(status: OrderStatus) -> Order:
    order, _ = new_order()
    for step in _WAYS[status]:
        order, _ = apply(order, FACTS[step], EpochMs(START_MS))
    return order


_times = st.integers(START_MS - 10_000, START_MS + 10_000).map(EpochMs)


@st.composite
def histories(draw: st.DrawFn, *, complete: bool = False, number: int = 1) -> list[tuple[Order, OrderEvent]]:
    """A random lawful life: the order after each event, by clocks that disagree; complete: to the order's end."""
    order, event = new_order(number)
    walk = [(order, event)]
    for _ in range(draw(st.integers(0, 25))):
        following = sorted(TRANSITIONS[order.status])
        if not following:
            break
        # The other statuses are listed 5 times as often as an end, so that long lives are common.
        lively = [status for status in following if status not in TERMINAL]
        status = draw(st.sampled_from([*lively * 4, *following]))
        order, event = apply(order, FACTS[status], draw(_times))
        walk.append((order, event))
    if complete and order.status not in TERMINAL:
        walk.append(apply(order, FACTS[S.FAILED], draw(_times)))
    return walk
