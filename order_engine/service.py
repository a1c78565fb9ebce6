"""Services: the parts of a process that work as long as it does. If one ends by itself, so does the process."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Final, Protocol

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable

_RETRY_S: Final = 1.0


class Service(Protocol):
    """A part that works as long as its process: one `start`, then one `run`; `stop` at any time after the start."""

    @property
    def name(self) -> str:
        """How errors and the log call it."""
        ...

    async def start(self) -> None:
        """Begin to work; returns when the others can use it, or when waiting longer for that makes no sense."""
        ...

    async def run(self) -> None:
        """Return when the work has ended: after `stop`, or by itself, with its error if it had one.

        Cancelling this ends the work too.
        """
        ...

    def stop(self) -> None:
        """Ask the work to end; `run` returns soon after. Asking twice is asking once."""
        ...


class Repeated:
    """A Service that takes one turn after the other. An error in a turn is logged, and the next turn follows."""

    def __init__(self, name: str, turn: Callable[[], Awaitable[float]]) -> None:
        """`turn` returns the pause before the next turn, in s."""
        self.name = name
        self._turn = turn
        self._turns: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See Service. The first turn begins at once."""
        self._turns = asyncio.create_task(self._take_turns(), name=self.name)

    async def run(self) -> None:
        """See Service."""
        assert self._turns is not None  # noqa: S101 - `start` comes first
        try:
            await asyncio.wait([self._turns])
        finally:
            self._turns.cancel()

    def stop(self) -> None:
        """See Service. A turn in progress is cancelled."""
        if self._turns is not None:
            self._turns.cancel()

    async def _take_turns(self) -> None:
        while True:
            try:
                pause_s = await self._turn()
            except StoreUnavailable as error:
                observe.store_unavailable(self.name, error)
                pause_s = _RETRY_S
            except Exception as error:  # noqa: BLE001 - the next turn may go well
                observe.loop_crashed(self.name, error)
                pause_s = _RETRY_S
            await asyncio.sleep(pause_s)


class PartEnded(Exception):  # noqa: N818 - a past participle reads best at `except`
    """A service of this process has ended that must last as long as the process; so the process ends too."""


@contextlib.asynccontextmanager
async def lasting(service: Service) -> AsyncIterator[None]:
    """Run the service for as long as the context lasts; if it ends before, raise PartEnded where the context is."""
    body = asyncio.current_task()
    assert body is not None  # noqa: S101 - a context is entered in a task
    has_died = is_over = False

    def note_end(_: object) -> None:
        nonlocal has_died
        if not is_over:
            has_died = True
            body.cancel()

    await service.start()
    running = asyncio.create_task(service.run(), name=service.name)
    running.add_done_callback(note_end)
    try:
        yield
    except asyncio.CancelledError:
        # Our own cancellation, unless another caller cancelled at the same moment.
        if not has_died or body.uncancel():
            raise
        error = None if running.cancelled() else running.exception()
        observe.part_ended(service.name, error)
        raise PartEnded(f"the {service.name} ended without being asked to") from error
    finally:
        is_over = True
        service.stop()
        await asyncio.wait([running])
    if not running.cancelled():
        running.result()
