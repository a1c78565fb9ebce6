"""Clients of the five compatible systems: status codes, jobs, bare symbols, and no order by accident."""

import asyncio
import json
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from websockets.exceptions import ConnectionClosedError

from order_engine.client import EngineClient
from tests.e2e.conftest import EMBEDDED, Engine, Engines
from tests.e2e.conversation import (
    HANG_S,
    Json,
    ended,
    follow,
    frames_of,
    is_gapless,
    order_of,
    place,
    problem_of,
    refusal,
    server_sent,
    websocket,
)

pytestmark = pytest.mark.asyncio

EXECUTE, ENQUEUE, EXEC = "/api/orders/execute", "/enqueue", "/ws-exec"
PAIR = {"tokenIn": "SOL", "tokenOut": "USDC"}
JOB_LIFE = ["waiting", *["job:progress"] * 3, "job:completed"]


@pytest.fixture
def slow(engines: Engines) -> Engine:
    """An engine whose orders keep their status for a while."""
    return engines.get(EMBEDDED, MOCK_DELAY_SCALE="100", QUOTE_TIMEOUT_MS="60000")


def posted(http: httpx2.Client, path: str, body: Any) -> Json:
    response = http.post(path, json=body)
    assert response.status_code == 200, response.text
    answer: Json = response.json()
    assert answer["ok"] is True
    return answer


def newest(http: httpx2.Client) -> list[str]:
    """Return the ids of the newest orders; each new order changes the list."""
    return [order["orderId"] for order in http.get("/v1/orders").raise_for_status().json()["orders"]]


# --- status codes --------------------------------------------------------------------------------


async def test_rows_a_to_d_answer_200_400_and_404_each_refusal_with_an_error(http: httpx2.Client) -> None:
    posted(http, EXECUTE, {"type": "MARKET", **PAIR, "amountIn": 1, "slippageBps": 50})
    posted(http, ENQUEUE, {"orderId": "status-codes", "payload": {}})
    for path, body in (
        (EXECUTE, {**PAIR, "amount": -1}),
        (EXECUTE, {**PAIR, "amount": "one"}),
        (EXECUTE, {"type": "limit", **PAIR, "amount": 1}),
        (EXECUTE, {"tokenIn": "SOL", "tokenOut": "NOPE", "amount": 1}),
        (EXECUTE, []),
        (ENQUEUE, {"payload": {}}),
        (ENQUEUE, {"orderId": ""}),
    ):
        problem = http.post(path, json=body).json()
        assert (problem["status"], problem["title"]) == (400, "Bad request"), body
        problem_of(http.post(path, json=body), 400, problem.get("field"))
    for path in ("/api/orders/nobody", "/api/orders/nobody/events", "/jobs/nobody"):
        problem_of(http.get(path), 404)
    problem_of(http.get("/api/nothing"), 404)
    problem_of(http.put(EXECUTE), 405)
    assert http.get(EXEC).status_code == http.get("/ws").status_code == 426


async def test_v1_refuses_as_before(http: httpx2.Client) -> None:
    problem_of(http.post("/v1/orders", json={"type": "market", **PAIR, "amountIn": "-1"}), 422, "amountIn")
    problem_of(http.get("/v1/orders/nobody"), 404)


async def test_typed_idempotency_key_may_come_under_both_names(http: httpx2.Client) -> None:
    body = {"orderType": "market", **PAIR, "amount": 1.5}
    both = {"x-idempotency-key": "row-c-both", "Idempotency-Key": "row-c-both"}
    first = http.post(EXECUTE, json=body, headers=both).json()
    for headers in ({"x-idempotency-key": "row-c-both"}, {"Idempotency-Key": "row-c-both"}):
        again = http.post(EXECUTE, json=body, headers=headers).json()
        assert (again["orderId"], again["idempotent"]) == (first["orderId"], True)


# --- no order by accident ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        *(
            ({"symbol": "SOL/USDC", name: value}, name)
            for name, value in {
                "limitPrice": 150,
                "price": "150",
                "side": "buy",
                "triggerPrice": 1,
                "stopPrice": 1,
                "orderKind": "limit",
                "timeInForce": "GTC",
                "expiresAt": "2030-01-01T00:00:00Z",
                "slippage": 0.01,
                "idempotencyKey": "k",
                "Amount": 1,
                "amountOut": 1,
                "limitPrice ": None,
            }.items()
        ),
        ({**PAIR, "amount": 1, "amountIn": 2}, "amount"),
        ({**PAIR, "amount": "1.0000000001", "amountIn": 1}, "amount"),
        ({**PAIR, "amountIn": 1, "symbol": "USDC/SOL"}, "symbol"),
        ({**PAIR, "amountIn": 1, "symbol": "wSOL/USDC"}, "symbol"),
        ({**PAIR, "amountIn": 1, "symbol": "TOKEN"}, "symbol"),
        ({**PAIR, "amountIn": 1, "symbol": "SOL"}, "symbol"),
        ({"tokenIn": "SOL", "symbol": "SOL/USDC", "amount": 1}, "tokenOut"),
        ({**PAIR, "amount": 1, "type": "market", "orderType": "limit"}, "orderType"),
        ({**PAIR, "amount": 1, "type": "limit", "orderType": "market"}, "type"),
        ({**PAIR, "amount": 1, "slippage": 0.5, "slippageBps": 50}, "slippage"),
        ({"symbol": "TOKEN", "metadata": {"symbol": "OTHER"}}, "metadata"),
    ],
    ids=str,
)
async def test_what_is_not_honoured_or_contradicts_itself_is_refused_by_name(
    http: httpx2.Client, body: Json, field: str
) -> None:
    before = newest(http)
    problem_of(http.post(EXECUTE, json=body), 400, field)
    assert newest(http) == before


@pytest.mark.parametrize("name", ["limitPrice", "price", "side", "stopPrice", "slippage", "Amount", "LIMITPRICE"])
async def test_a_job_whose_payload_asks_for_another_order_type_is_refused(http: httpx2.Client, name: str) -> None:
    payload = {"type": "market", "symbol": "SOL/USDC", "amount": 1, name: "1"}
    problem_of(http.post(ENQUEUE, json={"orderId": "job", "payload": payload}), 400, f"payload.{name}")
    for wrong, field in (({"type": "limit"}, "type"), ({"amount": -1}, "amount"), ({"symbol": "SOL/NOPE"}, "symbol")):
        problem_of(http.post(ENQUEUE, json={"orderId": "job", "payload": wrong}), 400, f"payload.{field}")
    problem_of(http.post(ENQUEUE, json={"orderId": "job", "amount": 1}), 400, "amount")


async def test_the_same_value_twice_is_no_contradiction(http: httpx2.Client) -> None:
    body = {"type": "market", "orderType": "MARKET", "tokenIn": "sol", "tokenOut": "USDC", "symbol": "SOL/usdc"}
    answer = posted(http, EXECUTE, {**body, "amount": 1.5, "amountIn": "1.50"})
    assert order_of(http, answer["orderId"])["amountIn"] == "1.5"


@pytest.mark.parametrize("path", [EXECUTE, EXEC])
@pytest.mark.parametrize("frame", ["", b"", " ", "\n", "null", "[]", '""', "0"])
async def test_an_empty_frame_is_no_order(engine: Engine, http: httpx2.Client, path: str, frame: str | bytes) -> None:
    before = newest(http)
    async with websocket(engine.url, path) as connection, asyncio.timeout(HANG_S):
        await connection.send(frame)
        problem = json.loads(await connection.recv())
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
    assert (problem["status"], problem["error"]) == (400, problem["detail"])
    assert connection.close_code == 1008
    assert newest(http) == before


# --- job_queue: symbols -----------------------------------------------------------------------------


@pytest.mark.parametrize("symbol", ["TOKEN", "SOL", "WIF", "$X1"])
async def test_job_queue_bare_symbol_trades_the_default_pair_and_the_answer_says_so(
    engine: Engine, http: httpx2.Client, symbol: str
) -> None:
    answer = posted(http, EXECUTE, {"type": "market", "amount": 1, "symbol": symbol})
    assert (answer["tokenIn"], answer["tokenOut"], answer["amountIn"]) == ("SOL", "USDC", "1")
    assert symbol in answer["note"]
    assert "SOL/USDC" in answer["note"]
    frames = await follow(engine.url, answer["wsUrl"])
    assert [frame["event"] for frame in frames] == JOB_LIFE
    assert order_of(http, answer["orderId"])["metadata"] == {"symbol": symbol}


async def test_a_bare_symbol_is_kept_beside_the_client_s_metadata(http: httpx2.Client) -> None:
    answer = posted(http, EXECUTE, {"symbol": "TOKEN", "amount": 2, "metadata": {"a": [1, {"b": 2.50}]}})
    assert order_of(http, answer["orderId"])["metadata"] == {"a": [1, {"b": 2.5}], "symbol": "TOKEN"}
    assert answer["amountIn"] == "2"


async def test_what_is_taken_from_the_defaults_is_said_and_nothing_else(http: httpx2.Client) -> None:
    assert "SOL/USDC" in posted(http, EXECUTE, {})["note"]
    assert "1" in posted(http, EXECUTE, {"symbol": "USDC/JUP"})["note"]
    assert "note" not in posted(http, EXECUTE, {"symbol": "USDC/JUP", "amount": 1})
    assert "note" not in posted(http, EXECUTE, {**PAIR, "amount": 1})


@pytest.mark.parametrize("symbol", ["FIDA", "COPE", "WIF", "PYTH", "JTO", "ORCA", "SAMO", "MNGO", "SRM", "BONK"])
async def test_the_tokens_of_their_collections_trade(http: httpx2.Client, symbol: str) -> None:
    for token_in, token_out in (("SOL", symbol), (symbol, "USDC")):
        answer = posted(http, EXECUTE, {"type": "market", "tokenIn": token_in, "tokenOut": token_out, "amountIn": 10})
        assert ended(http, answer["orderId"])["status"] == "confirmed"


# --- job_queue: jobs --------------------------------------------------------------------------------


async def test_job_queue_reads_a_job_as_bullmq_writes_it(http: httpx2.Client) -> None:
    payload = {"type": "market", "amount": 2, "symbol": "SOL/USDC", "user": {"id": 7}}
    answer = posted(http, ENQUEUE, {"orderId": "job-read", "payload": payload})
    order = ended(http, answer["jobId"])
    job = http.get(f"/jobs/{answer['jobId']}").raise_for_status().json()

    assert http.get("/jobs/job-read").json() == job
    assert (job["id"], job["state"], job["progress"]) == (answer["jobId"], "completed", 100)
    assert job["data"]["orderId"] == "job-read"
    assert job["data"]["payload"] == payload
    assert (job["data"]["tokenIn"], job["data"]["tokenOut"], job["data"]["amountIn"]) == ("SOL", "USDC", "2")
    assert job["returnvalue"]["txSignature"] == order["txSignature"]
    assert (job["failedReason"], job["stacktrace"], job["attemptsMade"]) == (None, [], 1)
    assert job["timestamp"] <= job["processedOn"] <= job["finishedOn"]
    assert {"name", "opts", "delay"} <= job.keys()


async def test_a_job_s_state_is_one_of_bullmq_s(slow: Engine) -> None:
    with slow.client() as http:
        answer = posted(http, ENQUEUE, {"orderId": "job-state"})
        job = http.get("/jobs/job-state").json()
        assert job["state"] in ("waiting", "active")
        assert (job["returnvalue"], job["failedReason"], job["finishedOn"]) == (None, None, None)
        cancelled = http.delete("/v1/orders/job-state")
        assert cancelled.status_code == 200, cancelled.text
        job = http.get(f"/jobs/{answer['jobId']}").json()
        assert (job["state"], job["returnvalue"]) == ("failed", None)
        assert "ancelled" in job["failedReason"]


async def test_the_same_job_id_is_the_same_job_whatever_its_payload(http: httpx2.Client) -> None:
    first = posted(http, ENQUEUE, {"orderId": "job-again", "payload": {"note": 1}})
    before = newest(http)
    for payload in ({"note": 1}, {"note": 2}, {"amount": 5}, None):
        again = posted(http, ENQUEUE, {"orderId": "job-again", "payload": payload})
        assert (again["jobId"], again["orderId"], again["idempotent"]) == (first["jobId"], "job-again", True)
        assert again["amountIn"] == "1"
    assert (first["idempotent"], newest(http)) == (False, before)
    assert order_of(http, first["jobId"])["metadata"] == {"note": 1}


async def test_a_job_whose_id_is_an_order_s_name_is_that_order(http: httpx2.Client) -> None:
    order = place(http, amount="3", clientOrderId="named-by-v1")
    job = posted(http, ENQUEUE, {"orderId": "named-by-v1", "payload": {"amount": 1}})
    assert (job["jobId"], job["orderId"], job["amountIn"]) == (order["orderId"], "named-by-v1", "3")
    assert job["idempotent"] is True
    taken = http.post(EXECUTE, json={**PAIR, "amount": 1, "clientOrderId": "named-by-v1"})
    assert problem_of(taken, 409)["orderId"] == order["orderId"]


async def test_one_job_id_at_once_is_one_job(engine: Engine) -> None:
    async with engine.async_client() as http:
        bodies = [{"orderId": "job-race", "payload": {"at": at}} for at in range(20)]
        answers = await asyncio.gather(*(http.post(ENQUEUE, json=body) for body in bodies))
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.json()["jobId"] for answer in answers}) == 1
    assert sum(not answer.json()["idempotent"] for answer in answers) == 1


async def test_job_queue_exec_socket_takes_a_job_and_tells_its_life(engine: Engine, http: httpx2.Client) -> None:
    async with websocket(engine.url, EXEC) as connection:
        await connection.send(json.dumps({"type": "market", "payload": {"amount": 1, "symbol": "TOKEN"}}))
        answer, *life = await frames_of(connection)
    assert answer["ok"] is True
    assert answer["orderId"] == answer["jobId"]
    assert answer["wsUrl"].startswith("ws://")
    assert "TOKEN" in answer["note"]
    assert is_gapless(life)
    assert [frame["event"] for frame in life] == JOB_LIFE
    assert {frame["jobId"] for frame in life} == {answer["jobId"]}
    assert order_of(http, answer["orderId"])["metadata"] == {"symbol": "TOKEN"}


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ({"type": "market"}, "payload"),
        ({}, "payload"),
        ({"type": "limit", "payload": {}}, "type"),
        ({"type": "market", "payload": None}, "payload"),
        ({"type": "market", "payload": []}, "payload"),
        ({"type": "market", "payload": {"amount": 0}}, "payload.amount"),
        ({"type": "market", "payload": {"type": "limit"}}, "payload.type"),
        ({"type": "market", "payload": {"limitPrice": 1}}, "payload.limitPrice"),
        ({"type": "market", "payload": {}, "side": "buy"}, "side"),
    ],
    ids=str,
)
async def test_the_exec_socket_refuses_a_bad_frame_and_names_the_field(engine: Engine, frame: Json, field: str) -> None:
    async with websocket(engine.url, EXEC) as connection, asyncio.timeout(HANG_S):
        await connection.send(json.dumps(frame))
        problem = json.loads(await connection.recv())
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
    assert (problem["status"], problem["field"], problem["error"]) == (400, field, problem["detail"])


# --- names ---------------------------------------------------------------------------------------

NAMES = [
    "a/b",
    "/",
    "//",
    "a/../b",
    "50%",
    "%2F",
    "%",
    "%zz",
    "a?b#c",
    "?",
    "#",
    "&=+;",
    "a/events",
    "..a",
    "\\",
    '"',
    "{x}",
]


@pytest.mark.parametrize("name", NAMES)
async def test_an_order_is_found_by_any_name_that_it_can_be_given(
    engine: Engine, http: httpx2.Client, name: str
) -> None:
    order = place(http, clientOrderId=f"{name}~{len(name)}") if "." in name else place(http, clientOrderId=name)
    name = order["clientOrderId"]
    order_id = ended(http, order["orderId"])["orderId"]
    path = quote(name, safe="")

    for resource in (f"/v1/orders/{path}", f"/api/orders/{path}", f"/v1/orders/{path}/events"):
        assert http.get(resource).raise_for_status().json()["orderId"] == order_id, resource
    assert http.get(f"/api/orders/{path}/events").json()["orderId"] == order_id
    assert http.get(f"/jobs/{path}").json()["id"] == order_id
    assert http.delete(f"/v1/orders/{path}").status_code == 409
    assert len(server_sent(http, f"/v1/orders/{path}/stream")) == 5
    sockets = (f"/v1/orders/{path}/stream", f"/orders/{path}", f"/ws?jobId={path}", f"{EXECUTE}?orderId={path}")
    for socket in sockets:
        assert {frame["orderId"] for frame in await follow(engine.url, socket)} == {order_id}, socket
    async with EngineClient(engine.url) as client:
        assert (await client.get(name))["orderId"] == order_id
        assert [event["seq"] async for event in client.watch(name)] == [1, 2, 3, 4, 5]


async def test_a_path_is_the_same_however_its_letters_are_written(http: httpx2.Client) -> None:
    order_id = place(http, clientOrderId="x%2Fy")["orderId"]
    for path in (
        "/v1/%6Frders/x%252Fy",
        "/%76%31/orders/%78%252F%79",
        f"/api/orders/%{ord(order_id[0]):x}{order_id[1:]}",
    ):
        assert http.get(path).raise_for_status().json()["orderId"] == order_id
    for path in ("/v1/orders/x%2Fy", "/v1%2Forders", f"/v1%2Forders/{order_id}", f"/v1/orders%2F{order_id}"):
        problem_of(http.get(path), 404)


async def test_a_name_that_no_path_can_carry_is_refused(http: httpx2.Client) -> None:
    for name in (".", ".."):
        body = {"type": "market", **PAIR, "amountIn": "1", "clientOrderId": name}
        problem_of(http.post("/v1/orders", json=body), 422, "clientOrderId")
        problem_of(http.post(ENQUEUE, json={"orderId": name}), 400, "orderId")


async def test_the_id_of_an_order_is_the_name_of_no_other(http: httpx2.Client) -> None:
    order = place(http)
    for name in (order["orderId"], order["orderId"].upper()):
        body = {"type": "market", **PAIR, "amountIn": "1", "clientOrderId": name}
        problem_of(http.post("/v1/orders", json=body), 422, "clientOrderId")
        problem_of(http.post(EXECUTE, json=body), 400, "clientOrderId")
        problem_of(http.post(ENQUEUE, json={"orderId": name}), 400, "orderId")
    named = place(http, clientOrderId="0b0e6a42-8b2f-4c55-9c1b-0c1f6f0d4f4e")
    assert order_of(http, named["clientOrderId"])["orderId"] == named["orderId"]


# --- COMPAT_ROUTES -------------------------------------------------------------------------------


async def test_without_compatible_routes_there_is_v1_alone(engines: Engines) -> None:
    engine = engines.get(EMBEDDED, COMPAT_ROUTES="off", MOCK_DELAY_SCALE="0")
    with engine.client() as http:
        assert not [path for path in http.get("/openapi.json").json()["paths"] if not path.startswith("/v1/")][2:]
        for path in (EXECUTE, ENQUEUE):
            problem_of(http.post(path, json={"orderId": "x"}), 404)
        order_id = ended(http, place(http)["orderId"])["orderId"]
        for path in (f"/api/orders/{order_id}", f"/api/orders/{order_id}/events", f"/jobs/{order_id}"):
            problem_of(http.get(path), 404)
        assert len(http.get("/v1/orders").json()["orders"]) == 1
    for path in (EXECUTE, f"{EXECUTE}?orderId={order_id}", EXEC, "/ws", f"/ws?jobId={order_id}", f"/orders/{order_id}"):
        status, problem = await refusal(engine.url, path)
        assert (status, problem["code"]) == (404, "no_such_path"), path
