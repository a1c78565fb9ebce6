"""Finds orders that wait here although the chain has executed them, after an older backup was restored.

A backup knows nothing of transactions that were signed after it was made. An order that was pending in it may have
been executed since; a worker would sign it again. The memo of each swap is its order's id, so the
chain can be asked before anything is signed.
"""

from collections.abc import AsyncIterator, Callable

import msgspec

from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import Order, OrderId, OrderStatus
from order_engine.ports.chain import LandedMemo
from order_engine.ports.store import OrderFilter, OrderReader

_PAGE = 500
_CLOCKS_DIFFER_MS = 600_000


class ExecutedElsewhere(msgspec.Struct, frozen=True):
    """An order that has not ended here, and the transaction, unknown here, that executed it."""

    order: Order
    landed: LandedMemo


async def find_executed(
    reader: OrderReader, account: str, landed_memos: Callable[[int], AsyncIterator[LandedMemo]]
) -> list[ExecutedElsewhere]:
    """Return the orders of an account that wait here and that the chain has executed; raises ChainUnavailable.

    `landed_memos`: the memos of transactions that executed since a time, in ms since 1970.
    """
    waiting = {order.order_id: order for order in await _waiting(reader, account)}
    if not waiting:
        return []
    since_ms = min(order.created_at_ms for order in waiting.values()) - _CLOCKS_DIFFER_MS
    found = []
    async for landed in landed_memos(since_ms):
        order = waiting.get(OrderId(landed.memo))
        if order is None:
            continue
        known = {attempt.signature for attempt in await reader.attempts(order.order_id)}
        if landed.signature not in known:
            found.append(ExecutedElsewhere(order, landed))
    return found


async def _waiting(reader: OrderReader, account: str) -> list[Order]:
    orders: list[Order] = []
    for status in OrderStatus:
        if status in TERMINAL:
            continue
        before: OrderId | None = None
        while page := await reader.find(OrderFilter(account, status=status, before=before), _PAGE):
            orders += page
            before = page[-1].order_id
    return orders
