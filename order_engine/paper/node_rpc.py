"""JSON-RPC 2.0 as Solana's nodes speak it: requests, errors, and checks of parameters."""

import base64
from collections.abc import Callable
from typing import Any, Final

import msgspec
from solders.hash import Hash, ParseHashError
from solders.pubkey import Pubkey
from solders.signature import Signature
from solders.transaction import SanitizeError, VersionedTransaction

from order_engine.ports.chain import Commitment

PARSE_ERROR: Final = -32700
INVALID_REQUEST: Final = -32600
METHOD_NOT_FOUND: Final = -32601
INVALID_PARAMS: Final = -32602
INTERNAL_ERROR: Final = -32603
SEND_FAILED: Final = -32002
NOT_SIGNED: Final = -32003
NODE_UNHEALTHY: Final = -32005
SLOT_NOT_REACHED: Final = -32016

_MAX_ID: Final = 2**64
_MAX_TRANSACTION_BYTES: Final = 1_232  # The maximum of one packet.
_ALPHABET: Final = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


class RpcError(Exception):
    """A request is answered with an error: one of the codes above, and the message of Solana's nodes for it."""

    def __init__(self, code: int, message: str, data: object = None) -> None:
        """`data` is part of the answer unless it is None."""
        super().__init__(message)
        self._answer = {"code": code, "message": message} | ({} if data is None else {"data": data})

    def answer(self, request_id: object) -> dict[str, Any]:
        """Return the response to the request with this id."""
        return {"jsonrpc": "2.0", "error": self._answer, "id": request_id}


def invalid_params(message: str) -> RpcError:
    """Return the error for invalid parameters."""
    return RpcError(INVALID_PARAMS, f"Invalid params: {message}")


# --- requests ---


def read_body(body: bytes) -> Any:
    """Return the request, or the list of requests, of a body."""
    try:
        return msgspec.json.decode(body)
    except (ValueError, RecursionError) as error:
        raise RpcError(PARSE_ERROR, "Parse error") from error


def is_notification(request: Any) -> bool:
    """Return whether the request wants no answer. Solana's nodes do not support notifications and ignore them."""
    return isinstance(request, dict) and isinstance(request.get("method"), str) and "id" not in request


def id_of(request: Any) -> str | int | None:
    """Return the id that the answer has to name."""
    request_id = request.get("id") if isinstance(request, dict) else None
    is_number = isinstance(request_id, int) and not isinstance(request_id, bool) and 0 <= request_id < _MAX_ID
    return request_id if is_number or isinstance(request_id, str) else None


def read_request(request: Any) -> tuple[str, list[Any]]:
    """Return the method and its positional parameters."""
    if not isinstance(request, dict) or not isinstance(request.get("method"), str):
        raise RpcError(INVALID_REQUEST, "Invalid request")
    if request.get("id") != id_of(request):
        raise RpcError(INVALID_REQUEST, "Invalid request: the id must be a string, a whole number or null")
    if request.get("jsonrpc") != "2.0":
        raise RpcError(INVALID_REQUEST, "Unsupported JSON-RPC protocol version is needed")
    params = request.get("params")
    if not isinstance(params, list | None):
        raise invalid_params("a list is expected")
    return request["method"], params or []


# --- parameters ---


def options_at(params: list[Any], place: int) -> dict[str, Any]:
    """Return the object at a place, or an empty one."""
    options = params[place] if len(params) > place else None
    if not isinstance(options, dict | None):
        raise invalid_params(f"an object is expected at {place}")
    return options or {}


def commitment_of(options: dict[str, Any], name: str = "commitment") -> Commitment:
    """Return the requested commitment; the default is `finalized`."""
    value = options.get(name)
    try:
        return Commitment.FINALIZED if value is None else Commitment(value)
    except ValueError as error:
        raise invalid_params(f"{name} must be processed, confirmed or finalized") from error


def flag_of(options: dict[str, Any], name: str) -> bool:
    """Return a boolean option; the default is false."""
    value = options.get(name)
    if not isinstance(value, bool | None):
        raise invalid_params(f"{name} must be true or false")
    return bool(value)


def least_slot_of(options: dict[str, Any]) -> int:
    """Return which slot the node must have reached."""
    value = options.get("minContextSlot")
    if isinstance(value, bool) or not isinstance(value, int | None) or (value or 0) < 0:
        raise invalid_params("minContextSlot must be a whole number")
    return value or 0


def blockhash_at(params: list[Any], place: int) -> Hash:
    """Return the blockhash at a place."""
    try:
        return Hash.from_string(_text_at(params, place, "a blockhash"))
    except ParseHashError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {error}") from error


def signature_at(params: list[Any], place: int) -> str:
    """Return the signature at a place."""
    text = _text_at(params, place, "a signature")
    try:
        Signature.from_string(text)
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {error}") from error
    return text


def address_at(params: list[Any], place: int) -> str:
    """Return the address at a place."""
    text = _text_at(params, place, "an address")
    try:
        return str(Pubkey.from_string(text))
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"Invalid param: {error}") from error


def limit_of(options: dict[str, Any], maximum: int) -> int:
    """Return the requested number of results; the default is the maximum."""
    value = options.get("limit")
    if isinstance(value, bool) or not isinstance(value, int | None) or not 1 <= (value or maximum) <= maximum:
        raise invalid_params(f"limit must be from 1 to {maximum}")
    return value or maximum


def transaction_at(params: list[Any], place: int, encoding: object) -> tuple[bytes, VersionedTransaction]:
    """Return the transaction at a place, as bytes and read; without an encoding it is in base58."""
    text = _text_at(params, place, "a transaction")
    decode, most = _codec(encoding or "base58")[0]
    if len(text) > most:
        raise RpcError(INVALID_PARAMS, f"{encoding or 'base58'} encoded transaction too large: max {most} characters")
    try:
        raw = decode(text)
    except ValueError as error:
        raise RpcError(INVALID_PARAMS, f"invalid {encoding or 'base58'} encoding: {error}") from error
    if len(raw) > _MAX_TRANSACTION_BYTES:
        raise RpcError(INVALID_PARAMS, f"decoded transaction too large: max {_MAX_TRANSACTION_BYTES} bytes")
    try:
        transaction = VersionedTransaction.from_bytes(raw)
        transaction.sanitize()
    except (ValueError, SanitizeError) as error:
        raise RpcError(INVALID_PARAMS, f"invalid transaction: {error}") from error
    return raw, transaction


def encoder_of(encoding: object) -> Callable[[bytes], str]:
    """Return the function that encodes a transaction for the answer; without an encoding it is JSON, as on Solana."""
    return _codec(encoding or "json")[1]


def _codec(encoding: object) -> tuple[tuple[Callable[[str], bytes], int], Callable[[bytes], str]]:
    """Return how an encoding is read, its longest text for a transaction, and how it is written."""
    if encoding == "base58":
        return (_from_base58, 1_683), _to_base58
    if encoding == "base64":
        return (_from_base64, 1_644), lambda raw: base64.b64encode(raw).decode()
    raise RpcError(INVALID_PARAMS, f"unsupported encoding: {encoding}. Supported encodings: base58, base64")


def _text_at(params: list[Any], place: int, what: str) -> str:
    if len(params) <= place or not isinstance(params[place], str):
        raise invalid_params(f"{what} is expected at {place}")
    text: str = params[place]
    return text


def _from_base64(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _from_base58(text: str) -> bytes:
    number = 0
    for character in text:
        number = number * 58 + _ALPHABET.index(character)
    zeros = len(text) - len(text.lstrip(_ALPHABET[0]))
    return bytes(zeros) + number.to_bytes((number.bit_length() + 7) // 8)


def _to_base58(raw: bytes) -> str:
    digits, number = [], int.from_bytes(raw)
    while number:
        number, digit = divmod(number, 58)
        digits.append(_ALPHABET[digit])
    zeros = len(raw) - len(raw.lstrip(b"\0"))
    return _ALPHABET[0] * zeros + "".join(reversed(digits))
