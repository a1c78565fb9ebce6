"""The chain goes away, lies and comes back: an order in doubt stays so until it is proven, and is never failed."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import httpx2
import pytest

from tests.faults.load import Load, wait_for_postgres, wait_for_sqlite, wait_until_in_doubt
from tests.servers import RedisServer
from tests.stack import Stack, distributed_stack, embedded_stack

HANG_S = 60.0
LIES = "drop=0.1,duplicate=0.3,fork=0.1,lag=0.2,lost_reply=0.05,error=0.1,rate_limit=0.1"


def attempts_in_doubt(url: str, directory: Path) -> tuple[list[dict[str, Any]], str]:
    """Return the documents that the operator's command prints, and its stderr."""
    command = [sys.executable, "-m", "order_engine", "attempts", "--in-doubt", "--json"]
    environment = {"PATH": os.environ["PATH"], "ENGINE_URL": url}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=directory)
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def break_chain(stack: Stack, way: str) -> None:
    assert stack.chain is not None
    stack.chain.kill() if way == "kill" else stack.chain.pause()


@pytest.mark.asyncio
@pytest.mark.parametrize("way", ["kill", "pause"])
async def test_what_was_signed_when_the_chain_went_away_is_in_doubt_until_it_is_back(
    tmp_path: Path, database_url: str, redis: RedisServer, way: str
) -> None:
    # A delay long enough that everything is signed and nothing has landed when the chain goes away.
    with distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="3") as stack:
        api, _ = stack.spawn("api"), stack.spawn("worker")
        load = Load(api.url)
        await load.post(40)
        await wait_until_in_doubt(api.url, 40)
        break_chain(stack, way)

        told, said = await asyncio.to_thread(attempts_in_doubt, api.url, tmp_path)
        assert {it["orderId"] for it in told} == set(load.accepted)
        assert {it["blocksToExpiry"] for it in told} == {None}
        assert "the chain did not answer just now" in said
        order = httpx2.get(f"{api.url}/v1/orders/{load.accepted[0]}", trust_env=False).json()
        assert (order["status"], order["inDoubt"]) == ("submitted", True)

        assert stack.chain is not None
        stack.chain.start() if way == "kill" else stack.chain.resume()
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        told, said = await asyncio.to_thread(attempts_in_doubt, api.url, tmp_path)
        assert (told, "0 attempts in doubt" in said) == ([], True)
        order = httpx2.get(f"{api.url}/v1/orders/{load.accepted[0]}", trust_env=False).json()
        [attempt] = order["attempts"]
        assert (attempt["outcome"], attempt["evidence"]["amountOut"] is not None) == ("landed", True)
        assert attempt["evidence"]["contextSlot"] >= attempt["evidence"]["finalizedSlot"]


@pytest.mark.asyncio
async def test_the_blocks_to_expiry_are_counted_while_the_chain_answers(
    tmp_path: Path, database_url: str, redis: RedisServer
) -> None:
    with distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="3") as stack:
        api, _ = stack.spawn("api"), stack.spawn("worker")
        load = Load(api.url)
        await load.post(1)
        await wait_until_in_doubt(api.url, 1)
        [told], _ = await asyncio.to_thread(attempts_in_doubt, api.url, tmp_path)
        # A blockhash expires 150 blocks after a confirmed block; the finalized height is about 28 blocks behind it.
        assert 150 < told["blocksToExpiry"] < 190


@pytest.mark.asyncio
async def test_a_chain_that_lies_all_the_time_makes_orders_late_and_never_wrong(tmp_path: Path) -> None:
    settings = {"MOCK_DELAY_SCALE": "0.2", "CHAIN_FAULTS": LIES, "CHAIN_RESEND_MS": "500", "WORKER_CONCURRENCY": "500"}
    with embedded_stack(tmp_path, **settings) as stack:
        up = stack.spawn("up")
        load = Load(up.url)
        await load.post(300)
        assert len(load.accepted) == 300
        await wait_for_sqlite(tmp_path / "data", load.accepted, timeout_s=160)
