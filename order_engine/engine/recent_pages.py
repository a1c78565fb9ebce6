"""The last pages of a stream, numbered from its first, for watchers that are a little behind."""

from collections import deque
from typing import Generic, TypeVar

Frame = TypeVar("Frame")


class RecentPages(Generic[Frame]):
    """The last pages, each with the cursor after it. Does no input or output."""

    def __init__(self, max_pages: int) -> None:
        """Keep at most this many pages; older ones are dropped."""
        self._pages: deque[tuple[str, Frame]] = deque(maxlen=max_pages)
        self.count = 0  # Pages so far, dropped ones too: the number of the next page.

    def add(self, cursor: str, frame: Frame) -> None:
        """Keep the next page, which ends at the cursor."""
        self._pages.append((cursor, frame))
        self.count += 1

    def has_all_from(self, number: int) -> bool:
        """Return whether no page from this number on has been dropped; also True where the next page is awaited."""
        return number >= self.count - len(self._pages)

    def page(self, number: int) -> tuple[str, Frame]:
        """Return the page of this number, which must be kept, and the cursor after it."""
        return self._pages[number - self.count]

    def clear(self) -> None:
        """Drop all pages; the next one has the next number."""
        self._pages.clear()

    def skip(self) -> None:
        """Drop all pages and leave a number out, so that no watcher takes the next page for its own next one."""
        self._pages.clear()
        self.count += 1
