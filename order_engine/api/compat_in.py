"""Requests of the five compatible systems' clients, read into the same request as v1's.

The shapes are those of the table in docs/compatibility.md. One body takes the fields of all
rows. A field that no row has, and two fields that contradict each other, are refused by name:
an order trades exactly as its client wrote it.
"""

import re
from collections.abc import Mapping
from typing import Final

import msgspec
from starlette.datastructures import Headers

from order_engine.api.context import ApiContext
from order_engine.api.json_body import decode_loose
from order_engine.api.parsing import (
    decode_text,
    is_client_order_id,
    make_request,
    order_parts,
    parse_amount_field,
    parse_integer,
    parse_key,
)
from order_engine.api.schemas import MarketOrderRequest
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.fingerprint import fingerprint
from order_engine.domain.order import SwapRequest
from order_engine.ports.store import IdempotencyKey

Fields = Mapping[str, msgspec.Raw]

# The pair and amount of the `job_queue` systems for a paper order that names none.
_DEFAULT_PAIR: Final = ("SOL", "USDC")
_DEFAULT_AMOUNT: Final = msgspec.Raw(b"1")
_TYPES: Final = ("type", "orderType")
_KEYS: Final = ("idempotency-key", "x-idempotency-key")
# The fields of all rows that say which tokens are traded, and how much.
_TRADE_FIELDS: Final = frozenset(
    {"type", "orderType", "tokenIn", "tokenOut", "symbol", "amount", "amountIn", "slippageBps"}
)
_ORDER_FIELDS: Final = _TRADE_FIELDS | {"clientOrderId", "metadata"}
_JOB_FIELDS: Final = frozenset({"orderId", "payload"})
_FRAME_FIELDS: Final = frozenset({"type", "payload"})
# These clients send null for a field that they leave out.
_NULLABLE: Final = frozenset({"slippageBps", "clientOrderId", "metadata"})
# Words of other order types. A job's payload may hold anything else, which is kept and never read.
_NOT_HONOURED: Final = frozenset(
    {"limitPrice", "price", "side", "triggerPrice", "stopPrice", "orderKind", "timeInForce", "expiresAt", "slippage"}
    | {"takeProfit", "stopLoss", "minAmountOut", "amountOut"}
)
_SAYS_WHAT_TO_TRADE: Final = frozenset(name.lower() for name in _NOT_HONOURED | _TRADE_FIELDS)
# No separator: a client that sends `SOL-USDC` means that pair, and must not trade the default pair.
_BARE_SYMBOL: Final = re.compile(r"[A-Za-z0-9$]{1,32}", re.ASCII)


class LooseOrder(msgspec.Struct, frozen=True):
    """A request, a sentence that names its defaults (None without any), and the parts of its fingerprint."""

    swap: SwapRequest
    note: str | None
    parts: Mapping[str, str | None]

    def with_key(self, key: str | None) -> IdempotencyKey | None:
        """Return the idempotency key with this request's fingerprint."""
        return None if key is None else IdempotencyKey(key, fingerprint(self.parts))


class RefusedOrder(InvalidRequest):
    """A token or an amount is refused now. `parts` finds an earlier answer to the same request, if there is one."""

    def __init__(self, error: InvalidRequest, field: str, parts: Mapping[str, str | None]) -> None:
        """`field` is the field at fault as this client wrote it."""
        super().__init__(field, str(error), code=error.code)
        self.parts = parts


def parse_loose_order(context: ApiContext, body: bytes) -> LooseOrder:
    """Return the order in a body or frame, but for `upper_case`. Raises InvalidRequest with the field at fault."""
    fields = _decode(body)
    _require_known(fields, _ORDER_FIELDS)
    return _read_order(context, fields)


def parse_job(context: ApiContext, body: bytes) -> LooseOrder:
    """Return the order of `/enqueue`: its clientOrderId is `orderId`, its metadata is `payload`."""
    fields = _decode(body)
    _require_known(fields, _JOB_FIELDS)
    if "orderId" not in fields:
        raise InvalidRequest("orderId", "is missing")
    decode_text(fields["orderId"], "orderId")  # Null is not a name here.
    payload = fields.get("payload", msgspec.Raw(b"null"))
    order = {"clientOrderId": fields["orderId"], "metadata": payload}
    try:
        inner = {} if _is_null(payload) else _decode_payload(payload)
        _require_honoured(inner)
        return _read_order(context, {field: inner[field] for field in inner if field in _TRADE_FIELDS} | order)
    except InvalidRequest as error:
        renamed = {"clientOrderId": "orderId", "metadata": "payload"}
        raise _renamed(error, renamed) from error


def parse_exec_frame(context: ApiContext, body: bytes) -> LooseOrder:
    """Return the order of `/ws-exec`: `{"type": "market", "payload": {...}}`."""
    fields = _decode(body)
    _require_known(fields, _FRAME_FIELDS)
    if "type" in fields:
        _require_market(fields, "type")
    if "payload" not in fields:
        raise InvalidRequest("payload", "is missing")
    try:
        inner = _decode_payload(fields["payload"])
        _require_known(inner, _ORDER_FIELDS)
        return _read_order(context, inner)
    except InvalidRequest as error:
        raise _renamed(error, {}) from error


def parse_keys(headers: Headers) -> str | None:
    """Return the idempotency key under either of its names; two different keys are refused."""
    first, second = (parse_key(headers.getlist(name), name) for name in _KEYS)
    if first is not None and second is not None and first != second:
        raise InvalidRequest(_KEYS[1], f"differs from {_KEYS[0]}; send one of the two")
    return first if second is None else second


def _decode(body: bytes) -> dict[str, msgspec.Raw]:
    if not body.strip():
        raise InvalidRequest("", "The body is empty; send a JSON object, such as {}.", code="malformed_json")
    return decode_loose(body)


def _decode_payload(payload: msgspec.Raw) -> dict[str, msgspec.Raw]:
    try:
        return decode_loose(bytes(payload))
    except InvalidRequest as error:
        raise InvalidRequest("", f"must be a JSON object: {str(error).removesuffix('.')}", code=error.code) from error


def _renamed(error: InvalidRequest, renamed: Mapping[str, str]) -> InvalidRequest:
    """Return the error with its field as the client wrote it: within `payload`, unless `renamed` says otherwise."""
    field = renamed.get(error.field, f"payload.{error.field}" if error.field else "payload")
    if isinstance(error, RefusedOrder):
        return RefusedOrder(error, field, error.parts)
    return InvalidRequest(field, str(error), code=error.code)


def _require_known(fields: Fields, known: frozenset[str]) -> None:
    for name in fields:
        if name not in known:
            hint = "; its unit is not certain, send slippageBps" if name == "slippage" else ""
            message = f"is not a field of this order{hint}; known are {', '.join(sorted(known))}"
            raise InvalidRequest(name, message, code="unknown_field")


def _require_honoured(payload: Fields) -> None:
    for name in payload:
        # A client that sends `Amount` means the amount, so it must not be kept as a note.
        if name not in _TRADE_FIELDS and name.lower() in _SAYS_WHAT_TO_TRADE:
            raise InvalidRequest(name, "is not honoured: a job is a market order", code="unknown_field")


def _require_market(fields: Fields, name: str) -> None:
    if decode_text(fields[name], name).lower() != "market":
        raise InvalidRequest(name, "must be market, the only type there is")


def _is_null(raw: msgspec.Raw) -> bool:
    return bytes(raw) == b"null"


def _read_order(context: ApiContext, fields: Fields) -> LooseOrder:
    """Return the order of known fields; every one of them is honoured, or the order is refused."""
    fields = {name: raw for name, raw in fields.items() if name not in _NULLABLE or not _is_null(raw)}
    for name in _TYPES:
        if name in fields:
            _require_market(fields, name)
    pair, bare_symbol = _named_pair(fields)
    token_in, token_out = pair or _DEFAULT_PAIR
    amount_field = "amountIn" if "amountIn" in fields else "amount"
    if "tokenIn" in fields and amount_field not in fields:
        raise InvalidRequest("amountIn", "is missing (or amount)")
    note = _note(context, pair, bare_symbol, has_amount=amount_field in fields)
    wire = MarketOrderRequest(
        type="market",
        token_in=token_in,
        token_out=token_out,
        amount_in=fields.get(amount_field, _DEFAULT_AMOUNT),
        slippage_bps=_slippage(fields),
    )
    raw_name = fields.get("clientOrderId")
    client_order_id = None if raw_name is None else decode_text(raw_name, "clientOrderId")
    metadata = _metadata(fields, bare_symbol)
    try:
        swap = make_request(context.tokens, wire, context.default_slippage_bps, client_order_id, metadata)
    except InvalidRequest as error:
        # Name the field as this client wrote it: a pair is one field, whichever half is wrong.
        token_field = "symbol" if "symbol" in fields and "tokenIn" not in fields else error.field
        named = {"amountIn": amount_field, "tokenIn": token_field, "tokenOut": token_field}
        field = named.get(error.field, error.field)
        if client_order_id is not None and not is_client_order_id(client_order_id):
            raise InvalidRequest(field, str(error), code=error.code) from error  # No order can have this name.
        try:
            parts = order_parts(wire, client_order_id, metadata)
        except (InvalidRequest, msgspec.MsgspecError, RecursionError):
            raise InvalidRequest(field, str(error), code=error.code) from error
        raise RefusedOrder(error, field, parts) from error
    _refuse_contradictions(context, fields, swap)
    return LooseOrder(swap, note, order_parts(wire, client_order_id, metadata))


def _named_pair(fields: Fields) -> tuple[tuple[str, str] | None, str | None]:
    """Return the two tokens that the body names, if it does, and a symbol that names no pair."""
    symbol = decode_text(fields["symbol"], "symbol") if "symbol" in fields else None
    if "tokenIn" in fields or "tokenOut" in fields:
        for name in ("tokenIn", "tokenOut"):
            if name not in fields:
                raise InvalidRequest(name, "is missing")
        return (decode_text(fields["tokenIn"], "tokenIn"), decode_text(fields["tokenOut"], "tokenOut")), None
    if symbol is None:
        return None, None
    token_in, slash, token_out = symbol.partition("/")
    if slash:
        return (token_in, token_out), None
    if not _BARE_SYMBOL.fullmatch(symbol):
        raise InvalidRequest("symbol", "must be a pair such as SOL/USDC, or one symbol of 1-32 letters and digits")
    return None, symbol


def _note(
    context: ApiContext, pair: tuple[str, str] | None, bare_symbol: str | None, *, has_amount: bool
) -> str | None:
    """Return a sentence that names the defaults of this order; only the paper chain has any."""
    if not context.is_paper:
        if pair is None:
            raise InvalidRequest("symbol", "must be a pair such as SOL/USDC: only the paper chain has a default pair")
        if not has_amount:
            raise InvalidRequest("amountIn", "is missing (or amount): only the paper chain has a default amount")
    elif pair is not None and not has_amount:
        return "No amount was named: this paper order sells the default amount, 1."
    if pair is not None:
        return None
    reason = "No pair was named" if bare_symbol is None else f"The symbol {bare_symbol} names no pair"
    amount = "" if has_amount else ", and the default amount, 1"
    return f"{reason}: this paper order trades the default pair, {'/'.join(_DEFAULT_PAIR)}{amount}."


def _slippage(fields: Fields) -> int | None:
    raw = fields.get("slippageBps")
    if raw is None:
        return None
    text = bytes(raw).decode()
    text = decode_text(raw, "slippageBps") if text.startswith('"') else text
    return parse_integer(text, "slippageBps", 1, 1000)


def _metadata(fields: Fields, bare_symbol: str | None) -> msgspec.Raw | None:
    """Return the client's metadata, with the symbol that names no pair, so that it is not lost."""
    metadata = fields.get("metadata")
    if bare_symbol is None:
        return metadata
    members: dict[str, msgspec.Raw] = {}
    if metadata is not None:
        try:
            members = decode_loose(bytes(metadata))
        except InvalidRequest as error:
            message = f"must be a JSON object: {str(error).removesuffix('.')}"
            raise InvalidRequest("metadata", message, code=error.code) from error
    if "symbol" not in members:
        return msgspec.Raw(msgspec.json.encode({**members, "symbol": bare_symbol}))
    if decode_text(members["symbol"], "metadata") != bare_symbol:
        raise InvalidRequest("metadata", "has another symbol than the field symbol, which is kept there")
    return metadata


def _refuse_contradictions(context: ApiContext, fields: Fields, swap: SwapRequest) -> None:
    """Refuse an order with two different values for one field; the same value twice is allowed."""
    if "amount" in fields and "amountIn" in fields:
        amount = parse_amount_field(fields["amount"], swap.token_in, "amount")
        if amount != swap.amount_in:
            raise InvalidRequest("amount", "differs from amountIn; send one of the two")
    if "symbol" in fields and "tokenIn" in fields:
        halves = decode_text(fields["symbol"], "symbol").split("/")
        named = [context.tokens.resolve(half, "symbol") for half in halves]
        if named != [swap.token_in, swap.token_out]:
            raise InvalidRequest("symbol", "differs from tokenIn and tokenOut; send one of the two")
