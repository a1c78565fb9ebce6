"""The paper chain's ledger: a SQLite file of its own with every swap that landed."""

import asyncio
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, TypeVar

import msgspec

from order_engine.domain.errors import ChainUnavailable, WrongSchema
from order_engine.paper.network import LedgerEntry

Result = TypeVar("Result")

_COLUMNS: Final = LedgerEntry.__struct_fields__

_SCHEMA: Final = """
create table if not exists paper_chain_genesis (one integer primary key check (one = 1), genesis_ms integer not null);
create table if not exists paper_chain_swaps (
    memo text not null,
    attempt integer not null,
    venue text not null,
    token_in text not null,
    token_in_decimals integer not null,
    token_out text not null,
    token_out_mint text not null,
    token_out_decimals integer not null,
    amount_in integer not null,
    min_amount_out integer not null,
    amount_out integer,
    error text,
    signature text primary key,
    slot integer not null,
    block_height integer not null,
    lands_at_ms integer not null,
    raw blob not null
) without rowid;
"""

_NEWEST: Final = """
select * from paper_chain_swaps
where lands_at_ms <= :at_ms and (:before is null or (slot, signature) < (
    select slot, signature from paper_chain_swaps where signature = :before))
order by slot desc, signature desc
limit :most
"""
_PLACES: Final = ", ".join("?" * len(LedgerEntry.__struct_fields__))
_APPEND: Final = f"insert into paper_chain_swaps values ({_PLACES}) on conflict (signature) do nothing"  # noqa: S608 - a question mark for each field
_LATEST: Final = "select coalesce(max(lands_at_ms), 0) from paper_chain_swaps"
_FIND: Final = "select * from paper_chain_swaps where signature in (select value from json_each(?))"


class SqliteLedger:
    """A Ledger in one file; every append is on the disk before it returns."""

    def __init__(self, path: Path) -> None:
        """Open or create the file; raises WrongSchema for a ledger of another version."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="paper-chain")
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._connection.execute("pragma journal_mode = wal")
        self._connection.execute("pragma synchronous = full")
        self._connection.executescript(_SCHEMA)
        columns = [it[1] for it in self._connection.execute("pragma table_info(paper_chain_swaps)")]
        if columns != [*_COLUMNS]:
            raise WrongSchema("it is the paper chain of another version of order-engine")

    async def genesis_ms(self, now_ms: int) -> int:
        """See Ledger."""

        def job() -> int:
            self._connection.execute("insert or ignore into paper_chain_genesis values (1, ?)", (now_ms,))
            found: int = self._connection.execute("select genesis_ms from paper_chain_genesis").fetchone()[0]
            return found

        return await self._run(job)

    async def latest_landing_ms(self) -> int:
        """See Ledger."""
        found: int = await self._run(lambda: self._connection.execute(_LATEST).fetchone()[0])
        return found

    async def newest(self, before: str | None, at_ms: int, limit: int) -> list[LedgerEntry]:
        """See Ledger."""
        values = {"before": before, "at_ms": at_ms, "most": limit}
        return _entries(await self._run(lambda: self._connection.execute(_NEWEST, values).fetchall()))

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        """See Ledger."""
        rows = [msgspec.structs.astuple(entry) for entry in entries]

        def job() -> None:
            with self._connection:
                self._connection.execute("begin immediate")
                self._connection.executemany(_APPEND, rows)

        await self._run(job)

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        """See Ledger."""
        wanted = (msgspec.json.encode(signatures).decode(),)
        rows = await self._run(lambda: self._connection.execute(_FIND, wanted).fetchall())
        return _entries(rows)

    async def close(self) -> None:
        """See Ledger."""
        await self._run(self._connection.close)
        self._thread.shutdown()

    async def _run(self, job: Callable[[], Result]) -> Result:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, job)
        except sqlite3.Error as error:
            raise ChainUnavailable(f"the paper chain's ledger cannot be used: {error}") from error


def _entries(rows: Sequence[Sequence[object]]) -> list[LedgerEntry]:
    return [msgspec.convert(dict(zip(_COLUMNS, row, strict=True)), LedgerEntry) for row in rows]
