"""Deleting goes on while there is more, and soon after an outage of the database or a bug."""

import asyncio
from functools import partial
from typing import Any, cast

import pytest

from order_engine import service
from order_engine.counters import Counters
from order_engine.domain.errors import StoreUnavailable
from order_engine.engine import retention
from order_engine.ports.store import Upkeep
from order_engine.service import Repeated, lasting


class Shelf:
    """A store that gives these answers in turn, and then is done."""

    def __init__(self, *answers: Any) -> None:
        self.asked: list[tuple[int, int]] = []
        self.is_done = asyncio.Event()
        self._answers = [*answers]

    async def delete_ended(self, older_than_ms: int, limit: int) -> int:
        self.asked.append((older_than_ms, limit))
        if not self._answers:
            self.is_done.set()
            return 0
        answer = self._answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return int(answer)


@pytest.mark.asyncio
async def test_it_goes_on_while_there_is_more_and_after_an_outage_or_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "_PAUSE_S", 0.0)
    monkeypatch.setattr(retention, "_LOOK_EVERY_S", 0.001)
    monkeypatch.setattr(service, "_RETRY_S", 0.001)
    shelf, counters = Shelf(500, 500, 3, StoreUnavailable("away"), ZeroDivisionError("a bug"), 7), Counters()
    async with lasting(
        Repeated("retention", partial(retention.delete_ended, cast("Upkeep", shelf), 86_400_000, counters))
    ):
        await asyncio.wait_for(shelf.is_done.wait(), 10)
    assert set(shelf.asked) == {(86_400_000, 500)}
    assert len(shelf.asked) >= 7
    assert counters.deleted == 1_010
