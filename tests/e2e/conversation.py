"""How the end-to-end tests talk to an engine: plain HTTP, a plain WebSocket client, and SSE."""

import asyncio
import itertools
import json
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import httpx2
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import InvalidStatus

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderStatus
from tests.stack import market_order

HANG_S = 30.0  # Longer than any step takes: only a hang gets there.

Json = dict[str, Any]


def wait_for(ask: Callable[[], Any], is_right: Callable[[Any], bool]) -> Any:
    """Ask again and again until the answer is right; returns it."""
    deadline = time.monotonic() + HANG_S
    while not is_right(answer := ask()):
        assert time.monotonic() < deadline, answer
        time.sleep(0.01)
    return answer


def place(http: httpx2.Client, amount: str = "1", **fields: Any) -> Json:
    """Place an order through v1; returns the resource."""
    response = http.post("/v1/orders", json=market_order(amount, **fields))
    assert response.status_code == 202, response.text
    return response.json()


def order_of(http: httpx2.Client, order_id: str) -> Json:
    return http.get(f"/v1/orders/{order_id}").raise_for_status().json()


def events_of(http: httpx2.Client, order_id: str) -> list[Json]:
    return http.get(f"/v1/orders/{order_id}/events").raise_for_status().json()["events"]


def ended(http: httpx2.Client, order_id: str) -> Json:
    """Wait until the order is terminal; returns the resource."""
    return wait_for(lambda: order_of(http, order_id), lambda order: order["status"] in TERMINAL)


def reached(http: httpx2.Client, order_id: str, status: str) -> Json:
    """Wait until the order has been in the status; returns the resource as it is then."""
    wait_for(lambda: [event["status"] for event in events_of(http, order_id)], lambda life: status in life)
    return order_of(http, order_id)


def problem_of(response: httpx2.Response, status: int | set[int], field: str | None = None) -> Json:
    """Check that the response is the problem document that api.md promises; returns it."""
    assert response.status_code in ({status} if isinstance(status, int) else status), response.text
    assert response.headers["content-type"] == "application/problem+json", response.text
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["code"]
    assert problem["title"]
    assert problem["detail"]
    assert problem["requestId"] == response.headers["x-request-id"]
    assert problem["retryable"] in (True, False)
    is_compatible = response.request.url.path.startswith(("/api/", "/enqueue", "/jobs/", "/orders/", "/ws"))
    assert problem.get("error") == (problem["detail"] if is_compatible else None)
    assert problem.get("field") == field, problem
    return problem


def is_lawful(statuses: Sequence[str]) -> bool:
    """Return whether the statuses (in any case) are a whole life by the table of transitions."""
    life = [OrderStatus(status.lower()) for status in statuses]
    steps = itertools.pairwise(life)
    is_whole = life[0] is OrderStatus.PENDING and life[-1] in TERMINAL
    return is_whole and all(following in TRANSITIONS[status] for status, following in steps)


def seqs(events: Sequence[Json]) -> list[int]:
    return [event["seq"] for event in events]


def is_gapless(events: Sequence[Json]) -> bool:
    """Return whether the events are seq 1..n, once each and in order."""
    return bool(events) and seqs(events) == list(range(1, len(events) + 1))


# --- WebSocket -----------------------------------------------------------------------------------


def websocket(url: str, path: str, **options: Any) -> connect:
    """Open a plain WebSocket on a path of an engine, or on an absolute ws:// URL."""
    address = path if path.startswith("ws") else url.replace("http", "ws", 1) + path
    return connect(address, proxy=None, open_timeout=HANG_S, close_timeout=HANG_S, **options)


async def frames_of(connection: ClientConnection) -> list[Json]:
    """Receive text frames up to the close, which must be a normal one."""
    async with asyncio.timeout(HANG_S):
        frames = [text async for text in connection]
    assert connection.close_code == 1000
    assert all(isinstance(frame, str) for frame in frames)
    return [json.loads(frame) for frame in frames]


async def follow(url: str, path: str) -> list[Json]:
    """Connect, receive everything up to the normal close."""
    async with websocket(url, path) as connection:
        return await frames_of(connection)


async def refusal(url: str, path: str, headers: Mapping[str, str] | None = None) -> tuple[int, Json]:
    """Connect, which must be refused; returns the status of the handshake and the problem."""
    with pytest.raises(InvalidStatus) as refused:
        async with websocket(url, path, additional_headers=headers):
            pass
    response = refused.value.response
    assert response.headers["content-type"] == "application/problem+json", response
    return response.status_code, json.loads(response.body or b"")


# --- server-sent events --------------------------------------------------------------------------


def sse_events(text: str) -> list[tuple[str, str, Json]]:
    """Return id, event and document of each server-sent event."""
    events = []
    for block in text.split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            events.append((fields["id"], fields["event"], json.loads(fields["data"])))
    return events


def server_sent(http: httpx2.Client, path: str, **headers: str) -> list[tuple[str, str, Json]]:
    """Read an event stream to its end."""
    response = http.get(path, headers={"Accept": "text/event-stream", **headers})
    assert response.status_code == 200, response.text
    assert response.headers["content-type"].split(";")[0] == "text/event-stream"
    return sse_events(response.text)
