"""A body or frame as JSON: one meaning, or a refusal that names the field at fault."""

import contextlib
import json
import re
from collections.abc import Callable
from typing import Any, Final, NoReturn

import msgspec

from order_engine.domain.errors import InvalidRequest

_AT_FIELD: Final = re.compile(r".* - at `\$\.([^.`\[]+)[^`]*`", re.DOTALL)
_UNKNOWN_FIELD: Final = re.compile(r"Object contains unknown field `(.*)`", re.DOTALL)
_NAMED_FIELD: Final = re.compile(r".*missing required field `([^`]*)`", re.DOTALL)
_TOKENS: Final = re.compile(rb'"(?:[^"\\]|\\.)*"|[\[\]{}]', re.DOTALL)
_DEEP: Final = 100


class _Members(list[tuple[str, Any]]):
    """The members of one JSON object as they are in the text, repeated ones included."""


class _RepeatedError(Exception):
    """An object names a member twice."""


def decode_strict(body: bytes, decoder: "msgspec.json.Decoder[Any]") -> Any:
    """Decode a body; raises InvalidRequest naming the field at fault, if it is one field's fault."""
    try:
        value = decoder.decode(body.decode())
    except msgspec.ValidationError as error:
        with contextlib.suppress(ValueError):  # The decoder stopped at the field; the rest may not be JSON.
            _refuse_repeated(body)
        _refuse_shape(str(error))
    except RecursionError as error:
        name = _deep_field(body)
        told = "is nested too deeply" if name else "The body is nested too deeply."
        raise InvalidRequest(name, told, code="malformed_json") from error
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        _refuse_text(body, error)
    # Each member has a colon, so a body with as many colons as distinct members repeats none.
    if body.count(b":") > _least_members(value):
        try:
            _refuse_repeated(body)
        except ValueError as error:  # The decoder does not check a value that it returns undecoded.
            _refuse_text(body, error)
    return value


def decode_loose(body: bytes) -> dict[str, msgspec.Raw]:
    """Decode an object of any fields; raises InvalidRequest."""
    fields: dict[str, msgspec.Raw] = decode_strict(body, _loose_decoder)
    return fields


def has_text(value: object, claim: Callable[[str], bool]) -> bool:
    """Return whether the claim is true of any text within a JSON value, names included."""
    return _any(value, lambda it: isinstance(it, str) and claim(it))


def depth_of(text: bytes) -> int:
    """Return how deep the arrays and objects of a JSON text are nested."""
    depth = deepest = 0
    for token in _TOKENS.findall(text):
        depth += (token in b"[{") - (token in b"]}")
        deepest = max(deepest, depth)
    return deepest


def _least_members(value: Any) -> int:
    """Return how many distinct members the body has at least."""
    if isinstance(value, dict):
        return len(value)
    return len(value.__struct_fields__) - len(value.__struct_defaults__)


def _refuse_repeated(body: bytes) -> None:
    """Refuse a body in which any object names a member twice: parsers differ in which of the two they take."""
    try:
        json.loads(body, strict=False, object_pairs_hook=_require_distinct, parse_int=str, parse_float=str)
    except RecursionError as error:
        name = _deep_field(body)
        told = "is nested too deeply" if name else "The body is nested too deeply."
        raise InvalidRequest(name, told, code="malformed_json") from error
    except _RepeatedError:
        members = json.loads(body, strict=False, object_pairs_hook=_Members, parse_int=str, parse_float=str)
        raise _repeated(*_first_repeated(members)) from None


def _require_distinct(pairs: list[tuple[str, Any]]) -> None:
    if len(dict(pairs)) < len(pairs):
        raise _RepeatedError


def _repeated(field: str, name: str) -> InvalidRequest:
    """`field` is the wrong member of the body; if its name is "", the error names the body instead."""
    if not field:
        return InvalidRequest("", f"The body has the member {name[:80]!r} twice.", code="duplicate_member")
    told = "is there twice" if field == name else f"has the member {name[:80]!r} twice"
    return InvalidRequest(field, told, code="duplicate_member")


def _first_repeated(members: _Members) -> tuple[str, str]:
    """Return the top-level field that is at fault, or "", and the name that is there twice."""
    seen: set[str] = set()
    for name, _ in members:
        if name in seen:
            return name, name
        seen.add(name)
    for field, value in members:
        waiting = [value]
        while waiting:
            it = waiting.pop()
            if isinstance(it, _Members):
                names = [name for name, _ in it]
                repeated = next((name for at, name in enumerate(names) if name in names[:at]), None)
                if repeated is not None:
                    return field, repeated
                waiting += [value for _, value in it]
            elif isinstance(it, list):
                waiting += it
    return "", ""


def _refuse_shape(message: str) -> NoReturn:
    unknown = _UNKNOWN_FIELD.fullmatch(message)
    field = unknown or _AT_FIELD.fullmatch(message) or _NAMED_FIELD.fullmatch(message)
    text = message if unknown else message.rsplit(" - at `", maxsplit=1)[0]
    code = "unknown_field" if unknown else None
    name = field[1] if field else ""
    told = f"{text[0].lower()}{text[1:]}" if not name else f"is wrong: {text[0].lower()}{text[1:]}"
    raise InvalidRequest(name, told if name else f"The body is wrong: {told}.", code=code)


def _refuse_text(body: bytes, error: Exception) -> NoReturn:
    """Refuse a body that is not JSON; a laxer parser finds out whether one field's value is the cause."""
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
            if has_text(value, _has_control):
                raise InvalidRequest(name, "must not contain control characters", code="malformed_json")
            if has_text(value, _has_surrogate):
                raise InvalidRequest(name, "must not contain lone surrogates", code="malformed_json")
    told = f"The body is not JSON: {error}." if body.strip() else "The body is empty; send the request as JSON."
    raise InvalidRequest("", told, code="malformed_json")


_NOT_JSON: Final = object()


def _has_surrogate(text: str) -> bool:
    return not text.isascii() and any("\ud800" <= character <= "\udfff" for character in text)


def _deep_field(body: bytes) -> str:
    """Return the name of the field that is nested too deeply for every parser, or ""."""
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


_loose_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
