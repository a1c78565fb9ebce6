"""Tests wait until a condition is true, and not for a fixed time."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

Answer = TypeVar("Answer")

PATIENCE_S: Final = 20.0
_BETWEEN_LOOKS_S: Final = 0.005


async def until(look: Callable[[], Awaitable[Answer]], *, patience_s: float = PATIENCE_S) -> Answer:
    """Return the first answer that is true; raises TimeoutError if there is none."""
    async with asyncio.timeout(patience_s):
        while not (answer := await look()):
            await asyncio.sleep(_BETWEEN_LOOKS_S)
        return answer


async def until_true(claim: Callable[[], object]) -> None:
    """Return when the claim is true; raises TimeoutError if the claim stays false."""

    async def look() -> bool:
        return bool(claim())

    await until(look)
