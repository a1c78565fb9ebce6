"""The compatibility table of api.md, row by row and verbatim, in both shapes, with a plain WebSocket client."""

import asyncio
import json
from collections import Counter
from typing import Any

import httpx2
import pytest
from websockets.exceptions import ConnectionClosedError

from order_engine.domain.errors import ReasonCode
from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import (
    HANG_S,
    Json,
    ended,
    events_of,
    follow,
    frames_of,
    is_gapless,
    is_lawful,
    order_of,
    place,
    refusal,
    websocket,
)

pytestmark = pytest.mark.asyncio

EXECUTE = "/api/orders/execute"
ANSWER = frozenset({"ok", "orderId", "jobId", "idempotent", "websocket", "wsUrl", "tokenIn", "tokenOut", "amountIn"})
FRAME = frozenset({"orderId", "seq", "status", "timestamp", "attempt"})
SOUND = ["pending", "routing", "building", "submitted", "confirmed"]


def posted(http: httpx2.Client, body: Any, path: str = EXECUTE, **headers: str) -> Json:
    response = http.post(path, json=body, headers=headers)
    assert response.status_code == 200, response.text
    assert response.headers["content-type"] == "application/json"
    answer: Json = response.json()
    assert answer.keys() >= ANSWER
    return answer


def check_life(frames: list[Json], order_id: str) -> None:
    """Check a whole, sound life as `market_execute`, `minimal` and `typed` show it, field for field."""
    assert is_gapless(frames)
    assert [frame["status"] for frame in frames] == SOUND
    for frame in frames:
        assert frame.keys() >= FRAME
        assert frame["orderId"] == order_id
        assert frame["timestamp"].endswith("Z")
    assert [frame["attempt"] for frame in frames] == [0, 1, 1, 1, 1]


async def test_market_execute_places_a_market_order_in_capitals(engine: Engine, http: httpx2.Client) -> None:
    body = {"type": "MARKET", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1, "slippageBps": 50}
    order_id = posted(http, body)["orderId"]
    frames = await follow(engine.url, f"{EXECUTE}?orderId={order_id}")

    check_life(frames, order_id)
    order = order_of(http, order_id)
    assert (order["tokenIn"], order["tokenOut"], order["amountIn"]) == ("SOL", "USDC", "1")
    assert (order["type"], order["slippageBps"]) == ("market", 50)
    snapshot = http.get(f"/api/orders/{order_id}").json()
    assert (snapshot["orderId"], snapshot["status"]) == (order_id, "confirmed")
    history = http.get(f"/api/orders/{order_id}/events").json()
    assert history == {"orderId": order_id, "events": frames}


async def test_null_is_no_slippage_and_no_id(http: httpx2.Client) -> None:
    body = {"tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1, "slippageBps": None, "clientOrderId": None}
    answer = http.post("/api/orders/execute", json={**body, "metadata": None})
    assert answer.status_code == 200, answer.text
    order = order_of(http, answer.json()["orderId"])
    assert (order["slippageBps"], order["clientOrderId"]) == (50, None)


async def test_minimal_is_told_where_its_websocket_is(engine: Engine, http: httpx2.Client) -> None:
    answer = posted(http, {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 2.5})
    assert answer["websocket"] == f"/api/orders/execute?orderId={answer['orderId']}"
    check_life(await follow(engine.url, answer["websocket"]), answer["orderId"])
    assert order_of(http, answer["orderId"])["amountIn"] == "2.5"


async def test_typed_repeats_a_key_and_gets_the_same_order_and_its_events_again(
    engine: Engine, http: httpx2.Client
) -> None:
    body = {"orderType": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5}
    first = posted(http, body, **{"x-idempotency-key": "row-c"})
    assert first["idempotent"] is False
    frames = await follow(engine.url, f"{EXECUTE}?orderId={first['orderId']}")
    again = posted(http, body, **{"x-idempotency-key": "row-c"})

    assert (again["orderId"], again["idempotent"]) == (first["orderId"], True)
    check_life(frames, first["orderId"])
    assert await follow(engine.url, f"{EXECUTE}?orderId={again['orderId']}") == frames
    snapshot = http.get(f"/api/orders/{first['orderId']}").json()
    assert snapshot["events"] == frames
    other = http.post(EXECUTE, json=body | {"amount": 2}, headers={"x-idempotency-key": "row-c"})
    assert (other.status_code, other.json()["code"]) == (400, "idempotency_conflict")
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/docs").status_code == 200


@pytest.mark.parametrize(
    ("body", "pair", "amount"),
    [
        ({"type": "market", "amount": 3, "symbol": "SOL/USDC"}, ("SOL", "USDC"), "3"),
        ({"type": "market", "amount": 3}, ("SOL", "USDC"), "3"),
        ({"symbol": "USDC/JUP"}, ("USDC", "JUP"), "1"),
        ({"type": "market"}, ("SOL", "USDC"), "1"),
        ({}, ("SOL", "USDC"), "1"),
    ],
    ids=["all", "no symbol", "symbol alone", "type alone", "nothing"],
)
async def test_job_queue_may_leave_everything_to_defaults(
    engine: Engine, http: httpx2.Client, body: Json, pair: tuple[str, str], amount: str
) -> None:
    answer = posted(http, body)
    assert answer["jobId"]
    assert answer["wsUrl"].startswith(engine.url.replace("http", "ws", 1))
    frames = await follow(engine.url, answer["wsUrl"])

    assert [frame["event"] for frame in frames] == ["waiting", *["job:progress"] * 3, "job:completed"]
    assert {frame["jobId"] for frame in frames} == {answer["jobId"]}
    order = order_of(http, answer["orderId"])
    assert (order["status"], order["tokenIn"], order["tokenOut"], order["amountIn"]) == ("confirmed", *pair, amount)


async def test_job_queue_enqueues_a_job_under_the_clients_id(engine: Engine, http: httpx2.Client) -> None:
    payload = {"note": "as it came", "nested": {"list": [1, "\u00e9", None]}}
    answer = posted(http, {"orderId": "order-123", "payload": payload}, "/enqueue")
    assert answer["orderId"] == "order-123"
    [order] = http.get("/v1/orders", params={"clientOrderId": "order-123"}).json()["orders"]

    assert order["orderId"] == answer["jobId"]
    assert (order["type"], order["clientOrderId"], order["metadata"]) == ("market", "order-123", payload)
    frames = await follow(engine.url, f"/ws?jobId={answer['jobId']}")
    assert frames[-1]["event"] == "job:completed"
    assert posted(http, {"orderId": "order-124"}, "/enqueue")["orderId"] == "order-124"


async def test_job_queue_hears_every_jobs_life_on_one_websocket(engine: Engine, http: httpx2.Client) -> None:
    lives: dict[str, list[Json]] = {}
    async with websocket(engine.url, "/ws") as connection, asyncio.timeout(HANG_S):
        jobs = {posted(http, {"orderId": f"job-{number}", "payload": {}}, "/enqueue")["jobId"] for number in range(10)}
        jobs |= {posted(http, {})["jobId"], place(http)["orderId"]}
        while {job for job, life in lives.items() if life[-1]["event"] in ("job:completed", "job:failed")} < jobs:
            frame = json.loads(await connection.recv())
            lives.setdefault(frame["jobId"], []).append(frame)

    for job in jobs:
        assert is_gapless(lives[job])
        assert [frame["event"] for frame in lives[job]] == ["waiting", *["job:progress"] * 3, "job:completed"]
        assert [frame["status"] for frame in lives[job]] == [event["status"] for event in events_of(http, job)]


async def test_job_queue_hears_a_job_posted_right_after_it_connected(engine: Engine, http: httpx2.Client) -> None:
    for _ in range(20):
        async with websocket(engine.url, "/ws") as connection, asyncio.timeout(HANG_S):
            job = posted(http, {})["jobId"]
            while (frame := json.loads(await connection.recv()))["jobId"] != job:
                pass
            assert (frame["event"], frame["seq"]) == ("waiting", 1)
        ended(http, job)


async def test_upper_case_hears_its_statuses_in_capitals(engine: Engine, http: httpx2.Client) -> None:
    order_id = posted(http, {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": "1"})["orderId"]
    frames = await follow(engine.url, f"/orders/{order_id}")
    assert is_gapless(frames)
    assert [frame["status"] for frame in frames] == [status.upper() for status in SOUND]
    assert {frame["orderId"] for frame in frames} == {order_id}
    status, problem = await refusal(engine.url, "/orders/nobody")
    assert (status, problem["code"]) == (404, "order_not_found")
    assert http.get("/health").json() == {"status": "ok"}
    assert http.get("/docs").status_code == 200


# --- one connection ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        {"type": "MARKET", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1, "slippageBps": 50},
        {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1},
        {"orderType": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amount": 1.5},
        {"symbol": "SOL/USDC"},
    ],
    ids=["market_execute", "minimal", "typed", "job_queue"],
)
async def test_one_connection_takes_the_order_answers_it_and_streams_its_life(engine: Engine, body: Json) -> None:
    async with websocket(engine.url, EXECUTE) as connection:
        await connection.send(json.dumps(body))
        answer, *life = await frames_of(connection)
    assert answer.keys() >= ANSWER
    assert answer["idempotent"] is False
    check_life(life, answer["orderId"])


async def test_one_connection_takes_an_idempotency_key_too(engine: Engine, http: httpx2.Client) -> None:
    answers = []
    for _ in range(2):
        async with websocket(engine.url, EXECUTE, additional_headers={"x-idempotency-key": "one"}) as connection:
            await connection.send(json.dumps({"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}).encode())
            answer, *life = await frames_of(connection)
        check_life(life, answer["orderId"])
        answers.append(answer)
    assert [answer["idempotent"] for answer in answers] == [False, True]
    assert answers[0]["orderId"] == answers[1]["orderId"]


@pytest.mark.parametrize(
    ("frame", "field"),
    [
        ('{"tokenIn": "SOL", "tokenOut": "DOGE", "amount": 1}', "tokenOut"),
        ('{"tokenIn": "SOL", "tokenOut": "USDC", "amount": NaN}', "amount"),
        ('{"tokenIn": "SOL", "tokenOut": "USDC", "amount": true}', "amount"),
        ('{"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1e30}', "amount"),
        ("hello", None),
        ("[]", None),
        (b"\xff\xfe", None),
        ("[" * 10_000, None),
        ('{"tokenIn": "' + "x" * 20_000 + '"}', None),
    ],
    ids=["token", "NaN", "boolean", "10^30", "no JSON", "array", "no UTF-8", "deep", "20 KB"],
)
async def test_one_connection_refuses_a_bad_order_in_a_frame_and_closes(
    engine: Engine, http: httpx2.Client, frame: str | bytes, field: str | None
) -> None:
    before = http.get("/v1/orders").content
    async with websocket(engine.url, EXECUTE) as connection, asyncio.timeout(HANG_S):
        await connection.send(frame)
        problem = json.loads(await connection.recv())
        with pytest.raises(ConnectionClosedError):
            await connection.recv()
    assert 400 <= problem["status"] < 500
    assert problem["code"]
    assert problem["error"] == problem["detail"]
    assert problem.get("field") == field
    assert connection.close_code == 1008
    assert http.get("/v1/orders").content == before


# --- failures ------------------------------------------------------------------------------------


@pytest.fixture
def failing(engines: Engines, shape: str) -> Engine:
    """An engine that fails four of five swaps, and retries after 20 ms."""
    return engines.get(shape, MOCK_DELAY_SCALE="0", MOCK_FAIL_RATE="0.8", RETRY_BACKOFF_MS="20")


async def test_intermediate_failures_are_retrying_frames_and_one_frame_is_the_end(failing: Engine) -> None:
    with failing.client() as http:
        body = {"tokenIn": "SOL", "tokenOut": "USDC", "amount": 1}
        orders = [posted(http, body)["orderId"] for _ in range(30)]
        lives = await asyncio.gather(*(follow(failing.url, f"{EXECUTE}?orderId={order_id}") for order_id in orders))
        ends = Counter(life[-1]["status"] for life in lives)
        for order_id, life in zip(orders, lives, strict=True):
            statuses = [frame["status"] for frame in life]
            assert is_gapless(life)
            assert is_lawful(statuses)
            assert [status for status in statuses if status in ("confirmed", "failed")] == statuses[-1:]
            attempts = statuses.count("routing")
            assert 1 <= attempts == max(frame["attempt"] for frame in life) <= 3
            assert statuses.count("retrying") == attempts - 1
            order = order_of(http, order_id)
            assert order["status"] == statuses[-1]
            for frame in life:
                failed = frame["status"] in ("retrying", "failed")
                assert ("error" in frame) is failed
                if failed:
                    assert frame["data"]["reason"]["code"] in {*ReasonCode}
                    assert frame["data"]["reason"]["message"] == frame["error"]
            if order["status"] == "failed":
                assert attempts == 3
                assert order["reason"] == life[-1]["data"]["reason"]
            else:
                assert order["reason"] is None
    assert ends.keys() == {"confirmed", "failed"}  # Either is missing with a probability of about 10^-9.
    assert sum(frame["status"] == "retrying" for life in lives for frame in life) > 0


async def test_a_failed_job_says_why(failing: Engine) -> None:
    with failing.client() as http:
        jobs = [posted(http, {"orderId": f"x-{at}"}, "/enqueue")["jobId"] for at in range(30)]
        lives = await asyncio.gather(*(follow(failing.url, f"/ws?jobId={job}") for job in jobs))
    last = [life[-1] for life in lives]
    assert {frame["event"] for frame in last} == {"job:completed", "job:failed"}
    assert all(frame["failedReason"] for frame in last if frame["event"] == "job:failed")
    assert all(frame["event"] in ("waiting", "job:progress") for life in lives for frame in life[:-1])
