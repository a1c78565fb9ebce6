"""Deletes orders that ended long ago from SQLite, and records up to which time, in one transaction."""

import sqlite3
from collections.abc import Mapping

from order_engine.store.sqlite.statements import fetch_all, json_text


def delete_ended(connection: sqlite3.Connection, sql: Mapping[str, str], before_ms: int, limit: int) -> int:
    """Delete up to `limit` of the oldest orders that ended before a time, with all that is kept of them."""
    values = {"before_ms": before_ms, "before_id": _first_id_of(before_ms), "most": limit}
    ended = [row[0] for row in fetch_all(connection, sql["ended"], values)]
    if not ended:
        return 0
    connection.execute(sql["set_deleting"], (True,))
    for statement in ("delete_attempts", "delete_events", "delete_orders"):
        connection.execute(sql[statement], (json_text(ended),))
    connection.execute(sql["set_deleting"], (False,))
    connection.execute(sql["note_deleted"], (before_ms,))
    return len(ended)


def _first_id_of(at_ms: int) -> str:
    """Return the lowest possible start of a UUIDv7 of this time."""
    text = f"{at_ms:012x}"
    return f"{text[:8]}-{text[8:]}"
