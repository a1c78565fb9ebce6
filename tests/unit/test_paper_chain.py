"""The paper chain: signatures before sends, blocks and expiry, and a ledger in which nothing happens twice."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Sequence
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.signature import Signature

from order_engine.chain.ledger import SqliteLedger
from order_engine.chain.paper import SLOT_MS, Execution, Ledger, LedgerEntry, PaperChain, _block_height
from order_engine.domain.order import AttemptOutcome, EpochMs
from order_engine.engine.settlement import Sighting, decide
from order_engine.ports import SignatureStatus, SignedTransaction, UnsignedTransaction
from tests.unit.samples import QUICK, START_MS, ManualClock

VALID_BLOCKS = 150
LONG_AFTER_MS = 400 * SLOT_MS


def run_swap(message: bytes, at_ms: EpochMs) -> Execution:
    """A program whose output shows when it ran; a message that says so is refused."""
    if b"refused" in message:
        return Execution(message.decode(), 1, "raydium", "SOL", "USDC", 10, 5, None, "SlippageToleranceExceeded")
    return Execution(message.decode(), 1, "raydium", "SOL", "USDC", 10, 5, at_ms - START_MS + 7, None)


class World:
    """A chain, the clock that it goes by and the ledger that it writes."""

    def __init__(self, ledger: Ledger, delay_scale: float) -> None:
        self.clock = ManualClock()
        self.ledger = ledger
        self.chain = PaperChain(ledger, run_swap, self.clock, delay_scale, 1)

    async def signed(self, message: str = "order 1") -> SignedTransaction:
        return self.chain.sign(UnsignedTransaction(message.encode(), ()), await self.chain.latest_blockhash())

    async def status(self, signature: str) -> SignatureStatus | None:
        return (await self.chain.signature_statuses([signature])).statuses.get(signature)

    async def proof(self, signed: SignedTransaction) -> AttemptOutcome | None:
        finalized = await self.chain.finalized_point()
        answer = await self.chain.signature_statuses([signed.signature])
        sighting = Sighting(finalized, answer.context_slot, answer.statuses.get(signed.signature))
        return decide(sighting, signed.last_valid_block_height)

    async def slot_now(self) -> int:
        return (await self.chain.signature_statuses([])).context_slot


@contextlib.asynccontextmanager
async def open_world(ledger: Path | Ledger, delay_scale: float = 0) -> AsyncIterator[World]:
    world = World(SqliteLedger(ledger) if isinstance(ledger, Path) else ledger, delay_scale)
    try:
        yield world
    finally:
        await world.chain.close()


MEMORY = Path(":memory:")


# --- signatures ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_a_signature_is_known_before_anything_is_sent() -> None:
    async with open_world(MEMORY) as world:
        signed = await world.signed()
        assert str(Signature.from_string(signed.signature)) == signed.signature
        assert await world.status(signed.signature) is None
        assert await world.ledger.find([signed.signature]) == []
        await world.chain.send(signed.raw)
        assert await world.status(signed.signature) is not None
        assert [entry.signature for entry in await world.ledger.find([signed.signature])] == [signed.signature]


@pytest.mark.asyncio
async def test_a_signature_is_of_the_message_and_the_blockhash() -> None:
    async with open_world(MEMORY) as world:
        one, again, other = await world.signed(), await world.signed(), await world.signed("order 2")
        assert one == again
        assert one.signature != other.signature
        world.clock.ms += LONG_AFTER_MS
        assert (await world.signed()).signature != one.signature


@pytest.mark.asyncio
async def test_a_blockhash_is_good_for_150_blocks_and_is_kept_for_a_second() -> None:
    async with open_world(MEMORY) as world:
        first = await world.chain.latest_blockhash()
        assert first.last_valid_block_height == _block_height(await world.slot_now()) + VALID_BLOCKS
        world.clock.ms += 1_000
        assert await world.chain.latest_blockhash() == first
        world.clock.ms += 1
        assert (await world.chain.latest_blockhash()).last_valid_block_height > first.last_valid_block_height


# --- sending -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_sending_again_changes_nothing() -> None:
    async with open_world(MEMORY) as world:
        signed = await world.signed()
        await world.chain.send(signed.raw)
        first = await world.ledger.find([signed.signature])
        for _ in range(5):
            world.clock.ms += 2_000
            await world.chain.send(signed.raw)
        await asyncio.gather(*(world.chain.send(signed.raw) for _ in range(5)))
        assert await world.ledger.find([signed.signature]) == first
        assert await world.status(signed.signature) == SignatureStatus(first[0].slot, None, 7)


@pytest.mark.asyncio
async def test_what_was_sent_is_not_seen_before_it_lands() -> None:
    async with open_world(MEMORY, delay_scale=1) as world:
        signed = await world.signed()
        await world.chain.send(signed.raw)
        [entry] = await world.ledger.find([signed.signature])
        assert START_MS + 2_000 <= entry.lands_at_ms <= START_MS + 3_000
        world.clock.ms = entry.lands_at_ms - 1
        assert await world.status(signed.signature) is None
        assert await world.proof(signed) is None
        world.clock.ms += 1
        assert await world.status(signed.signature) == SignatureStatus(entry.slot, None, entry.amount_out)
        assert entry.amount_out == entry.lands_at_ms - START_MS + 7


@pytest.mark.asyncio
async def test_a_swap_that_the_program_refuses_reverts() -> None:
    async with open_world(MEMORY) as world:
        signed = await world.signed("refused order")
        await world.chain.send(signed.raw)
        status = await world.status(signed.signature)
        assert status == SignatureStatus(1_000, "SlippageToleranceExceeded", None)
        assert await world.proof(signed) is AttemptOutcome.REVERTED


@pytest.mark.asyncio
async def test_many_signatures_are_looked_up_at_once() -> None:
    async with open_world(MEMORY) as world:
        signed = [await world.signed(f"order {number}") for number in range(600)]
        await asyncio.gather(*(world.chain.send(it.raw) for it in signed[:300]))
        answer = await world.chain.signature_statuses([it.signature for it in signed])
        assert {*answer.statuses} == {it.signature for it in signed[:300]}


# --- heights and expiry --------------------------------------------------------------------------


@QUICK
@given(st.integers(1_000, 10**12))
def test_a_height_is_less_than_its_slot_and_falls_behind_it(slot: int) -> None:
    assert _block_height(slot + 1) - _block_height(slot) in {0, 1}
    assert _block_height(slot) < slot
    assert slot + 1_000 - _block_height(slot + 1_000) > slot - _block_height(slot)


@pytest.mark.asyncio
async def test_the_finalized_point_is_behind_and_only_moves_on() -> None:
    async with open_world(MEMORY) as world:
        before = await world.chain.finalized_point()
        for _ in range(100):
            world.clock.ms += 377
            after = await world.chain.finalized_point()
            assert after.slot >= before.slot
            assert after.block_height >= before.block_height
            assert after.block_height == _block_height(after.slot)
            assert after.slot < await world.slot_now()
            before = after


async def move_to_height(world: World, height: int) -> None:
    while _block_height(await world.slot_now()) < height:
        world.clock.ms += SLOT_MS


@pytest.mark.asyncio
@pytest.mark.parametrize(("late", "lands"), [(-1, True), (0, True), (1, False), (50, False)])
async def test_a_transaction_lands_up_to_its_last_valid_height_and_never_later(
    late: int,
    lands: bool,  # noqa: FBT001
) -> None:
    async with open_world(MEMORY) as world:
        signed = await world.signed()
        await move_to_height(world, signed.last_valid_block_height + late)
        await world.chain.send(signed.raw)
        world.clock.ms += LONG_AFTER_MS
        await world.chain.send(signed.raw)
        assert (await world.status(signed.signature) is not None) is lands
        assert await world.proof(signed) is (AttemptOutcome.LANDED if lands else AttemptOutcome.EXPIRED)


@pytest.mark.asyncio
async def test_expiry_goes_by_height_and_not_by_slot() -> None:
    async with open_world(MEMORY) as world:
        signed = await world.signed()
        await move_to_height(world, signed.last_valid_block_height)
        assert await world.slot_now() > signed.last_valid_block_height
        assert await world.proof(signed) is None
        await world.chain.send(signed.raw)
        assert await world.proof(signed) is AttemptOutcome.LANDED


@pytest.mark.asyncio
async def test_what_would_land_after_its_last_valid_height_never_does() -> None:
    async with open_world(MEMORY, delay_scale=10) as world:
        signed = await world.signed()
        await move_to_height(world, signed.last_valid_block_height)
        await world.chain.send(signed.raw)
        for _ in range(300):
            world.clock.ms += SLOT_MS
            assert await world.status(signed.signature) is None
        assert await world.proof(signed) is AttemptOutcome.EXPIRED


class SlowLedger:
    """A Ledger whose entries stay on their way until they are let through."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self.asked = asyncio.Event()
        self.let_through = asyncio.Event()

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.asked.set()
        await self.let_through.wait()
        await self._ledger.append(entries)

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)


@pytest.mark.asyncio
async def test_what_was_proven_expired_stays_so_when_a_paused_sender_goes_on() -> None:
    ledger = SlowLedger(SqliteLedger(MEMORY))
    async with open_world(ledger) as world, asyncio.timeout(5):
        signed = await world.signed()
        sending = asyncio.create_task(world.chain.send(signed.raw))
        await ledger.asked.wait()
        world.clock.ms += LONG_AFTER_MS
        assert await world.proof(signed) is AttemptOutcome.EXPIRED
        ledger.let_through.set()
        await sending
        assert await world.status(signed.signature) is None


# --- the ledger ----------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_the_ledger_tells_what_each_transaction_did() -> None:
    async with open_world(MEMORY) as world:
        world.clock.ms += 10 * SLOT_MS
        done, refused = await world.signed("order 1"), await world.signed("refused order")
        await asyncio.gather(*(world.chain.send(it.raw) for it in (done, refused)))
        entries = {it.signature: it for it in await world.ledger.find([done.signature, refused.signature])}
        slot = await world.slot_now()
        where = (slot, _block_height(slot), world.clock.ms)
        swap = (1, "raydium", "SOL", "USDC", 10, 5)
        amount = 10 * SLOT_MS + 7
        assert entries[done.signature] == LedgerEntry(done.signature, "order 1", *swap, amount, None, *where)
        error = "SlippageToleranceExceeded"
        assert entries[refused.signature] == LedgerEntry(refused.signature, "refused order", *swap, None, error, *where)


@pytest.mark.asyncio
async def test_an_entry_that_is_there_stays_as_it_is() -> None:
    ledger = SqliteLedger(MEMORY)
    entry = LedgerEntry("s", "order 1", 1, "raydium", "SOL", "USDC", 10, 5, 7, None, 1_000, 950, START_MS)
    await ledger.append([entry])
    await ledger.append([msgspec.structs.replace(entry, amount_out=8, memo="order 2")])
    assert await ledger.find(["s", "unknown"]) == [entry]
    await ledger.close()


@pytest.mark.asyncio
async def test_the_chain_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite3"
    async with open_world(path) as world:
        signed = await world.signed()
        await world.chain.send(signed.raw)
        status = await world.status(signed.signature)
    async with open_world(path) as world:
        world.clock.ms += LONG_AFTER_MS
        assert await world.status(signed.signature) == status
        assert await world.slot_now() == 1_000 + LONG_AFTER_MS // SLOT_MS


@pytest.mark.asyncio
async def test_two_processes_see_one_chain(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite3"
    async with open_world(path) as one, open_world(path) as two:
        two.clock.ms += 5_000
        signed = await one.signed()
        await one.chain.send(signed.raw)
        await two.chain.send(signed.raw)
        assert await two.status(signed.signature) == SignatureStatus(1_000, None, 7)
        assert await two.slot_now() - await one.slot_now() == 5_000 // SLOT_MS
