"""Settlement ends only with a proof, even if the chain's RPC lies, fails or hangs."""

import asyncio
import itertools
from collections.abc import Coroutine
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.counters import Counters
from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import WrongCluster
from order_engine.domain.order import AttemptOutcome, SignedAttempt
from order_engine.engine.settlement import Observation, Proof, Settlement, decide
from order_engine.ports.chain import (
    MAX_SIGNATURES_IN_A_CALL,
    Commitment,
    SignatureStatus,
    SwapResult,
)
from tests.unit.samples import QUICK, USDC, ManualClock
from tests.unit.scripted_chain import (
    FINALIZED_BEHIND,
    HEIGHT_BEHIND,
    LAST_VALID,
    LIES,
    RAW,
    SIGNED_SLOT,
    SLOT_MS,
    TROUBLES,
    ScriptedChain,
    SlowChainAhead,
    attempt_of,
)

MIN_AMOUNT_OUT = 7
LONG_MS = 100_000
LANDED, REVERTED, EXPIRED = AttemptOutcome.LANDED, AttemptOutcome.REVERTED, AttemptOutcome.EXPIRED


def proving_of(settlement: Settlement, attempt: SignedAttempt) -> Coroutine[Any, Any, Proof]:
    return settlement.prove(attempt, USDC, MIN_AMOUNT_OUT, 0)


async def prove(chain: ScriptedChain, clock: ManualClock, resend_s: float = 2.0) -> Proof:
    async with asyncio.timeout(5):
        return await Settlement(chain, clock.now_s, 0, resend_s, Counters()).prove(
            attempt_of(), USDC, MIN_AMOUNT_OUT, 0
        )


# --- the decision --------------------------------------------------------------------------------

STATUSES = {
    None: None,
    **{
        (error, commitment): SignatureStatus(900, commitment, error)
        for error in (None, "custom 6001")
        for commitment in Commitment
    },
}
# These prove an outcome if the answer is as of the finalized slot or later; nothing else does.
SURE = (Commitment.CONFIRMED, Commitment.FINALIZED)
PROVES = {
    (None, 1): EXPIRED,
    **{((None, sure), height): LANDED for sure in SURE for height in (-1, 0, 1)},
    **{(("custom 6001", sure), height): REVERTED for sure in SURE for height in (-1, 0, 1)},
}


@pytest.mark.parametrize(
    ("context", "found", "height"), [*itertools.product((-1_000, -1, 0, 1, 1_000), STATUSES, (-1, 0, 1))]
)
def test_a_sighting_proves_what_the_table_says(context: int, found: Any, height: int) -> None:
    observation = Observation(0, ChainPoint(LAST_VALID + height, 2_000), 2_000 + context, STATUSES[found], SIGNED_SLOT)
    expected = PROVES.get((found, height)) if context >= 0 else None
    assert decide(observation, attempt_of(), LONG_MS) is expected


@pytest.mark.parametrize(
    ("commitment", "expected"),
    [(Commitment.PROCESSED, None), (Commitment.CONFIRMED, None), (Commitment.FINALIZED, LANDED)],
)
def test_a_slot_before_the_signing_is_believed_when_it_is_final(
    commitment: Commitment, expected: AttemptOutcome | None
) -> None:
    """One of the two slots was wrong; the order must still end if it was the slot of the signing."""
    status = SignatureStatus(SIGNED_SLOT - 1, commitment, None)
    assert decide(Observation(0, ChainPoint(1_000, 1_100), 1_100, status, 0), attempt_of(), LONG_MS) is expected


def test_slots_past_the_last_valid_height_prove_no_expiry() -> None:
    observation = Observation(0, ChainPoint(LAST_VALID, LAST_VALID + 999), LAST_VALID + 999, None, 0)
    assert decide(observation, attempt_of(), LONG_MS) is None


@pytest.mark.parametrize(
    ("history_from", "expected"), [(0, EXPIRED), (SIGNED_SLOT, EXPIRED), (SIGNED_SLOT + 1, None), (None, None)]
)
def test_a_node_whose_history_begins_after_the_signing_proves_no_expiry(
    history_from: int | None, expected: AttemptOutcome | None
) -> None:
    observation = Observation(0, ChainPoint(LAST_VALID + 1, 2_000), 2_000, None, history_from)
    assert decide(observation, attempt_of(), LONG_MS) is expected


# --- the loop ------------------------------------------------------------------------------------


@QUICK
@given(
    st.lists(st.sampled_from(TROUBLES), max_size=80),
    st.none() | st.integers(0, 60),
    st.sampled_from([None, "SlippageToleranceExceeded"]),
)
def test_whatever_the_rpc_does_the_outcome_is_the_truth(
    troubles: list[str], lands_after: int | None, error: str | None
) -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, troubles, lands_after, error)
    proof = asyncio.run(prove(chain, clock))
    outcome = proof.outcome.outcome
    if chain.landed_slot is None:
        assert (outcome, proof.slot, proof.result) == (EXPIRED, None, None)
        chain.heal()
        asyncio.run(chain.send(RAW))  # A proof of expiry stays true.
        assert chain.landed_slot is None
    else:
        assert outcome is (LANDED if error is None else REVERTED)
        assert proof.slot == chain.landed_slot
        assert proof.result == SwapResult(7 if error is None else None, error)
    assert {raw for _, raw in chain.sent} == {RAW}
    evidence = msgspec.json.decode(proof.outcome.evidence)
    assert evidence["contextSlot"] >= evidence["finalizedSlot"]
    assert ("slot" in evidence) == (proof.result is not None)
    assert evidence.get("commitment") != "processed"


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", LIES)
async def test_a_false_height_makes_no_attempt_expired_that_lands_in_its_last_block(lie: str) -> None:
    clock = ManualClock()
    last_slot = LAST_VALID + HEIGHT_BEHIND
    chain = ScriptedChain(clock, itertools.repeat(lie), last_slot - 1_000, None)
    proving = asyncio.create_task(prove(chain, clock, resend_s=1_000))
    async with asyncio.timeout(5):
        while not proving.done() and chain.slot < last_slot + 300:
            await asyncio.sleep(0)
        chain.heal()
        assert (await proving).outcome.outcome is LANDED


@pytest.mark.asyncio
@pytest.mark.parametrize("lie", ["slot as height", "jump of the height", "jump of both"])
async def test_a_false_height_proves_nothing_as_long_as_it_lasts(lie: str) -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, itertools.repeat(lie), None, None)
    proving = asyncio.create_task(proving_of(Settlement(chain, clock.now_s, 0, 2, Counters()), attempt_of()))
    async with asyncio.timeout(5):
        while chain.calls.count("finalized") < 300:
            await asyncio.sleep(0)
    assert not proving.done()
    chain.heal()
    async with asyncio.timeout(5):
        assert (await proving).outcome.outcome is EXPIRED


@pytest.mark.asyncio
async def test_the_time_that_an_answer_took_proves_no_expiry() -> None:
    clock = ManualClock()
    chain = SlowChainAhead(clock, (), 60, None)
    assert (await prove(chain, clock)).outcome.outcome is LANDED


@pytest.mark.asyncio
async def test_a_swap_that_gave_less_than_its_minimum_out_is_not_believed() -> None:
    """The program refuses such a swap, so the node is wrong about the status or about the amount."""
    clock = ManualClock()
    chain = ScriptedChain(clock, (), 1, None)
    proving = asyncio.create_task(Settlement(chain, clock.now_s, 0, 2, Counters()).prove(attempt_of(), USDC, 8, 0))
    async with asyncio.timeout(5):
        while chain.calls.count("result") < 20:
            await asyncio.sleep(0)
    assert not proving.done()
    proving.cancel()


@pytest.mark.asyncio
@pytest.mark.parametrize("trouble", ["no height", "no status", "lagging node"])
async def test_an_outage_of_any_length_is_no_outcome(trouble: str) -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, itertools.repeat(trouble), None, None)
    proving = asyncio.create_task(
        Settlement(chain, clock.now_s, 0, 2, Counters()).prove(attempt_of(), USDC, MIN_AMOUNT_OUT, 0)
    )
    async with asyncio.timeout(5):
        while chain.calls.count("finalized") < 300:
            await asyncio.sleep(0)
    assert chain.slot - HEIGHT_BEHIND > LAST_VALID + 300
    assert not proving.done()
    chain.heal()
    async with asyncio.timeout(5):
        assert (await proving).outcome.outcome is EXPIRED


@pytest.mark.asyncio
async def test_another_cluster_than_the_one_it_was_signed_for_proves_nothing_and_is_sent_nothing() -> None:
    """Another cluster does not know the signature, and its blocks may be far past the last valid height."""
    clock = ManualClock()
    chain = ScriptedChain(clock, (), None, None)
    chain.genesis_hash = "of another cluster"
    with pytest.raises(WrongCluster):
        await prove(chain, clock)
    assert chain.sent == []


@pytest.mark.asyncio
async def test_what_a_lagging_node_does_not_know_is_not_expired() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, ["no status"] * 100 + ["lagging node"] * 3, 40, None)
    proof = await prove(chain, clock)
    assert proof.outcome.outcome is LANDED
    assert chain.slot - FINALIZED_BEHIND - HEIGHT_BEHIND > LAST_VALID


@pytest.mark.asyncio
async def test_a_send_whose_answer_was_lost_is_looked_up_all_the_same() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, ["none"], 1, None)
    chain._trouble = "answer lost"
    assert (await prove(chain, clock, resend_s=1_000)).outcome.outcome is LANDED
    assert len(chain.sent) == 1


@pytest.mark.asyncio
async def test_the_same_bytes_go_out_again_after_each_pause_and_not_sooner() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, (), None, None)
    await prove(chain, clock, resend_s=5.0)
    times = [at_ms for at_ms, _ in chain.sent]
    assert len(times) > 5
    assert {raw for _, raw in chain.sent} == {RAW}
    pauses = [later - earlier for earlier, later in itertools.pairwise(times)]
    assert all(5_000 <= pause < 5_000 + 3 * SLOT_MS for pause in pauses)


@pytest.mark.asyncio
async def test_the_height_is_read_before_the_status() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, [], 10, None)
    await prove(chain, clock)
    looks = [call for call in chain.calls if call not in ("send", "result")]
    assert looks == ["finalized", "statuses"] * (len(looks) // 2)


@pytest.mark.asyncio
async def test_the_first_looks_follow_each_other_sooner(monkeypatch: pytest.MonkeyPatch) -> None:
    sleep, pauses = asyncio.sleep, []

    async def record(pause_s: float) -> None:
        pauses.append(pause_s)
        await sleep(0)

    monkeypatch.setattr(asyncio, "sleep", record)
    clock = ManualClock()
    settlement = Settlement(ScriptedChain(clock, (), 20, None), clock.now_s, 0.2, 1_000, Counters())
    await proving_of(settlement, attempt_of())
    assert pauses[:5] == [0.025, 0.05, 0.1, 0.2, 0.2]
    assert set(pauses[5:]) <= {0.2}


@pytest.mark.asyncio
async def test_all_that_are_in_flight_share_their_looks() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, [], 4, None)
    settlement = Settlement(chain, clock.now_s, 0, 1_000, Counters())
    count = MAX_SIGNATURES_IN_A_CALL + 44
    async with asyncio.timeout(5):
        proofs = await asyncio.gather(
            *(proving_of(settlement, attempt_of(f"signature {it}", b"%d" % it)) for it in range(count))
        )
    assert {proof.outcome.outcome for proof in proofs} == {LANDED}
    assert sorted(raw for _, raw in chain.sent) == sorted(b"%d" % it for it in range(count))
    assert max(len(looked) for looked in chain.looked_up) == MAX_SIGNATURES_IN_A_CALL
    assert len(chain.looked_up) <= 12
    # One look at the height serves all attempts.
    assert chain.calls.count("finalized") <= len(chain.looked_up) // 2


@pytest.mark.asyncio
async def test_whoever_stops_waiting_leaves_the_others_their_proof() -> None:
    clock = ManualClock()
    settlement = Settlement(ScriptedChain(clock, ["none"] * 5, 10, None), clock.now_s, 0, 2, Counters())
    proving = [asyncio.create_task(proving_of(settlement, attempt_of(f"signature {it}"))) for it in range(3)]
    await asyncio.sleep(0)
    proving[0].cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*proving, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert [isinstance(it, Proof) for it in ended] == [False, True, True]
