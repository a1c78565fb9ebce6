"""Every event of an account, each order's in order: read once, and passed on to all who watch."""

import asyncio
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Final, Generic, TypeVar

from order_engine import observe
from order_engine.domain.errors import StoreUnavailable
from order_engine.engine.stream import POLL_CONNECTED_S, POLL_LOST_S
from order_engine.ports.bus import EventBus, Subscription
from order_engine.ports.store import FeedPage, OrderReader

Frame = TypeVar("Frame")

# Between two looks at the log: what is committed in between is passed on together.
_GATHER_S: Final = 0.02
_MOST_IN_A_PAGE: Final = 2_000
# Who is more pages behind than this reads the log by himself until he has caught up.
MOST_RECENT_PAGES: Final = 64


class _Idle(Generic[Frame]):
    """Someone who has every page so far, and can be given the next one without being woken."""

    def __init__(self, pass_on: Callable[[Frame], bool], number: int, cursor: str) -> None:
        """He has `number` pages, the last of which ends at the cursor."""
        self.pass_on = pass_on
        self.number = number
        self.cursor = cursor
        self.woken = asyncio.Event()


class Feed(Generic[Frame]):
    """One reader of the log for everybody here who watches an account.

    The bus only says that it is time to look. What is passed on comes from the log, page after page,
    each page rendered once; a watcher who is slow holds up nobody and costs no memory.
    """

    def __init__(self, reader: OrderReader, bus: EventBus, account: str, render: Callable[[FeedPage], Frame]) -> None:
        """`render` makes of a page what watchers get."""
        self._reader = reader
        self._bus = bus
        self._account = account
        self._render = render
        self._watchers = 0
        self._following: asyncio.Task[None] | None = None
        self._live: Subscription | None = None
        # The last pages, each with its cursor; they are numbered from the first one ever, `_pages` in all.
        self._recent: deque[tuple[str, Frame]] = deque(maxlen=MOST_RECENT_PAGES)
        self._pages = 0
        self._cursor: str | None = None
        self._looks_begun = self._looks_done = 0
        self._looked = asyncio.Event()
        self._idle: set[_Idle[Frame]] = set()

    async def begin(self, after: str | None) -> str:
        """Return the cursor to watch from: `after` if it is one, and without it the end of the log.

        Raises UnknownCursor, StoreUnavailable.
        """
        page = await self._reader.feed(self._account, after, None, 0)
        return page.cursor if after is None else after

    async def watch(
        self, after: str, pass_on: Callable[[Frame], bool] | None = None
    ) -> AsyncGenerator[Sequence[Frame], None]:
        """Yield every event after the cursor exactly once, the past first, in pages; it does not end.

        The first page is empty: whoever has it watches from then on, and knows from where.
        A new page goes to `pass_on`, if there is one, and is yielded only if that returns False
        because it would have to wait: to wake a watcher costs more than to write to him.
        """
        async with self._watched():
            yield [self._render(FeedPage((), after))]
            cursor = after
            while True:
                number, until = await self._caught_up()  # Then the feed has seen all that the cursor has.
                while cursor != until:
                    page = await self._past_page(cursor, until)
                    cursor = page.cursor
                    if page.events:
                        yield [self._render(page)]
                while number >= self._pages - len(self._recent):
                    missed = self._pages - number
                    if not missed:
                        number, cursor = await self._next_page(number, cursor, pass_on)
                        continue
                    recent = [self._recent[index] for index in range(-missed, 0)]
                    number = self._pages
                    cursor = recent[-1][0]
                    yield [frame for _, frame in recent]

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

    async def _follow(self) -> None:
        """Look whenever something was committed, and now and then all the same."""
        async with self._bus.subscribe(None) as live:
            self._live = live
            # A look that hangs may end as an error when this is cancelled: then somebody else follows.
            while self._is_the_follower():
                try:
                    is_more = await self._look()
                except StoreUnavailable as error:
                    observe.store_unavailable("feed", error)
                    is_more = False
                except Exception as error:  # noqa: BLE001 - who watches would wait for ever, and know nothing of it
                    observe.loop_crashed("feed", error)
                    if self._is_the_follower():
                        self._begin_anew()
                    is_more = False
                    await asyncio.sleep(POLL_LOST_S)
                if not is_more:
                    await asyncio.sleep(_GATHER_S)
                    await live.next(POLL_CONNECTED_S if self._bus.is_connected else POLL_LOST_S)

    def _is_the_follower(self) -> bool:
        return self._following is asyncio.current_task()

    async def _look(self) -> bool:
        """Read the next page and tell those who wait for it; returns whether there is more."""
        self._looks_begun += 1
        page = await self._page_between(self._cursor, None)
        if not self._is_the_follower():
            return False
        if page.events:
            self._pass_on(page.cursor, self._render(page))
        self._cursor = page.cursor
        if not page.has_more:
            self._looks_done = self._looks_begun
        self._tell()
        return page.has_more

    def _pass_on(self, cursor: str, frame: Frame) -> None:
        self._recent.append((cursor, frame))
        self._pages += 1
        for idle in [*self._idle]:
            try:
                is_taken = idle.pass_on(frame)
            except Exception:  # noqa: BLE001 - it is his own affair, and he meets it when he sends the page himself
                is_taken = False
            if is_taken:
                idle.number, idle.cursor = self._pages, cursor
            else:
                self._wake(idle)

    async def _next_page(self, number: int, cursor: str, pass_on: Callable[[Frame], bool] | None) -> tuple[int, str]:
        """Return when there is a page to be yielded, with what was passed on until then."""
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

    def _begin_anew(self) -> None:
        """Go on from the end of the log; whoever watches reads for himself what was in between."""
        self._cursor = None
        self._recent.clear()
        self._pages += 1
        for idle in [*self._idle]:
            self._wake(idle)
        self._tell()

    async def _caught_up(self) -> tuple[int, str]:
        """Return the number of pages and the cursor after a look that began from now on and came to the end."""
        wanted = self._looks_begun + 1
        while self._looks_done < wanted or self._cursor is None:
            if self._live is not None:
                self._live.wake()
            await self._looked.wait()
        return self._pages, self._cursor

    async def _page_between(self, after: str | None, until: str | None) -> FeedPage:
        return await self._reader.feed(self._account, after, until, _MOST_IN_A_PAGE)

    async def _past_page(self, after: str, until: str) -> FeedPage:
        while True:
            try:
                return await self._page_between(after, until)
            except StoreUnavailable as error:
                observe.store_unavailable("feed", error)
                await asyncio.sleep(POLL_LOST_S)
