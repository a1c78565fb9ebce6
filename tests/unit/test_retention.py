"""Deleting goes on for ever, also after an outage of the database or a bug."""

import asyncio
from typing import Any, cast

import pytest

from order_engine.domain.errors import StoreUnavailable
from order_engine.engine import retention
from order_engine.ports.store import OrderStore


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
    shelf = Shelf(500, 500, 3, StoreUnavailable("away"), ZeroDivisionError("a bug"), 7)
    deleting = asyncio.create_task(retention.delete_ended_forever(cast("OrderStore", shelf), 86_400_000))
    await asyncio.wait_for(shelf.is_done.wait(), 10)
    deleting.cancel()
    await asyncio.wait([deleting])
    assert set(shelf.asked) == {(86_400_000, 500)}
    assert len(shelf.asked) >= 7
