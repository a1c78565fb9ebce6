"""Poison orders: orders that seem to kill their workers. Pure numbers; the stores get them as parameters.

A claim counts until the order's next event. An order that is claimed 3 times without an event is a
poison order: a worker holds at most one, and each further claim waits twice as long as the last.
The claim after MAX_CLAIMS parks it: it fails with the reason `parked`. An order in doubt is never parked,
since its transaction may execute; it is a poison order only after 6 claims, because workers also
give it up when the chain does not answer for a while.
"""

from typing import Final

import msgspec


class PoisonLimits(msgspec.Struct, frozen=True):
    """The numbers of the rule, for every statement that claims orders."""

    claims: int = 3
    """Claims without an event that make an order a poison order."""
    claims_in_doubt: int = 6
    """The same for an order in doubt."""
    first_wait_ms: int = 500
    """The wait after the lease has lapsed, doubled by each further claim."""
    max_wait_ms: int = 60_000
    """The maximum wait."""


POISON: Final = PoisonLimits()


def is_to_be_parked(claims: int, max_claims: int, *, is_in_doubt: bool) -> bool:
    """Return whether the order fails now: `claims` counts the present one, `max_claims` is the setting."""
    return claims > max_claims and not is_in_doubt
