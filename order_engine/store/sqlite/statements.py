"""Runs a statement on a SQLite connection, and makes the JSON in which it takes lists."""

import sqlite3
from typing import Any

import msgspec


def fetch_one(connection: sqlite3.Connection, statement: str, values: Any) -> Any:
    """Return the first row, or None."""
    return connection.execute(statement, values).fetchone()


def fetch_all(connection: sqlite3.Connection, statement: str, values: Any) -> list[Any]:
    """Return every row."""
    return connection.execute(statement, values).fetchall()


def json_text(values: Any) -> str:
    """Return a list as a parameter for `json_each`."""
    return msgspec.json.encode(values).decode()
