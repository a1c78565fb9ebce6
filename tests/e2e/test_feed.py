"""The account stream, over WebSocket and SSE, in both shapes: no event is missed, and none comes twice."""

import asyncio
import json
from collections.abc import Iterator

import httpx2
import pytest

from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import HANG_S, Json, ended, events_of, place, problem_of, refusal, websocket

pytestmark = pytest.mark.asyncio

FEED = "/v1/stream"


@pytest.fixture
def engine(engines: Engines, shape: str) -> Engine:
    return engines.get(shape, MOCK_DELAY_SCALE="0")


@pytest.fixture
def client(engine: Engine) -> Iterator[httpx2.Client]:
    with engine.client() as http:
        yield http


def are_whole(events: list[Json], orders: list[str]) -> bool:
    """Whether the events contain the end of each of these orders."""
    last = {event["orderId"]: event["status"] for event in events}
    return all(last.get(order_id) in ("confirmed", "failed") for order_id in orders)


async def watch(url: str, after: str, orders: list[str]) -> tuple[list[Json], str]:
    """Receive over a WebSocket until these orders have ended; returns the events and the last cursor."""
    events: list[Json] = []
    async with asyncio.timeout(HANG_S), websocket(url, FEED + after, max_size=None) as connection:
        while not (events and are_whole(events, orders)):
            page = json.loads(await connection.recv())
            events += page["events"]
    return events, page["cursor"]


def lives_in(events: list[Json]) -> dict[str, list[Json]]:
    lives: dict[str, list[Json]] = {}
    for event in events:
        lives.setdefault(event["orderId"], []).append(event)
    return lives


def placed(client: httpx2.Client, count: int) -> list[str]:
    return [place(client)["orderId"] for _ in range(count)]


async def test_a_watcher_hears_the_whole_life_of_every_order_from_now_on(engine: Engine, client: httpx2.Client) -> None:
    before = placed(client, 2)
    for order_id in before:
        ended(client, order_id)
    async with asyncio.timeout(HANG_S), websocket(engine.url, FEED) as connection:
        first = json.loads(await connection.recv())
        assert first["events"] == []
        orders = await asyncio.to_thread(placed, client, 10)
        events: list[Json] = []
        while not are_whole(events, orders):
            events += json.loads(await connection.recv())["events"]
    lives = lives_in(events)
    assert not set(before) & set(lives)
    for order_id in orders:
        assert lives[order_id] == events_of(client, order_id)


async def test_whoever_comes_back_with_his_cursor_misses_nothing(engine: Engine, client: httpx2.Client) -> None:
    orders = placed(client, 5)
    events, cursor = await watch(engine.url, "?after=0", orders)
    missed = placed(client, 5)
    for order_id in missed:
        ended(client, order_id)
    more, _ = await watch(engine.url, f"?after={cursor}", missed)
    seen = [(event["orderId"], event["seq"]) for event in events + more]
    assert len(seen) == len(set(seen))
    lives = lives_in(events + more)
    for order_id in orders + missed:
        assert lives[order_id] == events_of(client, order_id)


async def test_the_feed_as_server_sent_events_goes_on_after_the_last_event_id(
    engine: Engine, client: httpx2.Client
) -> None:
    def read(orders: list[str], **headers: str) -> tuple[list[Json], str]:
        events: list[Json] = []
        with client.stream("GET", FEED, headers={"Accept": "text/event-stream", **headers}) as response:
            assert response.headers["content-type"].startswith("text/event-stream")
            for line in response.iter_lines():
                name, _, value = line.partition(": ")
                if name == "id":
                    cursor = value
                elif name == "data":
                    page = json.loads(value)
                    assert page["cursor"] == cursor
                    events += page["events"]
                    if events and are_whole(events, orders):
                        break
        return events, cursor

    orders = placed(client, 3)
    events, cursor = read(orders, **{"Last-Event-ID": "0"})
    more = placed(client, 3)
    later, _ = read(more, **{"Last-Event-ID": cursor})
    lives = lives_in(events + later)
    for order_id in orders + more:
        assert lives[order_id] == events_of(client, order_id)


async def test_many_watchers_hear_every_life_whole_and_once(engine: Engine, client: httpx2.Client) -> None:
    async with asyncio.timeout(HANG_S), websocket(engine.url, FEED) as connection:
        begin = json.loads(await connection.recv())["cursor"]
    orders = ["not placed yet"]
    watching = [asyncio.create_task(watch(engine.url, f"?after={begin}", orders)) for _ in range(50)]
    orders[:] = await asyncio.to_thread(placed, client, 20)
    heard = await asyncio.gather(*watching)
    expected = {order_id: events_of(client, order_id) for order_id in orders}
    for events, _ in heard:
        # If two orders moved at the same moment, a watcher that reads the past may get the second one first.
        lives = lives_in(events)
        assert {order_id: lives[order_id] for order_id in orders} == expected


@pytest.mark.parametrize("cursor", ["x", "-1", "", "9" * 18, "1:2:3", "9" * 400])
async def test_a_wrong_cursor_is_a_422(engine: Engine, client: httpx2.Client, cursor: str) -> None:
    status, problem = await refusal(engine.url, f"{FEED}?after={cursor}")
    assert (status, problem["code"], problem["field"]) == (422, "unknown_cursor", "after")
    if cursor:
        headers = {"Accept": "text/event-stream", "Last-Event-ID": cursor}
        problem_of(client.get(FEED, headers=headers), 422, "Last-Event-ID")


@pytest.mark.parametrize("after", ["", "?after=0"])
async def test_an_empty_last_event_id_is_none(client: httpx2.Client, after: str) -> None:
    order_id = ended(client, place(client)["orderId"])["orderId"]
    with client.stream("GET", FEED + after, headers={"Accept": "text/event-stream", "Last-Event-ID": ""}) as response:
        assert response.status_code == 200
        pages = (json.loads(line[6:]) for line in response.iter_lines() if line.startswith("data: "))
        assert next(pages)["events"] == []
        if after:
            assert any(order_id in json.dumps(page) for page in pages)
        path = f"/v1/orders/{order_id}/stream"
    told = client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": ""})
    assert told.text.startswith("id: 1\n")


async def test_a_page_of_another_site_may_not_watch(engine: Engine) -> None:
    status, problem = await refusal(engine.url, FEED, {"Origin": "https://evil.example"})
    assert (status, problem["code"]) == (403, "origin_not_allowed")


async def test_the_feed_speaks_event_streams_only(client: httpx2.Client) -> None:
    problem_of(client.get(FEED, headers={"Accept": "application/json"}), 406)
