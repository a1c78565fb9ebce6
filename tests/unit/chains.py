"""A paper chain with a clock that is moved by hand, and swaps to send to it."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.keypair import Keypair
from solders.message import Message, MessageV0, from_bytes_versioned, to_bytes_versioned
from solders.pubkey import Pubkey

from order_engine.chain.assembly import SolanaAssembly
from order_engine.chain.client import SolanaChain
from order_engine.domain.order import AttemptOutcome, EpochMs, SignedAttempt
from order_engine.domain.tokens import Token
from order_engine.engine.settlement import Observation, decide
from order_engine.paper.faults import ChainFaults
from order_engine.paper.ledger import SqliteLedger
from order_engine.paper.local import LocalTransport
from order_engine.paper.network import SLOT_MS, Ledger, PaperNetwork, block_height
from order_engine.paper.node import PaperNode
from order_engine.paper.signer import PaperSigner
from order_engine.paper.swap import PaperSwap
from order_engine.ports.chain import (
    SLIPPAGE_ERROR,
    Blockhash,
    Chain,
    Commitment,
    SignatureStatus,
    SignedTransaction,
    SwapResult,
    UnsignedTransaction,
)
from tests.unit.samples import SOL, START_MS, USDC, ManualClock

MEMORY = Path(":memory:")
LONG_AFTER_MS = 400 * SLOT_MS
WALLET = PaperSigner(1)
ASSEMBLY = SolanaAssembly()


def run_swap(instruction: bytes, at_ms: EpochMs) -> PaperSwap:
    """A program whose amount out shows when it ran; it refuses a memo that contains "refused"."""
    memo = instruction.decode()
    token = SOL if "native" in memo else USDC
    is_refused = "refused" in memo
    return PaperSwap(
        memo=memo,
        attempt=1,
        venue="raydium",
        token_in="USDC" if token is SOL else "SOL",
        token_in_decimals=9,
        token_out=token.symbol,
        token_out_mint=token.mint,
        token_out_decimals=token.decimals,
        amount_in=10,
        min_amount_out=5,
        amount_out=None if is_refused else at_ms - START_MS + 7,
        error=SLIPPAGE_ERROR if is_refused else None,
    )


def message_of(memo: str, payer: Keypair = WALLET.keypair, *, is_legacy: bool = False) -> bytes:
    instruction = Instruction(
        Pubkey.default(), memo.encode(), [AccountMeta(payer.pubkey(), is_signer=True, is_writable=True)]
    )
    if is_legacy:
        return to_bytes_versioned(Message.new_with_blockhash([instruction], payer.pubkey(), Hash.default()))
    return to_bytes_versioned(MessageV0.try_compile(payer.pubkey(), [instruction], [], Hash.default()))


def instruction_in(message: bytes) -> bytes:
    """Return the data of a message's first instruction, which its program gets."""
    return bytes(from_bytes_versioned(message).instructions[0].data)


def attempt_of(signed: SignedTransaction) -> SignedAttempt:
    """The attempt that the engine keeps of a signed transaction."""
    return SignedAttempt(
        1,
        signed.signature,
        signed.raw,
        signed.owner,
        signed.last_valid_block_height,
        signed.signed_point,
        signed.blockhash_slot,
        EpochMs(START_MS),
        signed.genesis_hash,
    )


async def sign(transaction: UnsignedTransaction, blockhash: Blockhash) -> SignedTransaction:
    """Sign with the paper wallet."""
    message = ASSEMBLY.with_blockhash(transaction, blockhash, WALLET.public_key)
    return ASSEMBLY.signed(message, await WALLET.sign(message), blockhash, WALLET.public_key)


async def send(chain: Chain, raw: bytes) -> None:
    """Send one transaction; raises the error that it met."""
    [error] = await chain.send_many([raw])
    if error is not None:
        raise error


async def swap_result(chain: Chain, signature: str, token_out: Token) -> SwapResult | None:
    """Read one result for the paper wallet; raises the error that it met."""
    [result] = await chain.swap_results([(signature, WALLET.public_key, token_out)])
    if isinstance(result, Exception):
        raise result
    return result


class Genesis:
    """Remembers the first hash, as a store does."""

    def __init__(self) -> None:
        self.kept: str | None = None

    async def keep(self, genesis_hash: str) -> str:
        self.kept = self.kept or genesis_hash
        return self.kept


class ChainWorld:
    """A network, its node, a client, the ledger, and the clock that all of them use."""

    def __init__(self, ledger: Ledger, delay_scale: float, faults: ChainFaults, seed: int = 1) -> None:
        self.clock = ManualClock()
        self.ledger = ledger
        self.network = PaperNetwork(ledger, run_swap, self.clock, delay_scale, seed, faults)
        self.node = PaperNode(self.network, faults, seed)
        self.chain = SolanaChain(LocalTransport(self.node, self.network), self.clock, Genesis().keep)

    async def signed(self, memo: str = "order 1") -> SignedTransaction:
        return await sign(UnsignedTransaction(message_of(memo), ()), await self.chain.latest_blockhash())

    async def send(self, raw: bytes) -> None:
        await send(self.chain, raw)

    async def swap_result(self, signature: str, token_out: Token) -> SwapResult | None:
        return await swap_result(self.chain, signature, token_out)

    async def status(self, signature: str) -> SignatureStatus | None:
        return (await self.chain.signature_statuses([signature])).statuses.get(signature)

    async def proof(self, signed: SignedTransaction) -> AttemptOutcome | None:
        finalized = await self.chain.finalized_point()
        answer = await self.chain.signature_statuses([signed.signature])
        status = answer.statuses.get(signed.signature)
        observation = Observation(0, finalized, answer.context_slot, status, answer.history_from_slot)
        return decide(observation, attempt_of(signed), LONG_AFTER_MS)

    def slot_now(self) -> int:
        return self.network.slot_at(self.network.now_ms(), Commitment.PROCESSED)

    def move_to_height(self, height: int) -> None:
        while block_height(self.slot_now()) < height:
            self.clock.ms += SLOT_MS


@contextlib.asynccontextmanager
async def open_chain_world(
    ledger: Path | Ledger = MEMORY, delay_scale: float = 0, faults: ChainFaults | None = None, seed: int = 1
) -> AsyncIterator[ChainWorld]:
    kept = SqliteLedger(ledger) if isinstance(ledger, Path) else ledger
    world = ChainWorld(kept, delay_scale, faults or ChainFaults(), seed)
    await world.network.start()
    try:
        yield world
    finally:
        await world.network.close()
