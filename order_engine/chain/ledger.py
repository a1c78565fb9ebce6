"""The paper chain's ledger: a SQLite file of its own, or a schema of its own in PostgreSQL."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import asyncpg
import msgspec

from order_engine.chain.paper import LedgerEntry
from order_engine.domain.errors import ChainUnavailable

Result = TypeVar("Result")

_LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
)

_TIMEOUT_S: Final = 10.0
_CONNECTIONS: Final = 2
_SCHEMA_LOCK: Final = 0x7061706572  # "paper" in ASCII

_SQLITE_SCHEMA: Final = """
create table if not exists paper_chain_genesis (one integer primary key check (one = 1), genesis_ms integer not null);
create table if not exists paper_chain_sealed (one integer primary key check (one = 1), until_ms integer not null);
insert or ignore into paper_chain_sealed values (1, 0);
create table if not exists paper_chain_swaps (
    signature text primary key,
    memo text not null,
    attempt integer not null,
    venue text not null,
    token_in text not null,
    token_out text not null,
    amount_in integer not null,
    min_amount_out integer not null,
    amount_out integer,
    error text,
    slot integer not null,
    block_height integer not null,
    lands_at_ms integer not null
) without rowid;
"""

_SQLITE_APPEND: Final = (
    "insert or ignore into paper_chain_swaps select ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9, ?10, ?11, ?12, ?13 "
    "where ?13 > (select until_ms from paper_chain_sealed)"
)
_SQLITE_SEAL: Final = "update paper_chain_sealed set until_ms = max(until_ms, ?)"
_SQLITE_FIND: Final = "select * from paper_chain_swaps where signature in (select value from json_each(?))"

_POSTGRES_SCHEMA: Final = """
create schema if not exists paper_chain;
create table if not exists paper_chain.genesis (one integer primary key check (one = 1), genesis_ms bigint not null);
create table if not exists paper_chain.sealed (one integer primary key check (one = 1), until_ms bigint not null);
insert into paper_chain.sealed values (1, 0) on conflict do nothing;
create table if not exists paper_chain.swaps (
    signature text primary key,
    memo text not null,
    attempt integer not null,
    venue text not null,
    token_in text not null,
    token_out text not null,
    amount_in bigint not null,
    min_amount_out bigint not null,
    amount_out bigint,
    error text,
    slot bigint not null,
    block_height bigint not null,
    lands_at_ms bigint not null
);
"""

_POSTGRES_APPEND: Final = """
with seal as (select until_ms from paper_chain.sealed for share)
insert into paper_chain.swaps
select entries.*
from seal, unnest(
    $1::text[], $2::text[], $3::integer[], $4::text[], $5::text[], $6::text[], $7::bigint[], $8::bigint[],
    $9::bigint[], $10::text[], $11::bigint[], $12::bigint[], $13::bigint[])
    as entries (signature, memo, attempt, venue, token_in, token_out, amount_in, min_amount_out,
    amount_out, error, slot, block_height, lands_at_ms)
where entries.lands_at_ms > seal.until_ms
on conflict (signature) do nothing
"""


class SqliteLedger:
    """A Ledger in one file; every append is on the disk before it returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="paper-chain")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.executescript(_SQLITE_SCHEMA)

    async def genesis_ms(self, now_ms: int) -> int:
        """See Ledger."""

        def job() -> int:
            self._connection.execute("insert or ignore into paper_chain_genesis values (1, ?)", (now_ms,))
            found: int = self._connection.execute("select genesis_ms from paper_chain_genesis").fetchone()[0]
            return found

        return await self._run(job)

    async def seal(self, until_ms: int) -> None:
        """See Ledger."""
        await self._run(lambda: self._connection.execute(_SQLITE_SEAL, (until_ms,)))

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """See Ledger."""
        rows = [msgspec.structs.astuple(entry) for entry in entries]

        def job() -> None:
            with self._connection:
                self._connection.execute("begin immediate")
                self._connection.executemany(_SQLITE_APPEND, rows)

        await self._run(job)

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """See Ledger."""
        wanted = (msgspec.json.encode(signatures).decode(),)
        rows = await self._run(lambda: self._connection.execute(_SQLITE_FIND, wanted).fetchall())
        return [LedgerEntry(*row) for row in rows]

    async def close(self) -> None:
        """See Ledger."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, job: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except sqlite3.Error as error:
            raise ChainUnavailable(f"the paper chain's ledger cannot be used: {error}") from error


class PostgresLedger:
    """A Ledger in the schema `paper_chain` of a PostgreSQL database."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """Use `open` instead."""
        self._pool = pool

    @classmethod
    async def open(cls, dsn: str) -> "PostgresLedger":
        """Connect and create the schema if it is not there."""
        pool = await asyncpg.create_pool(dsn, min_size=0, max_size=_CONNECTIONS, command_timeout=_TIMEOUT_S)
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _SCHEMA_LOCK)
            await connection.execute(_POSTGRES_SCHEMA)
        return cls(pool)

    async def genesis_ms(self, now_ms: int) -> int:
        """See Ledger."""
        statement = "insert into paper_chain.genesis values (1, $1) on conflict do nothing"
        await self._fetch(statement, now_ms)
        found: int = (await self._fetch("select genesis_ms from paper_chain.genesis"))[0][0]
        return found

    async def seal(self, until_ms: int) -> None:
        """See Ledger."""
        await self._fetch("update paper_chain.sealed set until_ms = greatest(until_ms, $1)", until_ms)

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """See Ledger."""
        # Signatures in one order, so that two workers that send the same bytes cannot deadlock.
        in_order = sorted(entries, key=lambda entry: entry.signature)
        columns = zip(*(msgspec.structs.astuple(entry) for entry in in_order), strict=True)
        await self._fetch(_POSTGRES_APPEND, *columns)

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """See Ledger."""
        statement = "select * from paper_chain.swaps where signature = any($1::text[])"
        return [LedgerEntry(*row) for row in await self._fetch(statement, signatures)]

    async def close(self) -> None:
        """See Ledger."""
        await self._pool.close()

    async def _fetch(self, statement: str, *values: object) -> list[asyncpg.Record]:
        try:
            async with self._pool.acquire() as connection:
                try:
                    return await connection.fetch(statement, *values)
                except asyncpg.InternalClientError:
                    # The server died in the middle of an answer, and the driver lost its place.
                    connection.terminate()
                    raise
        except _LOST as error:
            raise ChainUnavailable(f"the paper chain does not answer: {error}") from error
