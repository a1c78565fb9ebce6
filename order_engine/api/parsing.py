"""Parses requests: decimal text becomes integers here, and an invalid request is refused here."""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from order_engine.api.json_body import decode_strict, depth_of, has_text
from order_engine.api.schemas import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, MarketOrderRequest, QuoteRequest
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.fingerprint import amount_part, token_part
from order_engine.domain.money import AmountError, BaseUnits, parse_amount
from order_engine.domain.order import OrderId, SwapRequest
from order_engine.domain.tokens import Token, TokenRegistry

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
# `.` and `..` are steps in a path, which clients remove from an address before the request.
_CLIENT_ORDER_ID: Final = re.compile(r"(?!\.{1,2}\Z)[\x21-\x7e]{1,64}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_TIME: Final = re.compile(r"(\d{4}-\d{2}-\d{2})[Tt](\d{2}:\d{2}:\d{2})(?:\.(\d{1,9}))?([Zz]|[+-]\d{2}:\d{2})", re.ASCII)
# The one grammar of a whole number, in a query, a header and a body: no sign, no leading zero, no exponent.
_WHOLE: Final = re.compile(r"0|[1-9]\d{0,9}", re.ASCII)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_order(body: bytes, tokens: TokenRegistry, default_slippage_bps: int) -> SwapRequest:
    """Return the request of a strict v1 body; raises InvalidRequest naming the field at fault."""
    wire = decode_strict(body, _order_decoder)
    return make_request(tokens, wire, default_slippage_bps, wire.client_order_id, wire.metadata)


def order_parts(
    wire: MarketOrderRequest, client_order_id: str | None, metadata: msgspec.Raw | None
) -> dict[str, str | None]:
    """Return the parts of a request that make its fingerprint, by the names of v1's fields; see domain/fingerprint."""
    amount = bytes(wire.amount_in).decode()
    sent = None if metadata is None else msgspec.json.decode(metadata)
    return {
        "type": wire.type,
        "tokenIn": token_part(wire.token_in),
        "tokenOut": token_part(wire.token_out),
        "amountIn": amount_part(decode_text(wire.amount_in, "amountIn") if amount.startswith('"') else amount),
        "slippageBps": None if wire.slippage_bps is None else str(wire.slippage_bps),
        "clientOrderId": client_order_id,
        # Sorted at every depth, because the order of members means nothing.
        "metadata": None if sent is None else msgspec.json.encode(sent, order="sorted").decode(),
    }


def parse_parts(body: bytes) -> dict[str, str | None]:
    """Return the parts of a strict v1 body without checking its values; raises InvalidRequest for another shape."""
    wire = decode_strict(body, _order_decoder)
    return order_parts(wire, wire.client_order_id, wire.metadata)


def parse_quote(body: bytes, tokens: TokenRegistry, default_slippage_bps: int) -> SwapRequest:
    """Return the request of a strict quote body; raises InvalidRequest naming the field at fault."""
    wire = decode_strict(body, _quote_decoder)
    return make_request(tokens, wire, default_slippage_bps, None, None)


def make_request(
    tokens: TokenRegistry,
    wire: MarketOrderRequest | QuoteRequest,
    default_slippage_bps: int,
    client_order_id: str | None,
    metadata: msgspec.Raw | None,
) -> SwapRequest:
    """Check the rules that a schema cannot express, and turn decimal text into base units."""
    token_in = tokens.resolve(wire.token_in, "tokenIn")
    token_out = tokens.resolve(wire.token_out, "tokenOut")
    if token_in.mint == token_out.mint:
        why = "" if token_in.symbol == token_out.symbol else f": {token_in.symbol} and {token_out.symbol} have one mint"
        raise InvalidRequest("tokenOut", f"must differ from tokenIn{why}", code="same_token")
    if client_order_id is not None and not is_client_order_id(client_order_id):
        raise InvalidRequest("clientOrderId", "must be 1-64 visible ASCII characters, and not `.` or `..`")
    return SwapRequest(
        token_in,
        token_out,
        parse_amount_field(wire.amount_in, token_in, "amountIn"),
        default_slippage_bps if wire.slippage_bps is None else wire.slippage_bps,
        client_order_id,
        parse_metadata(metadata, "metadata"),
    )


def is_client_order_id(text: str) -> bool:
    """Return whether an order can have this name."""
    return _CLIENT_ORDER_ID.fullmatch(text) is not None


def parse_amount_field(raw: msgspec.Raw, token: Token, field: str) -> BaseUnits:
    """Return the base units of a JSON string or number, digit by digit; never through a float."""
    text = bytes(raw).decode()
    if text.startswith('"'):
        text = decode_text(raw, field)
    elif text[:1] not in "-0123456789":
        raise InvalidRequest(field, 'must be a decimal string such as "1.5", or a number')
    try:
        return parse_amount(text, token.decimals)
    except AmountError as error:
        raise InvalidRequest(field, str(error), code="invalid_amount") from error


def decode_text(raw: msgspec.Raw, field: str) -> str:
    """Return a JSON string; raises InvalidRequest for anything else."""
    try:
        text: str = msgspec.json.decode(raw, type=str)
    except msgspec.MsgspecError as error:
        raise InvalidRequest(field, "must be a string of valid Unicode") from error
    return text


def parse_metadata(raw: msgspec.Raw | None, field: str) -> msgspec.Raw | None:
    """Return the client's object as it came; null is no object."""
    if raw is None or bytes(raw) == b"null":
        return None
    if len(bytes(raw)) > MAX_METADATA_BYTES:
        raise InvalidRequest(field, f"must be at most {MAX_METADATA_BYTES} bytes")
    if depth_of(bytes(raw)) > MAX_METADATA_DEPTH:
        raise InvalidRequest(field, f"must not be nested more than {MAX_METADATA_DEPTH} deep")
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(field, f"must be a JSON object: {error}") from error
    if has_text(value, _has_nul):
        raise InvalidRequest(field, "must not contain NUL characters")
    return msgspec.Raw(bytes(raw))


def parse_key(values: Sequence[str], field: str) -> str | None:
    """Return the idempotency key of the header; None without it; refuses a repeated one."""
    key = single_value(values, field)
    if key is not None and not _KEY.fullmatch(key):
        raise InvalidRequest(field, "must be 1-255 visible ASCII characters")
    return key


def single_value(values: Sequence[str], field: str) -> str | None:
    """Return the value of a parameter; None without it; refuses a repeated one."""
    if len(values) > 1:
        raise InvalidRequest(field, "must be sent once")
    return values[0] if values else None


def parse_order_id(text: str) -> OrderId | None:
    """Return the id if the text is a UUID."""
    lower = text.lower()
    return OrderId(lower) if _UUID.fullmatch(lower) else None


def parse_time(text: str, field: str) -> int:
    """Return milliseconds since 1970 of an RFC 3339 time, rounded down; it may carry nanoseconds."""
    match = _TIME.fullmatch(text)
    if match is not None:
        date, time, fraction, zone = match.groups()
        milliseconds = (fraction or "")[:3].ljust(3, "0")
        with contextlib.suppress(ValueError, OverflowError):
            moment = datetime.fromisoformat(f"{date}T{time}.{milliseconds}{zone.upper()}")
            return (moment - _EPOCH) // timedelta(milliseconds=1)
    raise InvalidRequest(field, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")


def parse_integer(text: str, field: str, least: int, most: int) -> int:
    """Return a whole number within bounds."""
    if _WHOLE.fullmatch(text) and least <= int(text) <= most:
        return int(text)
    raise InvalidRequest(field, f"must be a whole number from {least} to {most}")


def _has_nul(text: str) -> bool:
    return "\0" in text


_order_decoder: Final = msgspec.json.Decoder(MarketOrderRequest)
_quote_decoder: Final = msgspec.json.Decoder(QuoteRequest)
