"""Checks a database's schema: compares the migrations that the database keeps with those of this version."""

import hashlib
from collections.abc import Collection, Sequence

import msgspec

from order_engine.domain.errors import WrongSchema
from order_engine.store.sql import Migration

# The table with the applied migrations, and all tables that must not exist before the first migration.
LEDGER = "schema_migrations"
OUR_TABLES = frozenset(
    {"orders", "order_events", "attempts", "cluster", "engine_identity", "processes", "retention", LEDGER}
)

_EMPTY_ONE = "name an empty database"


class Applied(msgspec.Struct, frozen=True):
    """A migration that made a part of a schema, as the database keeps it."""

    number: int
    name: str
    digest: str


def applied_by(migration: Migration) -> Applied:
    """Return a migration as a database keeps it. Its digest changes with every character of the file."""
    return Applied(migration.number, migration.name, hashlib.sha256(migration.statements.encode()).hexdigest())


def pending_migrations(applied: Sequence[Applied], known: Sequence[Migration]) -> Sequence[Migration]:
    """Return the migrations that a database still needs; raises WrongSchema if others than ours made it."""
    for it in applied:
        if it.number > len(known):
            raise WrongSchema(
                f"a later version of order-engine made its schema (migration {it.name} is not known here); "
                f"run that version, or {_EMPTY_ONE}"
            )
        ours = applied_by(known[it.number - 1])
        if it != ours:
            raise WrongSchema(
                f"an earlier, unreleased version of order-engine made its schema (migration {it.name} reads "
                f"otherwise in this version); run that version, or {_EMPTY_ONE}"
            )
    if [it.number for it in applied] != list(range(1, len(applied) + 1)):
        raise WrongSchema(f"a migration of its schema is missing in {LEDGER}; restore it from a backup")
    return known[len(applied) :]


def schema_trouble(applied: Sequence[Applied], known: Sequence[Migration]) -> str | None:
    """Return why a database's schema is not the one of this version, or None: it can change while a process runs."""
    try:
        pending = pending_migrations(applied, known)
    except WrongSchema as error:
        return f"the database is another one than at the start: {error}"
    return f"migration {pending[0].name} is missing; run `order-engine migrate`" if pending else None


def require_no_foreign_tables(tables: Collection[str]) -> None:
    """Raise WrongSchema if a database without a readable ledger has tables of our names."""
    if in_the_way := sorted(OUR_TABLES & {*tables}):
        raise WrongSchema(
            f"it has a table {in_the_way[0]} that this version of order-engine did not make: another program "
            f"or an earlier, unreleased version did; {_EMPTY_ONE}, or another schema with ?schema=NAME"
        )
