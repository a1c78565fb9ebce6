"""Counting connections, frames, bytes and faults, with the time passed in."""

import pytest

from order_engine.api.limits import WINDOW_S, Budget, Limits, Offenders, Seats
from order_engine.counters import Faults


def test_frames_and_bytes_are_counted_in_windows() -> None:
    budget = Budget(Limits(frames_per_window=3, kib_per_window=1))
    assert budget.take_read(1_000, 0)
    assert [budget.take_frame() for _ in range(4)] == [True, True, True, False]
    assert not budget.take_read(100, WINDOW_S - 1)
    assert budget.take_read(1_024, WINDOW_S)
    assert [budget.take_frame() for _ in range(4)] == [True, True, True, False]


def test_many_small_reads_use_up_the_bytes() -> None:
    budget = Budget(Limits(kib_per_window=1))
    assert [budget.take_read(1, 0) for _ in range(17)] == [True] * 16 + [False]


def test_0_switches_a_limit_off() -> None:
    off = Limits(connections=0, connections_per_address=0, frames_per_window=0, kib_per_window=0)
    budget, seats = Budget(off), Seats(off)
    assert all(budget.take_read(1_000_000, 0) and budget.take_frame() for _ in range(1_000))
    assert not any(seats.take("a").refusal for _ in range(1_000))


@pytest.mark.parametrize("limits", [Limits(connections=2), Limits(connections_per_address=2)])
def test_a_seat_is_free_again_when_it_is_left(limits: Limits) -> None:
    seats = Seats(limits)
    first, _, third = (seats.take("a") for _ in range(3))
    assert first.refusal is None
    assert third.refusal is not None
    assert (seats.take("b").refusal is None) is bool(limits.connections != 2)
    third.leave()
    assert seats.take("a").refusal is not None
    first.leave()
    first.leave()
    assert seats.take("a").refusal is None
    assert seats.take("a").refusal is not None


def test_of_those_that_are_refused_only_some_are_kept_waiting() -> None:
    seats = Seats(Limits(connections=1))
    taken = [seats.take("a") for _ in range(1_000)]
    assert sum(not it.is_hopeless for it in taken) < 300
    for seat in taken:
        seat.leave()
    assert seats.take("a").refusal is None


def test_a_trusted_proxy_counts_for_no_address_and_its_requests_do() -> None:
    seats = Seats(Limits(connections_per_address=1, is_trusted_proxy=lambda address: address == "proxy"))
    assert not any(seats.take("proxy").refusal for _ in range(9))
    assert seats.begin_request("a") is None
    assert seats.begin_request("a") is not None
    assert seats.begin_request("b") is None
    seats.end_request("a")
    assert seats.begin_request("a") is None


def test_an_address_that_offends_comes_back_more_and_more_slowly_and_is_forgotten() -> None:
    offenders = Offenders()
    assert offenders.delay_s("a", 0) == 0
    delays = []
    for _ in range(1_000):
        offenders.add("a", 1)
        delays.append(offenders.delay_s("a", 1))
    assert delays == sorted(delays)
    assert delays[-1] == 10
    assert offenders.delay_s("b", 1) == 0
    assert offenders.delay_s("a", 1 + 12 * WINDOW_S) <= 10
    for window in range(12):
        offenders.delay_s("a", 1 + window * WINDOW_S)
    assert offenders.delay_s("a", 1 + 12 * WINDOW_S) < 1


def test_faults_are_told_once_a_minute_with_their_number_and_an_address() -> None:
    faults = Faults()
    assert faults.take(0) is None
    faults.add("bad request", "a")
    assert faults.take(0) == ({"bad request": 1}, {"bad request": "a"})
    for number in range(1_000):
        faults.add("bad request", f"b{number}")
        faults.add("bad frame", "c" * 1_000)
    assert faults.take(59) is None
    counts, addresses = faults.take(60) or ({}, {})
    assert counts == {"bad request": 1_000, "bad frame": 1_000}
    assert addresses == {"bad request": "b0", "bad frame": "c" * 64}
    assert faults.take(120) is None
