"""The command line while its engine, or the engine's database, is away for a while."""

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conversation import HANG_S, is_gapless, place, problem_of
from tests.e2e.test_cli import OK, REJECTED, SUBMIT, UNKNOWN, UNREACHABLE, CommandLine, refused
from tests.servers import PostgresServer, RedisServer, machine_postgres, postgres_server, wheel_postgres
from tests.stack import EngineProcess, Stack, distributed_stack, market_order

Apart = tuple[Stack, EngineProcess, PostgresServer]


@pytest.fixture
def apart(tmp_path: Path, redis: RedisServer) -> Iterator[Apart]:
    """An API without a worker, so that orders wait, on a PostgreSQL that may be killed."""
    with postgres_server(tmp_path / "postgres", binaries=machine_postgres() or wheel_postgres()) as postgres:
        database_url = asyncio.run(postgres.create_database())
        with distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="0") as stack:
            yield stack, stack.spawn("api"), postgres


def test_a_watch_says_that_it_reconnects_and_misses_nothing(apart: Apart, tmp_path: Path) -> None:
    stack, api, _ = apart
    command = CommandLine(tmp_path, ENGINE_URL=api.url)
    with httpx2.Client(base_url=api.url, timeout=HANG_S, trust_env=False) as http:
        order_id = place(http)["orderId"]
    watch = command.start("watch", order_id, "--json", "--timeout", str(HANG_S))
    try:
        assert watch.stdout is not None
        assert watch.stderr is not None
        first = watch.stdout.readline()
        api.terminate()
        assert "Reconnecting after seq" in watch.stderr.readline()
        api.start()
        stack.spawn("worker")
        rest, _ = watch.communicate(timeout=HANG_S)
    finally:
        watch.kill()
        watch.communicate()
    events = [json.loads(line) for line in (first + rest).splitlines()]
    assert is_gapless(events)
    assert (watch.returncode, events[-1]["status"]) == (OK, "confirmed")


def test_a_database_that_is_away_is_a_6_for_commands_and_a_pause_for_a_watch(apart: Apart, tmp_path: Path) -> None:
    stack, api, postgres = apart
    command = CommandLine(tmp_path, ENGINE_URL=api.url)
    with httpx2.Client(base_url=api.url, timeout=HANG_S, trust_env=False) as http:
        order_id = place(http)["orderId"]
        postgres.kill()
        assert "Idempotency-Key" not in problem_of(http.get(f"/v1/orders/{order_id}"), 503)["detail"]
        assert "Idempotency-Key" in problem_of(http.post("/v1/orders", json=market_order()), 503)["detail"]
    listed = command("list", "--retry-for", "0")
    refused(listed, UNREACHABLE, api.url, "PostgreSQL does not answer")
    assert listed.stderr.count("\n") == 1
    refused(
        command(*SUBMIT, "1", "--retry-for", "0.5", "--idempotency-key", "kept"),
        UNKNOWN,
        "PostgreSQL does not answer",
        "may have been placed; repeat with --idempotency-key kept",
    )
    watch = command.start("watch", order_id, "--timeout", str(HANG_S))
    try:
        assert watch.stderr is not None
        assert "PostgreSQL does not answer" in watch.stderr.readline()
        postgres.start()
        stack.spawn("worker")
        stdout, _ = watch.communicate(timeout=HANG_S)
    finally:
        watch.kill()
        watch.communicate()
    assert (watch.returncode, stdout.splitlines()[-1].split()[2]) == (OK, "confirmed")
    refused(command("watch", "nobody"), REJECTED, "no order")
