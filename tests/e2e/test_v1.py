"""v1's orders, row by row as api.md has them, in both shapes."""

import asyncio
import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import httpx2
import pytest

from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import (
    Json,
    ended,
    events_of,
    is_gapless,
    is_lawful,
    order_of,
    place,
    problem_of,
    reached,
    seqs,
    wait_for,
)
from tests.stack import market_order

ORDER_FIELDS = frozenset(
    {"orderId", "clientOrderId", "type", "status", "inDoubt", "tokenIn", "tokenOut", "amountIn", "slippageBps"}
    | {"minAmountOut", "venue", "quotes", "amountOut", "price", "txSignature", "attempts", "reason"}
    | {"createdAt", "updatedAt", "seq", "links"}
)
EVENT_FIELDS = frozenset({"orderId", "seq", "status", "attempt", "at", "elapsedMs", "data"})
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
SOL_MINT = "So11111111111111111111111111111111111111112"
# Pairs that one test alone trades.
RARE, RARER = {"tokenIn": "RAY", "tokenOut": "mSOL"}, {"tokenIn": "mSOL", "tokenOut": "JUP"}
USDC_MINT = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v"


@pytest.fixture
def slow(engines: Engines, shape: str) -> Iterator[httpx2.Client]:
    """An engine whose orders are pending for a second and submitted for ten."""
    with engines.get(shape, MOCK_DELAY_SCALE="5").client() as client:
        yield client


# --- POST /v1/orders -----------------------------------------------------------------------------


def test_an_accepted_order_is_answered_whole_with_its_location(http: httpx2.Client) -> None:
    response = http.post("/v1/orders", json=market_order("1.50", clientOrderId="mine", metadata={"a": [1]}))

    assert response.status_code == 202
    assert response.headers["content-type"] == "application/json"
    order = response.json()
    assert order.keys() >= ORDER_FIELDS
    assert response.headers["location"] == order["links"]["self"] == f"/v1/orders/{order['orderId']}"
    assert "idempotent-replayed" not in response.headers
    assert UUID(order["orderId"]).version == 7
    assert (order["clientOrderId"], order["type"], order["status"]) == ("mine", "market", "pending")
    assert (order["tokenIn"], order["tokenOut"], order["amountIn"]) == ("SOL", "USDC", "1.5")
    assert (order["slippageBps"], order["inDoubt"], order["seq"]) == (50, False, 1)
    assert (order["quotes"], order["attempts"], order["metadata"]) == ([], [], {"a": [1]})
    unknown_yet = ("minAmountOut", "venue", "amountOut", "price", "txSignature", "reason")
    assert [order[name] for name in unknown_yet] == [None] * len(unknown_yet)
    assert TIME.fullmatch(order["createdAt"])
    assert order["createdAt"] == order["updatedAt"]
    for link in order["links"].values():
        assert http.get(link).status_code == 200


def test_a_confirmed_order_tells_its_route_its_attempt_and_what_it_got(http: httpx2.Client) -> None:
    order = ended(http, place(http, "2", slippageBps=100)["orderId"])

    assert order["status"] == "confirmed"
    assert order["reason"] is None
    assert order["inDoubt"] is False
    assert order["venue"] in ("raydium", "meteora")
    assert {quote["venue"] for quote in order["quotes"]} == {"raydium", "meteora"}
    assert [quote["venue"] for quote in order["quotes"] if quote["chosen"]] == [order["venue"]]
    amount_out = Decimal(order["amountOut"])
    assert amount_out >= Decimal(order["minAmountOut"]) > 0
    assert abs(Decimal(order["price"]) - amount_out / 2) < Decimal("0.000001")
    [attempt] = order["attempts"]
    assert (attempt["attempt"], attempt["txSignature"], attempt["outcome"]) == (1, order["txSignature"], "landed")


def test_tokens_are_named_by_symbol_or_by_mint(http: httpx2.Client) -> None:
    by_mint = place(http, tokenIn=USDC_MINT, tokenOut=SOL_MINT)
    assert (by_mint["tokenIn"], by_mint["tokenOut"]) == ("USDC", "SOL")


def test_a_number_is_taken_digit_by_digit_and_never_through_a_float(http: httpx2.Client) -> None:
    exact = "9007199254.740993001"
    assert str(float(exact)) != exact
    body = json.dumps(market_order("0")).replace('"0"', exact)
    response = http.post("/v1/orders", content=body, headers={"Content-Type": "application/json"})
    assert response.json()["amountIn"] == exact


def test_metadata_comes_back_as_it_came(http: httpx2.Client) -> None:
    metadata = '{"z": 1.0, "a": 100000000000000000000000000001, "text": "\\u00e9 \u2192 \U0001f980", "none": null}'
    body = json.dumps(market_order())[:-1] + f', "metadata": {metadata}}}'
    response = http.post("/v1/orders", content=body.encode(), headers={"Content-Type": "application/json"})
    assert metadata in response.text
    assert metadata in http.get(response.headers["location"]).text


def test_an_amount_that_no_pool_can_take_fails_with_no_route(http: httpx2.Client) -> None:
    order = ended(http, place(http, "9000000000")["orderId"])
    assert (order["status"], order["reason"]["code"], order["attempts"]) == ("failed", "no_route", [])
    assert order["reason"]["message"]
    assert [event["status"] for event in events_of(http, order["orderId"])] == ["pending", "routing", "failed"]


# --- Idempotency-Key -----------------------------------------------------------------------------


def test_a_replay_answers_the_first_body_byte_for_byte_even_after_the_end(http: httpx2.Client, shape: str) -> None:
    headers = {"Idempotency-Key": f"replay-{shape}"}
    first = http.post("/v1/orders", json=market_order("1.25", metadata={"n": 1}), headers=headers)
    ended(http, first.json()["orderId"])
    again = http.post("/v1/orders", json=market_order("1.25", metadata={"n": 1}), headers=headers)

    assert (first.status_code, again.status_code) == (202, 202)
    assert "idempotent-replayed" not in first.headers
    assert again.headers["idempotent-replayed"] == "true"
    assert again.headers["location"] == first.headers["location"]
    assert again.content == first.content


@pytest.mark.parametrize(
    "other",
    [{"amountIn": "2"}, {"tokenOut": "USDT"}, {"slippageBps": 51}, {"clientOrderId": "x"}, {"metadata": {}}],
    ids=lambda other: next(iter(other)),
)
def test_a_used_key_with_another_body_is_refused(http: httpx2.Client, other: Json) -> None:
    headers = {"Idempotency-Key": f"conflict-{next(iter(other))}"}
    first = http.post("/v1/orders", json=market_order(), headers=headers).json()
    refused = http.post("/v1/orders", json=market_order() | other, headers=headers)

    problem = problem_of(refused, 422)
    assert problem["code"] == "idempotency_conflict"
    assert http.post("/v1/orders", json=market_order(), headers=headers).json() == first


@pytest.mark.asyncio
async def test_200_posts_at_once_with_one_key_make_one_order(engine: Engine) -> None:
    order = market_order("0.5", clientOrderId="at-once")
    async with engine.async_client() as client:
        post = [client.post("/v1/orders", json=order, headers={"Idempotency-Key": "at-once"}) for _ in range(200)]
        responses = await asyncio.gather(*post)
        found = (await client.get("/v1/orders", params={"clientOrderId": "at-once"})).json()["orders"]

    assert {response.status_code for response in responses} == {202}
    assert len({response.content for response in responses}) == 1
    assert len([response for response in responses if "idempotent-replayed" not in response.headers]) == 1
    assert [it["orderId"] for it in found] == [responses[0].json()["orderId"]]


# --- GET /v1/orders ------------------------------------------------------------------------------


def listed(http: httpx2.Client, **filters: str | int) -> list[str]:
    response = http.get("/v1/orders", params=filters)
    assert response.status_code == 200, response.text
    assert response.json().keys() == {"orders", "nextCursor"}
    return [order["orderId"] for order in response.json()["orders"]]


def since_now(http: httpx2.Client) -> dict[str, str]:
    """The filter for orders that are placed from now on."""
    at: str = place(http)["createdAt"]
    # Until the engine's clock shows a later time, a new order could have the same one.
    between = wait_for(lambda: place(http)["createdAt"], lambda later: later > at)
    while datetime.now(UTC) <= datetime.fromisoformat(between):
        pass
    return {"createdAfter": between}


def test_a_list_is_filtered_by_every_field(http: httpx2.Client) -> None:
    since = since_now(http)
    pairs = (("SOL", "USDC"), ("USDC", "SOL"), ("SOL", "BONK"))
    placed = [place(http, tokenIn=there, tokenOut=back, clientOrderId=f"to-{back}") for there, back in pairs]
    a, b, c = (order["orderId"] for order in placed)
    cancelled = place(http, "9000000000")["orderId"]
    for order_id in (a, b, c, cancelled):
        ended(http, order_id)

    assert listed(http, **since) == [cancelled, c, b, a]
    assert listed(http, **since, status="confirmed") == [c, b, a]
    assert listed(http, **since, status="failed") == [cancelled]
    assert listed(http, **since, status="pending") == []
    assert listed(http, **since, type="market") == [cancelled, c, b, a]
    assert listed(http, **since, tokenIn="USDC") == [b]
    assert listed(http, **since, tokenIn=SOL_MINT, status="confirmed") == [c, a]
    assert listed(http, **since, tokenOut="BONK") == [c]
    assert listed(http, **since, tokenIn="USDC", tokenOut="BONK") == []
    assert listed(http, clientOrderId="to-BONK") == [c]
    assert listed(http, clientOrderId="nobody") == []
    assert a in listed(http)


def test_a_list_is_filtered_by_time(http: httpx2.Client) -> None:
    def later(than: Json) -> Json:
        return wait_for(lambda: place(http, **RARE), lambda it: it["createdAt"] > than["createdAt"])

    first = place(http, **RARE)
    middle = later(first)
    last = later(middle)
    after = listed(http, **RARE, createdAfter=middle["createdAt"])
    before = listed(http, **RARE, createdBefore=middle["createdAt"])
    assert last["orderId"] in after
    assert first["orderId"] not in after
    assert first["orderId"] in before
    assert last["orderId"] not in before
    assert listed(http, **RARE, createdAfter="2100-01-01T00:00:00+02:00") == []
    assert listed(http, **RARE, createdBefore="1960-01-01T00:00:00Z") == []


def test_a_list_is_filtered_by_the_time_of_the_end(http: httpx2.Client) -> None:
    first = ended(http, place(http, tokenOut="JitoSOL")["orderId"])
    second = ended(http, place(http, "9000000000", tokenOut="JitoSOL")["orderId"])
    moment = {order["orderId"]: order["updatedAt"] for order in (first, second)}
    assert (first["status"], second["status"]) == ("confirmed", "failed")
    for order in (first, second):
        ending = {it["orderId"] for it in (first, second) if it["updatedAt"] > order["updatedAt"]}
        assert set(listed(http, tokenOut="JitoSOL", endedAfter=moment[order["orderId"]])) == ending
        ended_before = {it["orderId"] for it in (first, second) if it["updatedAt"] < order["updatedAt"]}
        assert set(listed(http, tokenOut="JitoSOL", endedBefore=moment[order["orderId"]])) == ended_before
    assert listed(http, tokenOut="JitoSOL", endedAfter="1960-01-01T00:00:00Z", endedBefore="2100-01-01T00:00:00Z") == [
        second["orderId"],
        first["orderId"],
    ]
    for name in ("endedAfter", "endedBefore"):
        problem_of(http.get("/v1/orders", params={name: "yesterday"}), 422, name)


def test_a_list_is_read_page_by_page_newest_first(http: httpx2.Client) -> None:
    placed = [place(http, **RARER)["orderId"] for _ in range(5)]
    pages, cursor = [], {}
    while cursor is not None:
        page = http.get("/v1/orders", params={**RARER, "limit": 2, **cursor}).json()
        pages.append([order["orderId"] for order in page["orders"]])
        place(http, **RARER)  # A new order does not move the pages behind the cursor.
        cursor = {"cursor": page["nextCursor"]} if page["nextCursor"] else None
    assert pages == [placed[:2:-1], placed[2:0:-1], placed[:1]]
    assert len(listed(http, **RARER, limit=100)) == 8


# --- GET /v1/orders/{id}, its events -------------------------------------------------------------


def test_an_order_is_found_by_its_id_and_by_the_clients_name(http: httpx2.Client) -> None:
    order = place(http, clientOrderId="my-name")
    assert order_of(http, order["orderId"].upper())["orderId"] == order["orderId"]
    assert order_of(http, "my-name")["orderId"] == order["orderId"]


@pytest.mark.parametrize("path", ["", "/events", "/stream"])
def test_an_unknown_order_is_a_404(http: httpx2.Client, path: str) -> None:
    for name in ("01900000-0000-7000-8000-000000000000", "nobody"):
        problem = problem_of(http.get(f"/v1/orders/{name}{path}"), 404)
        assert problem["code"] == "order_not_found"
    problem_of(http.delete("/v1/orders/nobody"), 404)


def test_the_history_is_gapless_lawful_and_can_be_read_from_any_seq(http: httpx2.Client) -> None:
    order = ended(http, place(http)["orderId"])
    events = events_of(http, order["orderId"])

    assert is_gapless(events)
    assert is_lawful([event["status"] for event in events])
    for event in events:
        assert event.keys() == EVENT_FIELDS
        assert event["orderId"] == order["orderId"]
        assert TIME.fullmatch(event["at"])
    assert [event["elapsedMs"] for event in events] == sorted(event["elapsedMs"] for event in events)
    assert order["seq"] == len(events)
    for after in range(len(events) + 2):
        answer = http.get(f"/v1/orders/{order['orderId']}/events", params={"after": after}).json()
        assert seqs(answer["events"]) == [seq for seq in seqs(events) if seq > after]


def test_the_events_tell_the_quotes_the_steps_the_signature_and_the_result(http: httpx2.Client) -> None:
    order = ended(http, place(http)["orderId"])
    told = {event["status"]: event["data"] for event in events_of(http, order["orderId"])}

    assert [*told] == ["pending", "routing", "building", "submitted", "confirmed"]
    assert told["routing"]["venue"] == order["venue"]
    assert told["routing"]["marginBps"] >= 0
    winner, loser = told["routing"]["quotes"]
    assert winner["chosen"]
    assert loser["lostBecause"]
    assert told["building"]["steps"][0] == "wrap SOL into wSOL"
    assert told["submitted"]["txSignature"] == order["txSignature"]
    assert told["confirmed"]["amountOut"] == order["amountOut"]


# --- DELETE /v1/orders/{id} ----------------------------------------------------------------------


def test_an_order_is_cancelled_while_nothing_is_signed(slow: httpx2.Client) -> None:
    taken_back = place(slow)
    response = slow.delete(f"/v1/orders/{taken_back['orderId']}")
    later = reached(slow, place(slow)["orderId"], "submitted")

    assert response.status_code == 200
    cancelled = response.json()
    assert (cancelled["orderId"], cancelled["status"]) == (taken_back["orderId"], "cancelled")
    assert cancelled["reason"]["code"] == "cancelled_by_client"
    assert cancelled.keys() >= ORDER_FIELDS
    # An order that was placed later is signed by now: the worker has let go of this one.
    assert later["status"] == "submitted"
    assert order_of(slow, taken_back["orderId"]) == cancelled
    statuses = [event["status"] for event in events_of(slow, taken_back["orderId"])]
    assert is_lawful(statuses)
    assert statuses[-1] == "cancelled"


def test_a_signed_order_cannot_be_cancelled_and_says_why(slow: httpx2.Client) -> None:
    order = reached(slow, place(slow)["orderId"], "submitted")
    assert order["inDoubt"] is True
    problem = problem_of(slow.delete(f"/v1/orders/{order['orderId']}"), 409)
    assert problem["code"] == "cancel_too_late"
    assert "signed" in problem["detail"]
    assert order_of(slow, order["orderId"])["status"] == "submitted"


def test_an_ended_order_cannot_be_cancelled_and_says_why(http: httpx2.Client) -> None:
    order = ended(http, place(http)["orderId"])
    problem = problem_of(http.delete(f"/v1/orders/{order['orderId']}"), 409)
    assert problem["code"] == "cancel_too_late"
    assert "confirmed" in problem["detail"]
    assert order_of(http, order["orderId"]) == order
