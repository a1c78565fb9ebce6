"""A database's whole schema as text, read from its own catalog."""

import re
import sqlite3
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any, Final

import asyncpg

_COLUMNS: Final = """
select c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
    case when a.attnotnull then 'not null' else 'null' end,
    coalesce('default ' || pg_get_expr(d.adbin, d.adrelid), '')
from pg_attribute a
join pg_class c on c.oid = a.attrelid
left join pg_attrdef d on d.adrelid = a.attrelid and d.adnum = a.attnum
where c.relnamespace = $1::regnamespace and c.relkind in ('r', 'c') and a.attnum > 0 and not a.attisdropped
order by c.relname, a.attnum
"""
# Since PostgreSQL 18, `not null` is a named constraint ('n'); the columns already show it.
_CONSTRAINTS: Final = """
select conrelid::regclass::text, conname, pg_get_constraintdef(oid)
from pg_constraint
where connamespace = $1::regnamespace and contype <> 'n' and conrelid <> 0
order by 1, 2
"""
_INDEXES: Final = """
select tablename, indexname, indexdef from pg_indexes where schemaname = $1 order by 1, 2
"""
_TRIGGERS: Final = """
select c.relname, t.tgname, pg_get_triggerdef(t.oid)
from pg_trigger t
join pg_class c on c.oid = t.tgrelid
where c.relnamespace = $1::regnamespace and not t.tgisinternal
order by 1, 2
"""
_FUNCTIONS: Final = """
select proname || '(' || pg_get_function_identity_arguments(oid) || ')', 'returns ' || pg_get_function_result(oid)
from pg_proc
where pronamespace = $1::regnamespace
order by 1
"""


async def postgres_catalog(url: str, schema: str = "public") -> str:
    """Columns of tables and of types, constraints, indexes, triggers and functions of one schema."""
    connection = await asyncpg.connect(url, server_settings={"search_path": f'"{schema}"'})
    try:
        sections = {
            name: await connection.fetch(query, f'"{schema}"' if "regnamespace" in query else schema)
            for name, query in (
                ("columns", _COLUMNS),
                ("constraints", _CONSTRAINTS),
                ("indexes", _INDEXES),
                ("triggers", _TRIGGERS),
                ("functions", _FUNCTIONS),
            )
        }
    finally:
        await connection.close()
    text = "\n".join(_section(name, rows) for name, rows in sections.items())
    return text.replace(f"{schema}.", "")


def sqlite_catalog(path: Path) -> str:
    """Tables, columns, indexes and, in the words of their definitions, constraints and triggers."""
    with closing(sqlite3.connect(path)) as connection:
        tables = [
            row[0] for row in connection.execute("select name from sqlite_master where type = 'table' order by 1")
        ]
        columns = [
            (table, name, kind.lower(), "not null" if is_not_null else "null", f"default {default}" if default else "")
            for table in tables
            for _, name, kind, is_not_null, default, _ in connection.execute(f"pragma table_info({table})")
        ]
        indexes = [
            (table, index, "unique" if is_unique else "", *_indexed(connection, index))
            for table in tables
            for _, index, is_unique, *_ in sorted(
                connection.execute(f"pragma index_list({table})"), key=lambda it: it[1]
            )
        ]
        definitions = connection.execute(
            "select type, name, sql from sqlite_master where sql is not null order by type, name"
        ).fetchall()
        version = connection.execute("pragma user_version").fetchall()
    return "\n".join(
        (
            _section("version", version),
            _section("columns", columns),
            _section("indexes", indexes),
            _section("definitions", definitions),
        )
    )


def _indexed(connection: sqlite3.Connection, index: str) -> list[str]:
    return [str(row[2]) for row in connection.execute(f"pragma index_info({index})")]


def _section(name: str, rows: Iterable[Any]) -> str:
    lines = (" | ".join(_plain(str(value)) for value in row if value != "") for row in rows)
    return "\n".join((f"== {name}", *lines, ""))


def _plain(text: str) -> str:
    """The text without its comments and on one line."""
    return re.sub(r"\s+", " ", re.sub(r"--[^\n]*", "", text)).strip()
