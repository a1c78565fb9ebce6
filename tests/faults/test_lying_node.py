"""A node that tells false numbers: it makes orders late, and none executes twice or fails."""

import asyncio
import itertools
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from tests.faults.gateway import Gateway
from tests.faults.load import Load, check_confirmed, swaps_in, wait_for_postgres, wait_until_in_doubt
from tests.servers import RedisServer
from tests.stack import distributed_stack

HANG_S = 150.0
ORDERS = 5


# The false members of the answer to getEpochInfo, one lie after the other.
LIES: list[Callable[[dict[str, Any]], dict[str, int]]] = [
    lambda told: {"blockHeight": told["absoluteSlot"]},
    lambda told: {"blockHeight": told["blockHeight"] + 16},
    lambda told: {"blockHeight": told["blockHeight"] + 5_000},
    lambda told: {name: told[name] + 400 for name in ("blockHeight", "absoluteSlot")},
    lambda _: {"blockHeight": 1_500},
]


@pytest.mark.asyncio
async def test_false_heights_make_no_order_execute_twice(tmp_path: Path, database_url: str, redis: RedisServer) -> None:
    """Each swap lands in one of its last valid blocks: a false expiry would lead to a second swap."""
    lies = itertools.cycle(LIES)

    def lie(method: str, result: Any) -> Any:
        return result | next(lies)(result) if method == "getEpochInfo" else result

    with distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="0", CHAIN_FAULTS="late=1") as stack:
        async with Gateway(stack.setting("CHAIN_URL")) as gateway:
            api, _ = stack.spawn("api"), stack.spawn("worker", CHAIN_URL=gateway.url)
            load = Load(api.url)
            await load.post(ORDERS)
            await wait_until_in_doubt(api.url, ORDERS)
            gateway.change = lie
            # Every swap is on the ledger from the moment that it was sent; it lands 60 s later.
            async with asyncio.timeout(HANG_S):
                while len(swaps_in(stack.ledger)) < ORDERS:
                    await asyncio.sleep(0.1)
                connection = await asyncpg.connect(database_url)
                while await connection.fetchval("select count(*) from orders where status = 'submitted'"):
                    await asyncio.sleep(0.5)
                    retried = await connection.fetchval("select count(*) from order_events where status = 'retrying'")
                    assert not retried
                await connection.close()
            check_confirmed(await wait_for_postgres(database_url, stack.ledger, load.accepted))
            assert gateway.changed > len(LIES)
            assert Counter(memo for memo, _ in swaps_in(stack.ledger)) == Counter(load.accepted)
