"""A part of a process that ends by itself ends the process; a part that is asked to end does so quietly."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from order_engine.service import PartEnded, lasting


async def raises() -> None:
    await asyncio.sleep(0)
    raise OSError("no space left on device")


async def returns() -> None:
    await asyncio.sleep(0)


async def never_ends() -> None:
    await asyncio.Event().wait()


class Part:
    """A service that does this work, and is asked to end by `asked`; without it, the work is cancelled."""

    def __init__(self, name: str, work: Coroutine[Any, Any, None], asked: asyncio.Event | None = None) -> None:
        self.name = name
        self._work = work
        self._asked = asked
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        self._task = asyncio.create_task(self._work)

    async def run(self) -> None:
        assert self._task is not None
        await self._task

    def stop(self) -> None:
        assert self._task is not None
        if self._asked is not None:
            self._asked.set()
        else:
            self._task.cancel()


async def is_cancelled() -> None:
    await asyncio.sleep(0)
    raise asyncio.CancelledError


@pytest.mark.asyncio
@pytest.mark.parametrize("work", [raises, returns, is_cancelled])
async def test_a_part_that_ends_unasked_ends_what_depends_on_it(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def run_both() -> None:
        async with lasting(Part("server", never_ends())), lasting(Part("worker", work())):
            await asyncio.Event().wait()

    with pytest.raises(PartEnded, match="the worker ended without being asked to"):
        await run_both()
    task = asyncio.current_task()
    assert task is not None
    assert task.cancelling() == 0


@pytest.mark.asyncio
async def test_a_part_that_is_asked_to_end_comes_to_its_end() -> None:
    asked, ended = asyncio.Event(), False

    async def work() -> None:
        nonlocal ended
        await asked.wait()
        ended = True

    async with lasting(Part("worker", work(), asked)), lasting(Part("counter", never_ends())):
        pass
    assert ended


@pytest.mark.asyncio
async def test_a_cancellation_from_outside_stays_one() -> None:
    entered = asyncio.Event()

    async def body() -> None:
        async with lasting(Part("worker", never_ends())):
            entered.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(body())
    await entered.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


@pytest.mark.asyncio
async def test_an_error_of_the_body_is_told_as_it_is() -> None:
    async def fail() -> None:
        async with lasting(Part("worker", never_ends())):
            raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        await fail()
