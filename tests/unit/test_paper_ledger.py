"""The paper chain's ledger: nothing in it happens twice, and nothing in it is lost."""

import asyncio
import contextlib
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from order_engine.domain.errors import ChainUnavailable, WrongSchema
from order_engine.domain.order import AttemptOutcome
from order_engine.paper.ledger import SqliteLedger
from order_engine.paper.network import SLOT_MS, LedgerEntry, block_height
from order_engine.ports.chain import SLIPPAGE_ERROR, Commitment
from tests.unit.chains import LONG_AFTER_MS, MEMORY, open_chain_world


class SlowLedger:
    """A Ledger whose entries wait until a test lets them through or loses them."""

    def __init__(self, ledger: SqliteLedger) -> None:
        self._ledger = ledger
        self.asked = asyncio.Event()
        self.let_through = asyncio.Event()
        self.is_broken = False

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        self.asked.set()
        await self.let_through.wait()
        if self.is_broken:
            raise ChainUnavailable("the disk is full")
        await self._ledger.append(entries)

    def __getattr__(self, name: str) -> object:
        return getattr(self._ledger, name)


@pytest.mark.asyncio
@pytest.mark.parametrize("is_broken", [False, True])
async def test_nobody_is_told_what_is_not_on_the_disk_yet(is_broken: bool) -> None:  # noqa: FBT001
    ledger = SlowLedger(SqliteLedger(MEMORY))
    async with open_chain_world(ledger) as world, asyncio.timeout(5):
        signed = await world.signed()
        sending = asyncio.create_task(world.send(signed.raw))
        await ledger.asked.wait()
        # Even if the disk is slow: "not found" now and "landed" later would be two histories.
        world.clock.ms += LONG_AFTER_MS
        proving = asyncio.create_task(world.proof(signed))
        done, _ = await asyncio.wait([proving], timeout=0.05)
        assert not done
        ledger.is_broken = is_broken
        ledger.let_through.set()
        assert await proving is (AttemptOutcome.EXPIRED if is_broken else AttemptOutcome.LANDED)
        if is_broken:
            with pytest.raises(ChainUnavailable):
                await sending
        else:
            await sending


@pytest.mark.asyncio
async def test_the_ledger_tells_what_each_transaction_did() -> None:
    async with open_chain_world() as world:
        world.clock.ms += 10 * SLOT_MS
        done, refused = await world.signed("order 1"), await world.signed("refused order")
        await asyncio.gather(*(world.network.receive(it.raw) for it in (done, refused)))
        entries = {it.signature: it for it in await world.ledger.find([done.signature, refused.signature])}
        slot = world.slot_now()
        told = [
            (it.memo, it.amount_out, it.error, it.raw) for it in (entries[done.signature], entries[refused.signature])
        ]
        assert told == [
            ("order 1", 10 * SLOT_MS + 7, None, done.raw),
            ("refused order", None, SLIPPAGE_ERROR, refused.raw),
        ]
        assert {(it.slot, it.block_height, it.lands_at_ms) for it in entries.values()} == {
            (slot, block_height(slot), world.clock.ms)
        }


@pytest.mark.asyncio
async def test_an_entry_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite3"
    async with open_chain_world(path) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        [entry] = await world.ledger.find([signed.signature])
        other = msgspec.structs.replace(entry, amount_out=8, memo="order 2")
        await world.ledger.append([other, msgspec.structs.replace(other, signature="another")])
        assert await world.ledger.find([signed.signature, "unknown"]) == [entry]
    async with open_chain_world(path) as world:
        assert await world.ledger.find([signed.signature]) == [entry]
        assert len(await world.ledger.find([signed.signature, "another"])) == 2


@pytest.mark.asyncio
async def test_an_append_that_fails_keeps_nothing_and_breaks_nothing() -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        [entry] = await world.ledger.find([signed.signature])
        good = msgspec.structs.replace(entry, signature="good")
        bad = msgspec.structs.replace(entry, signature="bad", memo=None)  # type: ignore[arg-type]
        with pytest.raises(ChainUnavailable):
            await world.ledger.append([good, bad])
        assert await world.ledger.find(["good", "bad"]) == []
        await world.ledger.append([good])
        assert await world.ledger.find(["good", "bad"]) == [good]


@pytest.mark.asyncio
async def test_the_chain_goes_on_where_it_was_after_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "chain.sqlite3"
    async with open_chain_world(path) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        status = await world.status(signed.signature)
    async with open_chain_world(path) as world:
        world.clock.ms += LONG_AFTER_MS
        again = await world.status(signed.signature)
        assert status is not None
        assert again == msgspec.structs.replace(status, commitment=Commitment.FINALIZED)
        assert world.slot_now() == 1_000 + LONG_AFTER_MS // SLOT_MS


def test_a_ledger_of_another_version_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "paper-chain.sqlite3"
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.execute("create table paper_chain_swaps (signature text primary key)")
    with pytest.raises(WrongSchema, match="another version"):
        SqliteLedger(path)
