"""An event loop with virtual time that picks the next ready callback from a seed.

Every callback belongs to the host whose context it was made in. A killed host's callbacks never
run again, not even a `finally`. A paused host's callbacks wait until it is resumed.
"""

import asyncio
import heapq
import random
from contextvars import ContextVar
from typing import Any

WORLD = "world"
host_of: ContextVar[str] = ContextVar("host_of", default=WORLD)


class Stuck(Exception):  # noqa: N818 - it names a state
    """No callback and no timer is left, and the main coroutine is not done."""


class VirtualLoop(asyncio.BaseEventLoop):
    """See the module. Time stands still while a callback is ready, and jumps to the next timer otherwise."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        self._random = random.Random(f"{seed}:loop")
        self._now = 0.0
        self._dead: set[str] = set()
        self._paused: dict[str, list[asyncio.Handle]] = {}
        self._graveyard: list[asyncio.Handle] = []
        self.steps = 0

    def time(self) -> float:
        return self._now

    def kill(self, host: str) -> None:
        self._dead.add(host)
        self._paused.pop(host, None)

    def pause(self, host: str) -> None:
        self._paused.setdefault(host, [])

    def resume(self, host: str) -> None:
        self._ready.extend(self._paused.pop(host, ()))

    def is_dead(self, host: str) -> bool:
        return host in self._dead

    def bury(self) -> None:
        """After the history: let every coroutine end, so that none is left to the garbage collector."""
        self._dead.clear()
        for host in [*self._paused]:
            self.resume(host)
        self._ready.extend(self._graveyard)
        tasks = asyncio.all_tasks(self)
        for task in tasks:
            task.cancel()
        self.run_until_complete(asyncio.wait(tasks, timeout=1_000.0)) if tasks else None
        self.close()

    def _run_once(self) -> None:
        ready: Any = self._ready
        if not ready:
            self._jump()
        while self._scheduled and self._scheduled[0].when() <= self._now:
            timer = heapq.heappop(self._scheduled)
            timer._scheduled = False
            ready.append(timer)
        if not ready:
            return
        if len(ready) > 1 and (place := int(self._random.random() * len(ready))):
            ready.rotate(-place)
            handle = ready.popleft()
            ready.rotate(place)
        else:
            handle = ready.popleft()
        if handle.cancelled():
            return
        host = handle._context.get(host_of, WORLD)
        if host in self._dead:
            self._graveyard.append(handle)
            return
        if host in self._paused:
            self._paused[host].append(handle)
            return
        self.steps += 1
        handle._run()

    def _jump(self) -> None:
        while self._scheduled and self._scheduled[0].cancelled():
            heapq.heappop(self._scheduled)._scheduled = False
        if not self._scheduled:
            raise Stuck
        self._now = max(self._now, self._scheduled[0].when())

    def _process_events(self, event_list: Any) -> None:
        """There is no network here."""

    def _write_to_self(self) -> None:
        """There are no threads here."""
