"""Accounts, API keys and their scopes. Pure: secret bytes are passed in."""

import hashlib
import re
import zlib
from enum import StrEnum
from typing import Final

import msgspec

from order_engine.domain.order import EpochMs

# The account of an engine without API keys.
LOCAL_ACCOUNT: Final = "default"
KEY_PREFIX: Final = "oe_"
TICKET_PREFIX: Final = "oet_"
SECRET_BYTES: Final = 32
_DIGITS: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
# 62**43 > 2**256, and 62**6 > 2**32.
_SECRET_DIGITS, _CHECK_DIGITS = 43, 6
_FORM: Final = re.compile(f"({KEY_PREFIX}|{TICKET_PREFIX})([0-9A-Za-z]{{43}})([0-9A-Za-z]{{6}})", re.ASCII)
_ACCOUNT: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}", re.ASCII)
_CONTROL: Final = re.compile("[\x00-\x1f\x7f]")
MAX_LABEL: Final = 100
MAX_REASON: Final = 200


class Scope(StrEnum):
    """The permissions that a key may have."""

    READ = "read"
    """See the account's orders, events and quotes."""
    TRADE = "trade"
    """Place and cancel orders of the account."""
    ADMIN = "admin"
    """Keys, pauses and the audit log of all accounts, and the orders of all accounts."""
    METRICS = "metrics"
    """Read the measurements from another machine."""


class Caller(msgspec.Struct, frozen=True):
    """The maker of a request. `key_id`: of the API key; None while the engine has no keys."""

    account: str
    scopes: frozenset[Scope]
    key_id: str | None = None


LOCAL_CALLER: Final = Caller(LOCAL_ACCOUNT, frozenset(Scope))


class ApiKey(msgspec.Struct, frozen=True):
    """A key without its secret. Times are in ms since 1970; None: it does not expire, is not revoked, was not used."""

    key_id: str
    account: str
    scopes: frozenset[Scope]
    label: str
    created_at_ms: EpochMs
    expires_at_ms: EpochMs | None = None
    revoked_at_ms: EpochMs | None = None
    last_used_at_ms: EpochMs | None = None

    def why_dead(self, now_ms: int) -> str | None:
        """Return why the key may not be used, or None."""
        if self.revoked_at_ms is not None:
            return "the key is revoked"
        if self.expires_at_ms is not None and self.expires_at_ms <= now_ms:
            return "the key has expired"
        return None

    @property
    def caller(self) -> Caller:
        """Return the caller that uses this key."""
        return Caller(self.account, self.scopes, self.key_id)


def write_secret(prefix: str, secret: bytes) -> str:
    """Return an API key or a ticket as text: the prefix, 256 bits, and a checksum against typing errors."""
    digits = _base62(int.from_bytes(secret, "big"), _SECRET_DIGITS)
    return f"{prefix}{digits}{_checksum(prefix + digits)}"


def digest_of(secret: str, prefix: str) -> bytes | None:
    """Return the SHA-256 by which a key or ticket is found, or None if the text cannot be one with this prefix."""
    found = _FORM.fullmatch(secret)
    if found is None or found[1] != prefix or found[3] != _checksum(found[1] + found[2]):
        return None
    return hashlib.sha256(secret.encode()).digest()


def is_plain(text: str) -> bool:
    """Return whether a label or a reason has no control characters."""
    return _CONTROL.search(text) is None


def is_account(name: str) -> bool:
    """Return whether this can be the name of an account."""
    return _ACCOUNT.fullmatch(name) is not None


def _checksum(text: str) -> str:
    return _base62(zlib.crc32(text.encode()), _CHECK_DIGITS)


def _base62(number: int, digits: int) -> str:
    text = ""
    for _ in range(digits):
        number, digit = divmod(number, len(_DIGITS))
        text = _DIGITS[digit] + text
    return text
