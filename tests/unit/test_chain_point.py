"""Which block heights and slots can be true together, and when a transaction is certainly dead."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.chain_point import ChainPoint, is_past_expiry, latest_possible_slot, why_impossible
from tests.unit.samples import QUICK

SIGNED = ChainPoint(800, 1_000)
LAST_VALID = 980
BLOCKHASH_SLOT = 1_030
MINUTE_MS = 60_000


@pytest.mark.parametrize(
    ("point", "agrees"),
    [
        (ChainPoint(800, 1_000), True),
        (ChainPoint(801, 1_000), False),  # one slot, two heights
        (ChainPoint(900, 1_100), True),  # no slot skipped
        (ChainPoint(901, 1_100), False),  # more blocks than slots
        (ChainPoint(800, 1_100), True),  # every slot skipped
        (ChainPoint(799, 1_100), False),  # the height fell
        (ChainPoint(1_100, 1_100), False),  # the slot instead of the height
        (ChainPoint(700, 900), True),  # a node that lags
        (ChainPoint(699, 900), False),
        (ChainPoint(801, 900), False),
    ],
)
def test_two_points_of_one_chain_agree(point: ChainPoint, agrees: bool) -> None:  # noqa: FBT001 - a table
    assert point.agrees_with(SIGNED) is agrees
    assert SIGNED.agrees_with(point) is agrees


@QUICK
@given(st.lists(st.booleans(), min_size=200, max_size=600), st.integers(0, 150), st.integers(0, 150))
def test_any_two_points_of_a_true_chain_agree(has_block: list[bool], first: int, second: int) -> None:
    points = [ChainPoint(sum(has_block[:slot]), slot) for slot in (first, second)]
    assert points[0].agrees_with(points[1])


@QUICK
@given(st.integers(0, 32), st.integers(0, 10_000), st.data())
def test_no_height_makes_a_live_transaction_look_dead(skipped: int, lie: int, data: st.DataObject) -> None:
    """A node may tell any height, if a maximum of 32 slots is skipped while the transaction lives."""
    slot = data.draw(st.integers(SIGNED.slot, BLOCKHASH_SLOT + 150 + skipped))
    assert not is_past_expiry(BLOCKHASH_SLOT, LAST_VALID, ChainPoint(SIGNED.block_height + lie, slot), 2 * MINUTE_MS)


def test_a_true_height_past_the_last_valid_one_is_expiry() -> None:
    assert not is_past_expiry(BLOCKHASH_SLOT, LAST_VALID, ChainPoint(LAST_VALID, 5_000), 2 * MINUTE_MS)
    assert not is_past_expiry(
        BLOCKHASH_SLOT, LAST_VALID, ChainPoint(LAST_VALID + 1, BLOCKHASH_SLOT + 182), 2 * MINUTE_MS
    )
    assert is_past_expiry(BLOCKHASH_SLOT, LAST_VALID, ChainPoint(LAST_VALID + 1, BLOCKHASH_SLOT + 183), 2 * MINUTE_MS)


def test_a_point_that_does_not_follow_from_the_signing_is_impossible() -> None:
    told = why_impossible(SIGNED, BLOCKHASH_SLOT, ChainPoint(1_100, 1_100), MINUTE_MS)
    assert told == "block height 1100 at slot 1100 contradicts block height 800 at slot 1000"
    for possible in (ChainPoint(890, 1_100), ChainPoint(889, 1_110), ChainPoint(700, 900)):
        assert why_impossible(SIGNED, BLOCKHASH_SLOT, possible, MINUTE_MS) is None


def test_no_cluster_is_faster_than_time() -> None:
    far = ChainPoint(900, latest_possible_slot(BLOCKHASH_SLOT, MINUTE_MS) + 1)
    told = str(why_impossible(SIGNED, BLOCKHASH_SLOT, far, MINUTE_MS))
    assert "further than a cluster gets in 60000 ms" in told
    assert why_impossible(SIGNED, BLOCKHASH_SLOT, far, 2 * MINUTE_MS) is None


def test_a_clock_that_was_set_back_only_delays_belief() -> None:
    at_once = latest_possible_slot(BLOCKHASH_SLOT, 0)
    assert latest_possible_slot(BLOCKHASH_SLOT, -MINUTE_MS) == at_once > BLOCKHASH_SLOT


def test_no_transaction_is_dead_before_its_blocks_can_have_passed() -> None:
    """A node whose answers are all 150 blocks ahead contradicts nothing that the engine knows."""
    ahead = ChainPoint(LAST_VALID + 1, BLOCKHASH_SLOT + 183)
    assert not is_past_expiry(BLOCKHASH_SLOT, LAST_VALID, ahead, 72_799)
    assert is_past_expiry(BLOCKHASH_SLOT, LAST_VALID, ahead, 72_800)
