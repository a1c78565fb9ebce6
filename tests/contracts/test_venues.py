"""Venue: one contract over every venue. A new venue is one line in VENUES."""

import asyncio
import itertools
from collections.abc import Callable
from typing import Final

import msgspec
import pytest
from solders.message import from_bytes_versioned

from order_engine.domain.errors import NoRoute, SlippageExceeded, StepFailed
from order_engine.domain.events import RouteCompared
from order_engine.domain.lifecycle import apply, open_order
from order_engine.domain.money import BPS_ONE, BaseUnits, min_out
from order_engine.domain.order import EpochMs, Order, SwapRequest
from order_engine.domain.routing import Quote, choose_quote
from order_engine.domain.tokens import Token
from order_engine.paper.market import (
    METEORA,
    RAYDIUM,
    REFERENCE_PRICES_USD,
    PaperMarket,
)
from order_engine.paper.venue import PaperFaults, PaperVenue
from order_engine.ports.chain import UnsignedTransaction
from order_engine.ports.clock import Clock
from order_engine.ports.venues import Venue
from order_engine.wiring import new_order_id
from tests.contracts.orders import ACCOUNT, BONK, CREATED_AT_MS, SOL, USDC, asked
from tests.contracts.worlds import SteppedClock
from tests.unit.chains import WALLET, instruction_in


class OnTheMarket(msgspec.Struct, frozen=True):
    """A venue and its market; `execute` returns a transaction's amount out, or its error."""

    venue: Venue
    execute: Callable[[UnsignedTransaction], int | str]


def paper(name: str) -> Callable[[Clock], OnTheMarket]:
    """A pool of the paper market."""

    def make(clock: Clock) -> OnTheMarket:
        market = PaperMarket(1, REFERENCE_PRICES_USD)

        def execute(transaction: UnsignedTransaction) -> int | str:
            done = market.execute(instruction_in(transaction.message), clock.now_ms())
            return done.error or done.amount_out or 0

        return OnTheMarket(PaperVenue(name, market, clock, PaperFaults(0, 0), 1, WALLET.public_key), execute)

    return make


VENUES: Final[dict[str, Callable[[Clock], OnTheMarket]]] = {
    "raydium": paper(RAYDIUM.name),
    "meteora": paper(METEORA.name),
}

pytestmark = pytest.mark.asyncio

WSOL: Final = Token("wSOL", SOL.mint, SOL.decimals)
UNKNOWN: Final = Token("NOPE", "Nope1111111111111111111111111111111111111111", 6)
PAIRS: Final = [(SOL, USDC), (USDC, SOL), (USDC, BONK), (BONK, SOL), (WSOL, USDC)]


@pytest.fixture
def clock() -> SteppedClock:
    return SteppedClock(CREATED_AT_MS)  # a fixed day, because prices depend on the time


@pytest.fixture(params=sorted(VENUES))
def market(request: pytest.FixtureRequest, clock: SteppedClock) -> OnTheMarket:
    return VENUES[request.param](clock)


def order_for(request: SwapRequest, quote: Quote, minimum: int) -> Order:
    """An order whose route was chosen, as a venue gets it to build a swap."""
    order, _ = open_order(new_order_id(), ACCOUNT, request, EpochMs(1))
    return apply(order, RouteCompared(choose_quote([quote]), BaseUnits(minimum)), EpochMs(2))[0]


async def test_a_venue_goes_by_its_name_in_lower_case(market: OnTheMarket) -> None:
    assert VENUES.keys() >= {market.venue.name}
    assert market.venue.name == market.venue.name.lower().strip()


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair[0].symbol}-{pair[1].symbol}")
@pytest.mark.parametrize("whole_tokens", [1, 1_000])
async def test_a_quote_is_what_the_swap_gives_net_of_the_fee(
    market: OnTheMarket, pair: tuple[Token, Token], whole_tokens: int
) -> None:
    token_in, token_out = pair
    amount_in = whole_tokens * 10**token_in.decimals
    request = asked(token_in=token_in, token_out=token_out, amount_in=amount_in)
    quote = await market.venue.quote(request)
    assert (quote.venue, quote.amount_in) == (market.venue.name, amount_in)
    assert quote.amount_out > 0
    assert 0 <= quote.fee_bps < BPS_ONE
    assert 0 <= quote.price_impact_bps < BPS_ONE

    transaction = await market.venue.build(order_for(request, quote, quote.amount_out))
    assert market.execute(transaction) == quote.amount_out


async def test_a_larger_swap_gives_more_at_a_worse_price(market: OnTheMarket) -> None:
    quotes = [await market.venue.quote(asked(amount_in=10**digits)) for digits in (9, 11, 13)]
    for smaller, larger in itertools.pairwise(quotes):
        assert smaller.amount_out < larger.amount_out < 100 * smaller.amount_out
        assert smaller.price_impact_bps <= larger.price_impact_bps


async def test_at_the_same_time_the_same_question_has_the_same_answer(market: OnTheMarket, clock: SteppedClock) -> None:
    first = await market.venue.quote(asked())
    together = await asyncio.gather(*(market.venue.quote(asked()) for _ in range(10)))
    assert {*together} == {first}
    twin = VENUES[market.venue.name](clock)
    assert await twin.venue.quote(asked()) == first


async def test_prices_move_with_the_time(market: OnTheMarket, clock: SteppedClock) -> None:
    seen = set()
    for _ in range(10):
        seen.add((await market.venue.quote(asked(amount_in=10**12))).amount_out)
        clock.advance(10_000)
    assert len(seen) > 1


@pytest.mark.parametrize("pair", [(UNKNOWN, USDC), (SOL, UNKNOWN), (UNKNOWN, UNKNOWN)], ids=["in", "out", "both"])
async def test_a_pair_that_nobody_trades_has_no_route(market: OnTheMarket, pair: tuple[Token, Token]) -> None:
    with pytest.raises(NoRoute) as refusal:
        await market.venue.quote(asked(token_in=pair[0], token_out=pair[1]))
    assert not refusal.value.is_retryable


@pytest.mark.parametrize("amount_in", [2**63 - 1, 10**18])
async def test_an_amount_beyond_the_pool_has_no_route(market: OnTheMarket, amount_in: int) -> None:
    with pytest.raises(NoRoute):
        await market.venue.quote(asked(amount_in=amount_in))


async def test_an_amount_that_would_give_nothing_has_no_route(market: OnTheMarket) -> None:
    with pytest.raises(NoRoute):
        await market.venue.quote(asked(token_in=BONK, token_out=SOL, amount_in=1))


async def test_nothing_is_built_that_would_give_less_than_the_minimum(market: OnTheMarket) -> None:
    quote = await market.venue.quote(asked())
    with pytest.raises(SlippageExceeded) as refusal:
        await market.venue.build(order_for(asked(), quote, quote.amount_out + 1))
    assert refusal.value.is_retryable
    assert isinstance(refusal.value, StepFailed)


async def test_the_market_keeps_the_minimum_when_the_price_has_moved_since(
    market: OnTheMarket, clock: SteppedClock
) -> None:
    request = asked(slippage_bps=1)
    quote = await market.venue.quote(request)
    minimum = min_out(quote.amount_out, request.slippage_bps)
    transaction = await market.venue.build(order_for(request, quote, minimum))
    outcomes = set()
    for _ in range(200):
        given = (await market.venue.quote(request)).amount_out
        done = market.execute(transaction)
        assert done == given if given >= minimum else isinstance(done, str)
        outcomes.add(type(done))
        clock.advance(5_000)
    assert outcomes == {int, str}  # the prices did move both ways


@pytest.mark.parametrize(
    ("pair", "is_wrapped", "is_unwrapped"),
    [
        ((SOL, USDC), True, False),
        ((USDC, SOL), False, True),
        ((USDC, BONK), False, False),
        ((WSOL, USDC), False, False),
    ],
    ids=["SOL-USDC", "USDC-SOL", "USDC-BONK", "wSOL-USDC"],
)
async def test_the_steps_wrap_native_sol_and_nothing_else(
    market: OnTheMarket, pair: tuple[Token, Token], *, is_wrapped: bool, is_unwrapped: bool
) -> None:
    request = asked(token_in=pair[0], token_out=pair[1], amount_in=10 ** pair[0].decimals)
    quote = await market.venue.quote(request)
    steps = (await market.venue.build(order_for(request, quote, 1))).steps

    assert [step for step in steps if step.startswith("wrap")] == [*steps[:1]] * is_wrapped
    assert [step for step in steps if step.startswith("unwrap")] == [*steps[-1:]] * is_unwrapped
    (swap,) = [step for step in steps if step.startswith("swap")]
    assert len(steps) == 1 + is_wrapped + is_unwrapped
    assert all(name in swap for name in (pair[0].symbol, pair[1].symbol, market.venue.name))


async def test_our_wallet_pays_for_what_a_venue_builds(market: OnTheMarket) -> None:
    quote = await market.venue.quote(asked())
    built = await market.venue.build(order_for(asked(), quote, 1))
    message = from_bytes_versioned(built.message)
    assert str(message.account_keys[0]) == WALLET.public_key
    assert message.header.num_required_signatures == 1


async def test_two_orders_for_the_same_swap_are_two_messages(market: OnTheMarket) -> None:
    quote = await market.venue.quote(asked())
    built = [await market.venue.build(order_for(asked(), quote, 1)) for _ in range(2)]
    assert built[0].message != built[1].message
    assert built[0].steps == built[1].steps
