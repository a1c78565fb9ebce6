"""The pools of the simulated Raydium and Meteora: seeded moving prices, fees, and the swaps that they execute.

Every price is integer arithmetic on a seed and a time, so that the paper chain, another worker or
another process sees the same pool that the quote saw.
"""

import decimal
import hashlib
from collections.abc import Mapping
from typing import Final

import msgspec

from order_engine.domain.errors import NoRoute
from order_engine.domain.money import BPS_ONE, MAX_BASE_UNITS, BaseUnits, Bps
from order_engine.domain.order import EpochMs, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.paper.swap import PaperSwap
from order_engine.ports.chain import SLIPPAGE_ERROR

_PPM: Final = 1_000_000
_PRICE_SCALE: Final = 10**18
_POOL_DEPTH_USD: Final = 50_000_000

# Round prices near the market's of 2025, only so that a paper order looks plausible.
REFERENCE_PRICES_USD: Final[Mapping[str, str]] = {
    "SOL": "150",
    "wSOL": "150",
    "USDC": "1",
    "USDT": "1",
    "BONK": "0.00002",
    "JUP": "0.5",
    "RAY": "2",
    "mSOL": "190",
    "JitoSOL": "180",
    "bSOL": "170",
    "stSOL": "180",
    "INF": "190",
    "dSOL": "160",
    "ETH": "3000",
    "WBTC": "90000",
    "PYUSD": "1",
    "USDY": "1.1",
    "PYTH": "0.12",
    "JTO": "1",
    "ORCA": "1.5",
    "W": "0.07",
    "RENDER": "2.5",
    "HNT": "2.5",
    "TNSR": "0.1",
    "DRIFT": "0.3",
    "KMNO": "0.06",
    "MNDE": "0.1",
    "WIF": "0.5",
    "POPCAT": "0.15",
    "MEW": "0.0015",
    "BOME": "0.001",
    "SAMO": "0.002",
    "FIDA": "0.05",
    "COPE": "0.005",
    "SRM": "0.01",
    "MNGO": "0.02",
    "STEP": "0.02",
    "MAPS": "0.004",
    "OXY": "0.002",
    "MEDIA": "2",
    "ROPE": "0.002",
    "KIN": "0.0000005",
    "TULIP": "0.1",
}


class PoolTerms(msgspec.Struct, frozen=True):
    """A venue's fee, and the range of its price, in parts per million of the reference price."""

    name: str
    fee_bps: int
    low_ppm: int
    high_ppm: int


RAYDIUM: Final = PoolTerms("raydium", 30, 980_000, 1_020_000)
METEORA: Final = PoolTerms("meteora", 20, 970_000, 1_020_000)


class PaperMarket:
    """The pools of every paper venue, as functions of the seed and the time."""

    def __init__(self, seed: int, prices_usd: Mapping[str, str]) -> None:
        """`prices_usd`: reference prices by symbol, as decimal text."""
        self._seed = seed
        self._prices = {symbol: int(decimal.Decimal(price) * _PRICE_SCALE) for symbol, price in prices_usd.items()}
        self._pools = {terms.name: terms for terms in (RAYDIUM, METEORA)}
        self._waves: dict[tuple[str, ...], tuple[tuple[int, int], ...]] = {}

    def quote(self, venue: str, request: SwapRequest, at_ms: EpochMs) -> Quote:
        """Return the quote of the venue's pool at that time; raise NoRoute if the pool has none."""
        token_in, token_out = request.token_in, request.token_out
        swap = PaperSwap(
            venue=venue,
            token_in=token_in.symbol,
            token_in_decimals=token_in.decimals,
            token_out=token_out.symbol,
            token_out_mint=token_out.mint,
            token_out_decimals=token_out.decimals,
            amount_in=request.amount_in,
        )
        return self._price(swap, at_ms)

    def execute(self, instruction: bytes, at_ms: EpochMs) -> PaperSwap:
        """Run the swap as the pool's program would: all of it, or nothing below the minimum out.

        Raises ValueError for an instruction that is not a swap, and KeyError for an unknown venue.
        """
        swap = msgspec.json.decode(instruction, type=PaperSwap)
        amount_out, error = None, None
        try:
            quote = self._price(swap, at_ms)
        except NoRoute as no_route:
            error = str(no_route)
        else:
            if quote.amount_out < swap.min_amount_out:
                error = SLIPPAGE_ERROR
            else:
                amount_out = quote.amount_out
        return msgspec.structs.replace(swap, amount_out=amount_out, error=error)

    def _price(self, swap: PaperSwap, at_ms: EpochMs) -> Quote:
        """Constant product with a depth of _POOL_DEPTH_USD on each side; the fee is on the input."""
        pool, pair, amount_in = self._pools[swap.venue], f"{swap.token_in}/{swap.token_out}", BaseUnits(swap.amount_in)
        price_in, price_out = self._prices.get(swap.token_in), self._prices.get(swap.token_out)
        if price_in is None or price_out is None:
            raise NoRoute(f"has no pool for {pair}")
        moved_ppm = self._moved_ppm(pool, swap, at_ms)
        reserve_in = _POOL_DEPTH_USD * _PRICE_SCALE * 10**swap.token_in_decimals // price_in
        reserve_out = _POOL_DEPTH_USD * _PRICE_SCALE * 10**swap.token_out_decimals // price_out
        if amount_in > reserve_in:
            raise NoRoute(f"the {pair} pool is too shallow for this amount")
        after_fee = amount_in * (BPS_ONE - pool.fee_bps)
        amount_out = reserve_out * after_fee * moved_ppm // ((reserve_in * BPS_ONE + after_fee) * _PPM)
        if not 0 < amount_out <= MAX_BASE_UNITS:
            raise NoRoute(f"the amount is too small or too large for {pair}")
        impact = after_fee * BPS_ONE // (reserve_in * BPS_ONE + after_fee)
        return Quote(pool.name, amount_in, BaseUnits(amount_out), Bps(pool.fee_bps), Bps(impact))

    def _moved_ppm(self, pool: PoolTerms, swap: PaperSwap, at_ms: EpochMs) -> int:
        """Return where the price stands in its range: a slow triangle wave and a faster, smaller one."""
        slow, fast = self._waves_of(pool.name, swap.token_in, swap.token_out)
        height = (2 * _triangle_ppm(at_ms, *slow) + _triangle_ppm(at_ms, *fast)) // 3
        return pool.low_ppm + (pool.high_ppm - pool.low_ppm) * height // _PPM

    def _waves_of(self, *names: str) -> tuple[tuple[int, int], ...]:
        waves = self._waves.get(names)
        if waves is None:
            digest = hashlib.sha256(":".join((str(self._seed), *names)).encode()).digest()
            numbers = [int.from_bytes(digest[at : at + 8]) for at in (0, 8, 16, 24)]
            waves = ((300_000 + numbers[0] % 300_000, numbers[1]), (100_000 + numbers[2] % 100_000, numbers[3]))
            self._waves[names] = waves
        return waves


def _triangle_ppm(at_ms: int, period_ms: int, phase: int) -> int:
    """Return a wave that rises from 0 to 1,000,000 in half a period and falls back in the other."""
    half = period_ms // 2
    position = (at_ms + phase) % (2 * half)
    return (position if position <= half else 2 * half - position) * _PPM // half
