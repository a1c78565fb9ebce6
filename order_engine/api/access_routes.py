"""The table of routes for keys, tickets, pauses and the audit log; see routes.py."""

from collections.abc import Sequence
from typing import Final

from order_engine.api import access
from order_engine.api.access_schemas import (
    AuditView,
    KeyListView,
    KeyRequest,
    KeyView,
    NewKeyView,
    PauseListView,
    PauseRequest,
    ResumeRequest,
    TicketView,
)
from order_engine.api.openapi import Operation, Parameter
from order_engine.api.problems import OK, status_of
from order_engine.domain.errors import InvalidRequest, KeyNotFound

_BAD: Final = {status_of(InvalidRequest): ("A field is wrong; `field` names it", None)}

ACCESS_OPERATIONS: Final[Sequence[Operation]] = (
    Operation(
        "POST",
        "/v1/keys",
        access.make_key,
        "access",
        "Make an API key",
        {OK: ("The key; its secret is in this answer only", NewKeyView), **_BAD},
        body=KeyRequest,
        examples={"trader": {"account": "desk-1", "scopes": ["read", "trade"], "label": "bot", "expiresInDays": 90}},
    ),
    Operation("GET", "/v1/keys", access.list_keys, "access", "List the API keys", {OK: ("All keys", KeyListView)}),
    Operation(
        "DELETE",
        "/v1/keys/{keyId}",
        access.revoke_key,
        "access",
        "Revoke an API key",
        {OK: ("The revoked key", KeyView), status_of(KeyNotFound): ("No such key", None)},
    ),
    Operation(
        "POST",
        "/v1/tickets",
        access.make_ticket,
        "access",
        "Make a ticket for one stream",
        {OK: ("A ticket, good for one stream within 30 s: `?ticket=...`", TicketView)},
    ),
    Operation(
        "POST",
        "/v1/pause",
        access.pause,
        "access",
        "Pause an account or everything",
        {OK: ("The pauses that are on", PauseListView), **_BAD},
        body=PauseRequest,
        examples={"all": {"reason": "The venue is wrong"}},
        description="When this answers, no process accepts or signs anything new; signed transactions are proven.",
    ),
    Operation(
        "POST",
        "/v1/resume",
        access.resume,
        "access",
        "End a pause",
        {OK: ("The pauses that are still on", PauseListView), **_BAD},
        body=ResumeRequest,
        examples={"all": {}},
    ),
    Operation(
        "GET",
        "/v1/audit",
        access.list_audit,
        "access",
        "List the audit log, newest first",
        {OK: ("A page", AuditView), **_BAD},
        parameters=(
            Parameter("limit", "query", "At most 1,000.", {"type": "integer", "minimum": 1, "maximum": 1_000}),
            Parameter(
                "cursor",
                "query",
                "The nextCursor of the page before.",
                {"type": "integer", "minimum": 1, "maximum": 2**31 - 1},
            ),
        ),
    ),
)
