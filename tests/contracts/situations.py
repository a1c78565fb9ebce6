"""Every situation that an order can be in, every step that a test can try from it, and which steps are lawful."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from order_engine.domain.lifecycle import TRANSITIONS
from order_engine.domain.order import AttemptOutcome, OrderStatus
from tests.contracts.raw import BUILDING, CONFIRMED, RETRYING, ROUTING, SUBMITTED, shortest_paths

LIVE: Final = "live"
NOTHING: Final = "nothing"
WHAT_BECOMES_OF_THE_ATTEMPT: Final = (NOTHING, LIVE, *(outcome.value for outcome in AttemptOutcome))
PROVEN_DEAD: Final = ("reverted", "expired")


class Situation(NamedTuple):
    """The path of statuses that an order took; `outcome` is that of its attempts that did not land."""

    path: tuple[OrderStatus, ...]
    outcome: str | None = None

    @property
    def status(self) -> OrderStatus:
        return self.path[-1] if self.path else OrderStatus.PENDING

    @property
    def attempt(self) -> int:
        return self.path.count(ROUTING)

    def has_signed(self, attempt: int) -> bool:
        """Whether the attempt was signed, live or not."""
        return 1 <= attempt <= self.path.count(SUBMITTED)


def situations_at(status: OrderStatus) -> Iterator[Situation]:
    """The paths to the status: directly, through a failed attempt, and in the attempt after a failed one."""
    yield Situation(shortest_paths(OrderStatus.PENDING)[status])
    first_attempt = (ROUTING, BUILDING, SUBMITTED)
    second_attempt = shortest_paths(RETRYING)
    for outcome in PROVEN_DEAD:
        if status in TRANSITIONS[SUBMITTED] - {CONFIRMED, RETRYING}:
            yield Situation((*first_attempt, status), outcome)
        if status in second_attempt and (outcome == "expired" or status is RETRYING):
            yield Situation((*first_attempt, RETRYING, *second_attempt[status]), outcome)


def is_lawful(before: OrderStatus, after: OrderStatus, attempt: str) -> bool:
    """Whether an order may go from `before` to `after` while its attempt becomes `attempt`."""
    if after not in TRANSITIONS[before]:
        return False
    if before is SUBMITTED:
        return attempt == "landed" if after is CONFIRMED else attempt in PROVEN_DEAD
    return attempt == (LIVE if after is SUBMITTED else NOTHING)
