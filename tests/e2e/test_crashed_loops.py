"""A database that answers nonsense for a while: the worker's loops outlive it."""

import asyncio
from pathlib import Path

import asyncpg
import httpx2

from tests.e2e.conversation import ended, place, reached, wait_for
from tests.servers import PostgresServer, RedisServer
from tests.stack import distributed_stack

# An error that only a bug causes.
NONSENSE = """
create function nonsense() returns trigger language plpgsql as $$ begin raise exception 'nonsense'; end $$;
create trigger nonsense before update on orders for each statement execute function nonsense();
"""


def _execute(database_url: str, statement: str) -> None:
    async def execute() -> None:
        connection = await asyncpg.connect(database_url)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()

    asyncio.run(execute())


def test_a_worker_whose_table_refused_every_change_for_a_while_goes_on_claiming_and_renewing(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    database_url = asyncio.run(postgres.create_database())
    # A lease is renewed three times in its length, and an order is submitted for longer than that.
    settings = {"MOCK_DELAY_SCALE": "4", "LEASE_SECONDS": "1", "LOG_FORMAT": "json"}
    with (
        distributed_stack(tmp_path, database_url, redis.url, **settings) as stack,
        httpx2.Client(base_url=stack.spawn("api").url, timeout=60.0, trust_env=False) as http,
    ):
        worker = stack.spawn("worker")
        running = place(http)["orderId"]
        reached(http, running, "submitted")
        _execute(database_url, NONSENSE)
        for loop in ("claim", "renew"):
            wait_for(worker.log_text, lambda log, loop=loop: _has_crashed(log, loop))
        _execute(database_url, "drop trigger nonsense on orders")
        new = place(http)["orderId"]
        assert ended(http, running)["status"] == "confirmed"
        assert ended(http, new)["status"] == "confirmed"
    asyncio.run(postgres.drop_database(database_url))


def _has_crashed(log: str, loop: str) -> bool:
    return any("loop crashed" in line and f'"{loop}"' in line for line in log.splitlines())
