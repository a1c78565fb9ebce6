"""An order's life can be followed from any moment on, over WebSocket and SSE, by many at once, in both shapes."""

import asyncio
import random
import resource
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import (
    HANG_S,
    Json,
    ended,
    events_of,
    follow,
    is_gapless,
    is_lawful,
    place,
    problem_of,
    reached,
    refusal,
    seqs,
    server_sent,
    sse_events,
    websocket,
)
from tests.stack import embedded_stack, market_order

pytestmark = pytest.mark.asyncio

STREAMS = ("/v1/orders/{}/stream", "/api/orders/execute?orderId={}", "/orders/{}", "/ws?jobId={}")


@pytest.fixture
def moving(engines: Engines, shape: str) -> Engine:
    """An engine whose orders take about a second."""
    return engines.get(shape, MOCK_DELAY_SCALE="0.25")


@pytest.fixture
def client(moving: Engine) -> Iterator[httpx2.Client]:
    with moving.client() as http:
        yield http


def stream_of(order_id: str) -> str:
    return f"/v1/orders/{order_id}/stream"


# --- WebSocket -----------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [None, "submitted", "confirmed"])
async def test_a_websocket_opened_at_any_moment_hears_the_whole_life(
    moving: Engine, client: httpx2.Client, moment: str | None
) -> None:
    order_id = place(client)["orderId"]
    if moment is not None:
        reached(client, order_id, moment)
    lives = await asyncio.gather(*(follow(moving.url, path.format(order_id)) for path in STREAMS))

    events = events_of(client, order_id)
    assert is_lawful([event["status"] for event in events])
    assert lives[0] == events
    for frames in lives:
        assert is_gapless(frames)
        assert [frame["status"].lower() for frame in frames] == [event["status"] for event in events]


async def test_a_websocket_goes_on_after_any_seq(moving: Engine, client: httpx2.Client) -> None:
    order_id = place(client)["orderId"]
    reached(client, order_id, "submitted")
    live = await follow(moving.url, f"{stream_of(order_id)}?after=2")
    events = events_of(client, order_id)
    assert live == events[2:]
    for after in range(len(events) + 1):
        assert await follow(moving.url, f"{stream_of(order_id)}?after={after}") == events[after:]


async def test_500_websockets_at_once_each_hear_every_event_once_and_in_order(
    moving: Engine, client: httpx2.Client
) -> None:
    orders = [place(client)["orderId"] for _ in range(50)]
    chance = random.Random(1)
    paths = [chance.choice(STREAMS).format(orders[number % len(orders)]) for number in range(500)]
    lives = await asyncio.gather(*(follow(moving.url, path) for path in paths))

    lengths = {order_id: len(events_of(client, order_id)) for order_id in orders}
    for number, life in enumerate(lives):
        assert is_gapless(life), paths[number]
        assert len(life) == lengths[orders[number % len(orders)]], paths[number]


async def test_500_websockets_at_once_fit_where_a_process_starts_with_256_files(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="1", LOG_FORMAT="json") as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))  # The limit of a shell on macOS.
        try:
            engine = stack.spawn("up")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        with httpx2.Client(base_url=engine.url, trust_env=False) as http:
            order_id = place(http)["orderId"]
        lives = await asyncio.gather(*(follow(engine.url, stream_of(order_id)) for _ in range(500)))
    assert all(is_gapless(life) for life in lives)


@pytest.mark.parametrize("path", STREAMS)
async def test_an_unknown_order_is_a_404_on_the_handshake(moving: Engine, path: str) -> None:
    status, problem = await refusal(moving.url, path.format("01900000-0000-7000-8000-000000000000"))
    assert (status, problem["code"]) == (404, "order_not_found")


async def test_a_wrong_cursor_is_a_422_on_the_handshake(moving: Engine, client: httpx2.Client) -> None:
    order_id = place(client)["orderId"]
    for after in ("x", "-1", "", "99", "1" + "0" * 30):
        status, problem = await refusal(moving.url, f"{stream_of(order_id)}?after={after}")
        assert (status, problem["field"]) == (422, "after")


async def test_a_websocket_on_an_unknown_path_is_a_404(moving: Engine) -> None:
    for path in ("/nope", "/v1/stream/nope", "/orders/a/b"):
        status, problem = await refusal(moving.url, path)
        assert (status, problem["code"]) == (404, "no_such_path")


# --- server-sent events --------------------------------------------------------------------------


@pytest.mark.parametrize("moment", [None, "submitted", "confirmed"])
async def test_an_event_stream_opened_at_any_moment_hears_the_whole_life(
    client: httpx2.Client, moment: str | None
) -> None:
    order_id = place(client)["orderId"]
    if moment is not None:
        reached(client, order_id, moment)
    told = server_sent(client, stream_of(order_id))

    events = events_of(client, order_id)
    assert [document for _, _, document in told] == events
    assert [seq for seq, _, _ in told] == [str(event["seq"]) for event in events]
    assert [status for _, status, _ in told] == [event["status"] for event in events]


async def test_an_event_stream_goes_on_after_the_last_event_seen(client: httpx2.Client) -> None:
    order_id = place(client)["orderId"]
    reached(client, order_id, "submitted")
    live = server_sent(client, stream_of(order_id), **{"Last-Event-ID": "3"})
    events = events_of(client, order_id)
    assert [document for _, _, document in live] == events[3:]
    for after in range(len(events)):
        told = server_sent(client, f"{stream_of(order_id)}?after={after}")
        assert [document for _, _, document in told] == events[after:]
        told = server_sent(client, f"{stream_of(order_id)}?after=0", **{"Last-Event-ID": str(after)})
        assert [document for _, _, document in told] == events[after:]


async def test_after_the_end_an_event_source_is_told_not_to_come_back(client: httpx2.Client) -> None:
    order = ended(client, place(client)["orderId"])
    path = stream_of(order["orderId"])
    for response in (
        client.get(path, headers={"Accept": "text/event-stream", "Last-Event-ID": str(order["seq"])}),
        client.get(path, headers={"Accept": "text/event-stream"}, params={"after": order["seq"]}),
    ):
        assert (response.status_code, response.content) == (204, b"")


async def test_50_event_streams_at_once_each_hear_every_event_once_and_in_order(
    moving: Engine, client: httpx2.Client
) -> None:
    orders = [place(client)["orderId"] for _ in range(10)]

    async def listen(http: httpx2.AsyncClient, order_id: str) -> list[Json]:
        response = await http.get(stream_of(order_id), headers={"Accept": "text/event-stream"})
        return [document for _, _, document in sse_events(response.text)]

    async with moving.async_client() as http, asyncio.timeout(HANG_S):
        lives = await asyncio.gather(*(listen(http, order_id) for order_id in orders * 5))
    for order_id, life in zip(orders * 5, lives, strict=True):
        assert life == events_of(client, order_id)


async def test_an_unknown_order_has_no_event_stream(client: httpx2.Client) -> None:
    response = client.get(stream_of("nobody"), headers={"Accept": "text/event-stream"})
    assert problem_of(response, 404)["code"] == "order_not_found"


# --- clients that misbehave ----------------------------------------------------------------------


async def test_clients_that_vanish_leave_the_engine_as_it_was(moving: Engine, client: httpx2.Client) -> None:
    orders = [place(client)["orderId"] for _ in range(5)]

    async def vanish(path: str) -> None:
        connection = await websocket(moving.url, path)
        connection.transport.abort()
        await connection.wait_closed()

    paths = [path.format(order_id) for order_id in orders for path in STREAMS]
    await asyncio.gather(*(vanish(path) for path in [*paths, "/ws", "/api/orders/execute"] * 3))
    for order_id in orders:
        with client.stream("GET", stream_of(order_id), headers={"Accept": "text/event-stream"}) as response:
            assert response.status_code == 200
            assert next(response.iter_raw())

    assert client.get("/health").json() == {"status": "ok"}
    for order_id in orders:
        assert ended(client, order_id)["status"] == "confirmed"
        assert is_gapless(await follow(moving.url, stream_of(order_id)))
    assert "Traceback" not in moving.log_text()


async def test_a_client_that_talks_on_a_stream_is_not_heard(moving: Engine, client: httpx2.Client) -> None:
    order_id = place(client)["orderId"]
    async with websocket(moving.url, stream_of(order_id)) as connection, asyncio.timeout(HANG_S):
        await connection.send("hello")
        await connection.send(b"\0\xff")
        frames = [text async for text in connection]
    assert len(frames) == len(events_of(client, order_id))
    assert connection.close_code == 1000


async def test_a_client_that_closes_first_is_let_go(moving: Engine, client: httpx2.Client) -> None:
    order_id = place(client)["orderId"]
    async with websocket(moving.url, stream_of(order_id)) as connection, asyncio.timeout(HANG_S):
        await connection.recv()
    assert connection.close_code == 1000
    assert ended(client, order_id)["status"] == "confirmed"
    assert "Traceback" not in moving.log_text()


# --- origins -------------------------------------------------------------------------------------


async def test_a_page_of_another_site_may_neither_post_nor_listen(moving: Engine, client: httpx2.Client) -> None:
    foreign = {"Origin": "https://evil.example"}
    order_id = place(client)["orderId"]
    before = client.get("/v1/orders", params={"limit": 100}).json()["orders"]
    for path in ("/v1/orders", "/v1/quotes", "/api/orders/execute", "/enqueue"):
        response = client.post(path, json=market_order(), headers=foreign)
        assert problem_of(response, 403)["code"] == "origin_not_allowed"
    problem_of(client.get(stream_of(order_id), headers=foreign | {"Accept": "text/event-stream"}), 403)
    for path in (*(path.format(order_id) for path in STREAMS), "/ws", "/api/orders/execute"):
        status, problem = await refusal(moving.url, path, foreign)
        assert (status, problem["code"]) == (403, "origin_not_allowed")
    after = client.get("/v1/orders", params={"limit": 100}).json()["orders"]
    assert [order["orderId"] for order in after] == [order["orderId"] for order in before]


async def test_the_engines_own_pages_and_those_of_this_machine_may(moving: Engine, client: httpx2.Client) -> None:
    for origin in (moving.url, "http://localhost:5173", "http://127.0.0.1:8080"):
        response = client.post("/v1/orders", json=market_order(), headers={"Origin": origin})
        assert response.status_code == 202
        path = stream_of(response.json()["orderId"])
        async with websocket(moving.url, path, additional_headers={"Origin": origin}) as connection:
            assert await connection.recv()
    assert seqs(events_of(client, response.json()["orderId"]))[0] == 1
