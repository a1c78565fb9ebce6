"""The simulated venues: 200 ms for a quote and 2-3 s for a swap, times the delay scale."""

import asyncio
import random
import secrets
from dataclasses import dataclass

BASE_PRICE = 150.0
# name, fee, lowest factor on the price, spread of the factor
VENUES = (("raydium", 0.003, 0.98, 0.04), ("meteora", 0.002, 0.97, 0.05))


class SlippageExceededError(Exception):
    """The swap would give less than the order allows."""


@dataclass(frozen=True)
class Quote:
    """A venue's offer."""

    venue: str
    price: float
    fee: float
    amount_out: float


@dataclass(frozen=True)
class Swap:
    """The result of a swap."""

    tx_hash: str
    amount_out: float


class Venues:
    """Quotes and swaps, in process."""

    def __init__(self, delay_scale: float) -> None:
        self._delay_scale = delay_scale

    async def best_quote(self, amount_in: float) -> Quote:
        """Ask all venues at once and return the best quote."""
        quotes = await asyncio.gather(*(self._quote(*terms, amount_in) for terms in VENUES))
        return max(quotes, key=lambda it: it.amount_out)

    async def swap(self, quote: Quote, slippage_bps: int) -> Swap:
        """Execute the swap, or raise SlippageExceededError."""
        await self._delay(2.0 + random.random())
        amount_out = quote.amount_out * (0.9995 + 0.001 * random.random())
        if amount_out < quote.amount_out * (1 - slippage_bps / 10_000):
            raise SlippageExceededError
        return Swap(secrets.token_hex(32), amount_out)

    async def _quote(self, venue: str, fee: float, low: float, spread: float, amount_in: float) -> Quote:
        await self._delay(0.2)
        price = BASE_PRICE * (low + spread * random.random())
        return Quote(venue, price, fee, amount_in * price * (1 - fee))

    async def _delay(self, seconds: float) -> None:
        if self._delay_scale > 0:
            await asyncio.sleep(seconds * self._delay_scale)
