"""The ring of recent pages: watchers at every distance from its end."""

from hypothesis import given
from hypothesis import strategies as st

from order_engine.engine.recent_pages import RecentPages

STEPS = st.lists(st.sampled_from(["add", "clear", "skip"]), max_size=40)


def test_a_watcher_reads_the_pages_that_it_lacks_in_order() -> None:
    pages: RecentPages[str] = RecentPages(3)
    for number in range(3):
        pages.add(f"cursor {number}", f"page {number}")
    assert [pages.page(number) for number in range(3)] == [(f"cursor {it}", f"page {it}") for it in range(3)]
    assert pages.has_all_from(0)
    assert pages.has_all_from(pages.count)


def test_an_older_page_is_dropped_and_its_watcher_is_told() -> None:
    pages: RecentPages[str] = RecentPages(2)
    for number in range(5):
        pages.add("", f"page {number}")
    assert not pages.has_all_from(2)
    assert pages.has_all_from(3)
    assert pages.page(3) == ("", "page 3")
    assert pages.count == 5


def test_after_a_skip_nobody_who_watched_before_has_all_pages() -> None:
    pages: RecentPages[str] = RecentPages(2)
    pages.add("", "before")
    number = pages.count
    pages.skip()
    assert not pages.has_all_from(number)
    pages.add("", "after")
    assert not pages.has_all_from(number)
    assert pages.page(number + 1) == ("", "after")


@given(STEPS, st.integers(1, 4))
def test_every_page_that_is_promised_is_the_page_of_its_number(steps: list[str], max_pages: int) -> None:
    pages: RecentPages[int] = RecentPages(max_pages)
    all_pages: dict[int, int] = {}
    for step in steps:
        if step == "add":
            all_pages[pages.count] = pages.count
            pages.add(f"cursor {pages.count}", pages.count)
        elif step == "clear":
            pages.clear()
        else:
            pages.skip()
        kept = [number for number in range(pages.count) if pages.has_all_from(number)]
        assert len(kept) <= max_pages
        assert [pages.page(number) for number in kept] == [(f"cursor {it}", all_pages[it]) for it in kept]
