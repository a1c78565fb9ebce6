"""A body is JSON, and says so: no form, no text, and no page of another site makes an order."""

from collections.abc import Iterator

import httpx2
import pytest

from tests.e2e.bad_bodies import FIELDS, written
from tests.e2e.conftest import Engine
from tests.e2e.conversation import problem_of

V1, QUOTES, COMPAT, ENQUEUE = "/v1/orders", "/v1/quotes", "/api/orders/execute", "/enqueue"
BAD = {400, 422}


@pytest.fixture(autouse=True)
def _nothing_is_stored(engine: Engine) -> Iterator[None]:
    yield
    with engine.client() as http:
        assert http.get(V1).json()["orders"] == []


KINDS = [
    *(None, "", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "text/json", "*/*"),
    *("application/jsonp", "application/json5", "text/plain; application/json", "application/json, text/plain"),
    *("application/json; charset=utf-16", "application/json;charset=iso-8859-1", "application/problem", "json"),
]


@pytest.mark.parametrize("kind", KINDS)
def test_a_body_says_that_it_is_json(http: httpx2.Client, kind: str | None) -> None:
    headers = {} if kind is None else {"Content-Type": kind}
    for path, body in (
        (V1, written(FIELDS)),
        (QUOTES, written(FIELDS)),
        (COMPAT, b'{"symbol": "SOL/USDC"}'),
        (COMPAT, b"{}"),
        (ENQUEUE, b'{"orderId": "csrf"}'),
    ):
        problem = problem_of(http.post(path, content=body, headers=headers), 415)
        assert problem["code"] == "not_json"
    twice = [("Content-Type", "application/json"), ("Content-Type", "text/plain")]
    problem_of(http.post(COMPAT, content=b"{}", headers=twice), 415)


@pytest.mark.parametrize(
    "kind",
    [
        *("application/json; charset=utf-8", 'application/json;charset="UTF-8"', "Application/JSON ; charset=UTF-8"),
        *("application/vnd.api+json", "application/json;"),
    ],
)
def test_every_way_to_say_json_is_understood(http: httpx2.Client, kind: str) -> None:
    for path in (V1, QUOTES, COMPAT, ENQUEUE):
        problem_of(http.post(path, content=b'{"x": 1}', headers={"Content-Type": kind}), BAD, "x")
