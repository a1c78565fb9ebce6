"""The OpenAPI document, made from the same table as the routes and the same types as the wire."""

from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from order_engine.api.problems import Problem

_FIRST_ERROR: Final = 300
_REF: Final = "#/components/schemas/{name}"


class Parameter(msgspec.Struct, frozen=True):
    """A query parameter or header."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]


class Operation(msgspec.Struct, frozen=True):
    """One method of one path: what serves it and what the document says of it.

    `answers` maps a status to its description and its type (None: no body). `examples` are bodies
    by name; a loose body has examples instead of a type.
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


def build_document(operations: Sequence[Operation], version: str, description: str) -> dict[str, Any]:
    """Return the OpenAPI 3.1 document."""
    types: list[Any] = [Problem]
    for operation in operations:
        types += [kind for _, kind in operation.answers.values() if kind is not None]
        types += [operation.body] if operation.body is not None else []
    _, components = msgspec.json.schema_components(dict.fromkeys(types), ref_template=_REF)
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = paths.setdefault(operation.path, {})
        path[operation.method.lower()] = _describe(operation)
    return {
        "openapi": "3.1.0",
        "info": {"title": "order-engine", "version": version, "description": description},
        "paths": paths,
        "components": {"schemas": components},
    }


def _describe(operation: Operation) -> dict[str, Any]:
    described: dict[str, Any] = {
        "tags": [operation.tag],
        "summary": operation.summary,
        "operationId": operation.handler.__name__,
        "responses": {
            str(status): _answer(text, kind, operation.answer_kind if status < _FIRST_ERROR else None)
            for status, (text, kind) in operation.answers.items()
        },
    }
    if operation.description:
        described["description"] = operation.description
    parameters: list[dict[str, Any]] = [
        {"name": it.name, "in": it.place, "description": it.description, "schema": it.schema}
        for it in operation.parameters
    ]
    parameters += [
        {"name": part[1:-1], "in": "path", "required": True, "schema": {"type": "string"}}
        for part in operation.path.split("/")
        if part.startswith("{")
    ]
    if parameters:
        described["parameters"] = parameters
    if operation.body is not None or operation.examples:
        schema = _reference(operation.body) if operation.body is not None else {"type": "object"}
        content: dict[str, Any] = {"schema": schema}
        if operation.examples:
            content["examples"] = {name: {"value": value} for name, value in operation.examples.items()}
        described["requestBody"] = {
            "required": True,
            "content": {"application/json": content},
        }
    return described


def _answer(text: str, kind: Any, media_type: str | None) -> dict[str, Any]:
    if media_type is None:
        return {"description": text, "content": {"application/problem+json": {"schema": _reference(Problem)}}}
    if media_type != "application/json":
        return {"description": text, "content": {media_type: {"schema": {"type": "string"}}}}
    if kind is None:
        return {"description": text, "content": {media_type: {"schema": {"type": "object"}}}}
    return {"description": text, "content": {media_type: {"schema": _reference(kind)}}}


def _reference(kind: Any) -> dict[str, str]:
    return {"$ref": _REF.format(name=kind.__name__)}
