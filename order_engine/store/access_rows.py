"""Converts API keys, pauses and lines of the audit log to rows and back, for the drivers of both dialects."""

from collections.abc import Iterable
from typing import Any

import msgspec

from order_engine.domain.access import ApiKey, Caller, Scope
from order_engine.domain.account_limits import AccountLimits
from order_engine.ports.access import Actor, AuditEntry, Pause
from order_engine.store.rows import Row, raw_json

# In the table of pauses, this account stands for all.
EVERY_ACCOUNT = ""


def key_columns(key: ApiKey, digest: bytes) -> tuple[Any, ...]:
    """Return the values of a new key, in the order of `create_key.sql`."""
    return (
        key.key_id,
        digest,
        key.account,
        scopes_text(key.scopes),
        key.label,
        key.created_at_ms,
        key.expires_at_ms,
    )


def key_details(key: ApiKey) -> str:
    """Return the details of a new key for the audit log."""
    told = {"account": key.account, "scopes": sorted(key.scopes), "label": key.label, "expiresAtMs": key.expires_at_ms}
    return msgspec.json.encode(told).decode()


def key_from_row(row: Row) -> ApiKey:
    """Return the key of a row of `api_keys`."""
    return ApiKey(
        key_id=str(row["key_id"]),
        account=row["account"],
        scopes=scopes_of(row["scopes"]),
        label=row["label"],
        created_at_ms=row["created_at_ms"],
        expires_at_ms=row["expires_at_ms"],
        revoked_at_ms=row["revoked_at_ms"],
        last_used_at_ms=row["last_used_at_ms"],
    )


def caller_from_row(row: Row) -> Caller:
    """Return the caller of a row of `tickets`."""
    key_id = row["key_id"]
    return Caller(row["account"], scopes_of(row["scopes"]), None if key_id is None else str(key_id))


def pause_from_row(row: Row) -> Pause:
    """Return the pause of a row of `pauses`."""
    return Pause(None if row["account"] == EVERY_ACCOUNT else row["account"], row["reason"], row["since_ms"])


def audit_from_row(row: Row) -> AuditEntry:
    """Return the line of a row of `audit`."""
    actor = Actor(row["key_id"], row["address"])
    return AuditEntry(row["number"], row["at_ms"], actor, row["action"], row["subject"], raw_json(row["details"]))


def limits_columns(limits: AccountLimits) -> tuple[Any, ...]:
    """Return the values of an account's limits, in the order of `set_limits.sql`."""
    return (
        limits.account,
        limits.orders_per_minute,
        limits.burst,
        limits.open_orders,
        msgspec.json.encode(limits.amount_per_order).decode(),
        msgspec.json.encode(limits.amount_per_day).decode(),
    )


def limits_details(limits: AccountLimits) -> str:
    """Return the details of the limits for the audit log."""
    return msgspec.json.encode(limits).decode()


def limits_from_row(row: Row) -> AccountLimits:
    """Return the limits of a row of `account_limits`."""
    return AccountLimits(
        account=row["account"],
        orders_per_minute=row["orders_per_minute"],
        burst=row["burst"],
        open_orders=row["open_orders"],
        amount_per_order=msgspec.json.decode(row["amount_per_order"], type=dict[str, int]),
        amount_per_day=msgspec.json.decode(row["amount_per_day"], type=dict[str, int]),
    )


def scopes_text(scopes: Iterable[Scope]) -> str:
    """Return the scopes as one text."""
    return ",".join(sorted(scopes))


def scopes_of(text: str) -> frozenset[Scope]:
    """Return the scopes of a text."""
    return frozenset(Scope(it) for it in text.split(",") if it)
