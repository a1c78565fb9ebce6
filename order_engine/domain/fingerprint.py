"""The fingerprint of a request: two requests with one idempotency key are the same if their fingerprints are.

It covers the fields that the client sent, by name, and nothing that the engine adds or looks up. So a
changed default, a changed token and a new optional field change no fingerprint.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

# The prefix of each fingerprint. A change of the rules below needs a new version, and a reader for the old one.
_VERSION: Final = "1"
_MINT_LENGTH: Final = 32


def fingerprint(parts: Mapping[str, str | None]) -> str:
    """Return `1:` and the SHA-256 of the parts that are not None, sorted by name."""
    sent = sorted((name, text) for name, text in parts.items() if text is not None)
    return f"{_VERSION}:{hashlib.sha256(json.dumps(sent).encode()).hexdigest()}"


def amount_part(text: str) -> str:
    """Return decimal text without the zeros at its end: 1.50 and 1.5 are one amount."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def token_part(name: str) -> str:
    """Return a token's name: a symbol in lower case, a mint (32 characters or more) as it was sent."""
    return name if len(name) >= _MINT_LENGTH else name.lower()
