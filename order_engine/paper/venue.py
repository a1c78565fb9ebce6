"""The simulated Raydium and Meteora as the engine meets them: seeded delays and faults before a pool."""

import asyncio
import hashlib
import random
from typing import Final

import msgspec
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey

from order_engine.domain.errors import SlippageExceeded, VenueFailed
from order_engine.domain.order import Order, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.paper.market import PaperMarket
from order_engine.paper.swap import PaperSwap
from order_engine.ports.chain import UnsignedTransaction
from order_engine.ports.clock import Clock

_QUOTE_DELAY_S: Final = (0.15, 0.25)
_PROGRAM: Final = Pubkey(hashlib.sha256(b"order-engine paper pools").digest())


class PaperFaults(msgspec.Struct, frozen=True):
    """How the paper venues misbehave: the fraction of swaps that fail, and the factor on every delay."""

    fail_rate: float
    delay_scale: float


class PaperVenue:
    """A Venue on one pool of the paper market."""

    def __init__(
        self, name: str, market: PaperMarket, clock: Clock, faults: PaperFaults, seed: int, payer: str
    ) -> None:
        """The same seed gives the same sequence of delays and failures. `payer`: the wallet that swaps."""
        self.name = name
        self._payer = Pubkey.from_string(payer)
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
            memo=order.order_id,
            attempt=order.attempt_number,
            venue=self.name,
            token_in=request.token_in.symbol,
            token_in_decimals=request.token_in.decimals,
            token_out=request.token_out.symbol,
            token_out_mint=request.token_out.mint,
            token_out_decimals=request.token_out.decimals,
            amount_in=request.amount_in,
            min_amount_out=order.min_amount_out,
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
