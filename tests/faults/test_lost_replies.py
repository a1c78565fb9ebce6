"""Orders of the shipped client while its engine is killed three times and every third reply is lost."""

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from order_engine.client import EngineClient
from tests.faults.replies import ReplyDropper
from tests.stack import EngineProcess, Stack, embedded_stack, market_order

pytestmark = pytest.mark.asyncio
ORDERS = 50
COMMANDS = 8
KILLS = 3


@asynccontextmanager
async def lossy(directory: Path) -> AsyncIterator[tuple[Stack, EngineProcess, ReplyDropper]]:
    with embedded_stack(directory, MOCK_DELAY_SCALE="0") as stack:
        up = await asyncio.to_thread(stack.spawn, "up")
        async with ReplyDropper(up.port) as proxy:
            yield stack, up, proxy


async def killed_after(up: EngineProcess, placed: asyncio.Semaphore, orders: int) -> None:
    """Kill the engine and start it again, three times, each time after some more orders."""
    for _ in range(KILLS):
        for _ in range(orders // (KILLS + 1)):
            await placed.acquire()
        up.kill()
        await asyncio.to_thread(up.start)


def executed(stack: Stack) -> list[str]:
    """The order of each swap on the ledger."""
    with sqlite3.connect(f"file:{stack.ledger}?mode=ro", uri=True) as ledger:
        return [memo for (memo,) in ledger.execute("select memo from paper_chain_swaps where error is null")]


async def all_ended(url: str) -> list[str]:
    """Wait until every order is terminal; returns the ids of those that are confirmed."""
    async with EngineClient(url) as client:
        orders = [order async for page in client.list_all(limit=100) for order in page["orders"]]
        for order in orders:
            async for event in client.watch(order["orderId"]):
                order["status"] = event["status"]
    return [order["orderId"] for order in orders if order["status"] == "confirmed"]


async def test_fifty_orders_of_a_script_are_fifty_swaps(tmp_path: Path) -> None:
    placed = asyncio.Semaphore(0)
    answered: list[str] = []
    async with lossy(tmp_path) as (stack, up, proxy):
        killer = asyncio.create_task(killed_after(up, placed, ORDERS))
        async with EngineClient(proxy.url) as client:
            for _ in range(ORDERS):
                answered.append((await client.submit(market_order()))["orderId"])
                placed.release()
        await killer
        assert proxy.dropped > ORDERS // 5
        assert sorted(await all_ended(proxy.url)) == sorted(answered)
        assert len({*answered}) == ORDERS
        assert sorted(executed(stack)) == sorted(answered)


async def test_orders_of_the_command_line_are_as_many_swaps(tmp_path: Path) -> None:
    placed = asyncio.Semaphore(0)
    answered: list[str] = []
    async with lossy(tmp_path) as (stack, up, proxy):
        killer = asyncio.create_task(killed_after(up, placed, COMMANDS))
        for _ in range(COMMANDS):
            process = await asyncio.create_subprocess_exec(
                *(sys.executable, "-m", "order_engine", "submit", "market", "SOL", "USDC", "1", "--json"),
                env={"ENGINE_URL": proxy.url},
                cwd=tmp_path,
                stdout=asyncio.subprocess.PIPE,
            )
            stdout, _ = await process.communicate()
            assert process.returncode == 0
            answered.append(json.loads(stdout)["orderId"])
            placed.release()
        await killer
        assert sorted(await all_ended(proxy.url)) == sorted(answered)
        assert len({*answered}) == COMMANDS
        assert sorted(executed(stack)) == sorted(answered)


async def test_a_stream_through_lost_connections_has_every_event_once(tmp_path: Path) -> None:
    placed = asyncio.Semaphore(0)
    async with lossy(tmp_path) as (_, up, proxy):
        async with EngineClient(proxy.url) as client, EngineClient(proxy.url) as watcher:
            pages = watcher.stream()
            cursor = (await anext(pages))["cursor"]
            killer = asyncio.create_task(killed_after(up, placed, ORDERS // 2))
            following = asyncio.create_task(_until_ended(pages, ORDERS // 2))
            orders = []
            for _ in range(ORDERS // 2):
                orders.append((await client.submit(market_order()))["orderId"])
                placed.release()
            await killer
            live = await following
            past = await _until_ended(watcher.stream(cursor), ORDERS // 2)
        assert live == past
        assert {*live} == {*orders}
        assert all(seqs == [*range(1, len(seqs) + 1)] for seqs in live.values())


async def _until_ended(pages: AsyncIterator[dict[str, Any]], orders: int) -> dict[str, list[int]]:
    """Read the stream until `orders` orders are confirmed; returns each order's seqs as they came."""
    seqs: dict[str, list[int]] = {}
    ended = 0
    async for page in pages:
        for event in page["events"]:
            seqs.setdefault(event["orderId"], []).append(event["seq"])
            ended += event["status"] == "confirmed"
        if ended >= orders:
            break
    return seqs
