"""Writes of one order that follow from each other become one: what a statement does per row, it does once."""

from collections.abc import Sequence
from typing import Final

import msgspec

from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import OrderId, OrderStatus
from order_engine.ports import Write

_AT_REST: Final = TERMINAL | {OrderStatus.RETRYING}


def fold_writes(batch: Sequence[Write]) -> list[list[tuple[Write, list[int]]]]:
    """Group a batch into turns in which each order is written once.

    Writes of one order that follow from each other become one write, with the places in the batch
    that it stands for; a write that does not (a cancellation beside its worker's) takes a turn of
    its own, and the database says which of the two was right.
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
    """Return whether the later write goes on where the earlier one ends, within one claim and one statement."""
    return (
        earlier.order.seq == later.expected_seq
        and earlier.fence == later.fence is not None
        and earlier.order.status not in _AT_REST
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
