"""Processes that die or are told to end in the middle of the work."""

from pathlib import Path

import pytest

from tests.faults.load import Load, wait_for_postgres, wait_for_sqlite, wait_until_in_doubt
from tests.servers import RedisServer
from tests.stack import distributed_stack, embedded_stack

QUICK = {"MOCK_DELAY_SCALE": "0.3", "LEASE_SECONDS": "2", "WORKER_CONCURRENCY": "200"}


@pytest.mark.asyncio
async def test_an_embedded_engine_killed_in_the_middle_finishes_every_order_after_a_restart(tmp_path: Path) -> None:
    with embedded_stack(tmp_path, **QUICK) as stack:
        up = stack.spawn("up")
        load = Load(up.url)
        await load.post(500, lambda answered: up.kill() if answered == 350 and up.process.poll() is None else None)
        up.start()
        await load.post(50)
        assert len(load.accepted) >= 400
        await wait_for_sqlite(tmp_path / "data", load.accepted)


@pytest.mark.asyncio
async def test_the_orders_of_a_killed_worker_go_on_in_another_without_a_second_swap(
    tmp_path: Path, database_url: str, redis: RedisServer
) -> None:
    with distributed_stack(tmp_path, database_url, redis.url, **QUICK) as stack:
        api, first, second = stack.spawn("api"), stack.spawn("worker"), stack.spawn("worker")
        load = Load(api.url)
        for victim in (first, second, first):
            await load.post(200, lambda answered, it=victim: it.kill() if answered % 200 == 120 else None)
            victim.start()
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        assert len(load.accepted) == 600


@pytest.mark.asyncio
async def test_a_worker_told_to_end_gives_back_what_it_cannot_finish(
    tmp_path: Path, database_url: str, redis: RedisServer
) -> None:
    settings = {**QUICK, "MOCK_DELAY_SCALE": "4", "SHUTDOWN_GRACE_MS": "1000", "LEASE_SECONDS": "60"}
    with distributed_stack(tmp_path, database_url, redis.url, **settings) as stack:
        api, worker = stack.spawn("api"), stack.spawn("worker")
        load = Load(api.url)
        await load.post(100)
        await wait_until_in_doubt(api.url, 100)
        assert worker.terminate() < 10
        assert worker.process is not None
        assert worker.process.returncode == 0
        assert "orders released" in worker.log_text()
        stack.spawn("worker")
        # The leases of 60 s are longer than this wait: an order that was not given back would not end in time.
        await wait_for_postgres(database_url, stack.ledger, load.accepted, timeout_s=40)


@pytest.mark.asyncio
async def test_an_embedded_engine_told_to_end_ends_and_goes_on_later(tmp_path: Path) -> None:
    with embedded_stack(tmp_path, **{**QUICK, "MOCK_DELAY_SCALE": "4", "SHUTDOWN_GRACE_MS": "500"}) as stack:
        up = stack.spawn("up")
        load = Load(up.url)
        await load.post(60)
        assert len(load.accepted) == 60
        assert up.terminate() < 10
        assert up.process is not None
        assert up.process.returncode == 0
        up.start()
        await wait_for_sqlite(tmp_path / "data", load.accepted)


@pytest.mark.asyncio
async def test_a_paused_worker_that_lost_its_lease_changes_nothing(
    tmp_path: Path, database_url: str, redis: RedisServer
) -> None:
    with distributed_stack(tmp_path, database_url, redis.url, **QUICK) as stack:
        api, paused = stack.spawn("api"), stack.spawn("worker")
        load = Load(api.url)
        await load.post(100)
        paused.pause()
        other = stack.spawn("worker")
        await load.post(100)
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        paused.resume()
        await load.post(50)
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        assert other.process is not None
        assert paused.process is not None
        assert (other.process.poll(), paused.process.poll()) == (None, None)


@pytest.mark.asyncio
async def test_many_orders_at_once_end_with_lawful_histories_and_no_order_runs_twice(
    tmp_path: Path, database_url: str, redis: RedisServer
) -> None:
    settings = {
        "MOCK_DELAY_SCALE": "0.3",
        "WORKER_CONCURRENCY": "1000",
        "MOCK_FAIL_RATE": "0.3",
        "RETRY_BACKOFF_MS": "50",
    }
    with distributed_stack(tmp_path, database_url, redis.url, **settings) as stack:
        api, _, _ = stack.spawn("api"), stack.spawn("worker"), stack.spawn("worker")
        load = Load(api.url)
        await load.post(1000)
        await wait_for_postgres(database_url, stack.ledger, load.accepted)
        assert len(load.accepted) == 1000
