"""The comparison of the venues' offers."""

from collections.abc import Sequence

import msgspec

from order_engine.domain.errors import NoRoute, QuoteTimedOut, ReasonCode, StepFailed, VenueFailed
from order_engine.domain.money import BaseUnits, Bps, difference_bps


class Quote(msgspec.Struct, frozen=True):
    """A venue's offer: `amount_out` base units, net of the venue's fee and of the price impact."""

    venue: str
    amount_in: BaseUnits
    amount_out: BaseUnits
    fee_bps: Bps
    price_impact_bps: Bps


class QuoteFailure(msgspec.Struct, frozen=True):
    """Why a venue made no offer."""

    venue: str
    error: StepFailed


class RankedQuote(msgspec.Struct, frozen=True):
    """A venue's answer, and why it lost; `lost_because` is None for the winner."""

    venue: str
    quote: Quote | None
    lost_because: str | None


class Route(msgspec.Struct, frozen=True):
    """The comparison of the venues: the winner, its lead in bps, and every answer, best first.

    `winner` is None when no venue made an offer; `failure` then says why. `margin_bps` is None
    with fewer than two offers.
    """

    winner: Quote | None
    margin_bps: Bps | None
    ranked: tuple[RankedQuote, ...]
    failure: StepFailed | None


def choose_quote(answers: Sequence[Quote | QuoteFailure]) -> Route:
    """Pick the offer with the largest net output; among equal ones the smaller impact wins, then the name."""
    offers = sorted(
        (answer for answer in answers if isinstance(answer, Quote) and answer.amount_out > 0),
        key=lambda quote: (-quote.amount_out, quote.price_impact_bps, quote.venue),
    )
    failures = [_why_nothing(answer) for answer in answers if answer not in offers]
    failed = tuple(RankedQuote(it.venue, None, f"{it.error.reason}: {it.error}") for it in failures)
    if not offers:
        return Route(None, None, failed, _combined_failure(failures))
    winner, *others = offers
    lost = tuple(RankedQuote(quote.venue, quote, _why_lost(winner, quote)) for quote in others)
    margin = difference_bps(winner.amount_out, others[0].amount_out) if others else None
    return Route(winner, margin, (RankedQuote(winner.venue, winner, None), *lost, *failed), None)


def _why_nothing(answer: Quote | QuoteFailure) -> QuoteFailure:
    if isinstance(answer, QuoteFailure):
        return answer
    return QuoteFailure(answer.venue, VenueFailed("offered nothing at all"))


def _why_lost(winner: Quote, loser: Quote) -> str:
    if winner.amount_out == loser.amount_out:
        return "gives the same output; the smaller price impact, then the name decides"
    behind = difference_bps(winner.amount_out, loser.amount_out)
    return f"gives {behind} bps less after fees and price impact"


def _combined_failure(failures: Sequence[QuoteFailure]) -> StepFailed:
    """Return one error for all venues: NoRoute if all say so, QuoteTimedOut if the rest were late, else VenueFailed."""
    told = "; ".join(f"{failure.venue}: {failure.error}" for failure in failures)
    reasons = {failure.error.reason for failure in failures}
    if reasons <= {ReasonCode.NO_ROUTE}:
        return NoRoute(told or "no venue is configured")
    if reasons <= {ReasonCode.NO_ROUTE, ReasonCode.QUOTE_TIMEOUT}:
        return QuoteTimedOut(told)
    return VenueFailed(told)
