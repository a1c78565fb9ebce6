"""Deletes orders that ended long ago, up to 500 at a time, while the engine works."""

from typing import Final

from order_engine import observe
from order_engine.counters import Counters
from order_engine.ports.store import Upkeep

_AT_ONCE: Final = 500
_PAUSE_S: Final = 0.2
_LOOK_EVERY_S: Final = 60.0


async def delete_ended(store: Upkeep, keep_ms: int, counters: Counters) -> float:
    """Delete orders `keep_ms` after their end, or soon after; returns the pause before the next turn, in s.

    Several workers may do this at once. Raises StoreUnavailable.
    """
    deleted = await store.delete_ended(keep_ms, _AT_ONCE)
    observe.orders_deleted(counters, deleted)
    # The pause lets the database serve running orders first.
    return _PAUSE_S if deleted == _AT_ONCE else _LOOK_EVERY_S
