"""The bench's own instruments: they count right, and hide nothing."""

import asyncio
import json
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve

from bench import load
from bench.__main__ import rounds_of
from bench.measure import median_of
from bench.report import performance_section
from bench.watching import Watcher

ANSWER = b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\n\r\n{}"
STALL_S = 0.3

BURST = {
    "completed_per_s": 1000.0,
    "accepted_per_s": 2000.0,
    "post_p50_ms": 5.0,
    "post_p99_ms": 9.0,
    "confirm_p50_ms": 50.0,
    "confirm_p99_ms": 90.0,
    "cpu_s_per_1000_total": 0.5,
    "cpu_s_per_1000": {"api": 0.2, "worker": 0.3},
    "peak_memory_mib": {"api": 90},
    "statements_per_order": 0.1,
    "commits_per_order": 0.1,
    "redis_commands_per_order": None,
    "refused": 0,
    "unconfirmed": 0,
    "gaps": 0,
}


@pytest.mark.asyncio
async def test_an_order_that_a_stall_kept_from_being_posted_is_charged_to_the_stall(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(load, "CONNECTIONS_AT_A_RATE", 1)
    answered, left = 0, asyncio.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal answered
        try:
            while True:
                await reader.readuntil(b"\r\n\r\nx")
                await asyncio.sleep(STALL_S if answered == 0 else 0)
                answered += 1
                writer.write(ANSWER)
        except asyncio.IncompleteReadError:
            writer.close()
            await writer.wait_closed()
            left.set()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        # All 10 orders are due within the first tenth of the stall.
        found = await load.rate(f"http://127.0.0.1:{port}/", 10, 10 / (STALL_S / 10), b"x")
        await asyncio.wait_for(left.wait(), 10)
    assert (answered, found["refused"]) == (10, 0)
    assert found["post_p50_ms"] >= 1000 * STALL_S * 0.9


@pytest.mark.asyncio
async def test_a_watcher_counts_frames_of_every_size() -> None:
    async def tell(websocket: ServerConnection) -> None:
        for size in (0, 125, 126, 65_535, 65_536):
            await websocket.send("x" * size)
        await websocket.close(1000)

    async with serve(tell, "127.0.0.1", 0, max_size=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        assert await load.Client(f"http://127.0.0.1:{port}/", b"").watch("/any") == 5


@pytest.mark.asyncio
async def test_a_watcher_of_everything_sees_how_late_it_is_and_what_is_missing() -> None:
    def page(*events: tuple[str, int]) -> str:
        shown = [{"orderId": name, "seq": seq, "at": "2020-01-01T00:00:00Z", "x": "y" * 70_000} for name, seq in events]
        return json.dumps({"cursor": "1", "events": shown}, separators=(",", ":"))

    messages = [page(), page(("a", 1)), page(("a", 2), ("b", 1)), page(("b", 3))]

    async def tell(websocket: ServerConnection) -> None:
        for message in messages:
            await websocket.send(message)
            await websocket.ping()
        await websocket.wait_closed()

    async with serve(tell, "127.0.0.1", 0, max_size=None, compression=None) as server:
        port = next(iter(server.sockets)).getsockname()[1]
        loop = asyncio.get_running_loop()
        checking, plain = (Watcher("localhost", "/", is_checking=is_checking) for is_checking in (True, False))
        both = [await loop.create_connection(lambda it=it: it, "127.0.0.1", port) for it in (checking, plain)]
        async with asyncio.timeout(10):
            await asyncio.gather(checking.began, plain.began)
            while min(checking.messages, plain.messages) < len(messages):
                await asyncio.sleep(0.01)
        for transport, _ in both:
            transport.close()
    assert checking.seqs == {"a": [1, 2], "b": [1, 3]}
    assert plain.seqs == {}
    for it in (checking, plain):
        assert len(it.lags_ms) == 3
        assert min(it.lags_ms) > 1000 * 86_400


def document(**parts: Any) -> dict[str, Any]:
    machine = {"cores": 2, "system": "Linux", "python": "3.11", "postgres": "PostgreSQL 15"}
    options = {"orders": 10, "connections": 4, "rounds": 3}
    return {"at": "2026-01-01T00:00:00", "command": "make bench", "machine": machine, "options": options, **parts}


def test_a_peer_that_cannot_run_is_named_with_the_reason() -> None:
    engine = {"title": "order-engine", "rounds": [BURST], "median": BURST}
    told = performance_section(
        document(burst={"engine-500": engine, "fastify-100": {"title": "Fastify", "missing": "no Node.js"}})
    )
    assert "| Fastify | left out: no Node.js |" in told
    assert "| order-engine | 1,000 (1,000-1,000) |" in told


def test_the_ratios_are_ours_to_theirs() -> None:
    slower = BURST | {"completed_per_s": 250.0, "cpu_s_per_1000_total": 2.0, "post_p99_ms": 90.0}
    burst = {
        "engine-500": {"title": "order-engine", "rounds": [BURST], "median": BURST},
        "fastify-100": {"title": "Fastify", "rounds": [slower], "median": slower},
    }
    assert "| Fastify | 4.00 x | 0.25 x | 0.10 x |" in performance_section(document(burst=burst))


def test_a_bad_order_anywhere_is_found() -> None:
    bad = BURST | {"gaps": 1}
    part = {"a": {"title": "", "rounds": [BURST, bad], "median": BURST}, "b": {"title": "", "missing": "no Node.js"}}
    assert sum(it["gaps"] for it in rounds_of(part)) == 1


def test_a_median_goes_into_every_figure() -> None:
    assert median_of([{"a": 1, "b": {"c": 9}, "d": None}, {"a": 3, "b": {"c": 1}, "d": None}]) == {
        "a": 2,
        "b": {"c": 5},
        "d": None,
    }
