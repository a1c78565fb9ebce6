"""Making and checking the schema on PostgreSQL: once, by one process, and not at all where it is up to date."""

from typing import Final

import asyncpg

from order_engine.domain.errors import WrongSchema
from order_engine.store.schema import LEDGER, Applied, applied_by, pending_migrations, require_no_foreign_tables
from order_engine.store.sql import POSTGRES, Migration, load_migrations, load_queries

_MIGRATION_LOCK: Final = 0x6F72646572  # "order" in ASCII: one migrator at a time
_MAX_RENUMBERED: Final = 10_000


async def bring_up_to_date(connection: "asyncpg.Connection[asyncpg.Record]", schema: str | None) -> None:
    """Apply the missing migrations; raises WrongSchema and PostgresError.

    `schema`: quoted, if it is not the first of the role's search path. A role that may only read and
    write is enough where nothing is missing.
    """
    if await _pending(connection):
        await connection.execute("select pg_advisory_lock($1)", _MIGRATION_LOCK)
        try:
            await _migrate(connection, schema)
        except asyncpg.InsufficientPrivilegeError as error:
            raise WrongSchema(
                f"its schema is not up to date, and this role may not change it ({error}); "
                "run `order-engine migrate` as the owner of the database"
            ) from error
        finally:
            await connection.execute("select pg_advisory_unlock($1)", _MIGRATION_LOCK)
    while await connection.fetchval("select number_restored_events($1)", _MAX_RENUMBERED) == _MAX_RENUMBERED:
        pass


async def _migrate(connection: "asyncpg.Connection[asyncpg.Record]", schema: str | None) -> None:
    if schema is not None:
        await connection.execute(f"create schema if not exists {schema}")
    pending = await _pending(connection)  # Another process may have been faster.
    if pending and pending[0].number == 1:
        require_no_foreign_tables([row[0] for row in await connection.fetch(load_queries(POSTGRES)["schema_tables"])])
    for migration in pending:
        async with connection.transaction():
            if migration.number == 1:
                await connection.execute(
                    f"create table {LEDGER} (number integer primary key, name text not null, digest text not null)"
                )
            await connection.execute(migration.statements)
            applied = applied_by(migration)
            await connection.execute(
                f"insert into {LEDGER} values ($1, $2, $3)",  # noqa: S608 - a constant
                applied.number,
                applied.name,
                applied.digest,
            )


async def _pending(connection: "asyncpg.Connection[asyncpg.Record]") -> list[Migration]:
    known = load_migrations(POSTGRES)
    columns = {row[0] for row in await connection.fetch(load_queries(POSTGRES)["schema_columns"], LEDGER)}
    if not columns:
        return known
    if columns != {"number", "name", "digest"}:
        require_no_foreign_tables([LEDGER])
    rows = await connection.fetch(load_queries(POSTGRES)["applied_migrations"])
    return [*pending_migrations([Applied(*row) for row in rows], known)]
