"""A cursor of the account's events: a place in the log, and a mark of the last event that the reader has seen.

The mark identifies the log. After a restore of an older backup, other events get the same places; a reader that was
ahead of the backup is then refused and not misled. A cursor is
`PLACE@NUMBER.TIME.DIGEST`, or the place alone where nothing has happened yet.
"""

import hashlib
import re
from collections.abc import Sequence
from typing import Final

import msgspec

from order_engine.domain.errors import UnknownCursor

_MARK: Final = re.compile(r"([0-9]{1,20})\.([0-9]{1,15})\.([0-9a-f]{16})", re.ASCII)
# SQLite numbers events, and PostgreSQL transactions, with 64 bits; SQLite's have a sign.
_MAX_NUMBER: Final = 2**63 - 1


class MarkedEvent(msgspec.Struct, frozen=True):
    """The parts of a mark: an event, the number that the log gave to it or to its transaction, and its time."""

    number: int
    order_id: str
    seq: int
    at_ms: int

    @property
    def mark(self) -> str:
        """The text that follows the place in a cursor."""
        told = f"{self.order_id} {self.seq} {self.at_ms}".encode()
        return f"{self.number}.{self.at_ms}.{hashlib.blake2b(told, digest_size=8).hexdigest()}"


def join(place: str, mark: str | None) -> str:
    """Return the cursor."""
    return place if mark is None else f"{place}@{mark}"


def split(cursor: str) -> tuple[str, str | None]:
    """Return a cursor's place and mark; raises UnknownCursor for an invalid mark."""
    place, at, mark = cursor.partition("@")
    if at and (not _MARK.fullmatch(mark) or number_of(mark) > _MAX_NUMBER):
        raise UnknownCursor("is not a cursor of this log")
    return place, mark or None


def number_of(mark: str) -> int:
    """Return the number of the event that the mark names."""
    return int(mark.partition(".")[0])


def check_mark(mark: str, found: Sequence[MarkedEvent], deleted_before_ms: int) -> None:
    """Raise UnknownCursor unless the log has the marked event, or retention can have deleted it.

    `found`: the events of that number. `deleted_before_ms`: an older event may be gone.
    """
    if any(event.mark == mark for event in found):
        return
    at_ms = int(mark.split(".")[1])
    if found or at_ms >= deleted_before_ms:
        raise UnknownCursor(
            "names an event that this log does not have: the database was restored from an older backup, or is "
            "another one; begin again with 0, or without a cursor"
        )
