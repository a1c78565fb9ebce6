"""Measures the cost of recovery: a worker killed or frozen, a poison order, a worker that is told to end."""

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Final, NamedTuple

import asyncpg

from tests.faults.load import Load, wait_for_postgres
from tests.faults.zygote import Zygote
from tests.servers import PostgresServer, RedisServer
from tests.stack import EngineProcess, Stack, distributed_stack

LEASE_S: Final = 15  # The default, like the sweep.
SWEEP_S: Final = 0.5
MAX_CLAIMS: Final = 5
_POISON: Final = "0.666"
_POISON_BASE_UNITS: Final = "666000000"
_HANG_S: Final = 120.0
_HELD: Final = "select order_id, fence from orders where worker is not null"
_TOOK: Final = "select updated_at_ms - created_at_ms from orders where status = 'confirmed'"


class Servers(NamedTuple):
    """The directory and the servers of a measurement's engine."""

    directory: Path
    postgres: PostgresServer
    redis: RedisServer


class Recovery(NamedTuple):
    """Seconds from a worker's end until another worker has each of its orders."""

    orders: int
    p50_s: float
    p99_s: float


class Poison(NamedTuple):
    """How many workers a poison order killed before it was parked, and how long the other orders took."""

    killed: int
    others: int
    p50_s: float
    slowest_s: float


class Stop(NamedTuple):
    """How long a worker took to end under load, and the next one to take up the orders that it gave back."""

    ended_s: float
    released: int
    taken_up_s: float


async def recovery(servers: Servers, *, is_killed: bool, rounds: int) -> Recovery:
    """Kill or freeze the worker that holds the orders, while another worker runs."""
    waits: list[float] = []
    async with _engine(servers, MOCK_DELAY_SCALE="3") as (stack, connection):
        api = await _spawn(stack, "api")
        load = Load(api.url)
        for _ in range(rounds):
            worker = await _spawn(stack, "worker")
            await load.post(100)
            await asyncio.sleep(0.5)
            await _spawn(stack, "worker")
            held = dict(await connection.fetch(_HELD))
            worker.kill() if is_killed else worker.pause()
            waits += await _until_claimed_again(connection, held)
            if not is_killed:
                worker.resume()
            await wait_for_postgres(stack.database_url, stack.ledger, load.accepted, _HANG_S)
            for process in stack.running("worker"):
                process.kill()
    return Recovery(len(waits), statistics.median(waits), _p99(waits))


async def poison(servers: Servers) -> Poison:
    """Place an order that kills each worker that asks a venue for it, among others; both workers are restarted."""
    async with _engine(servers) as (stack, connection):
        api = await _spawn(stack, "api")
        workers = [await _spawn(stack, "worker", POISON=_POISON_BASE_UNITS) for _ in range(2)]
        load, poisoned = Load(api.url), Load(api.url, amount=_POISON)
        await load.post(50)
        reviving = asyncio.create_task(_start_again(workers))
        posting = asyncio.gather(poisoned.post(1), load.post(50))
        await posting
        for _ in range(20):
            await load.post(10)
            await asyncio.sleep(0.3)
        histories = await wait_for_postgres(
            stack.database_url, stack.ledger, [*load.accepted, *poisoned.accepted], _HANG_S
        )
        reviving.cancel()
        took = [row[0] / 1000 for row in await connection.fetch(_TOOK)]
        parked = await connection.fetch("select order_id, reason_code from orders where status <> 'confirmed'")
        assert [(str(order_id), code) for order_id, code in parked] == [(poisoned.accepted[0], "parked")], parked
        assert [status for _, status in histories[poisoned.accepted[0]]] == ["pending", "failed"]
        return Poison(sum(it.starts for it in workers) - 2, len(took), statistics.median(took), max(took))


async def stop(servers: Servers) -> Stop:
    """Tell a worker to end in the middle of 500 orders that take longer than its grace period."""
    async with _engine(servers, MOCK_DELAY_SCALE="4", WORKER_CONCURRENCY="1000") as (stack, connection):
        api = await _spawn(stack, "api")
        worker = await _spawn(stack, "worker")
        load = Load(api.url)
        await load.post(500)
        await asyncio.sleep(0.5)
        ending = asyncio.to_thread(worker.terminate)
        # Start the next worker while the first one ends, as a rolling update does.
        other = asyncio.create_task(_spawn(stack, "worker"))
        ended_s = await ending
        ended_at = time.monotonic()
        await other
        released = await connection.fetchval("select count(*) from orders where status = 'submitted'")
        async with asyncio.timeout(_HANG_S):
            while await connection.fetchval(
                "select count(*) from orders where due_at_ms is not null and status = 'submitted'"
            ):
                await asyncio.sleep(0.02)
        taken_up_s = time.monotonic() - ended_at
        await wait_for_postgres(stack.database_url, stack.ledger, load.accepted, _HANG_S)
        return Stop(ended_s, released, taken_up_s)


@asynccontextmanager
async def _engine(servers: Servers, **settings: str) -> AsyncIterator[tuple[Stack, asyncpg.Connection]]:
    defaults = {"LEASE_SECONDS": str(LEASE_S), "SWEEP_INTERVAL_MS": str(int(SWEEP_S * 1000)), **settings}
    url = await servers.postgres.create_database()
    servers.directory.mkdir(parents=True)
    with (
        Zygote() as zygote,
        distributed_stack(servers.directory, url, servers.redis.url, zygote.launch, **defaults) as stack,
    ):
        connection = await asyncpg.connect(url)
        try:
            yield stack, connection
        finally:
            await connection.close()


async def _spawn(stack: Stack, role: str, **settings: str) -> EngineProcess:
    return await asyncio.to_thread(stack.spawn, role, **settings)


async def _start_again(workers: Sequence[EngineProcess]) -> None:
    """Restart each worker that has ended, as a supervisor does."""
    while True:
        for worker in workers:
            if worker.process is not None and worker.process.poll() is not None:
                worker.start(wait=False)
        await asyncio.sleep(0.05)


async def _until_claimed_again(connection: asyncpg.Connection, held: dict[object, int]) -> list[float]:
    """Wait until each order has a higher fence; returns how many seconds each took."""
    began = time.monotonic()
    waits: list[float] = []
    left = dict(held)
    async with asyncio.timeout(_HANG_S):
        while left:
            for order_id, fence in await connection.fetch("select order_id, fence from orders"):
                if order_id in left and fence > left[order_id]:
                    del left[order_id]
                    waits.append(time.monotonic() - began)
            await asyncio.sleep(0.05)
    return waits


def _p99(values: Sequence[float]) -> float:
    return sorted(values)[max(0, len(values) * 99 // 100 - 1)]
