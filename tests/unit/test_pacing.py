"""If a node limits the client, the client waits as the node says, longer each time; sends go before looks."""

import pytest

from order_engine.chain.pacing import Pacing, retry_after_s
from tests.unit.samples import ManualClock


def test_pauses_double_until_the_node_answers_and_are_bounded() -> None:
    clock = ManualClock()
    pacing = Pacing(clock.now_s)
    assert pacing.wait_s(is_send=False) == 0
    pauses = []
    for _ in range(8):
        pacing.note_limited(None)
        pacing.note_limited(None)  # A second refusal at the same moment does not double the pause.
        pauses.append(round(pacing.wait_s(is_send=True), 2))
        clock.ms += 10_001
    assert pauses == [0.25, 0.5, 1.0, 2.0, 4.0, 8.0, 10.0, 10.0]
    pacing.note_answered()
    pacing.note_limited(None)
    assert round(pacing.wait_s(is_send=True), 2) == 0.25


def test_the_node_says_when_to_come_back_within_a_bound() -> None:
    clock = ManualClock()
    pacing = Pacing(clock.now_s)
    pacing.note_limited(3.0)
    assert round(pacing.wait_s(is_send=True), 2) == 3.0
    clock.ms += 3_000
    assert pacing.wait_s(is_send=True) == 0
    pacing.note_limited(86_400.0)
    assert round(pacing.wait_s(is_send=True), 2) == 10.0


def test_sends_go_before_looks() -> None:
    clock = ManualClock()
    pacing = Pacing(clock.now_s)
    pacing.note_limited(1.0)
    assert pacing.wait_s(is_send=True) < pacing.wait_s(is_send=False)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [(None, None), ("", None), ("5", 5.0), (" 7 ", 7.0), ("-1", None), ("1.5", None), ("9" * 40, None), ("soon", None)],
)
def test_a_retry_after_is_read(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header) == seconds
