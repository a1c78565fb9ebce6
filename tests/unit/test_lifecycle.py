"""The table decides every step of every order's life, and both databases hold the same table."""

import itertools
import re

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from order_engine.domain.errors import NoRoute, ReasonCode
from order_engine.domain.events import AttemptFailed, OrderEvent, RouteCompared
from order_engine.domain.lifecycle import CANCELLABLE, TERMINAL, TRANSITIONS, IllegalTransition, apply
from order_engine.domain.order import EpochMs, Order, OrderStatus
from order_engine.domain.routing import QuoteFailure, choose_quote
from order_engine.store.sql import POSTGRES, SQLITE, Dialect, load_migrations
from tests.unit.samples import BONK, FACTS, QUICK, REQUEST, SOL, START_MS, S, histories, new_order, order_in

LEGAL = [(before, after) for before, following in TRANSITIONS.items() for after in following]
ILLEGAL = [pair for pair in itertools.product(OrderStatus, FACTS) if pair not in LEGAL]
NOW = EpochMs(START_MS + 5_000)

History = list[tuple[Order, OrderEvent]]


@pytest.mark.parametrize(("before", "after"), sorted(LEGAL))
def test_a_legal_fact_moves_the_order(before: OrderStatus, after: OrderStatus) -> None:
    order = order_in(before)
    moved, event = apply(order, FACTS[after], NOW)
    assert (moved.status, moved.seq, moved.updated_at_ms) == (after, order.seq + 1, NOW)
    assert (event.order_id, event.seq, event.status) == (order.order_id, moved.seq, after)
    assert (event.attempt_number, event.at_ms, event.elapsed_ms) == (moved.attempt_number, NOW, 5_000)
    assert moved.attempt_number == order.attempt_number + (after is S.ROUTING)
    kept = ("order_id", "account", "request", "created_at_ms")
    assert [getattr(moved, name) for name in kept] == [getattr(order, name) for name in kept]


@pytest.mark.parametrize(("before", "after"), sorted(ILLEGAL))
def test_an_illegal_fact_is_refused(before: OrderStatus, after: OrderStatus) -> None:
    order = order_in(before)
    with pytest.raises(IllegalTransition, match=f"{before} -> {after}"):
        apply(order, FACTS[after], NOW)
    assert order == order_in(before)


def test_nothing_leads_back_to_pending() -> None:
    assert {*FACTS} == {*OrderStatus} - {S.PENDING}
    assert S.PENDING not in set().union(*TRANSITIONS.values())


def test_the_table_knows_every_status_and_three_ends() -> None:
    assert {*TRANSITIONS} == {*OrderStatus}
    assert {S.CONFIRMED, S.FAILED, S.CANCELLED} == TERMINAL
    assert {S.PENDING, S.ROUTING, S.BUILDING, S.RETRYING} == CANCELLABLE


def test_every_status_can_be_reached_and_left_for_an_end() -> None:
    reached = {S.PENDING}
    for _ in OrderStatus:
        reached |= {after for before, after in LEGAL if before in reached}
    assert reached == {*OrderStatus}
    assert all(TRANSITIONS[status] & TERMINAL for status in OrderStatus if status not in TERMINAL)


def test_only_a_submitted_order_is_in_doubt() -> None:
    assert [status for status in OrderStatus if order_in(status).is_in_doubt] == [S.SUBMITTED]


def test_a_swap_is_confirmed_only_after_it_was_submitted() -> None:
    assert [before for before, after in LEGAL if after is S.CONFIRMED] == [S.SUBMITTED]
    assert [before for before, after in LEGAL if after is S.SUBMITTED] == [S.BUILDING]


# --- the tables of the databases -----------------------------------------------------------------


@pytest.mark.parametrize("dialect", [POSTGRES, SQLITE])
def test_the_database_allows_what_the_table_allows_and_nothing_else(dialect: Dialect) -> None:
    statements = load_migrations(dialect)[0].statements
    tables = re.findall(r"\(p\.status, \w+\.status\) in \((.*?)\n\s*\)", statements, re.DOTALL)
    assert len(tables) == 1
    pairs = re.findall(r"\('(\w+)', '(\w+)'\)", tables[0])
    assert len(pairs) == tables[0].count("(")
    assert sorted(pairs) == sorted((before.value, after.value) for before, after in LEGAL)


@pytest.mark.parametrize("dialect", [POSTGRES, SQLITE])
def test_the_database_knows_the_same_statuses_and_the_same_ends(dialect: Dialect) -> None:
    statements = load_migrations(dialect)[0].statements
    known = re.search(r"orders_status_known check \(status in \((.*?)\)\)", statements, re.DOTALL)
    assert known is not None
    assert set(re.findall(r"'(\w+)'", known[1])) == {*OrderStatus}
    ends = re.findall(r"status in \(('confirmed'[^)]*)\)", statements)
    assert len(ends) >= 2
    assert all(set(re.findall(r"'(\w+)'", end)) == TERMINAL for end in ends)


# --- random lives --------------------------------------------------------------------------------


@QUICK
@given(histories())
def test_a_history_is_counted_from_one_without_a_gap(history: History) -> None:
    assert [event.seq for _, event in history] == [*range(1, len(history) + 1)]
    assert all(
        (order.seq, order.status, order.attempt_number) == (it.seq, it.status, it.attempt_number)
        for order, it in history
    )
    assert history[0][1].status is S.PENDING


@QUICK
@given(histories(complete=True))
def test_a_history_has_one_terminal_event_and_it_is_the_last(history: History) -> None:
    assert [event.seq for _, event in history if event.status in TERMINAL] == [len(history)]


@QUICK
@given(histories())
def test_time_never_runs_backwards_whatever_the_clocks_say(history: History) -> None:
    times = [event.at_ms for _, event in history]
    assert times == sorted(times)
    assert all(order.updated_at_ms == event.at_ms for order, event in history)
    assert all(event.elapsed_ms == event.at_ms - times[0] >= 0 for _, event in history)


@QUICK
@given(histories())
def test_attempts_are_counted_by_routings(history: History) -> None:
    routings = 0
    for order, event in history:
        routings += event.status is S.ROUTING
        assert order.attempt_number == event.attempt_number == routings


@QUICK
@given(histories())
def test_whoever_ended_or_waits_has_a_reason_and_whoever_works_has_none(history: History) -> None:
    for order, event in history:
        has_reason = event.status in {S.RETRYING, S.FAILED, S.CANCELLED}
        assert (order.reason_code is not None) == has_reason == ("reason" in event.details())
        if has_reason:
            assert event.details()["reason"] == {"code": order.reason_code, "message": order.reason_message}


@QUICK
@given(histories(), st.sampled_from(sorted(FACTS)))
def test_a_life_goes_on_exactly_as_the_table_says(history: History, status: OrderStatus) -> None:
    order, _ = history[-1]
    if status in TRANSITIONS[order.status]:
        assert apply(order, FACTS[status], NOW)[0].status is status
    else:
        with pytest.raises(IllegalTransition):
            apply(order, FACTS[status], NOW)


@QUICK
@given(histories())
def test_an_order_and_its_events_survive_encoding(history: History) -> None:
    for order, event in history:
        assert msgspec.json.decode(msgspec.json.encode(order), type=Order) == order
        assert msgspec.json.decode(msgspec.json.encode(event), type=OrderEvent) == event


# --- the changes and events of a fact ------------------------------------------------------------


def test_a_new_order_is_pending_with_its_first_event() -> None:
    order, event = new_order()
    assert (order.status, order.seq, order.attempt_number) == (S.PENDING, 1, 0)
    assert (event.order_id, event.seq, event.status, event.attempt_number) == (order.order_id, 1, S.PENDING, 0)
    assert (event.at_ms, event.elapsed_ms) == (order.created_at_ms, 0)
    assert event.details() == {
        "clientOrderId": None,
        "type": "market",
        "tokenIn": "SOL",
        "tokenOut": "USDC",
        "amountIn": "1.5",
        "slippageBps": 50,
    }


def test_a_comparison_keeps_every_quote_and_why_it_lost() -> None:
    order, event = apply(order_in(S.PENDING), FACTS[S.ROUTING], NOW)
    assert (order.venue, order.min_amount_out) == ("raydium", 223_875_000)
    details = event.details()
    assert (details["venue"], details["minAmountOut"], details["marginBps"]) == ("raydium", "223.875", 44)
    assert details["quotes"] == msgspec.json.decode(order.quotes)
    won, lost = details["quotes"]
    assert (won["venue"], won["chosen"], won["amountOut"]) == ("raydium", True, "225")
    assert (lost["venue"], lost["chosen"], lost["amountOut"]) == ("meteora", False, "224")
    assert "44 bps less" in lost["lostBecause"]


def test_a_comparison_without_a_winner_fixes_no_minimum() -> None:
    route = choose_quote([QuoteFailure("raydium", NoRoute("has no pool"))])
    order, event = apply(order_in(S.RETRYING), RouteCompared(route, None), NOW)
    assert (order.venue, order.min_amount_out, order.reason_code) == (None, None, None)
    assert event.details()["quotes"] == [{"venue": "raydium", "chosen": False, "lostBecause": "no_route: has no pool"}]


def test_a_confirmation_tells_amount_price_and_signature() -> None:
    order, event = apply(order_in(S.SUBMITTED), FACTS[S.CONFIRMED], NOW)
    assert order.amount_out == 224_500_000
    assert event.details() == {
        "venue": "raydium",
        "txSignature": "5igna7ure",
        "amountOut": "224.5",
        "price": "149.666666667",
        "slot": 1_042,
    }


def test_amounts_are_told_in_the_decimals_of_the_token_that_comes_out() -> None:
    order, _ = new_order(request=replace(REQUEST, token_in=SOL, token_out=BONK))
    _, event = apply(order, FACTS[S.ROUTING], NOW)
    assert event.details()["quotes"][0]["amountOut"] == "2250"


def test_a_retry_tells_when_and_the_next_routing_forgets_the_reason() -> None:
    order, event = apply(order_in(S.BUILDING), AttemptFailed(ReasonCode.SLIPPAGE_EXCEEDED, "too little", 750), NOW)
    assert event.details() == {"reason": {"code": "slippage_exceeded", "message": "too little"}, "retryInMs": 750}
    again, _ = apply(order, FACTS[S.ROUTING], NOW)
    assert (again.reason_code, again.reason_message, again.attempt_number) == (None, None, 2)


def test_a_cancellation_says_that_the_client_wanted_it() -> None:
    order, event = apply(order_in(S.ROUTING), FACTS[S.CANCELLED], NOW)
    assert order.reason_code is ReasonCode.CANCELLED_BY_CLIENT
    assert event.details()["reason"]["code"] == "cancelled_by_client"
