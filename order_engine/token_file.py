"""TOKENS_FILE: the owner's own tokens, checked strictly, because a wrong mint or precision trades wrong amounts."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec
from solders.pubkey import Pubkey

from order_engine.api.json_body import decode_strict
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.tokens import MAX_DECIMALS, Token, TokenConflict, TokenRegistry
from order_engine.settings import SettingsError

# A mint has at least 32 characters, so no symbol can be taken for a mint.
_SYMBOL: Final = re.compile(r"[A-Za-z0-9$._-]{1,31}", re.ASCII)
_PRICE: Final = re.compile(r"(?:0|[1-9]\d{0,11})(?:\.\d{1,18})?", re.ASCII)


class _Entry(msgspec.Struct, forbid_unknown_fields=True, rename="camel"):
    symbol: str
    mint: str
    decimals: int
    reference_price_usd: str | None = None


def load_tokens(path: Path | None, prices_usd: Mapping[str, str]) -> tuple[TokenRegistry, dict[str, str]]:
    """Return the registry and the prices with those of the file; `path` None: the built-in tokens alone.

    Raises a SettingsError that names the wrong entry, by its place and symbol, and the field.
    """
    prices = dict(prices_usd)
    if path is None:
        return TokenRegistry(), prices
    tokens: list[Token] = []
    try:
        entries = msgspec.json.decode(path.read_bytes().decode(), type=list[msgspec.Raw])
    except OSError as error:
        raise _unusable(path, f"{error.strerror}") from error
    except (UnicodeDecodeError, msgspec.MsgspecError, RecursionError) as error:
        raise _unusable(path, f"it must be a JSON list of objects in UTF-8: {error}") from error
    for place, raw in enumerate(entries, 1):
        symbol = ""
        try:
            entry: _Entry = decode_strict(bytes(raw), _decoder)
            symbol = entry.symbol
            _check(entry)
            tokens.append(Token(entry.symbol, entry.mint, entry.decimals))
            # A registry of all entries so far, so a conflict is always the last entry's.
            TokenRegistry(tokens)
        except TokenConflict as error:
            raise _unusable(path, _describe(place, symbol, error.field, str(error))) from error
        except InvalidRequest as error:
            raise _unusable(path, _describe(place, symbol, error.field, str(error))) from error
        if entry.reference_price_usd is not None:
            prices[entry.symbol] = entry.reference_price_usd
    return TokenRegistry(tokens), prices


def _check(entry: _Entry) -> None:
    if not _SYMBOL.fullmatch(entry.symbol):
        raise InvalidRequest("symbol", "must be 1-31 of the characters A-Z a-z 0-9 $ . _ -")
    try:
        Pubkey.from_string(entry.mint)
    except ValueError as error:
        raise InvalidRequest("mint", "must be the base58 text of a 32-byte address") from error
    if not 0 <= entry.decimals <= MAX_DECIMALS:
        raise InvalidRequest("decimals", f"must be a whole number from 0 to {MAX_DECIMALS}")
    price = entry.reference_price_usd
    if price is not None and not (_PRICE.fullmatch(price) and price.strip("0.")):
        raise InvalidRequest("referencePriceUsd", 'must be decimal text above zero, such as "0.25"')


def _describe(place: int, symbol: str, field: str, message: str) -> str:
    entry = f"entry {place} ({symbol!r})" if symbol else f"entry {place}"
    return f"{entry}: {field} {message}" if field else f"{entry}: {message}"


def _unusable(path: Path, message: str) -> SettingsError:
    return SettingsError(f"TOKENS_FILE={str(path)!r} cannot be used: {message.rstrip('.')}.")


_decoder: Final = msgspec.json.Decoder(_Entry)
