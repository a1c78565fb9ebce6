"""Redis goes away and comes back: orders are late by seconds, never lost, and no engine process needs a restart."""

import asyncio
import json
from contextlib import AbstractContextManager
from pathlib import Path

import httpx2
import pytest
from websockets.asyncio.client import connect

from tests.faults.load import Load, wait_for_postgres
from tests.programs import machine_redis, wheel_redis
from tests.servers import RedisServer, redis_server
from tests.stack import distributed_stack, market_order


def private_redis(directory: Path) -> AbstractContextManager[RedisServer]:
    """A Redis to be killed: never the one that TEST_REDIS_URL gives."""
    return redis_server(directory, program=machine_redis() or wheel_redis())


@pytest.mark.asyncio
async def test_every_order_accepted_while_redis_is_killed_ends(tmp_path: Path, database_url: str) -> None:
    with (
        private_redis(tmp_path) as redis,
        distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="0") as stack,
    ):
        api, _ = stack.spawn("api"), stack.spawn("worker")
        load = Load(api.url)

        def interfere(answered: int) -> None:
            if answered == 300:
                redis.kill()
            elif answered == 1500:
                redis.start()

        await load.post(2000, interfere)
        assert not load.refusals
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        assert httpx2.get(f"{api.url}/ready", trust_env=False).json()["status"] == "ready"


@pytest.mark.asyncio
async def test_streams_go_on_from_the_log_without_redis(tmp_path: Path, database_url: str) -> None:
    with (
        private_redis(tmp_path) as redis,
        distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="0.5") as stack,
    ):
        api, _ = stack.spawn("api"), stack.spawn("worker")

        opened = asyncio.Semaphore(0)

        async def follow() -> tuple[list[int], int | None]:
            async with httpx2.AsyncClient(base_url=api.url, trust_env=False, timeout=30) as client:
                order_id = (await client.post("/v1/orders", json=market_order())).json()["orderId"]
            address = f"{api.url.replace('http', 'ws')}/v1/orders/{order_id}/stream"
            async with connect(address, proxy=None) as websocket:
                opened.release()
                seqs = [json.loads(text)["seq"] async for text in websocket]
                return seqs, websocket.close_code

        following = [asyncio.create_task(follow()) for _ in range(20)]
        for _ in following:
            await asyncio.wait_for(opened.acquire(), 30)
        redis.kill()
        following += [asyncio.create_task(follow()) for _ in range(20)]
        lives = await asyncio.wait_for(asyncio.gather(*following), 60)
        assert lives == [([1, 2, 3, 4, 5], 1000)] * 40
        assert httpx2.get(f"{api.url}/ready", trust_env=False).json()["status"] == "degraded"
        redis.start()
        assert await asyncio.wait_for(follow(), 30) == ([1, 2, 3, 4, 5], 1000)
