"""`order-engine status`: whether orders can be taken and ended."""

import asyncio
import json
import os
import subprocess
import sys
from pathlib import Path

from tests.e2e.conversation import wait_for
from tests.servers import PostgresServer, RedisServer
from tests.stack import distributed_stack


def test_status_tells_the_verdict_its_reasons_and_each_part(
    tmp_path: Path, postgres: PostgresServer, redis: RedisServer
) -> None:
    database_url = asyncio.run(postgres.create_database())
    with distributed_stack(tmp_path, database_url, redis.url, MOCK_DELAY_SCALE="0") as stack:
        api = stack.spawn("api")

        def status(*words: str) -> subprocess.CompletedProcess[str]:
            command = [sys.executable, "-m", "order_engine", "status", *words]
            environment = {"PATH": os.environ["PATH"], "ENGINE_URL": api.url}
            return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

        alone = wait_for(status, lambda done: done.returncode != 6)
        assert alone.returncode == 4
        assert alone.stdout.splitlines()[0] == "degraded"
        assert "because    no worker is running" in alone.stdout
        stack.spawn("worker")
        well = wait_for(status, lambda done: done.returncode == 0)
        assert well.stdout.splitlines()[0] == "ready"
        assert "workers    1 alive" in well.stdout
        assert json.loads(status("--json").stdout)["reasons"] == []
    asyncio.run(postgres.drop_database(database_url))
