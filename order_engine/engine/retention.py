"""Deletes orders that ended long ago, up to 500 at a time, while the engine works."""

import asyncio
from typing import Final

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable
from order_engine.ports.store import Upkeep

_AT_ONCE: Final = 500
_PAUSE_S: Final = 0.2
_LOOK_EVERY_S: Final = 60.0


async def delete_ended_forever(store: Upkeep, keep_ms: int) -> None:
    """Delete orders `keep_ms` after their end, or soon after. Several workers may do this at once."""
    while True:
        deleted = 0
        try:
            deleted = await store.delete_ended(keep_ms, _AT_ONCE)
            observe.orders_deleted(deleted)
        except StoreUnavailable as error:
            observe.store_unavailable("retention", error)
        except Exception as error:  # noqa: BLE001 - the next turn may go well
            observe.loop_crashed("retention", error)
        # The pause lets the database serve running orders first.
        await asyncio.sleep(_PAUSE_S if deleted == _AT_ONCE else _LOOK_EVERY_S)
