"""API keys, tickets, pauses and the audit log on PostgreSQL."""

from collections.abc import Mapping, Sequence
from typing import Any

import asyncpg
import msgspec

from order_engine.domain.access import ApiKey, Caller
from order_engine.domain.account_limits import AccountLimits
from order_engine.domain.order import EpochMs
from order_engine.ports.access import Actor, AuditEntry, Pause
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
from order_engine.store.postgres.connections import Sessions
from order_engine.store.rows import text
from order_engine.store.sql import POSTGRES, load_queries


class PostgresAccess:
    """An AccessStore on the sessions of a PostgresStore."""

    def __init__(self, sessions: Sessions) -> None:
        """The store closes the sessions."""
        self._sessions = sessions
        self._queries = load_queries(POSTGRES)

    # --- KeyStore ---

    async def has_keys(self) -> bool:
        """See KeyStore."""
        return bool((await self._fetch("has_keys"))[0][0])

    async def create_key(self, key: ApiKey, digest: bytes, actor: Actor) -> None:
        """See KeyStore."""
        await self._fetch("create_key", *key_columns(key, digest), actor.key_id, actor.address, key_details(key))

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """See KeyStore."""
        rows = await self._fetch("find_key", digest)
        return key_from_row(rows[0]) if rows else None

    async def list_keys(self) -> list[ApiKey]:
        """See KeyStore."""
        return [key_from_row(row) for row in await self._fetch("list_keys")]

    async def revoke_key(self, key_id: str, actor: Actor) -> ApiKey | None:
        """See KeyStore."""
        await self._fetch("revoke_key", key_id, actor.key_id, actor.address)
        rows = await self._fetch("get_key", key_id)
        return key_from_row(rows[0]) if rows else None

    async def dead_keys(self, key_ids: Sequence[str]) -> set[str]:
        """See KeyStore."""
        return {str(row[0]) for row in await self._fetch("dead_keys", [*key_ids])}

    async def note_used(self, used: Mapping[str, EpochMs]) -> None:
        """See KeyStore."""
        key_ids = sorted(used)  # In one order, so that two processes cannot deadlock.
        await self._fetch("note_used_keys", key_ids, [used[it] for it in key_ids])

    # --- TicketStore ---

    async def add_ticket(self, digest: bytes, caller: Caller, lives_ms: int) -> None:
        """See TicketStore."""
        await self._fetch("add_ticket", digest, caller.key_id, caller.account, scopes_text(caller.scopes), lives_ms)

    async def redeem_ticket(self, digest: bytes) -> Caller | None:
        """See TicketStore."""
        rows = await self._fetch("redeem_ticket", digest)
        return caller_from_row(rows[0]) if rows else None

    # --- SwitchStore ---

    async def pause(self, account: str | None, reason: str, actor: Actor) -> None:
        """See SwitchStore."""
        details = msgspec.json.encode({"reason": reason}).decode()
        await self._fetch("pause", account or EVERY_ACCOUNT, reason, actor.key_id, actor.address, details)

    async def resume(self, account: str | None, actor: Actor) -> bool:
        """See SwitchStore."""
        return bool(await self._fetch("resume", account or EVERY_ACCOUNT, actor.key_id, actor.address))

    async def pauses(self) -> list[Pause]:
        """See SwitchStore."""
        return [pause_from_row(row) for row in await self._fetch("pauses")]

    async def note_audit(self, action: str, subject: str, details: msgspec.Raw, actor: Actor) -> None:
        """See SwitchStore."""
        await self._fetch("note_audit", actor.key_id, actor.address, action, subject, text(details))

    async def audit(self, before: int | None, limit: int) -> list[AuditEntry]:
        """See SwitchStore."""
        return [audit_from_row(row) for row in await self._fetch("audit", before, limit)]

    # --- LimitStore ---

    async def set_limits(self, limits: AccountLimits, actor: Actor) -> None:
        """See LimitStore."""
        actor_columns = (actor.key_id, actor.address, limits_details(limits))
        await self._fetch("set_limits", *limits_columns(limits), *actor_columns)

    async def limits(self) -> list[AccountLimits]:
        """See LimitStore."""
        return [limits_from_row(row) for row in await self._fetch("limits")]

    async def _fetch(self, query: str, *values: Any) -> list[asyncpg.Record]:
        return await self._sessions.fetch(self._queries[query], *values)
