"""The SQL files of a dialect: one statement a file, found by its name."""

import functools
from collections.abc import Mapping
from importlib import resources
from typing import NewType

import msgspec

Dialect = NewType("Dialect", str)

POSTGRES = Dialect("postgres")
SQLITE = Dialect("sqlite")


class Migration(msgspec.Struct, frozen=True):
    """One numbered step of the schema."""

    number: int
    name: str
    statements: str


@functools.cache
def load_queries(dialect: Dialect) -> Mapping[str, str]:
    """Return every query of the dialect by its file's name without the suffix."""
    folder = resources.files("order_engine.store") / dialect / "queries"
    return {
        entry.name.removesuffix(".sql"): entry.read_text("utf-8")
        for entry in folder.iterdir()
        if entry.name.endswith(".sql")
    }


@functools.cache
def load_migrations(dialect: Dialect) -> list[Migration]:
    """Return the dialect's migrations in order; their numbers are 1..n without a gap."""
    folder = resources.files("order_engine.store") / dialect / "migrations"
    names = sorted(entry.name for entry in folder.iterdir() if entry.name.endswith(".sql"))
    migrations = [
        Migration(int(name[:4]), name.removesuffix(".sql"), (folder / name).read_text("utf-8")) for name in names
    ]
    if [it.number for it in migrations] != list(range(1, len(migrations) + 1)):
        message = f"the {dialect} migrations are not numbered 1..n: {names}"
        raise ValueError(message)
    return migrations
