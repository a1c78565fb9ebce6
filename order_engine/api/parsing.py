"""Requests as they come in: decimal text meets integers here, and nothing wrong gets further."""

import json
import re
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NoReturn

import msgspec

from order_engine.api.schemas import MAX_METADATA_BYTES, MAX_METADATA_DEPTH, MarketOrderRequest, QuoteRequest
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.money import AmountError, BaseUnits, parse_amount
from order_engine.domain.order import OrderId, SwapRequest
from order_engine.domain.tokens import Token, TokenRegistry

_UUID: Final = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}", re.ASCII)
_CLIENT_ORDER_ID: Final = re.compile(r"[\x21-\x7e]{1,64}", re.ASCII)
_KEY: Final = re.compile(r"[\x21-\x7e]{1,255}", re.ASCII)
_AT_FIELD: Final = re.compile(r".* - at `\$\.([^.`\[]+)[^`]*`", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NAMED_FIELD: Final = re.compile(r".*missing required field `([^`]*)`", re.DOTALL)
_TIME: Final = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?(Z|[+-]\d{2}:\d{2})", re.ASCII)
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_DEEP: Final = 100
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def parse_order(body: bytes, tokens: TokenRegistry, default_slippage_bps: int) -> SwapRequest:
    """Return the request of a strict v1 body; raises InvalidRequest naming the field at fault."""
    wire = decode_strict(body, _order_decoder)
    return make_request(tokens, wire, default_slippage_bps, wire.client_order_id, wire.metadata)


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
    """Check what a schema cannot say and turn decimal text into base units."""
    token_in = tokens.resolve(wire.token_in, "tokenIn")
    token_out = tokens.resolve(wire.token_out, "tokenOut")
    if token_in.mint == token_out.mint:
        raise InvalidRequest("tokenOut", "must be another token than tokenIn", code="same_token")
    if client_order_id is not None and not _CLIENT_ORDER_ID.fullmatch(client_order_id):
        raise InvalidRequest("clientOrderId", "must be 1-64 visible ASCII characters")
    return SwapRequest(
        token_in,
        token_out,
        parse_amount_field(wire.amount_in, token_in, "amountIn"),
        default_slippage_bps if wire.slippage_bps is None else wire.slippage_bps,
        client_order_id,
        parse_metadata(metadata, "metadata"),
    )


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
    if _depth_of(bytes(raw)) > MAX_METADATA_DEPTH:
        raise InvalidRequest(field, f"must not be nested more than {MAX_METADATA_DEPTH} deep")
    try:
        value = msgspec.json.decode(raw, type=dict[str, Any])
    except (msgspec.MsgspecError, RecursionError) as error:
        raise InvalidRequest(field, f"must be a JSON object: {error}") from error
    if _any_text(value, _has_nul):
        raise InvalidRequest(field, "must not contain NUL characters")
    return msgspec.Raw(bytes(raw))


def parse_key(values: Sequence[str], field: str) -> str | None:
    """Return the idempotency key of a header that is there once, or not at all."""
    if not values:
        return None
    if len(values) > 1:
        raise InvalidRequest(field, "must be sent once")
    if not _KEY.fullmatch(values[0]):
        raise InvalidRequest(field, "must be 1-255 visible ASCII characters")
    return values[0]


def parse_order_id(text: str) -> OrderId | None:
    """Return the id if the text is a UUID."""
    lower = text.lower()
    return OrderId(lower) if _UUID.fullmatch(lower) else None


def parse_time(text: str, field: str) -> int:
    """Return milliseconds since 1970 of an RFC 3339 time."""
    try:
        if _TIME.fullmatch(text):
            return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        pass
    raise InvalidRequest(field, "must be an RFC 3339 time such as 2026-01-31T12:00:00Z")


def parse_integer(text: str, field: str, least: int, most: int) -> int:
    """Return a whole number within bounds."""
    if re.fullmatch(r"\d{1,10}", text, re.ASCII) and least <= int(text) <= most:
        return int(text)
    raise InvalidRequest(field, f"must be a whole number from {least} to {most}")


def decode_strict(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Decode a body; raises InvalidRequest naming the field at fault, if it is one field's fault."""
    try:
        return decoder.decode(body.decode())
    except msgspec.ValidationError as error:
        _refuse_shape(str(error))
    except RecursionError as error:
        raise InvalidRequest(_deep_field(body), "is nested too deeply", code="malformed_json") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_text(body, error)


def decode_loose(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode an object of any fields; raises InvalidRequest."""
    fields: dict[str, msgspec.Raw] = decode_strict(body, _loose_decoder)
    return fields


def _refuse_shape(message: str) -> NoReturn:
    unknown = _UNKNOWN_FIELD.fullmatch(message)
    field = unknown or _AT_FIELD.fullmatch(message) or _NAMED_FIELD.fullmatch(message)
    text = message if unknown else message.rsplit(" - at `", maxsplit=1)[0]
    code = "unknown_field" if unknown else None
    name = field[1] if field else ""
    told = f"{text[0].lower()}{text[1:]}" if not name else f"is wrong: {text[0].lower()}{text[1:]}"
    raise InvalidRequest(name, told if name else f"The body is wrong: {told}.", code=code)


def _refuse_text(body: bytes, error: Exception) -> NoReturn:
    """The body is not JSON: a laxer parser finds out whether one field's value is why."""
    try:
        lax = json.loads(body, strict=False, parse_constant=lambda _: _NOT_JSON, parse_float=str, parse_int=str)
    except (ValueError, RecursionError):
        lax = None
    if isinstance(lax, dict):
        for name, value in lax.items():
            if _has_surrogate(name):
                break
            if _any(value, lambda it: it is _NOT_JSON):
                raise InvalidRequest(name, "must be a finite number", code="malformed_json")
            if _any_text(value, _has_control):
                raise InvalidRequest(name, "must not contain control characters", code="malformed_json")
            if _any_text(value, _has_surrogate):
                raise InvalidRequest(name, "must not contain lone surrogates", code="malformed_json")
    raise InvalidRequest("", f"The body is not JSON: {error}.", code="malformed_json")


_NOT_JSON: Final = object()


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _has_nul(text: str) -> bool:
    return "\0" in text


def _any_text(value: object, claim: Callable[[str], bool]) -> bool:
    """Return whether the claim is true of any text within a JSON value, names included."""
    return _any(value, lambda it: isinstance(it, str) and claim(it))


def _depth_of(text: bytes) -> int:
    depth = deepest = 0
    for token in _TOKENS.findall(text):
        depth += (token in b"[{") - (token in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _deep_field(body: bytes) -> str:
    """Return the name of the field that is nested past what any parser takes, or ""."""
    depth, name = 0, b'""'
    for token in _TOKENS.findall(body):
        if depth == 1 and token.startswith(b'"'):
            name = token
        depth += (token in b"[{") - (token in b"]}")
        if depth > _DEEP:
            try:
                found: str = msgspec.json.decode(name, type=str)
            except msgspec.MsgspecError:
                return ""
            return found
    return ""


def _has_control(text: str) -> bool:
    return any(character < " " for character in text)


def _any(value: object, claim: Callable[[object], bool]) -> bool:
    """Return whether the claim is true of anything within a JSON value; never recurses."""
    waiting = [value]
    while waiting:
        it = waiting.pop()
        if claim(it):
            return True
        if isinstance(it, dict):
            waiting += [*it.keys(), *it.values()]
        elif isinstance(it, list):
            waiting += it
    return False


_order_decoder: Final = msgspec.json.Decoder(MarketOrderRequest)
_quote_decoder: Final = msgspec.json.Decoder(QuoteRequest)
_loose_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
