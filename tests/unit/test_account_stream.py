"""Every watcher of an account stream gets every event once and in order, even if it is slow, late or unlucky."""

import asyncio
import contextlib
import gc
import random
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from order_engine.bus.memory import MemoryEventBus
from order_engine.clock import SystemClock
from order_engine.domain.errors import StoreUnavailable, UnknownCursor
from order_engine.domain.events import OrderEvent
from order_engine.engine import account_stream
from order_engine.engine.account_stream import AccountStream
from order_engine.ports.store import BEGINNING, LogPage
from order_engine.store.sqlite.store import SqliteStore
from tests.contracts.orders import ACCOUNT, CANCELLED, Life, SingleStore, new_order

pytestmark = pytest.mark.asyncio

HANG_S = 20
A_BUG, CANNOT_NOW = 0.1, 0.3


class Reader:
    """A store's event log, in which each of the `errors` makes one look for new events fail."""

    def __init__(self, store: SqliteStore) -> None:
        self.store = store
        self.errors: list[Exception] = []
        self.reads = 0
        self.is_frozen = False

    async def account_events(self, account: str, after: str | None, until: str | None, limit: int) -> LogPage:
        self.reads += 1
        if self.errors and until is None:
            raise self.errors.pop()
        if self.is_frozen:
            try:
                await asyncio.sleep(HANG_S)
            except asyncio.CancelledError as error:
                raise StoreUnavailable("given up") from error
        return await self.store.account_events(account, after, until, limit)


class World:
    """A store, a bus that can lose all events, an account stream of both, and all committed events."""

    def __init__(self, path: Path, *, is_passed_on: bool) -> None:
        self._path = path
        self._chance = random.Random(1)
        self.is_passed_on = is_passed_on
        self.passed_on = 0
        self.bus = MemoryEventBus()
        self.is_deaf = False

    async def open(self) -> None:
        self.store = SingleStore(await SqliteStore.open(self._path, SystemClock(), self._publish, 0))
        self.reader = Reader(self.store)
        self.stream = self.new_stream()

    def new_stream(self) -> AccountStream[LogPage]:
        return AccountStream(self.reader, self.bus, ACCOUNT, lambda page: page)

    def _publish(self, events: Sequence[OrderEvent]) -> None:
        if not self.is_deaf:
            self.bus.publish(events)

    async def commit(self, orders: int = 1) -> None:
        """Accept and cancel orders: two commits for each."""
        for _ in range(orders):
            new = new_order()
            await self.store.accept(new)
            await self.store.record(Life(new.order, None).write(CANCELLED))

    async def all(self) -> list[OrderEvent]:
        return [*(await self.store.account_events(ACCOUNT, BEGINNING, None, 100_000)).events]

    async def follow(self, after: str, events: int, may_go_on: asyncio.Event | None = None) -> list[OrderEvent]:
        """Watch until `events` events have come; each batch after the first waits for `may_go_on`."""
        seen: list[OrderEvent] = []
        is_enough = asyncio.Event()

        def take(page: LogPage) -> None:
            seen.extend(page.events)
            if len(seen) >= events:
                is_enough.set()

        async def read() -> None:
            async with contextlib.aclosing(self.stream.watch(after, self._taker(take))) as batches:
                async for batch in batches:
                    for page in batch:
                        take(page)
                    if may_go_on is not None:
                        await may_go_on.wait()

        reading, ending = asyncio.create_task(read()), asyncio.create_task(is_enough.wait())
        try:
            async with asyncio.timeout(HANG_S):
                await asyncio.wait([reading, ending], return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (reading, ending):
                task.cancel()
            results = await asyncio.gather(reading, ending, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        return seen

    def _taker(self, take: Callable[[LogPage], None]) -> Callable[[LogPage], bool] | None:
        """A function that gives a watcher pages without waking it; it sometimes cannot, and sometimes fails."""
        if not self.is_passed_on:
            return None

        def pass_on(page: LogPage) -> bool:
            luck = self._chance.random()
            if luck < A_BUG:
                raise RuntimeError("a bug")
            if luck < CANNOT_NOW:
                return False
            self.passed_on += 1
            take(page)
            return True

        return pass_on


@pytest_asyncio.fixture(params=["woken", "passed on"])
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    found = World(tmp_path / "orders.sqlite3", is_passed_on=request.param == "passed on")
    await found.open()
    yield found
    await found.store.close()


@pytest.fixture(autouse=True)
def _short_waits() -> Iterator[None]:
    """Look soon for events that the bus lost."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("POLL_CONNECTED_S", "POLL_LOST_S", "_GATHER_S"):
            patch.setattr(account_stream, name, 0.005)
        yield


async def test_the_first_page_says_from_where(world: World) -> None:
    await world.commit()
    begin = await world.stream.resolve_cursor(None)
    async with contextlib.aclosing(world.stream.watch(begin)) as batches:
        assert await anext(batches) == [LogPage((), begin)]
    assert await world.stream.resolve_cursor("0") == "0"
    with pytest.raises(UnknownCursor):
        await world.stream.resolve_cursor("99@99.1.0123456789abcdef")


async def test_watchers_from_anywhere_get_all_that_follows_once_and_in_order(world: World) -> None:
    chance = random.Random(1)
    await world.commit(20)
    watching = []
    for turn in range(20):
        begin = chance.randint(0, 40 + 2 * turn)
        cursor = (await world.store.account_events(ACCOUNT, BEGINNING, None, begin)).cursor if begin else BEGINNING
        watching.append((begin, asyncio.create_task(world.follow(cursor, 80 - begin))))
        await world.commit()
    events = await world.all()
    assert len(events) == 80
    for begin, task in watching:
        assert await task == events[begin:]
    assert bool(world.passed_on) is world.is_passed_on


async def test_all_who_watch_share_one_reader(world: World) -> None:
    begin = await world.stream.resolve_cursor(None)
    watching = [asyncio.create_task(world.follow(begin, 200)) for _ in range(50)]
    await asyncio.sleep(0.1)
    world.reader.reads = 0
    await world.commit(100)
    lives = await asyncio.gather(*watching)
    assert all(life == lives[0] for life in lives)
    # One read for each watcher and event would be 10,000; one shared reader needs far fewer.
    assert world.reader.reads < 1_000


async def test_a_slow_watcher_holds_up_nobody_and_misses_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_stream, "MAX_RECENT_PAGES", 2)
    world.stream = world.new_stream()
    may_go_on = asyncio.Event()
    slow = asyncio.create_task(world.follow(BEGINNING, 300, may_go_on))
    quick = asyncio.create_task(world.follow(BEGINNING, 300))
    await world.commit(150)
    assert await quick == await world.all()
    may_go_on.set()
    assert await slow == await world.all()


class Page:
    """A rendered page; a test can count the pages that are kept."""

    def __init__(self, page: LogPage) -> None:
        self.events = page.events


async def test_watchers_of_the_same_past_share_its_reading_and_its_pages(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_stream, "_MAX_PAGE_EVENTS", 10)
    await world.commit(100)
    shared: AccountStream[Page] = AccountStream(world.reader, world.bus, ACCOUNT, Page)
    world.reader.reads = 0

    async def read() -> list[Page]:
        pages: list[Page] = []
        async with contextlib.aclosing(shared.watch(BEGINNING)) as batches:
            async for batch in batches:
                pages += (page for page in batch if page.events)
                if sum(len(page.events) for page in pages) == 200:
                    break
        return pages

    lives = await asyncio.gather(*(read() for _ in range(50)))
    assert all(life == lives[0] for life in lives)  # Pages are equal only if they are the same objects.
    assert world.reader.reads < 100


async def test_a_watcher_that_waits_holds_one_page(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_stream, "MAX_RECENT_PAGES", 4)
    monkeypatch.setattr(account_stream, "_MAX_PAGE_EVENTS", 2)
    kept: weakref.WeakSet[Page] = weakref.WeakSet()

    def render(page: LogPage) -> Page:
        kept.add(shown := Page(page))
        return shown

    crowd: AccountStream[Page] = AccountStream(world.reader, world.bus, ACCOUNT, render)
    is_told = asyncio.Event()
    may_go_on = asyncio.Event()

    async def watch(begin: int, *, is_slow: bool) -> int:
        events = 0
        cursor = (await world.store.account_events(ACCOUNT, BEGINNING, None, begin)).cursor if begin else BEGINNING
        async with contextlib.aclosing(crowd.watch(cursor)) as batches:
            async for batch in batches:
                assert len(batch) == 1
                events += len(batch[0].events)
                if is_slow and events:
                    await may_go_on.wait()
                if events >= 200 - begin:
                    break
        is_told.set()
        return events

    await world.commit(20)
    slow = [asyncio.create_task(watch(number, is_slow=True)) for number in range(20)]
    quick = asyncio.create_task(watch(0, is_slow=False))
    for _ in range(80):
        await world.commit()
    await is_told.wait()
    gc.collect()
    assert len(kept) <= 20 + 4 + 8 + 2
    may_go_on.set()
    assert await asyncio.gather(*slow, quick) == [*range(200, 180, -1), 200]


async def test_what_the_bus_does_not_tell_is_found(world: World) -> None:
    world.is_deaf = True
    watching = asyncio.create_task(world.follow(BEGINNING, 10))
    await asyncio.sleep(0.05)
    await world.commit(5)
    assert await watching == await world.all()


@pytest.mark.parametrize("error", [StoreUnavailable("down"), RuntimeError("a bug"), UnknownCursor("is ahead")])
async def test_a_look_that_fails_costs_time_and_no_event(world: World, error: Exception) -> None:
    watching = [asyncio.create_task(world.follow(BEGINNING, 60)) for _ in range(3)]
    await world.commit(10)
    await asyncio.sleep(0.05)
    for _ in range(5):
        world.reader.errors = [error]
        await world.commit(4)
        await asyncio.sleep(0.02)
    events = await world.all()
    for task in watching:
        assert await task == events


async def test_nobody_reads_when_nobody_watches(world: World) -> None:
    await world.follow(BEGINNING, 0)
    await asyncio.sleep(0.02)
    world.reader.reads = 0
    await world.commit(3)
    await asyncio.sleep(0.05)
    assert world.reader.reads == 0
    assert await world.follow(BEGINNING, 6) == await world.all()


async def test_whoever_joins_while_the_feed_is_behind_hears_nothing_old(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(account_stream, "_MAX_PAGE_EVENTS", 5)
    monkeypatch.setattr(account_stream, "POLL_CONNECTED_S", HANG_S)
    world.is_deaf = True
    first = asyncio.create_task(world.follow(BEGINNING, 112))
    await asyncio.sleep(0.05)
    await world.commit(50)
    joining = asyncio.create_task(world.follow(await world.stream.resolve_cursor(None), 12))
    await asyncio.sleep(0.05)
    world.is_deaf = False
    await world.commit(6)
    events = await world.all()
    assert await joining == events[100:]
    assert await first == events


async def test_a_backlog_comes_without_a_pause_between_its_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_stream, "_MAX_PAGE_EVENTS", 2)
    monkeypatch.setattr(account_stream, "POLL_CONNECTED_S", HANG_S)
    world.is_deaf = True
    watching = asyncio.create_task(world.follow(await world.stream.resolve_cursor(None), 60))
    await asyncio.sleep(0.05)
    await world.commit(29)
    world.is_deaf = False
    await world.commit()
    assert await watching == await world.all()


async def test_a_page_that_cannot_be_shown_hides_no_past(world: World) -> None:
    failures = [ValueError("a bug")] * 3

    def render(page: LogPage) -> LogPage:
        if page.events and failures:
            raise failures.pop()
        return page

    world.stream = AccountStream(world.reader, world.bus, ACCOUNT, render)
    await world.commit(5)
    watching = asyncio.create_task(_until_it_is_shown(world, 14))
    await asyncio.sleep(0.02)
    await world.commit(2)
    assert await watching == await world.all()
    assert not failures


async def _until_it_is_shown(world: World, events: int) -> list[OrderEvent]:
    """Watch again after each error, as a client does."""
    while True:
        with contextlib.suppress(ValueError):
            return await world.follow(BEGINNING, events)


async def test_a_bug_that_lasts_is_not_told_all_the_time(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(account_stream, "POLL_LOST_S", HANG_S)
    watching = asyncio.create_task(world.follow(BEGINNING, 10_000))
    await asyncio.sleep(0.05)
    world.reader.errors = [RuntimeError("a bug")] * 100
    await world.commit(3)
    async with asyncio.timeout(HANG_S):
        while len(world.reader.errors) == 100:
            await asyncio.sleep(0.001)
    await asyncio.sleep(0.1)
    assert len(world.reader.errors) == 99
    watching.cancel()
    await asyncio.gather(watching, return_exceptions=True)


async def test_a_look_that_outlives_its_cancellation_tells_nothing_twice(world: World) -> None:
    begin = await world.stream.resolve_cursor(None)
    leaving = asyncio.create_task(world.follow(begin, 10))
    await asyncio.sleep(0.05)
    world.reader.is_frozen = True
    await world.commit()
    await asyncio.sleep(0.05)
    leaving.cancel()
    await asyncio.gather(leaving, return_exceptions=True)
    world.reader.is_frozen = False
    watching = asyncio.create_task(world.follow(begin, 42))
    for _ in range(20):
        await world.commit()
        await asyncio.sleep(0.002)
    assert await watching == await world.all()
