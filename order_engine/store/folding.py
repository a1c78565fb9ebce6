"""Merges a batch to one write per order, and isolates the write that makes a batch fail."""

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec

from order_engine.domain.errors import Fenced
from order_engine.domain.lifecycle import RESTING
from order_engine.domain.order import OrderId
from order_engine.ports.store import Write

# The constraint that refuses a transaction signed for another cluster than the pinned one.
ONE_CLUSTER: Final = "attempts_of_one_cluster"
# The one that refuses an order beyond a limit of its account.
WITHIN_LIMITS: Final = "orders_within_limits"
# Those that refuse new orders and new transactions while a pause is on.
NOT_PAUSED: Final = frozenset({"orders_not_paused", "attempts_not_paused"})

Flush = Callable[[Sequence[Write]], Awaitable[Sequence[Exception | None]]]


async def flush_folded(batch: Sequence[Write], flush: Flush) -> list[Exception | None]:
    """Write a batch with as few writes as possible; returns the error or None of each write, in order."""
    results: list[Exception | None] = [None] * len(batch)
    for turn in fold_writes(batch):
        outcomes = await flush([write for write, _ in turn])
        for (_, places), outcome in zip(turn, outcomes, strict=True):
            # A bad write must not make the earlier writes of its order fail, so each is then written alone.
            is_bad_together = len(places) > 1 and outcome is not None and not isinstance(outcome, Fenced)
            for place in places:
                results[place] = (await flush([batch[place]]))[0] if is_bad_together else outcome
    return results


async def bisect_failures(
    flush: Callable[[Sequence[Any]], Awaitable[Any]], batch: Sequence[Any], error: Exception
) -> list[Any]:
    """One bad row has failed a whole batch: find it, so that it fails alone."""
    if len(batch) == 1:
        return [error]
    middle = len(batch) // 2
    return [*await flush(batch[:middle]), *await flush(batch[middle:])]


def fold_writes(batch: Sequence[Write]) -> list[list[tuple[Write, list[int]]]]:
    """Group a batch into turns in which each order is written once.

    Consecutive writes of one order become one write, with their places in the batch. A write that does not follow the
    earlier one (such as a cancellation during a worker's write) goes into a later turn, and the database decides which
    of the two is valid.
    """
    turns: list[dict[OrderId, tuple[Write, list[int]]]] = [{}]
    for place, write in enumerate(batch):
        order_id = write.order.order_id
        turn = next((it for it in reversed(turns) if order_id in it), None)
        if turn is None:
            turns[0][order_id] = (write, [place])
            continue
        earlier, places = turn[order_id]
        if _follows(earlier, write):
            turn[order_id] = (_merge(earlier, write), [*places, place])
            continue
        if turn is turns[-1]:
            turns.append({})
        turns[turns.index(turn) + 1][order_id] = (write, [place])
    return [[turn[order_id] for order_id in sorted(turn)] for turn in turns]


def _follows(earlier: Write, later: Write) -> bool:
    """Return whether the later write follows the earlier one and one statement may do both, under one claim."""
    return (
        earlier.order.seq == later.expected_seq
        and earlier.fence == later.fence is not None
        and earlier.order.status not in RESTING
        and not (earlier.signed is not None and later.proven is not None)
    )


def _merge(earlier: Write, later: Write) -> Write:
    return msgspec.structs.replace(
        later,
        events=earlier.events + later.events,
        expected_seq=earlier.expected_seq,
        signed=later.signed or earlier.signed,
        proven=later.proven or earlier.proven,
    )
