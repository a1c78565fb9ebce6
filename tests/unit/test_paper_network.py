"""The paper network: blocks, forks, expiry, faults, and a ledger in which nothing happens twice."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.order import AttemptOutcome
from order_engine.paper.faults import ChainFaults, parse_faults
from order_engine.paper.network import SLOT_MS, block_height, slot_of
from order_engine.ports.chain import Commitment
from tests.unit.chains import LONG_AFTER_MS, open_chain_world
from tests.unit.samples import QUICK, START_MS, USDC

LANDED, EXPIRED = AttemptOutcome.LANDED, AttemptOutcome.EXPIRED


# --- heights -------------------------------------------------------------------------------------


@QUICK
@given(st.integers(1_000, 10**12))
def test_a_height_is_less_than_its_slot_and_falls_behind_it(slot: int) -> None:
    assert block_height(slot + 1) - block_height(slot) in {0, 1}
    assert block_height(slot) < slot
    assert slot + 1_000 - block_height(slot + 1_000) > slot - block_height(slot)


@QUICK
@given(st.integers(900, 10**12))
def test_the_slot_of_a_height_is_the_last_that_has_it(height: int) -> None:
    assert block_height(slot_of(height)) == height
    assert block_height(slot_of(height) + 1) == height + 1


@pytest.mark.asyncio
async def test_the_finalized_slot_is_behind_and_time_never_goes_back() -> None:
    async with open_chain_world() as world:
        before = world.network.slot_at(world.network.now_ms(), Commitment.FINALIZED)
        for step_ms in (377, 4_000, -60_000, 400, 60_000):
            world.clock.ms += step_ms
            now_ms = world.network.now_ms()
            after = world.network.slot_at(now_ms, Commitment.FINALIZED)
            assert before <= after < world.network.slot_at(now_ms, Commitment.CONFIRMED) < world.slot_now()
            before = after


@pytest.mark.asyncio
async def test_a_chain_whose_clock_was_set_back_while_it_was_down_goes_on_from_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite3"
    async with open_chain_world(path) as world:
        world.clock.ms += 7_200_000
        signed = await world.signed()
        await world.send(signed.raw)
        before_ms = world.network.now_ms()
    async with open_chain_world(path) as world:  # The clock starts at START_MS again.
        assert before_ms - 150_000 <= world.network.now_ms() <= before_ms
        world.clock.ms += 200_000
        status = await world.status(signed.signature)
        assert status is not None
        assert status.commitment is Commitment.FINALIZED


# --- landing -------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_was_sent_is_processed_then_confirmed_then_finalized() -> None:
    async with open_chain_world(delay_scale=1) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        [entry] = await world.ledger.find([signed.signature])
        assert START_MS + 1_200 <= entry.lands_at_ms <= START_MS + 2_200
        seen: list[Commitment | None] = []
        for _ in range(500):
            status = await world.status(signed.signature)
            if status is None:
                assert world.clock.ms < entry.lands_at_ms
            commitment = status.commitment if status else None
            if [commitment] != seen[-1:]:
                seen.append(commitment)
            world.clock.ms += 50
        assert seen == [None, Commitment.PROCESSED, Commitment.CONFIRMED, Commitment.FINALIZED]


@pytest.mark.asyncio
async def test_sending_again_changes_nothing() -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        first = await world.ledger.find([signed.signature])
        for _ in range(5):
            world.clock.ms += 2_000
            await world.network.receive(signed.raw)
        await asyncio.gather(*(world.network.receive(signed.raw) for _ in range(5)))
        assert await world.ledger.find([signed.signature]) == first


@pytest.mark.asyncio
@pytest.mark.parametrize(("late", "lands"), [(-1, True), (0, True), (1, False), (50, False)])
async def test_a_transaction_lands_up_to_its_last_valid_height_and_never_later(
    late: int,
    lands: bool,  # noqa: FBT001
) -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        world.move_to_height(signed.last_valid_block_height + late)
        await world.network.receive(signed.raw)
        world.clock.ms += LONG_AFTER_MS
        await world.network.receive(signed.raw)
        assert (await world.status(signed.signature) is not None) is lands
        assert await world.proof(signed) is (LANDED if lands else EXPIRED)


@pytest.mark.asyncio
async def test_expiry_goes_by_height_and_not_by_slot() -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        world.move_to_height(signed.last_valid_block_height)
        assert world.slot_now() > signed.last_valid_block_height
        assert await world.proof(signed) is None
        await world.network.receive(signed.raw)
        assert await world.proof(signed) is LANDED


@pytest.mark.asyncio
async def test_what_would_land_after_its_last_valid_height_never_does() -> None:
    async with open_chain_world(delay_scale=10) as world:
        signed = await world.signed()
        world.move_to_height(signed.last_valid_block_height)
        await world.network.receive(signed.raw)
        for _ in range(300):
            world.clock.ms += SLOT_MS
            assert await world.status(signed.signature) is None
        assert await world.proof(signed) is EXPIRED


@pytest.mark.asyncio
async def test_bytes_that_are_no_transaction_and_signatures_that_are_not_ours_are_refused() -> None:
    async with open_chain_world() as world:
        signed = await world.signed()
        forged = signed.raw[:-1] + bytes([signed.raw[-1] ^ 1])
        for raw in (b"", b"nonsense", forged):
            with pytest.raises(ValueError):
                await world.network.receive(raw)
        assert await world.ledger.find([signed.signature]) == []


# --- faults --------------------------------------------------------------------------------------


@pytest.mark.asyncio
async def test_what_is_dropped_never_lands_unless_it_is_sent_again() -> None:
    faults = ChainFaults(drop=1)
    async with open_chain_world(faults=faults) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        assert await world.status(signed.signature) is None
        faults.drop = 0
        await world.network.receive(signed.raw)
        assert await world.proof(signed) is LANDED


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(20))
async def test_what_lands_late_lands_in_one_of_the_last_valid_blocks(seed: int) -> None:
    async with open_chain_world(faults=ChainFaults(late=1), seed=seed) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        [entry] = await world.ledger.find([signed.signature])
        assert signed.last_valid_block_height - 12 <= entry.block_height <= signed.last_valid_block_height
        world.clock.ms = entry.lands_at_ms - 1
        assert await world.status(signed.signature) is None
        world.clock.ms += 1
        assert await world.status(signed.signature) is not None
        world.clock.ms += LONG_AFTER_MS
        assert await world.proof(signed) is LANDED


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(10))
async def test_a_fork_takes_back_what_was_only_processed(seed: int) -> None:
    async with open_chain_world(faults=ChainFaults(fork=1), seed=seed) as world:
        signed = await world.signed()
        await world.network.receive(signed.raw)
        status = await world.status(signed.signature)
        assert status is not None
        assert status.commitment is Commitment.PROCESSED
        assert await world.proof(signed) is None
        gone = 0
        for _ in range(10):
            world.clock.ms += SLOT_MS
            status = await world.status(signed.signature)
            gone += status is None
        assert gone
        lands_again = bool(await world.ledger.find([signed.signature]))
        world.clock.ms += LONG_AFTER_MS
        assert await world.proof(signed) is (LANDED if lands_again else EXPIRED)


@pytest.mark.asyncio
@pytest.mark.parametrize("seed", range(10))
async def test_a_node_on_a_losing_fork_misses_what_landed_until_it_is_finalized(seed: int) -> None:
    faults = ChainFaults()
    async with open_chain_world(faults=faults, seed=seed) as world:
        signed = await world.signed()
        faults.fork = 1
        assert await world.status(signed.signature) is None
        assert await world.swap_result(signed.signature, USDC) is None
        faults.fork = 0
        world.clock.ms += SLOT_MS
        await world.network.receive(signed.raw)
        slot = world.slot_now()
        assert await world.status(signed.signature) is not None
        faults.fork = 1
        missed = 0
        while (await world.chain.finalized_point()).slot < slot:
            answer = await world.chain.signature_statuses([signed.signature])
            assert answer.context_slot < slot, "what the node has not finalized proves nothing"
            if not answer.statuses:
                missed += 1
                assert await world.proof(signed) is None
            world.clock.ms += SLOT_MS
        status = await world.status(signed.signature)
        assert status is not None
        assert status.commitment is Commitment.FINALIZED
        assert await world.swap_result(signed.signature, USDC) is not None
        assert missed <= 32, "the fork may be given up before"


@pytest.mark.asyncio
async def test_a_height_that_is_not_finalized_proves_nothing_to_a_node_on_a_losing_fork() -> None:
    """At every other commitment the height is past the last valid one, and yet the transaction landed."""
    faults, missed = ChainFaults(), 0
    for seed in range(20):
        async with open_chain_world(faults=faults, seed=seed) as world:
            signed = await world.signed()
            world.move_to_height(signed.last_valid_block_height - 1)
            faults.fork = 1
            assert await world.status(signed.signature) is None
            faults.fork = 0
            world.clock.ms += SLOT_MS
            await world.network.receive(signed.raw)
            faults.fork = 1
            world.clock.ms += 6 * SLOT_MS
            confirmed = world.network.slot_at(world.network.now_ms(), Commitment.CONFIRMED)
            assert block_height(confirmed) > signed.last_valid_block_height
            is_missed = await world.status(signed.signature) is None
            assert await world.proof(signed) in {None, LANDED}
            missed += is_missed
    assert missed


@pytest.mark.asyncio
async def test_what_is_delivered_twice_executes_once() -> None:
    async with open_chain_world(faults=ChainFaults(duplicate=1)) as world:
        signed = await world.signed()
        await asyncio.gather(*(world.network.receive(signed.raw) for _ in range(3)))
        assert len(await world.ledger.find([signed.signature])) == 1


@pytest.mark.parametrize(
    ("text", "faults"),
    [
        ("", ChainFaults()),
        ("drop=0.25", ChainFaults(drop=0.25)),
        (" drop=1, lag=0.5 ,", ChainFaults(drop=1, lag=0.5)),
        ("drop = 1 ,lag= 0.5", ChainFaults(drop=1, lag=0.5)),
        ("timeout=0.5,lost_reply=0.5,error=1", ChainFaults(timeout=0.5, lost_reply=0.5, error=1)),
        ("all=0.1,fork=0", msgspec.structs.replace(ChainFaults(*[0.1] * 10), fork=0)),
    ],
)
def test_faults_are_read(text: str, faults: ChainFaults) -> None:
    assert parse_faults(text) == faults


@pytest.mark.parametrize(
    ("text", "why"),
    [
        *(
            (text, "a rate from 0 to 1, such as drop=0.1")
            for text in ("drop", "drop=", "drop=2", "drop=-1", "drop=nan")
        ),
        *((text, "is not a fault") for text in ("doop=0.1", "drop:0.1", "=0.1")),
        *((text, "may add up to 1") for text in ("timeout=0.6,lost_reply=0.6", "all=0.5", "all=0.3,rate_limit=0.5")),
    ],
)
def test_faults_that_cannot_be_are_refused_with_the_reason(text: str, why: str) -> None:
    with pytest.raises(ValueError, match=why):
        parse_faults(text)
