"""The result of the last attempt to store orders: the heartbeat's small row fits where they do not."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from order_engine.domain.errors import StoreUnavailable

# A process that says that it is unavailable may get no more orders, and so no write that would prove it wrong.
_BELIEVED_FOR_S: Final = 10.0


class LastWrite:
    """Remembers whether the last write of orders failed because the database was not able to."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._failed_s = 0.0
        self._trouble: str | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note how the write within the context ends. An error of the statement itself says nothing."""
        try:
            yield
        except StoreUnavailable as error:
            self._failed_s, self._trouble = asyncio.get_running_loop().time(), str(error)
            raise
        self._trouble = None

    @property
    def trouble(self) -> str | None:
        """Why the last write failed, for ten seconds; None after one that did well."""
        is_old = asyncio.get_running_loop().time() - self._failed_s > _BELIEVED_FOR_S
        return None if is_old else self._trouble
