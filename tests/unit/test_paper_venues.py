"""The paper venues: prices that move within their range, real fees and impact, and a guard at build."""

import itertools
from collections.abc import Iterable
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from order_engine.domain.errors import NoRoute, SlippageExceeded, VenueFailed
from order_engine.domain.money import BPS_ONE, BaseUnits
from order_engine.domain.order import EpochMs, Order, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.domain.tokens import KNOWN_TOKENS, Token
from order_engine.paper.market import (
    METEORA,
    RAYDIUM,
    REFERENCE_PRICES_USD,
    PaperMarket,
    PoolTerms,
)
from order_engine.paper.venue import PaperFaults, PaperVenue
from order_engine.ports.chain import SLIPPAGE_ERROR
from tests.unit.chains import WALLET, instruction_in
from tests.unit.samples import BONK, QUICK, SOL, START_MS, USDC, WSOL, ManualClock, S, order_in

MARKET = PaperMarket(1, REFERENCE_PRICES_USD)
# A token with 18 decimals, so that a large amount of it is too large.
FINE = Token("FINE", "F" * 44, 18)
FINE_MARKET = PaperMarket(1, {**REFERENCE_PRICES_USD, "FINE": "1"})
POOLS = (RAYDIUM, METEORA)
DAY_MS = 86_400_000
LOWEST = {"raydium": Fraction(98, 100), "meteora": Fraction(97, 100)}
HIGHEST = Fraction(102, 100)

times = st.integers(START_MS, START_MS + 365 * DAY_MS).map(EpochMs)
pairs = st.sampled_from([pair for pair in itertools.permutations(KNOWN_TOKENS, 2) if pair[0].mint != pair[1].mint])
pools = st.sampled_from(POOLS)
seeds = st.integers(0, 2**64)


def request_of(token_in: Token, token_out: Token, amount_in: int) -> SwapRequest:
    return SwapRequest(token_in, token_out, BaseUnits(amount_in), 50)


def amount_worth(token: Token, usd: int) -> int:
    return int(usd * 10**token.decimals / Fraction(REFERENCE_PRICES_USD[token.symbol]))


def price_of(quote: Quote, request: SwapRequest) -> Fraction:
    """The quote's value out for each unit of value in, before the fee, at reference prices."""
    value_in = Fraction(REFERENCE_PRICES_USD[request.token_in.symbol]) * request.amount_in
    value_out = Fraction(REFERENCE_PRICES_USD[request.token_out.symbol]) * quote.amount_out
    taken = Fraction(BPS_ONE - quote.fee_bps, BPS_ONE)
    return value_out / 10**request.token_out.decimals / (value_in / 10**request.token_in.decimals) / taken


def order_for(request: SwapRequest, min_amount_out: int) -> Order:
    return replace(order_in(S.ROUTING), request=request, min_amount_out=BaseUnits(min_amount_out))


def venue_on(
    clock: ManualClock, *, name: str = "raydium", fail_rate: float = 0, seed: int = 1, market: PaperMarket = MARKET
) -> PaperVenue:
    return PaperVenue(name, market, clock, PaperFaults(fail_rate, 0), seed, WALLET.public_key)


# --- prices --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("pool", "fee_bps"), [(RAYDIUM, 30), (METEORA, 20)])
def test_a_venue_takes_its_fee(pool: PoolTerms, fee_bps: int) -> None:
    quote = MARKET.quote(pool.name, request_of(SOL, USDC, 10**9), EpochMs(START_MS))
    assert (quote.venue, quote.fee_bps, quote.amount_in) == (pool.name, fee_bps, 10**9)


@QUICK
@given(seeds, pools, pairs, times)
def test_a_small_swap_s_price_stays_in_the_venue_s_range(
    seed: int, pool: PoolTerms, pair: tuple[Token, Token], at_ms: EpochMs
) -> None:
    request = request_of(*pair, amount_worth(pair[0], 100))
    quote = PaperMarket(seed, REFERENCE_PRICES_USD).quote(pool.name, request, at_ms)
    rounding = Fraction(1, quote.amount_out)
    impact = Fraction(100, 50_000_000)
    assert LOWEST[pool.name] * (1 - impact) * (1 - rounding) <= price_of(quote, request) <= HIGHEST * (1 + rounding)


@pytest.mark.parametrize("pool", POOLS, ids=lambda pool: pool.name)
def test_over_time_the_price_goes_through_nearly_all_of_its_range(pool: PoolTerms) -> None:
    request = request_of(SOL, USDC, 10**9)
    moments = range(START_MS, START_MS + DAY_MS, 20_000)
    prices = [price_of(MARKET.quote(pool.name, request, EpochMs(moment)), request) for moment in moments]
    width = HIGHEST - LOWEST[pool.name]
    assert LOWEST[pool.name] * Fraction(9999, 10_000) <= min(prices) <= LOWEST[pool.name] + width / 10
    assert HIGHEST - width / 10 <= max(prices) <= HIGHEST


def test_neither_venue_always_wins() -> None:
    request = request_of(SOL, USDC, 10**9)
    moments = range(START_MS, START_MS + DAY_MS, 60_000)
    gives = [[MARKET.quote(pool.name, request, EpochMs(it)).amount_out for pool in POOLS] for it in moments]
    assert {raydium > meteora for raydium, meteora in gives} == {True, False}


@QUICK
@given(seeds, pools, pairs, times)
def test_the_same_seed_and_time_give_the_same_price(
    seed: int, pool: PoolTerms, pair: tuple[Token, Token], at_ms: EpochMs
) -> None:
    request = request_of(*pair, amount_worth(pair[0], 1_000))
    one, two = (PaperMarket(seed, REFERENCE_PRICES_USD) for _ in range(2))
    two.quote(pool.name, request, EpochMs(at_ms + 1))  # An earlier request must not change the price.
    assert one.quote(pool.name, request, at_ms) == two.quote(pool.name, request, at_ms)


def test_another_seed_gives_other_prices() -> None:
    request = request_of(SOL, USDC, 10**9)
    markets = [PaperMarket(seed, REFERENCE_PRICES_USD) for seed in range(20)]
    assert len({market.quote("raydium", request, EpochMs(START_MS)).amount_out for market in markets}) > 10


@QUICK
@given(pools, pairs, times, st.integers(1, 1_000_000), st.integers(1, 1_000_000))
def test_a_larger_swap_gives_more_at_a_worse_price(
    pool: PoolTerms, pair: tuple[Token, Token], at_ms: EpochMs, one: int, two: int
) -> None:
    small, large = (request_of(*pair, amount_worth(pair[0], usd)) for usd in sorted((one, two)))
    less, more = (MARKET.quote(pool.name, request, at_ms) for request in (small, large))
    assert less.price_impact_bps <= more.price_impact_bps
    assert less.amount_out <= more.amount_out
    assert more.amount_out * small.amount_in <= (less.amount_out + 1) * large.amount_in


def test_the_impact_of_a_large_swap_shows() -> None:
    million, cents = (request_of(SOL, USDC, amount_worth(SOL, usd)) for usd in (1_000_000, 1))
    large, small = (MARKET.quote("raydium", request, EpochMs(START_MS)) for request in (million, cents))
    assert (small.price_impact_bps, large.price_impact_bps) == (0, 195)
    assert price_of(large, million) < price_of(small, cents) * Fraction(99, 100)


@QUICK
@given(pools, pairs, times, st.integers(1, 2**63 - 1))
def test_any_amount_is_quoted_within_bounds_or_has_no_route(
    pool: PoolTerms, pair: tuple[Token, Token], at_ms: EpochMs, amount_in: int
) -> None:
    try:
        quote = MARKET.quote(pool.name, request_of(*pair, amount_in), at_ms)
    except NoRoute:
        return
    assert 0 < quote.amount_out <= 2**63 - 1
    assert 0 <= quote.price_impact_bps < BPS_ONE


@pytest.mark.parametrize(
    ("request_", "why"),
    [
        (request_of(SOL, USDC, amount_worth(SOL, 50_000_000) + 1), "too shallow"),
        (request_of(USDC, SOL, 2**63 - 1), "too shallow"),
        (request_of(BONK, USDC, 1), "too small or too large"),
        (request_of(SOL, USDC, 1), "too small or too large"),
        (request_of(USDC, FINE, 10**13), "too small or too large"),
        (request_of(SOL, Token("DOGE", "D" * 44, 8), 10**9), "no pool for SOL/DOGE"),
        (request_of(Token("DOGE", "D" * 44, 8), SOL, 10**9), "no pool for DOGE/SOL"),
    ],
)
def test_a_swap_that_no_pool_can_make_has_no_route(request_: SwapRequest, why: str) -> None:
    for pool in POOLS:
        with pytest.raises(NoRoute, match=why):
            FINE_MARKET.quote(pool.name, request_, EpochMs(START_MS))


# --- the venue -----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_venue_quotes_its_pool_as_of_now() -> None:
    clock, request = ManualClock(), request_of(SOL, USDC, 10**9)
    venue = venue_on(clock, name="meteora")
    assert venue.name == "meteora"
    for clock.ms in (START_MS, START_MS + 60_000):
        assert await venue.quote(request) == MARKET.quote("meteora", request, clock.now_ms())


@pytest.mark.asyncio
@pytest.mark.parametrize(
    ("token_in", "token_out", "steps"),
    [
        (SOL, USDC, ("wrap SOL into wSOL", "swap SOL for USDC on raydium")),
        (USDC, SOL, ("swap USDC for SOL on raydium", "unwrap wSOL into SOL")),
        (WSOL, USDC, ("swap wSOL for USDC on raydium",)),
        (USDC, WSOL, ("swap USDC for wSOL on raydium",)),
        (USDC, BONK, ("swap USDC for BONK on raydium",)),
    ],
)
async def test_native_sol_is_wrapped_before_and_unwrapped_after(
    token_in: Token, token_out: Token, steps: tuple[str, ...]
) -> None:
    request = request_of(token_in, token_out, amount_worth(token_in, 100))
    assert (await venue_on(ManualClock()).build(order_for(request, 1))).steps == steps


@pytest.mark.asyncio
async def test_what_was_built_swaps_what_was_quoted() -> None:
    clock, request = ManualClock(), request_of(SOL, USDC, 10**9)
    quote = await venue_on(clock).quote(request)
    order = order_for(request, quote.amount_out)
    transaction = await venue_on(clock).build(order)
    done = MARKET.execute(instruction_in(transaction.message), clock.now_ms())
    assert (done.amount_out, done.error) == (quote.amount_out, None)
    assert (done.memo, done.attempt, done.venue) == (order.order_id, order.attempt_number, "raydium")
    assert (done.amount_in, done.min_amount_out) == (10**9, quote.amount_out)


@pytest.mark.asyncio
async def test_less_than_the_minimum_out_is_refused_at_build() -> None:
    clock, request = ManualClock(), request_of(SOL, USDC, 10**9)
    quote = await venue_on(clock).quote(request)
    with pytest.raises(SlippageExceeded, match=str(quote.amount_out + 1)):
        await venue_on(clock).build(order_for(request, quote.amount_out + 1))


def falling_moments(request: SwapRequest) -> Iterable[tuple[EpochMs, EpochMs]]:
    for moment in range(START_MS, START_MS + DAY_MS, 10_000):
        now, later = EpochMs(moment), EpochMs(moment + 3_000)
        if MARKET.quote("raydium", request, later).amount_out < MARKET.quote("raydium", request, now).amount_out:
            yield now, later


@pytest.mark.asyncio
async def test_less_than_the_minimum_out_is_refused_by_the_program_too() -> None:
    request = request_of(SOL, USDC, 10**9)
    now, later = next(iter(falling_moments(request)))
    clock = ManualClock(now)
    minimum = (await venue_on(clock).quote(request)).amount_out
    transaction = await venue_on(clock).build(order_for(request, minimum))
    done = MARKET.execute(instruction_in(transaction.message), later)
    assert (done.amount_out, done.error) == (None, SLIPPAGE_ERROR)


async def failures_of(seed: int, fail_rate: float, name: str = "raydium") -> list[bool]:
    venue, failed = venue_on(ManualClock(), name=name, fail_rate=fail_rate, seed=seed), []
    for _ in range(60):
        try:
            await venue.build(order_for(request_of(SOL, USDC, 10**9), 1))
        except VenueFailed:
            failed.append(True)
        else:
            failed.append(False)
    return failed


@pytest.mark.asyncio
async def test_the_fail_rate_is_the_part_of_swaps_that_fail() -> None:
    assert not any(await failures_of(1, 0))
    assert all(await failures_of(1, 1))
    assert 10 < sum(await failures_of(1, 0.5)) < 50


@pytest.mark.asyncio
async def test_the_same_seed_fails_the_same_swaps() -> None:
    assert await failures_of(5, 0.5) == await failures_of(5, 0.5)
    assert await failures_of(5, 0.5) != await failures_of(6, 0.5)
    assert await failures_of(5, 0.5) != await failures_of(5, 0.5, "meteora")
