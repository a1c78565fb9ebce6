"""API keys, tickets, pauses and the audit log on SQLite."""

import sqlite3
from collections.abc import Mapping, Sequence

import msgspec

from order_engine.domain.access import ApiKey, Caller
from order_engine.domain.account_limits import AccountLimits
from order_engine.domain.order import EpochMs
from order_engine.ports.access import Actor, AuditEntry, Pause
from order_engine.ports.clock import Clock
from order_engine.store.access_rows import (
    EVERY_ACCOUNT,
    audit_from_row,
    caller_from_row,
    key_columns,
    key_details,
    key_from_row,
    limits_columns,
    limits_details,
    limits_from_row,
    pause_from_row,
    scopes_text,
)
from order_engine.store.rows import text
from order_engine.store.sql import SQLITE, load_queries
from order_engine.store.sqlite.connections import JobRunner
from order_engine.store.sqlite.statements import fetch_all, fetch_one, json_text


class SqliteAccess:
    """An AccessStore on the threads of a SqliteStore."""

    def __init__(self, writer: JobRunner, reader: JobRunner, clock: Clock) -> None:
        """The store ends the threads."""
        self._writer = writer
        self._reader = reader
        self._clock = clock
        self._sql = load_queries(SQLITE)

    # --- KeyStore ---

    async def has_keys(self) -> bool:
        """See KeyStore."""
        row = await self._reader.run(lambda connection: fetch_one(connection, self._sql["has_keys"], ()))
        return bool(row[0])

    async def create_key(self, key: ApiKey, digest: bytes, actor: Actor) -> None:
        """See KeyStore."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["create_key"], key_columns(key, digest))
            self._note(connection, "key.create", key.key_id, key_details(key), actor)

        await self._writer.run(job)

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """See KeyStore."""
        row = await self._reader.run(lambda connection: fetch_one(connection, self._sql["find_key"], (digest,)))
        return key_from_row(row) if row else None

    async def list_keys(self) -> list[ApiKey]:
        """See KeyStore."""
        rows = await self._reader.run(lambda connection: fetch_all(connection, self._sql["list_keys"], ()))
        return [key_from_row(row) for row in rows]

    async def revoke_key(self, key_id: str, actor: Actor) -> ApiKey | None:
        """See KeyStore."""
        values = {"key_id": key_id, "now_ms": self._clock.now_ms()}

        def job(connection: sqlite3.Connection) -> ApiKey | None:
            if connection.execute(self._sql["revoke_key"], values).rowcount:
                self._note(connection, "key.revoke", key_id, "{}", actor)
            row = fetch_one(connection, self._sql["get_key"], (key_id,))
            return key_from_row(row) if row else None

        return await self._writer.run(job)

    async def dead_keys(self, key_ids: Sequence[str]) -> set[str]:
        """See KeyStore."""
        values = {"key_ids": json_text([*key_ids]), "now_ms": self._clock.now_ms()}
        rows = await self._reader.run(lambda connection: fetch_all(connection, self._sql["dead_keys"], values))
        return {row[0] for row in rows}

    async def note_used(self, used: Mapping[str, EpochMs]) -> None:
        """See KeyStore."""
        values = [{"key_id": key_id, "at_ms": at_ms} for key_id, at_ms in used.items()]
        await self._writer.run(lambda connection: connection.executemany(self._sql["note_used_key"], values).rowcount)

    # --- TicketStore ---

    async def add_ticket(self, digest: bytes, caller: Caller, lives_ms: int) -> None:
        """See TicketStore."""
        now_ms = self._clock.now_ms()
        values = (digest, caller.key_id, caller.account, scopes_text(caller.scopes), now_ms + lives_ms)

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["forget_tickets"], (now_ms,))
            connection.execute(self._sql["add_ticket"], values)

        await self._writer.run(job)

    async def redeem_ticket(self, digest: bytes) -> Caller | None:
        """See TicketStore."""
        now_ms = self._clock.now_ms()

        def job(connection: sqlite3.Connection) -> Caller | None:
            row = fetch_one(connection, self._sql["redeem_ticket"], (digest,))
            if row is None or row["expires_at_ms"] <= now_ms:
                return None
            caller = caller_from_row(row)
            key = None if caller.key_id is None else fetch_one(connection, self._sql["get_key"], (caller.key_id,))
            is_dead = key is not None and key_from_row(key).why_dead(now_ms) is not None
            return None if is_dead else caller

        return await self._writer.run(job)

    # --- SwitchStore ---

    async def pause(self, account: str | None, reason: str, actor: Actor) -> None:
        """See SwitchStore."""
        values = (account or EVERY_ACCOUNT, reason, self._clock.now_ms())
        details = msgspec.json.encode({"reason": reason}).decode()

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["pause"], values)
            self._note(connection, "pause", account or EVERY_ACCOUNT, details, actor)

        await self._writer.run(job)

    async def resume(self, account: str | None, actor: Actor) -> bool:
        """See SwitchStore."""

        def job(connection: sqlite3.Connection) -> bool:
            ended = connection.execute(self._sql["resume"], (account or EVERY_ACCOUNT,)).rowcount > 0
            if ended:
                self._note(connection, "resume", account or EVERY_ACCOUNT, "{}", actor)
            return ended

        return await self._writer.run(job)

    async def pauses(self) -> list[Pause]:
        """See SwitchStore."""
        rows = await self._reader.run(lambda connection: fetch_all(connection, self._sql["pauses"], ()))
        return [pause_from_row(row) for row in rows]

    async def note_audit(self, action: str, subject: str, details: msgspec.Raw, actor: Actor) -> None:
        """See SwitchStore."""
        await self._writer.run(lambda connection: self._note(connection, action, subject, text(details), actor))

    async def audit(self, before: int | None, limit: int) -> list[AuditEntry]:
        """See SwitchStore."""
        values = {"before": before, "most": limit}
        rows = await self._reader.run(lambda connection: fetch_all(connection, self._sql["audit"], values))
        return [audit_from_row(row) for row in rows]

    # --- LimitStore ---

    async def set_limits(self, limits: AccountLimits, actor: Actor) -> None:
        """See LimitStore."""

        def job(connection: sqlite3.Connection) -> None:
            connection.execute(self._sql["set_limits"], limits_columns(limits))
            self._note(connection, "limits.set", limits.account, limits_details(limits), actor)

        await self._writer.run(job)

    async def limits(self) -> list[AccountLimits]:
        """See LimitStore."""
        rows = await self._reader.run(lambda connection: fetch_all(connection, self._sql["limits"], ()))
        return [limits_from_row(row) for row in rows]

    def _note(self, connection: sqlite3.Connection, action: str, subject: str, details: str, actor: Actor) -> None:
        values = (self._clock.now_ms(), actor.key_id, actor.address, action, subject, details)
        connection.execute(self._sql["note_audit"], values)
