"""An account stream's cursor on SQLite: a position in the log."""

import re
from typing import Final

from order_engine.domain.errors import UnknownCursor
from order_engine.ports.store import BEGINNING
from order_engine.store.cursors import split

_POSITION: Final = re.compile(r"[0-9]{1,18}", re.ASCII)


def position_of(cursor: str | None) -> tuple[int | None, str | None]:
    """Return a cursor's position and mark; raises UnknownCursor."""
    if cursor is None:
        return None, None
    place, mark = split(cursor)
    if not _POSITION.fullmatch(place) or (mark is None and place != BEGINNING):
        raise UnknownCursor("is not a cursor of this log")
    return int(place), mark
