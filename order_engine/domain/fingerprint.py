"""The fingerprint of a request: two requests with one idempotency key are the same if theirs are.

It covers what the client sent, by the names of the fields, and nothing that the engine adds or looks
up: a changed default, a changed token and a new optional field change no fingerprint.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Final

# Written before each fingerprint. A change of the rules below needs a new one, and a reader for the old.
_VERSION: Final = "1"
_MINT_LENGTH: Final = 32


def fingerprint(parts: Mapping[str, str | None]) -> str:
    """Return `1:` and the SHA-256 of the parts that are there, in the order of their names."""
    sent = sorted((name, text) for name, text in parts.items() if text is not None)
    return f"{_VERSION}:{hashlib.sha256(json.dumps(sent).encode()).hexdigest()}"


def amount_part(text: str) -> str:
    """Return decimal text without the zeros at its end: 1.50 and 1.5 are one amount."""
    return text.rstrip("0").rstrip(".") if "." in text else text


def token_part(name: str) -> str:
    """Return a token's name as it was sent; a symbol is one in any case, a mint (32 characters or more) is not."""
    return name if len(name) >= _MINT_LENGTH else name.lower()
