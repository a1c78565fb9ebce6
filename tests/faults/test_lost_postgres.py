"""PostgreSQL is killed and comes back: no accepted order is lost, and no engine process needs a restart."""

import time
from pathlib import Path

import httpx2
import pytest

from tests.faults.load import Load, wait_for_postgres
from tests.programs import machine_postgres, wheel_postgres
from tests.servers import RedisServer, postgres_server
from tests.stack import distributed_stack, market_order

HANG_S = 30.0


@pytest.mark.asyncio
async def test_every_order_accepted_around_a_kill_of_postgres_ends(tmp_path: Path, redis: RedisServer) -> None:
    with postgres_server(tmp_path, binaries=machine_postgres() or wheel_postgres()) as postgres:
        url = await postgres.create_database()
        settings = {"MOCK_DELAY_SCALE": "0.3", "LEASE_SECONDS": "3"}
        with distributed_stack(tmp_path, url, redis.url, **settings) as stack:
            api, _, _ = stack.spawn("api"), stack.spawn("worker"), stack.spawn("worker")
            load = Load(api.url)
            await load.post(600, lambda answered: postgres.kill() if answered == 300 else None)
            assert set(load.refusals) == {"503"}
            refused = httpx2.post(f"{api.url}/v1/orders", json=market_order(), trust_env=False, timeout=HANG_S)
            assert (refused.status_code, refused.json()["retryable"]) == (503, True)
            assert httpx2.get(f"{api.url}/ready", trust_env=False, timeout=HANG_S).status_code == 503
            postgres.start()
            deadline = time.monotonic() + HANG_S
            while httpx2.get(f"{api.url}/ready", trust_env=False, timeout=HANG_S).status_code != 200:
                assert time.monotonic() < deadline
            await load.post(100)
            await wait_for_postgres(url, stack.ledger, load.accepted)
            assert len(load.accepted) > 350
