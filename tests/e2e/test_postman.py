"""The Postman collection, request by request, against both shapes; `make postman` runs it with newman itself."""

import json
import re
import uuid
from pathlib import Path
from typing import Any

import httpx2
import jsonschema_rs

from docs.generate import openapi_document
from tests.e2e.conversation import Json

COLLECTION: Json = json.loads(
    (Path(__file__).parent.parent.parent / "docs" / "postman_collection.json").read_text("utf-8")
)
ITEMS = [item for folder in COLLECTION["item"] for item in folder["item"]]


def test_every_request_is_answered_as_the_document_says(http: httpx2.Client) -> None:
    values = {it["key"]: it["value"] for it in COLLECTION["variable"]} | {"baseUrl": ""}

    def filled(text: str) -> str:
        return re.sub(r"{{(\w+)}}", lambda it: values[it[1]], text.replace("{{$guid}}", str(uuid.uuid4())))

    for item in ITEMS:
        request = item["request"]
        headers = {it["key"]: filled(it["value"]) for it in request["header"] if not it.get("disabled")}
        body: Any = request.get("body", {}).get("raw")
        answer = http.request(request["method"], filled(request["url"]["raw"]), content=body, headers=headers)
        script = "\n".join(item["event"][0]["script"]["exec"])
        expected = re.search(r"oneOf\((\[[\d, ]+\])\)", script)
        assert expected is not None
        assert answer.status_code in json.loads(expected[1]), f"{item['name']}: {answer.text}"
        if 'set("orderId"' in script:
            values["orderId"] = answer.json()["orderId"]


def test_the_collection_asks_for_every_operation_that_ends() -> None:
    asked = {(it["request"]["method"], it["request"]["url"]["raw"].removeprefix("{{baseUrl}}")) for it in ITEMS}
    operations = {
        (method.upper(), path.replace("{", "{{").replace("}", "}}"))
        for path, its in openapi_document()["paths"].items()
        for method in its
    }
    assert operations - asked == {("GET", "/v1/stream")}


def test_the_example_bodies_fit_the_schemas_of_the_document() -> None:
    document = openapi_document()
    count = 0
    for operations in document["paths"].values():
        for operation in operations.values():
            content = operation.get("requestBody", {}).get("content", {}).get("application/json", {})
            for example in content.get("examples", {}).values():
                schema = {**content["schema"], "components": document["components"]}
                jsonschema_rs.validator_for(schema).validate(example["value"])
                count += 1
    assert count > 5
