"""The venue with the largest amount out wins, and each other quote says why it lost."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.errors import NoRoute, QuoteTimedOut, ReasonCode, StepFailed, VenueFailed
from order_engine.domain.routing import Quote, QuoteFailure, RankedQuote, choose_quote
from tests.unit.samples import QUICK, quote

names = st.sampled_from(["meteora", "orca", "phoenix", "raydium"])
offers = st.lists(
    st.builds(quote, names, st.integers(1, 2**63 - 1) | st.integers(1, 3), st.integers(0, 3)),
    max_size=4,
    unique_by=lambda it: it.venue,
)
failures = st.lists(
    st.builds(
        QuoteFailure,
        names.map(lambda name: f"broken {name}"),
        st.sampled_from([NoRoute("no pool"), QuoteTimedOut("no quote"), VenueFailed("broken")]),
    ),
    max_size=4,
    unique_by=lambda it: it.venue,
)


def test_the_largest_net_output_wins_and_the_loser_is_told_by_how_much() -> None:
    best, other = quote("raydium", 10_100, impact=9), quote("meteora", 10_000)
    route = choose_quote([other, best])
    assert (route.winner, route.margin_bps, route.failure) == (best, 100, None)
    assert route.ranked == (
        RankedQuote("raydium", best, None),
        RankedQuote("meteora", other, "gives 100 bps less after fees and price impact"),
    )


def test_equal_outputs_go_to_the_smaller_impact_then_by_name() -> None:
    quotes = [quote("raydium", 100, 1), quote("orca", 100, 1), quote("meteora", 100, 2)]
    for order in itertools.permutations(quotes):
        route = choose_quote(order)
        assert [ranked.venue for ranked in route.ranked] == ["orca", "raydium", "meteora"]
        assert route.margin_bps == 0
        assert "same output" in (route.ranked[1].lost_because or "")


def test_a_lone_offer_wins_without_a_margin() -> None:
    route = choose_quote([quote("raydium", 5)])
    assert (route.winner, route.margin_bps) == (quote("raydium", 5), None)


def test_a_broken_venue_costs_its_quote_and_is_shown() -> None:
    route = choose_quote([QuoteFailure("meteora", QuoteTimedOut("no quote within 2 s")), quote("raydium", 5)])
    assert route.winner == quote("raydium", 5)
    assert route.failure is None
    assert route.ranked[-1] == RankedQuote("meteora", None, "quote_timeout: no quote within 2 s")


def test_a_venue_that_offers_nothing_costs_nobody_else_the_route() -> None:
    assert choose_quote([quote("raydium", 5), quote("meteora", 0)]).winner == quote("raydium", 5)


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([], NoRoute),
        ([NoRoute("a")], NoRoute),
        ([NoRoute("a"), NoRoute("b")], NoRoute),
        ([QuoteTimedOut("a"), QuoteTimedOut("b")], QuoteTimedOut),
        ([NoRoute("a"), QuoteTimedOut("b")], QuoteTimedOut),
        ([VenueFailed("a"), NoRoute("b")], VenueFailed),
        ([VenueFailed("a"), QuoteTimedOut("b")], VenueFailed),
    ],
)
def test_without_an_offer_the_most_hopeful_cause_decides(errors: list[StepFailed], kind: type[StepFailed]) -> None:
    route = choose_quote([QuoteFailure(f"venue{number}", error) for number, error in enumerate(errors)])
    assert route.winner is None
    assert route.margin_bps is None
    assert type(route.failure) is kind
    told = str(route.failure)
    assert told
    assert all(f"venue{number}: {error}" in told for number, error in enumerate(errors))


def test_only_a_pair_that_nobody_trades_is_not_worth_another_attempt() -> None:
    assert not NoRoute("a").is_retryable
    assert QuoteTimedOut("a").is_retryable
    assert VenueFailed("a").is_retryable
    assert (NoRoute.reason, QuoteTimedOut.reason) == (ReasonCode.NO_ROUTE, ReasonCode.QUOTE_TIMEOUT)


@QUICK
@given(offers, failures, st.randoms(use_true_random=False))
def test_the_order_of_the_answers_decides_nothing(quotes: list[Quote], broken: list[QuoteFailure], shuffler) -> None:
    route = choose_quote([*quotes, *broken])
    answers: list[Quote | QuoteFailure] = [*quotes, *broken]
    shuffler.shuffle(answers)
    again = choose_quote(answers)
    assert again.winner == route.winner
    assert again.margin_bps == route.margin_bps
    assert again.ranked[: len(quotes)] == route.ranked[: len(quotes)]
    assert type(again.failure) is type(route.failure)


@QUICK
@given(offers, failures)
def test_every_answer_is_ranked_once_and_only_the_winner_did_not_lose(
    quotes: list[Quote], broken: list[QuoteFailure]
) -> None:
    route = choose_quote([*quotes, *broken])
    assert sorted(ranked.venue for ranked in route.ranked) == sorted(it.venue for it in [*quotes, *broken])
    assert (route.winner is None) == (not quotes) == (route.failure is not None)
    chosen = [ranked.quote for ranked in route.ranked if ranked.lost_because is None]
    assert chosen == ([route.winner] if quotes else [])
    outputs = [ranked.quote.amount_out for ranked in route.ranked if ranked.quote]
    assert outputs == sorted(outputs, reverse=True)
    assert (route.margin_bps is None) == (len(quotes) < 2)
