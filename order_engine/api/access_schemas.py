"""The wire types of keys, tickets, pauses and the audit log."""

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from order_engine.api.schemas import JsonObject, OrderIdText, TimeText, time_text
from order_engine.domain.access import MAX_LABEL, MAX_REASON, ApiKey
from order_engine.ports.access import AuditEntry, Pause

_ACCOUNT_PATTERN = "^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$"
AccountName = Annotated[
    str,
    Meta(
        description="1-64 letters, digits, `_`, `.` and `-`; the first is a letter or digit.",
        extra_json_schema={"pattern": _ACCOUNT_PATTERN},
    ),
]
ScopeName = Literal["read", "trade", "admin", "metrics"]
Label = Annotated[str, Meta(max_length=MAX_LABEL, extra_json_schema={"pattern": "^[^\\u0000-\\u001f\\u007f]*$"})]
Days = Annotated[int, Meta(ge=1, le=3_650)]
Reason = Annotated[str, Meta(max_length=MAX_REASON, extra_json_schema={"pattern": "^[^\\u0000-\\u001f\\u007f]*$"})]


class KeyRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """A new API key for an account."""

    account: AccountName
    scopes: Annotated[list[ScopeName], Meta(min_length=1, max_length=4)] = msgspec.field(
        default_factory=lambda: ["read", "trade"]
    )
    label: Label = ""
    expires_in_days: Days | None = None


class KeyView(msgspec.Struct, rename="camel"):
    """An API key without its secret."""

    key_id: OrderIdText
    account: str
    scopes: list[ScopeName]
    label: str
    created_at: TimeText
    expires_at: TimeText | None
    revoked_at: TimeText | None
    last_used_at: TimeText | None


class NewKeyView(KeyView, rename="camel"):
    """A new API key; `key` is its secret, which is shown this once."""

    key: str


class KeyListView(msgspec.Struct, rename="camel"):
    """All keys, the oldest first."""

    keys: list[KeyView]


class TicketView(msgspec.Struct, rename="camel"):
    """A ticket that opens one stream, until `expiresAt`."""

    ticket: str
    expires_at: TimeText


class PauseRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """Pause one account, or all without `account`."""

    account: AccountName | None = None
    reason: Reason = ""


class ResumeRequest(msgspec.Struct, rename="camel", forbid_unknown_fields=True):
    """End the pause of one account, or that of all without `account`."""

    account: AccountName | None = None


class PauseView(msgspec.Struct, rename="camel"):
    """A pause; `account` is null for that of all accounts."""

    account: str | None
    reason: str
    since: TimeText


class PauseListView(msgspec.Struct, rename="camel"):
    """The pauses that are on."""

    pauses: list[PauseView]


class AuditEntryView(msgspec.Struct, rename="camel"):
    """One line of the audit log. `keyId`: of the API key that did it, or null. `address`: from where."""

    number: Annotated[int, Meta(ge=1)]
    at: TimeText
    key_id: str | None
    address: str
    action: str
    subject: str
    details: JsonObject


class AuditView(msgspec.Struct, rename="camel"):
    """A page of the audit log, newest first; `nextCursor` is null on the last one."""

    entries: list[AuditEntryView]
    next_cursor: int | None


class RefusedCancel(msgspec.Struct, rename="camel"):
    """An order that could not be cancelled, and why."""

    order_id: OrderIdText
    code: str
    detail: str


class BulkCancelView(msgspec.Struct, rename="camel"):
    """The result of a bulk cancel. With `dryRun` nothing was changed, and `matched` is the count."""

    dry_run: bool
    matched: int
    cancelled: list[OrderIdText]
    refused: list[RefusedCancel]
    has_more: bool


def view_key(key: ApiKey) -> KeyView:
    """Return the key as the API shows it."""
    return KeyView(**_key_fields(key))


def view_new_key(key: ApiKey, secret: str) -> NewKeyView:
    """Return a key that was just made, with its secret."""
    return NewKeyView(key=secret, **_key_fields(key))


def view_pause(pause: Pause) -> PauseView:
    """Return the pause as the API shows it."""
    return PauseView(pause.account, pause.reason, time_text(pause.since_ms))


def view_audit(entry: AuditEntry) -> AuditEntryView:
    """Return the line as the API shows it."""
    actor = entry.actor
    return AuditEntryView(
        entry.number, time_text(entry.at_ms), actor.key_id, actor.address, entry.action, entry.subject, entry.details
    )


def _key_fields(key: ApiKey) -> dict[str, Any]:
    return {
        "key_id": key.key_id,
        "account": key.account,
        "scopes": sorted(key.scopes),
        "label": key.label,
        "created_at": time_text(key.created_at_ms),
        "expires_at": _time_or_none(key.expires_at_ms),
        "revoked_at": _time_or_none(key.revoked_at_ms),
        "last_used_at": _time_or_none(key.last_used_at_ms),
    }


def _time_or_none(at_ms: int | None) -> str | None:
    return None if at_ms is None else time_text(at_ms)
