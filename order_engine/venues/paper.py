"""The simulated Raydium and Meteora: seeded moving prices, fees, delays and faults.

Every price is integer arithmetic on a seed and a time, so that the paper chain, another worker or
another process sees the same pool that the quote saw.
"""

import asyncio
import decimal
import hashlib
import random
from collections.abc import Mapping
from typing import Final

import msgspec
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey

from order_engine.domain.errors import NoRoute, SlippageExceeded, VenueFailed
from order_engine.domain.money import BPS_ONE, MAX_BASE_UNITS, BaseUnits, Bps
from order_engine.domain.order import EpochMs, Order, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.domain.tokens import Token
from order_engine.ports.chain import SLIPPAGE_ERROR, UnsignedTransaction
from order_engine.ports.clock import Clock

_PPM: Final = 1_000_000
_PRICE_SCALE: Final = 10**18
_POOL_DEPTH_USD: Final = 50_000_000
_QUOTE_DELAY_S: Final = (0.15, 0.25)
_PROGRAM: Final = Pubkey(hashlib.sha256(b"order-engine paper pools").digest())

# Round figures near the market's of 2025: a paper order is to look like one, and nothing more.
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
    """A venue's fee, and between which parts per million of the reference price its own moves."""

    name: str
    fee_bps: int
    low_ppm: int
    high_ppm: int


RAYDIUM: Final = PoolTerms("raydium", 30, 980_000, 1_020_000)
METEORA: Final = PoolTerms("meteora", 20, 970_000, 1_020_000)


class PaperSwap(msgspec.Struct, frozen=True):
    """The instruction of a paper transaction: what the pool's program needs, and whose order it is.

    `memo` is the order's id; the chain's ledger keeps it, so that the two can be compared.
    """

    memo: str
    attempt: int
    venue: str
    token_in: Token
    token_out: Token
    amount_in: int
    min_amount_out: int


class PaperExecution(msgspec.Struct, frozen=True):
    """What the pool's program did with a swap: `amount_out`, or the error with which it refused."""

    swap: PaperSwap
    amount_out: int | None
    error: str | None


class PaperMarket:
    """The pools of every paper venue, as functions of the seed and the time."""

    def __init__(self, seed: int, prices_usd: Mapping[str, str]) -> None:
        """`prices_usd`: reference prices by symbol, as decimal text."""
        self._seed = seed
        self._prices = {symbol: int(decimal.Decimal(price) * _PRICE_SCALE) for symbol, price in prices_usd.items()}
        self._pools = {terms.name: terms for terms in (RAYDIUM, METEORA)}
        self._waves: dict[tuple[str, ...], tuple[tuple[int, int], ...]] = {}

    def quote(self, venue: str, request: SwapRequest, at_ms: EpochMs) -> Quote:
        """Return what the venue's pool gives at that time; raise NoRoute if it cannot."""
        return self._price(self._pools[venue], request.token_in, request.token_out, request.amount_in, at_ms)

    def execute(self, instruction: bytes, at_ms: EpochMs) -> PaperExecution:
        """Run the swap as the pool's program would: all of it, or nothing below the minimum out."""
        swap = msgspec.json.decode(instruction, type=PaperSwap)
        pool = self._pools[swap.venue]
        try:
            quote = self._price(pool, swap.token_in, swap.token_out, BaseUnits(swap.amount_in), at_ms)
        except NoRoute as error:
            return PaperExecution(swap, None, str(error))
        if quote.amount_out < swap.min_amount_out:
            return PaperExecution(swap, None, SLIPPAGE_ERROR)
        return PaperExecution(swap, quote.amount_out, None)

    def _price(self, pool: PoolTerms, token_in: Token, token_out: Token, amount_in: BaseUnits, at_ms: EpochMs) -> Quote:
        """Constant product with a depth of _POOL_DEPTH_USD on either side; the fee is on the input."""
        price_in, price_out = self._prices.get(token_in.symbol), self._prices.get(token_out.symbol)
        if price_in is None or price_out is None:
            raise NoRoute(f"has no pool for {token_in.symbol}/{token_out.symbol}")
        moved_ppm = self._moved_ppm(pool, token_in, token_out, at_ms)
        reserve_in = _POOL_DEPTH_USD * _PRICE_SCALE * 10**token_in.decimals // price_in
        reserve_out = _POOL_DEPTH_USD * _PRICE_SCALE * 10**token_out.decimals // price_out
        if amount_in > reserve_in:
            raise NoRoute(f"the {token_in.symbol}/{token_out.symbol} pool is too shallow for this amount")
        after_fee = amount_in * (BPS_ONE - pool.fee_bps)
        amount_out = reserve_out * after_fee * moved_ppm // ((reserve_in * BPS_ONE + after_fee) * _PPM)
        if not 0 < amount_out <= MAX_BASE_UNITS:
            raise NoRoute(f"the amount is too small or too large for {token_in.symbol}/{token_out.symbol}")
        impact = after_fee * BPS_ONE // (reserve_in * BPS_ONE + after_fee)
        return Quote(pool.name, amount_in, BaseUnits(amount_out), Bps(pool.fee_bps), Bps(impact))

    def _moved_ppm(self, pool: PoolTerms, token_in: Token, token_out: Token, at_ms: EpochMs) -> int:
        """Return where the price stands in its range: a slow triangle wave and a faster, smaller one."""
        slow, fast = self._waves_of(pool.name, token_in.symbol, token_out.symbol)
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


class PaperFaults(msgspec.Struct, frozen=True):
    """How the paper venues misbehave: the part of swaps that fail, and the factor on every delay."""

    fail_rate: float
    delay_scale: float


class PaperVenue:
    """A Venue on one pool of the paper market."""

    def __init__(
        self, name: str, market: PaperMarket, clock: Clock, faults: PaperFaults, seed: int, payer: Pubkey
    ) -> None:
        """The same seed gives the same sequence of delays and failures. `payer`: the wallet that swaps."""
        self.name = name
        self._payer = payer
        self._market = market
        self._clock = clock
        self._faults = faults
        self._random = random.Random(f"{seed}:{name}")  # noqa: S311 - a simulation, to be repeated

    async def quote(self, request: SwapRequest) -> Quote:
        """See Venue."""
        if self._faults.delay_scale > 0:
            await asyncio.sleep(self._random.uniform(*_QUOTE_DELAY_S) * self._faults.delay_scale)
        return self._market.quote(self.name, request, self._clock.now_ms())

    async def build(self, order: Order) -> UnsignedTransaction:
        """See Venue."""
        if self._random.random() < self._faults.fail_rate:
            raise VenueFailed(f"{self.name} refused the swap (simulated by MOCK_FAIL_RATE)")
        request = order.request
        assert order.min_amount_out is not None  # noqa: S101 - fixed when the route was chosen
        quote = self._market.quote(self.name, request, self._clock.now_ms())
        if quote.amount_out < order.min_amount_out:
            message = f"{self.name} would give {quote.amount_out} base units now, less than the minimum out"
            raise SlippageExceeded(f"{message} of {order.min_amount_out}")
        swap = PaperSwap(
            order.order_id,
            order.attempt,
            self.name,
            request.token_in,
            request.token_out,
            request.amount_in,
            order.min_amount_out,
        )
        accounts = [AccountMeta(self._payer, is_signer=True, is_writable=True)]
        instruction = Instruction(_PROGRAM, msgspec.json.encode(swap), accounts)
        compiled = MessageV0.try_compile(self._payer, [instruction], [], Hash.default())
        return UnsignedTransaction(to_bytes_versioned(compiled), _steps(self.name, request))


def _steps(venue: str, request: SwapRequest) -> tuple[str, ...]:
    """Return the instructions in order: a pool takes and gives wrapped SOL only."""
    swap = f"swap {request.token_in.symbol} for {request.token_out.symbol} on {venue}"
    wrap = ("wrap SOL into wSOL",) if request.token_in.is_native else ()
    unwrap = ("unwrap wSOL into SOL",) if request.token_out.is_native else ()
    return (*wrap, swap, *unwrap)
