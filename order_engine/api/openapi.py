"""The OpenAPI document, made from the same table as the routes and the same types as the wire."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from order_engine import __version__
from order_engine.api.compat_schemas import CompatibleProblem, body_schemas
from order_engine.api.door import required_scope
from order_engine.api.problems import GOOD, NO_CONTENT, Problem, status_of
from order_engine.api.schemas import TOKEN_SCHEMA
from order_engine.domain.errors import RateLimited, Unauthorized, Unavailable
from order_engine.domain.tokens import TokenRegistry

_DESCRIPTION: Final = (
    "Order execution for swaps on Solana DEXs. Amounts are decimal text in whole tokens, times are RFC 3339 "
    "UTC, errors are RFC 9457 problem documents with a stable `code`."
)
COMPATIBILITY: Final = "compatibility"
_REF: Final = "#/components/schemas/{name}"

# The edge may answer any request with one of these.
_ALWAYS: Final[Mapping[int, str]] = {
    status_of("malformed_request"): "The request is not HTTP as RFC 9112 has it",
    status_of("origin_not_allowed"): "The page that sent this may not; ALLOWED_ORIGINS lists those that may",
    status_of("host_not_allowed"): "The host is not one of this engine's; ALLOWED_HOSTS lists them",
    status_of("head_too_large"): "Path, query and headers are over 32 KiB, or there are too many",
    status_of(Unavailable): "The database does not answer, the process is stopping or it has too many connections",
}
_GUARDED: Final[Mapping[int, str]] = {
    status_of(Unauthorized): "No API key, or one that is not valid; an engine without keys asks for none",
    status_of("forbidden"): "The API key lacks the scope, or the page that sent this may not (ALLOWED_ORIGINS)",
}
_WITH_BODY: Final[Mapping[int, str]] = {
    status_of("malformed_json"): "The body is not JSON, or the request is not HTTP as RFC 9112 has it",
    status_of("body_too_large"): "The body is over 16 KiB",
    status_of("not_json"): "The body is not application/json in UTF-8, or it is encoded",
}
_SECONDS: Final = {"type": "integer", "minimum": 0}
_HEADERS: Final[Mapping[str, Any]] = {
    "X-Request-Id": {
        "description": "The request's own X-Request-Id, or a new one.",
        "required": True,
        "schema": {"type": "string", "pattern": "^[!-~]{1,128}$"},
    },
    "Location": {"description": "The path of the order.", "required": True, "schema": {"type": "string"}},
    "Idempotent-Replayed": {
        "description": "The key was used before; this is the first answer again.",
        "schema": {"type": "string", "enum": ["true"]},
    },
    "RateLimit-Limit": {"description": "Orders a minute; absent without a limit.", "schema": _SECONDS},
    "RateLimit-Remaining": {"description": "Orders that are left in this minute.", "schema": _SECONDS},
    "RateLimit-Reset": {"description": "Seconds until more are taken.", "schema": _SECONDS},
    "Retry-After": {"description": "Seconds to wait.", "required": True, "schema": _SECONDS},
    "WWW-Authenticate": {"description": "Bearer.", "required": True, "schema": {"type": "string"}},
    "Accept-Encoding": {
        "description": "Sent when the body was encoded.",
        "schema": {"type": "string", "enum": ["identity"]},
    },
}
_RATE: Final = ("RateLimit-Limit", "RateLimit-Remaining", "RateLimit-Reset")
_ERROR_HEADERS: Final[Mapping[int, Sequence[str]]] = {
    status_of("not_json"): ("Accept-Encoding",),
    status_of(RateLimited): ("Retry-After", *_RATE),
    status_of(Unauthorized): ("WWW-Authenticate",),
    status_of(Unavailable): ("Retry-After",),
}


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]


class Operation(msgspec.Struct, frozen=True):
    """One method of one path: its handler, and its description in the document.

    `answers` maps a status to its description and its type (None: no body). `examples` are bodies
    by name. `body` is a type, or the name of a schema. The answers of the edge are added. `headers` go
    with the good answers. `stream` is the schema of a server-sent event.
    """

    method: str
    path: str
    handler: Any
    tag: str
    summary: str
    answers: Mapping[int, tuple[str, Any]]
    body: Any = None
    examples: Mapping[str, Any] = {}
    parameters: Sequence[Parameter] = ()
    description: str = ""
    answer_kind: str = "application/json"
    stream: Mapping[str, Any] = {}
    headers: Sequence[str] = ()

    @property
    def problem(self) -> type[Problem]:
        """The shape of a refusal."""
        return CompatibleProblem if self.tag == COMPATIBILITY else Problem


def build_document(operations: Sequence[Operation], tokens: TokenRegistry) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    types: list[Any] = [Problem, CompatibleProblem]
    for operation in operations:
        types += [kind for _, kind in operation.answers.values() if kind is not None]
        types += [operation.body] if isinstance(operation.body, type) else []
    _, components = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "order-engine", "version": __version__, "description": _DESCRIPTION},
        "security": [],
        "paths": paths,
        "components": {
            "schemas": {**components, **_schemas_of(tokens)},
            "headers": _HEADERS,
            "securitySchemes": {"apiKey": {"type": "http", "scheme": "bearer", "description": "An API key: oe_..."}},
        },
    }


def _schemas_of(tokens: TokenRegistry) -> dict[str, Any]:
    """Return the schemas that list the engine's tokens: by symbol, in any case, or by mint."""
    known = tokens.tokens
    mints = dict.fromkeys(token.mint for token in known)
    pattern = f"({'|'.join([*(_in_any_case(token.symbol) for token in known), *mints])})"
    name = {
        "type": "string",
        "description": f"A symbol, in any case, or a mint. Known are {', '.join(token.symbol for token in known)}.",
        "pattern": f"^{pattern}$",
        "examples": ["SOL", "USDC"],
    }
    return {TOKEN_SCHEMA: name, **body_schemas(pattern)}


def _in_any_case(symbol: str) -> str:
    return "".join(
        f"[{letter.lower()}{letter.upper()}]" if letter.isalpha() else re.escape(letter) for letter in symbol
    )


def _describe(operation: Operation) -> dict[str, Any]:
    is_public = required_scope(operation.path, operation.method) is None
    errors = {**_ALWAYS, **({} if is_public else _GUARDED), **(_WITH_BODY if operation.body is not None else {})}
    answers = {status: (text, None) for status, text in errors.items()} | dict(operation.answers)
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "responses": {
            str(status): _answer(operation, status, text, kind) for status, (text, kind) in sorted(answers.items())
        },
    }
    scope = required_scope(operation.path, operation.method)
    if scope is not None:
        described["security"] = [{"apiKey": []}]
        described["x-required-scope"] = scope.value
    if operation.description:
        described["description"] = operation.description
    parameters: list[dict[str, Any]] = [
        {"name": it.name, "in": it.place, "description": it.description, "schema": it.schema}
        for it in operation.parameters
    ]
    parameters += [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string", "minLength": 1}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None:
        content: dict[str, Any] = {"schema": _reference(operation.body)}
        if operation.examples:
            content["examples"] = {name: {"value": value} for name, value in operation.examples.items()}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": content},
        }
    return described


def _answer(operation: Operation, status: int, text: str, kind: Any) -> dict[str, Any]:
    is_good = status in GOOD
    names = ("X-Request-Id", *(operation.headers if is_good else _ERROR_HEADERS.get(status, ())))
    answer: dict[str, Any] = {
        "description": text,
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in names},
    }
    if status == NO_CONTENT:
        return answer
    content: dict[str, Any] = {}
    if kind is not None:
        content["application/json"] = {"schema": _reference(kind)}
    elif is_good:
        content[operation.answer_kind] = {"schema": operation.stream or {"type": "object"}}
    if not is_good:
        content["application/problem+json"] = {"schema": _reference(operation.problem)}
    return {**answer, "content": content}


def _reference(kind: Any) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind if isinstance(kind, str) else kind.__name__)}
