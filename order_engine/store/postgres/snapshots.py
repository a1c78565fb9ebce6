"""An account stream's cursor on PostgreSQL: a snapshot in its text form, `xmin:xmax:xip,xip,...`.

It says which transactions had ended: those below xmax except the ones in the list, which were open
(https://www.postgresql.org/docs/current/functions-info.html#FUNCTIONS-INFO-SNAPSHOT). So an event that is committed
late, in a transaction that began early, is still new to the cursor's reader.

No cursor goes further than the last transaction that wrote an event. PostgreSQL's own snapshot may include later
transactions that wrote nothing, so that their numbers are not on disk. After a crash, PostgreSQL gives the same numbers
to other transactions, which may write events.
"""

import re
from typing import Final

NOTHING_SEEN: Final = "1:1:"
_NUMBER: Final = "[0-9]{1,20}"
_SNAPSHOT: Final = re.compile(f"{_NUMBER}:{_NUMBER}:({_NUMBER}(,{_NUMBER})*)?", re.ASCII)


def is_snapshot(cursor: str) -> bool:
    """Return whether the text has a snapshot's form, and no other that PostgreSQL would also read as one."""
    return _SNAPSHOT.fullmatch(cursor) is not None


def moved_on(seen: str, until: str, last: int) -> str:
    """Return the snapshot of a reader that had `seen`, and then everything of `until` up to transaction `last`.

    A reader reads in the order of the transactions: first those that were open in `seen`, then later ones.
    """
    _, seen_end, seen_open = _parts(seen)
    _, _, still_open = _parts(until)
    end = max(seen_end, last + 1)
    unseen = sorted({it for it in still_open if it < end} | {it for it in seen_open if it > last})
    return f"{unseen[0] if unseen else end}:{end}:{','.join(map(str, unseen))}"


def _parts(snapshot: str) -> tuple[int, int, list[int]]:
    begin, end, open_ones = snapshot.split(":")
    return int(begin), int(end), [int(it) for it in open_ones.split(",") if it]
