"""The result of the last write of orders, because a heartbeat's small row may still fit on a full disk."""

import asyncio
import contextlib
from collections.abc import Iterator
from typing import Final

from order_engine.domain.errors import StoreUnavailable

# An unavailable process may get no more orders, so no later write would show that the database works again.
_BELIEVED_FOR_S: Final = 10.0


class LastWrite:
    """Remembers whether the last write of orders failed because the database was unavailable."""

    def __init__(self) -> None:
        """Nothing was written yet."""
        self._failed_s = 0.0
        self._trouble: str | None = None

    @contextlib.contextmanager
    def noted(self) -> Iterator[None]:
        """Note how the write within the context ends. An error of the statement itself changes nothing."""
        try:
            yield
        except StoreUnavailable as error:
            self._failed_s, self._trouble = asyncio.get_running_loop().time(), str(error)
            raise
        self._trouble = None

    @property
    def trouble(self) -> str | None:
        """Why the last write failed, for 10 s; None after a successful one."""
        is_old = asyncio.get_running_loop().time() - self._failed_s > _BELIEVED_FOR_S
        return None if is_old else self._trouble
