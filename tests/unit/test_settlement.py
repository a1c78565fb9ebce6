"""Settlement ends only with a proof, whatever the chain's RPC says, does or fails to do."""

import asyncio
import itertools
from collections.abc import Coroutine, Iterable, Sequence
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import AnotherCluster, ChainUnavailable
from order_engine.domain.order import Attempt, AttemptOutcome, EpochMs
from order_engine.domain.tokens import Token
from order_engine.engine.settlement import Proof, Settlement, Sighting, decide
from order_engine.ports.chain import (
    MOST_SIGNATURES_IN_A_CALL,
    Blockhash,
    Commitment,
    SignatureStatus,
    SignatureStatuses,
    SwapResult,
)
from tests.unit.samples import QUICK, START_MS, USDC, ManualClock

SLOT_MS = 400
FINALIZED_BEHIND = 32
HEIGHT_BEHIND = 100  # Block heights are smaller than slots, so whoever mixes them up is wrong.
LAST_VALID = 1_050
SIGNED_SLOT = 900
SIGNED = ChainPoint(SIGNED_SLOT - HEIGHT_BEHIND, SIGNED_SLOT)
# The blockhash is good for 150 blocks, and no slot is skipped here.
BLOCKHASH_SLOT = LAST_VALID - 150 + HEIGHT_BEHIND
MIN_AMOUNT_OUT = 7
LONG_MS = 100_000
RAW = b"the signed bytes"
SIGNATURE = "5igna7ure"
LANDED, REVERTED, EXPIRED = AttemptOutcome.LANDED, AttemptOutcome.REVERTED, AttemptOutcome.EXPIRED

LIES = ("slot as height", "height of another fork", "jump of the height", "jump of both", "constant height")
TROUBLES = ("none", "send lost", "answer lost", "no height", "no status", "old height", "lagging node", *LIES)


def attempt_of(signature: str = SIGNATURE, raw: bytes = RAW, last_valid: int = LAST_VALID) -> Attempt:
    return Attempt(1, signature, raw, last_valid, SIGNED, BLOCKHASH_SLOT, EpochMs(START_MS), "genesis")


class ScriptedChain:
    """What settlement needs of a Chain: one truth, told badly. Each look meets the next trouble of the script.

    What reaches the network lands `lands_after` slots later, once, unless its height is past the last
    valid one; None: the network drops it.
    """

    def __init__(self, clock: ManualClock, troubles: Iterable[str], lands_after: int | None, error: str | None) -> None:
        self._clock = clock
        self._troubles = iter(troubles)
        self._trouble = "none"
        self._lands_after = lands_after
        self._error = error
        self.genesis_hash = "genesis"
        self.landed_slot: int | None = None
        self.sent: list[tuple[int, bytes]] = []
        self.calls: list[str] = []
        self.looked_up: list[list[str]] = []

    def heal(self) -> None:
        self._troubles = iter(())
        self._trouble = "none"

    @property
    def slot(self) -> int:
        return 1_000 + (self._clock.ms - START_MS) // SLOT_MS

    async def send(self, raw: bytes) -> None:
        self.calls.append("send")
        self.sent.append((self._clock.ms, raw))
        if self._trouble == "send lost":
            raise ChainUnavailable("refused")
        if self._lands_after is not None and self.landed_slot is None:
            slot = self.slot + self._lands_after
            if slot - HEIGHT_BEHIND <= LAST_VALID:
                self.landed_slot = slot
        if self._trouble == "answer lost":
            raise ChainUnavailable("timed out")

    async def finalized_point(self) -> ChainPoint:
        self.calls.append("finalized")
        self._clock.ms += 3 * SLOT_MS
        self._trouble = next(self._troubles, "none")
        if self._trouble == "no height":
            raise ChainUnavailable("502")
        slot = self.slot - FINALIZED_BEHIND - (500 if self._trouble == "old height" else 0)
        height = slot - HEIGHT_BEHIND
        told = {
            "slot as height": ChainPoint(slot, slot),
            "height of another fork": ChainPoint(height + 16, slot),
            "jump of the height": ChainPoint(height + 5_000, slot),
            "jump of both": ChainPoint(height + 5_000, slot + 5_000),
            "constant height": ChainPoint(LAST_VALID + 1, slot),
        }
        return told.get(self._trouble, ChainPoint(height, slot))

    async def latest_blockhash(self) -> Blockhash:
        if self._trouble == "no height":
            raise ChainUnavailable("502")
        slot = self.slot - FINALIZED_BEHIND
        return Blockhash(
            "hash", self.slot - 2 - HEIGHT_BEHIND + 150, ChainPoint(slot - HEIGHT_BEHIND, slot), slot, "genesis"
        )

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        self.calls.append("statuses")
        self.looked_up.append([*signatures])
        if self._trouble == "no status":
            raise ChainUnavailable("429")
        seen_slot = self.slot - (FINALIZED_BEHIND + 150 if self._trouble == "lagging node" else 0)
        statuses = {}
        if self.landed_slot is not None and self.landed_slot <= seen_slot:
            age = seen_slot - self.landed_slot
            commitment = Commitment.PROCESSED if age < 2 else Commitment.CONFIRMED
            statuses = dict.fromkeys(signatures, SignatureStatus(self.landed_slot, commitment, self._error))
        return SignatureStatuses(seen_slot, statuses, history_from_slot=0)

    async def swap_result(self, _signature: str, _token_out: Token) -> SwapResult | None:
        self.calls.append("result")
        self._trouble = next(self._troubles, "none")
        if self._trouble in ("no status", "no height"):
            raise ChainUnavailable("429")
        if self._trouble == "lagging node":
            return None
        return SwapResult(7 if self._error is None else None, self._error)


def proving_of(settlement: Settlement, attempt: Attempt) -> Coroutine[Any, Any, Proof]:
    return settlement.prove(attempt, USDC, MIN_AMOUNT_OUT, 0)


async def prove(chain: ScriptedChain, clock: ManualClock, resend_s: float = 2.0) -> Proof:
    async with asyncio.timeout(5):
        return await Settlement(chain, clock.now_s, 0, resend_s).prove(attempt_of(), USDC, MIN_AMOUNT_OUT, 0)


# --- the decision --------------------------------------------------------------------------------

STATUSES = {
    None: None,
    **{
        (error, commitment): SignatureStatus(900, commitment, error)
        for error in (None, "custom 6001")
        for commitment in Commitment
    },
}
# With an answer as of the finalized slot or later. Everything else proves nothing.
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
    sighting = Sighting(0, ChainPoint(LAST_VALID + height, 2_000), 2_000 + context, STATUSES[found], SIGNED_SLOT)
    expected = PROVES.get((found, height)) if context >= 0 else None
    assert decide(sighting, attempt_of(), LONG_MS) is expected


@pytest.mark.parametrize(
    ("commitment", "expected"),
    [(Commitment.PROCESSED, None), (Commitment.CONFIRMED, None), (Commitment.FINALIZED, LANDED)],
)
def test_a_slot_before_the_signing_is_believed_when_it_is_final(
    commitment: Commitment, expected: AttemptOutcome | None
) -> None:
    """One of the two slots was a lie; when it was the one at the signing, the order must still come to its end."""
    status = SignatureStatus(SIGNED_SLOT - 1, commitment, None)
    assert decide(Sighting(0, ChainPoint(1_000, 1_100), 1_100, status, 0), attempt_of(), LONG_MS) is expected


def test_slots_past_the_last_valid_height_prove_no_expiry() -> None:
    sighting = Sighting(0, ChainPoint(LAST_VALID, LAST_VALID + 999), LAST_VALID + 999, None, 0)
    assert decide(sighting, attempt_of(), LONG_MS) is None


@pytest.mark.parametrize(
    ("history_from", "expected"), [(0, EXPIRED), (SIGNED_SLOT, EXPIRED), (SIGNED_SLOT + 1, None), (None, None)]
)
def test_a_node_whose_history_begins_after_the_signing_proves_no_expiry(
    history_from: int | None, expected: AttemptOutcome | None
) -> None:
    sighting = Sighting(0, ChainPoint(LAST_VALID + 1, 2_000), 2_000, None, history_from)
    assert decide(sighting, attempt_of(), LONG_MS) is expected


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
        asyncio.run(chain.send(RAW))  # A proof of expiry is one for good.
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
    proving = asyncio.create_task(proving_of(Settlement(chain, clock.now_s, 0, 2), attempt_of()))
    async with asyncio.timeout(5):
        while chain.calls.count("finalized") < 300:
            await asyncio.sleep(0)
    assert not proving.done()
    chain.heal()
    async with asyncio.timeout(5):
        assert (await proving).outcome.outcome is EXPIRED


class SlowChainAhead(ScriptedChain):
    """Every number is ahead by 250 slots, and each status is told 80 s after the node looked it up."""

    AHEAD = 250

    async def finalized_point(self) -> ChainPoint:
        told = await super().finalized_point()
        return ChainPoint(told.block_height + self.AHEAD, told.slot + self.AHEAD)

    async def latest_blockhash(self) -> Blockhash:
        told = await super().latest_blockhash()
        finalized = ChainPoint(told.finalized.block_height + self.AHEAD, told.finalized.slot + self.AHEAD)
        return msgspec.structs.replace(
            told, last_valid_block_height=told.last_valid_block_height + self.AHEAD, finalized=finalized
        )

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        told = await super().signature_statuses(signatures)
        self._clock.ms += 80_000
        return msgspec.structs.replace(told, context_slot=told.context_slot + self.AHEAD)


@pytest.mark.asyncio
async def test_the_time_that_an_answer_took_proves_no_expiry() -> None:
    clock = ManualClock()
    chain = SlowChainAhead(clock, (), 60, None)
    assert (await prove(chain, clock)).outcome.outcome is LANDED


@pytest.mark.asyncio
async def test_a_swap_that_gave_less_than_its_minimum_out_is_not_believed() -> None:
    """The program refuses it, so the node that says so is wrong about one of the two."""
    clock = ManualClock()
    chain = ScriptedChain(clock, (), 1, None)
    proving = asyncio.create_task(Settlement(chain, clock.now_s, 0, 2).prove(attempt_of(), USDC, 8, 0))
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
    proving = asyncio.create_task(Settlement(chain, clock.now_s, 0, 2).prove(attempt_of(), USDC, MIN_AMOUNT_OUT, 0))
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
    """It has never heard of the signature, and its blocks may be far past the last valid height."""
    clock = ManualClock()
    chain = ScriptedChain(clock, (), None, None)
    chain.genesis_hash = "of another cluster"
    with pytest.raises(AnotherCluster):
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
async def test_all_that_are_in_flight_share_their_looks() -> None:
    clock = ManualClock()
    chain = ScriptedChain(clock, [], 4, None)
    settlement = Settlement(chain, clock.now_s, 0, 1_000)
    count = MOST_SIGNATURES_IN_A_CALL + 44
    async with asyncio.timeout(5):
        proofs = await asyncio.gather(
            *(proving_of(settlement, attempt_of(f"signature {it}", b"%d" % it)) for it in range(count))
        )
    assert {proof.outcome.outcome for proof in proofs} == {LANDED}
    assert sorted(raw for _, raw in chain.sent) == sorted(b"%d" % it for it in range(count))
    assert max(len(looked) for looked in chain.looked_up) == MOST_SIGNATURES_IN_A_CALL
    assert len(chain.looked_up) <= 12
    # One height serves them all.
    assert chain.calls.count("finalized") <= len(chain.looked_up) // 2


@pytest.mark.asyncio
async def test_whoever_stops_waiting_leaves_the_others_their_proof() -> None:
    clock = ManualClock()
    settlement = Settlement(ScriptedChain(clock, ["none"] * 5, 10, None), clock.now_s, 0, 2)
    proving = [asyncio.create_task(proving_of(settlement, attempt_of(f"signature {it}"))) for it in range(3)]
    await asyncio.sleep(0)
    proving[0].cancel()
    async with asyncio.timeout(5):
        ended = await asyncio.gather(*proving, return_exceptions=True)
    assert isinstance(ended[0], asyncio.CancelledError)
    assert [isinstance(it, Proof) for it in ended] == [False, True, True]
