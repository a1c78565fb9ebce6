"""API keys, tickets, pauses and the audit log, as the engine keeps them. All calls may raise StoreUnavailable."""

from collections.abc import Mapping, Sequence
from typing import Protocol

import msgspec

from order_engine.domain.access import ApiKey, Caller
from order_engine.domain.account_limits import AccountLimits
from order_engine.domain.order import EpochMs


class Actor(msgspec.Struct, frozen=True):
    """The maker of a change, for the audit log: the key's id, or None, and the address or `command line`."""

    key_id: str | None
    address: str


class Pause(msgspec.Struct, frozen=True):
    """A pause of one account, or of all accounts with None."""

    account: str | None
    reason: str
    since_ms: EpochMs


class AuditEntry(msgspec.Struct, frozen=True):
    """One line of the audit log, numbered 1, 2, 3 and so on. `details` is a JSON object."""

    number: int
    at_ms: EpochMs
    actor: Actor
    action: str
    subject: str
    details: msgspec.Raw


class KeyStore(Protocol):
    """API keys. Only the SHA-256 of a key is stored. A change and its line in the audit log are one transaction.

    A cancelled call may still take effect.
    """

    async def has_keys(self) -> bool:
        """Return whether a key was ever made; a revoked one counts too."""

    async def create_key(self, key: ApiKey, digest: bytes, actor: Actor) -> None:
        """Keep a new key; `digest` is the SHA-256 of its text."""

    async def find_key(self, digest: bytes) -> ApiKey | None:
        """Return the key with this SHA-256, dead or alive."""

    async def list_keys(self) -> list[ApiKey]:
        """Return every key of every account, the oldest first."""

    async def revoke_key(self, key_id: str, actor: Actor) -> ApiKey | None:
        """Revoke the key and return it, or None if there is none; a revoked key stays as it is."""

    async def dead_keys(self, key_ids: Sequence[str]) -> set[str]:
        """Return those of the keys that are revoked or expired."""

    async def note_used(self, used: Mapping[str, EpochMs]) -> None:
        """Keep when each key was last used."""


class TicketStore(Protocol):
    """One-use tickets for streams of browsers, which send no headers with them. A cancelled call may take effect."""

    async def add_ticket(self, digest: bytes, caller: Caller, lives_ms: int) -> None:
        """Keep a ticket for this caller, by its SHA-256."""

    async def redeem_ticket(self, digest: bytes) -> Caller | None:
        """Return the ticket's caller and forget the ticket; None if it is unknown, used or too old."""


class SwitchStore(Protocol):
    """The kill switch, and the audit log. A change and its line in the log are one transaction.

    A cancelled call may still take effect.
    """

    async def pause(self, account: str | None, reason: str, actor: Actor) -> None:
        """Pause the account, or all with None: when this returns, nothing new is accepted and nothing is signed.

        A pause that is there already gets the new reason.
        """

    async def resume(self, account: str | None, actor: Actor) -> bool:
        """End the pause; return whether there was one. A pause of all accounts and one of an account are two."""

    async def pauses(self) -> list[Pause]:
        """Return the pauses that are on."""

    async def note_audit(self, action: str, subject: str, details: msgspec.Raw, actor: Actor) -> None:
        """Append a line to the audit log."""

    async def audit(self, before: int | None, limit: int) -> list[AuditEntry]:
        """Return up to `limit` lines of the audit log with a smaller number than `before`, the newest first."""


class LimitStore(Protocol):
    """The limits of accounts. A change and its line in the audit log are one transaction."""

    async def set_limits(self, limits: AccountLimits, actor: Actor) -> None:
        """Keep the limits of an account instead of the present ones; the used part of a day stays used."""

    async def limits(self) -> list[AccountLimits]:
        """Return the limits of every account that has some."""


class AccessStore(KeyStore, TicketStore, SwitchStore, LimitStore, Protocol):
    """All roles, for the code that composes the engine."""
