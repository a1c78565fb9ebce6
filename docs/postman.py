"""The Postman collection (v2.1), made from the OpenAPI document: a request for each example of each operation.

Run from the top, each request is answered as the document says. The first one keeps its order's id
in the variable `orderId` for those that follow.
"""

import json
import re
import uuid
from collections.abc import Iterator, Mapping
from typing import Any, Final

SCHEMA: Final = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"
BASE_URL: Final = "http://127.0.0.1:3000"
# An accepted request to it has no end, so a runner would wait for ever.
ENDLESS: Final = frozenset({"/v1/stream"})
_CONFLICT: Final = 409
_FIRST_ERROR: Final = 300
# Headers that a request needs to be worth sending; the others are there, switched off.
_VALUES: Final = {"Idempotency-Key": "{{$guid}}"}


def collection_of(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return the collection."""
    folders: dict[str, list[dict[str, Any]]] = {}
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            if path not in ENDLESS:
                items = folders.setdefault(operation["tags"][0], [])
                items += _items(method.upper(), path, operation)
    return {
        "info": {
            "name": document["info"]["title"],
            "_postman_id": str(uuid.uuid5(uuid.NAMESPACE_URL, SCHEMA + document["info"]["title"])),
            "description": f"{document['info']['description']} `make docs` writes this file.",
            "schema": SCHEMA,
        },
        "item": [{"name": tag, "item": items} for tag, items in folders.items()],
        "variable": [{"key": "baseUrl", "value": BASE_URL}, {"key": "orderId", "value": ""}],
    }


def expected_statuses(operation: Mapping[str, Any]) -> list[int]:
    """Return the statuses of an operation's good answers; an order may have moved on before it is cancelled."""
    statuses = sorted(int(status) for status in operation["responses"])
    return [status for status in statuses if status < _FIRST_ERROR or status == _CONFLICT]


def _items(method: str, path: str, operation: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
    examples = {name: example["value"] for name, example in content.get("examples", {}).items()}
    for name, body in (examples or {"": None}).items():
        request: dict[str, Any] = {
            "method": method,
            "header": _headers(operation, has_body=body is not None),
            "url": _url(path, operation),
            "description": operation.get("description", operation["summary"]),
        }
        if body is not None:
            options = {"raw": {"language": "json"}}
            request["body"] = {"mode": "raw", "raw": json.dumps(body, indent=2), "options": options}
        title = operation["summary"] if len(examples) < 2 else f"{operation['summary']} ({name})"  # noqa: PLR2004 - one needs no name
        script = {"type": "text/javascript", "exec": _script(operation, keeps_order=path == "/v1/orders")}
        yield {"name": title, "request": request, "event": [{"listen": "test", "script": script}]}


def _headers(operation: Mapping[str, Any], *, has_body: bool) -> list[dict[str, Any]]:
    headers: list[dict[str, Any]] = [{"key": "Content-Type", "value": "application/json"}] if has_body else []
    for parameter in operation.get("parameters", ()):
        if parameter["in"] == "header":
            value = _VALUES.get(parameter["name"])
            header = {"key": parameter["name"], "value": value or "", "description": parameter["description"]}
            headers.append(header if value else {**header, "disabled": True})
    return headers


def _url(path: str, operation: Mapping[str, Any]) -> dict[str, Any]:
    filled = re.sub(r"{(\w+)}", r"{{\1}}", path)
    query = [
        {"key": it["name"], "value": "", "description": it["description"], "disabled": True}
        for it in operation.get("parameters", ())
        if it["in"] == "query"
    ]
    url: dict[str, Any] = {"raw": "{{baseUrl}}" + filled, "host": ["{{baseUrl}}"], "path": filled.strip("/").split("/")}
    return {**url, "query": query} if query else url


def _script(operation: Mapping[str, Any], *, keeps_order: bool) -> list[str]:
    answered = f"pm.expect(pm.response.code).to.be.oneOf({expected_statuses(operation)})"
    protected = 'pm.expect(pm.response.headers.get("X-Content-Type-Options")).to.eql("nosniff")'
    lines = [
        f'pm.test("is answered as documented", () => {answered});',
        f'pm.test("has the protecting headers", () => {protected});',
    ]
    if keeps_order and "requestBody" in operation:
        lines.append('pm.collectionVariables.set("orderId", pm.response.json().orderId);')
    return lines
