"""An account's events, in order for each order: read once and passed on to every watcher."""

import asyncio
from collections import OrderedDict
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar
from weakref import WeakValueDictionary

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable
from order_engine.engine.order_stream import POLL_CONNECTED_S, POLL_LOST_S
from order_engine.engine.recent_pages import RecentPages
from order_engine.ports.bus import EventBus, Subscription
from order_engine.ports.store import EventLog, LogPage

Frame = TypeVar("Frame")

# Pause between two looks at the log: events committed in between are passed on together.
_GATHER_S: Final = 0.02
# A watcher that reads nothing holds one page.
_MAX_PAGE_EVENTS: Final = 200
# A watcher more than 64 pages behind reads the log itself until it has caught up.
MAX_RECENT_PAGES: Final = 64
# Pages of the past that are kept for other watchers of the same past.
_MAX_PAST_PAGES: Final = 8


class _Idle(Generic[Frame]):
    """A watcher that has every page so far, and can be given the next one without being woken."""

    def __init__(self, pass_on: Callable[[Frame], bool], number: int, cursor: str) -> None:
        """The watcher has `number` pages, the last of which ends at the cursor."""
        self.pass_on = pass_on
        self.number = number
        self.cursor = cursor
        self.woken = asyncio.Event()


class _Point:
    """The stream's position: number of pages, cursor after the last look, and how often the cursor was set."""

    def __init__(self, pages: int, cursor: str, moves: int) -> None:
        self.pages = pages
        self.cursor = cursor
        self.moves = moves


class _PastPage(Generic[Frame]):
    """A page that was read for one watcher; a watcher that reads up to the same point or a later one may share it."""

    def __init__(self, moves: int, reading: "asyncio.Task[tuple[str, Frame | None]]") -> None:
        self.moves = moves
        self.reading = reading


class AccountStreams(Generic[Frame]):
    """The account streams of this process: one for each account that is watched."""

    def __init__(self, log: EventLog, bus: EventBus, render: Callable[[LogPage], Frame]) -> None:
        """See AccountStream."""
        self._log = log
        self._bus = bus
        self._render = render
        self._streams: WeakValueDictionary[str, AccountStream[Frame]] = WeakValueDictionary()

    @property
    def watchers(self) -> int:
        """How many watchers all of them have."""
        return sum(stream.watchers for stream in self._streams.values())

    def of(self, account: str) -> "AccountStream[Frame]":
        """Return the account's stream, the same one for as long as it is used."""
        stream = self._streams.get(account)
        if stream is None:
            stream = self._streams[account] = AccountStream(self._log, self._bus, account, self._render)
        return stream


class AccountStream(Generic[Frame]):
    """One reader of the log for all watchers of an account in this process.

    The bus only says that it is time to look. The events come from the log, page after page, each page
    rendered once. A slow watcher delays no other, and holds one page at a time.
    """

    def __init__(self, log: EventLog, bus: EventBus, account: str, render: Callable[[LogPage], Frame]) -> None:
        """`render` turns a page into the frame that watchers get."""
        self._log = log
        self._bus = bus
        self._account = account
        self._render = render
        self._watchers = 0
        self._following: asyncio.Task[None] | None = None
        self._live: Subscription | None = None
        self._recent: RecentPages[Frame] = RecentPages(MAX_RECENT_PAGES)
        self._cursor: str | None = None
        self._moves = 0
        self._past: OrderedDict[str, _PastPage[Frame]] = OrderedDict()
        self._looks_begun = self._looks_done = 0
        self._looked = asyncio.Event()
        self._idle: set[_Idle[Frame]] = set()

    @property
    def watchers(self) -> int:
        """How many watch now."""
        return self._watchers

    async def resolve_cursor(self, after: str | None) -> str:
        """Return the cursor to watch from: `after` once it is checked, or the end of the log if it is None.

        Raises UnknownCursor, StoreUnavailable.
        """
        page = await self._log.account_events(self._account, after, None, 0)
        return page.cursor if after is None else after

    async def watch(
        self, after: str, pass_on: Callable[[Frame], bool] | None = None
    ) -> AsyncGenerator[Sequence[Frame], None]:
        """Yield every event after the cursor exactly once, in pages, the past first; never ends.

        The first page is empty: it tells the client that the watch has begun, and at which cursor.
        A new page goes to `pass_on`, if given, and is yielded only if `pass_on` returns False because
        it would have to wait. Writing to a watcher costs less than waking it.
        """
        async with self._watched():
            yield [self._render(LogPage((), after))]
            cursor = after
            while True:
                point = await self._caught_up()  # Now the stream is not behind the cursor.
                while cursor != point.cursor:
                    cursor, frame = await self._past_page(cursor, point)
                    if frame is not None:
                        yield [frame]
                number = point.pages
                while self._recent.has_all_from(number):
                    if number == self._recent.count:
                        number, cursor = await self._next_page(number, cursor, pass_on)
                        continue
                    cursor, frame = self._recent.page(number)
                    number += 1
                    yield [frame]

    @asynccontextmanager
    async def _watched(self) -> AsyncIterator[None]:
        self._watchers += 1
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        try:
            yield
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._following.cancel()
                self._following, self._live, self._cursor = None, None, None
                self._recent.clear()
                for page in self._past.values():
                    page.reading.cancel()
                self._past.clear()

    async def _follow(self) -> None:
        """Look at the log after each commit, and every 1 to 1.5 s without one."""
        async with self._bus.subscribe(self._account, None) as live:
            self._live = live
            # A hanging look may end in an error when this task is cancelled: then another task is the follower.
            while self._is_the_follower():
                try:
                    is_more = await self._look()
                except StoreUnavailable as error:
                    observe.store_unavailable("account stream", error)
                    is_more = False
                except Exception as error:  # noqa: BLE001 - otherwise watchers wait for ever, without an error
                    observe.loop_crashed("account stream", error)
                    if self._is_the_follower():
                        self._start_over()
                    is_more = False
                    await asyncio.sleep(POLL_LOST_S)
                if not is_more:
                    await asyncio.sleep(_GATHER_S)
                    await live.next(POLL_CONNECTED_S if self._bus.is_connected else POLL_LOST_S)

    def _is_the_follower(self) -> bool:
        return self._following is asyncio.current_task()

    async def _look(self) -> bool:
        """Read the next page and tell the watchers that wait for it; returns whether there is more."""
        self._looks_begun += 1
        page = await self._page_between(self._cursor, None)
        if not self._is_the_follower():
            return False
        if page.events:
            self._pass_on(page.cursor, self._render(page))
        self._cursor = page.cursor
        self._moves += 1
        if not page.has_more:
            self._looks_done = self._looks_begun
        self._tell()
        return page.has_more

    def _pass_on(self, cursor: str, frame: Frame) -> None:
        self._recent.add(cursor, frame)
        for idle in [*self._idle]:
            try:
                is_taken = idle.pass_on(frame)
            except Exception:  # noqa: BLE001 - it concerns one watcher, which gets it again when it sends the page
                is_taken = False
            if is_taken:
                idle.number, idle.cursor = self._recent.count, cursor
            else:
                self._wake(idle)

    async def _next_page(self, number: int, cursor: str, pass_on: Callable[[Frame], bool] | None) -> tuple[int, str]:
        """Wait for the next page; return number and cursor after the pages that were passed on meanwhile."""
        if pass_on is None:
            await self._looked.wait()
            return number, cursor
        idle = _Idle(pass_on, number, cursor)
        self._idle.add(idle)
        try:
            await idle.woken.wait()
        finally:
            self._idle.discard(idle)
        return idle.number, idle.cursor

    def _wake(self, idle: _Idle[Frame]) -> None:
        self._idle.discard(idle)
        idle.woken.set()

    def _tell(self) -> None:
        looked, self._looked = self._looked, asyncio.Event()
        looked.set()

    def _start_over(self) -> None:
        """Restart at the end of the log; each watcher reads the events in between by itself."""
        self._cursor = None
        self._recent.skip()
        for idle in [*self._idle]:
            self._wake(idle)
        self._tell()

    async def _caught_up(self) -> _Point:
        """Return the stream's position after a look that begins after this call and reaches the end of the log."""
        wanted = self._looks_begun + 1
        while self._looks_done < wanted or self._cursor is None:
            if self._live is not None:
                self._live.wake()
            await self._looked.wait()
        return _Point(self._recent.count, self._cursor, self._moves)

    async def _page_between(self, after: str | None, until: str | None) -> LogPage:
        return await self._log.account_events(self._account, after, until, _MAX_PAGE_EVENTS)

    async def _past_page(self, after: str, point: _Point) -> tuple[str, Frame | None]:
        """Return cursor and frame of the page after `after` and up to the point; without events the frame is None.

        Watchers that read the same page share one read and one frame.
        """
        while True:
            page = self._past.get(after)
            if page is None or page.moves > point.moves:
                reading = asyncio.create_task(self._read_past(after, point.cursor))
                page = self._past[after] = _PastPage(point.moves, reading)
                if len(self._past) > _MAX_PAST_PAGES:
                    self._past.popitem(last=False)
            try:
                return await asyncio.shield(page.reading)
            except Exception as error:
                if self._past.get(after) is page:
                    del self._past[after]
                if not isinstance(error, StoreUnavailable):
                    raise
                observe.store_unavailable("account stream", error)
                await asyncio.sleep(POLL_LOST_S)

    async def _read_past(self, after: str, until: str) -> tuple[str, Frame | None]:
        page = await self._page_between(after, until)
        return page.cursor, self._render(page) if page.events else None
