"""After an older backup is restored: orders that it holds as waiting may have been executed since."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx2

from tests.e2e.conversation import ended, order_of, place
from tests.faults.load import swaps_in
from tests.stack import embedded_stack

FAILED = 4
FILE = "order-engine.sqlite3"


def reconcile(directory: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {"PATH": os.environ["PATH"], "DATA_DIR": str(directory / "data")}
    command = [sys.executable, "-m", "order_engine", "reconcile", *words]
    return subprocess.run(command, cwd=directory, env=environment, capture_output=True, text=True, check=False)


def save(data: Path, backup: Path) -> None:
    """Make a backup as SQLite does it, also while the engine runs."""
    with sqlite3.connect(data / FILE) as source, sqlite3.connect(backup) as target:
        source.backup(target)
    source.close()
    target.close()


def restore(backup: Path, data: Path) -> None:
    for suffix in ("-wal", "-shm"):
        (data / f"{FILE}{suffix}").unlink(missing_ok=True)
    shutil.copy(backup, data / FILE)


def test_orders_that_were_executed_after_the_backup_are_listed_before_anything_is_signed(tmp_path: Path) -> None:
    data, backup = tmp_path / "data", tmp_path / "backup.sqlite3"
    with embedded_stack(tmp_path, MOCK_DELAY_SCALE="2") as stack:
        up = stack.spawn("up")
        with httpx2.Client(base_url=up.url, trust_env=False, timeout=30.0) as http:
            order_ids = [place(http)["orderId"] for _ in range(3)]
            save(data, backup)  # Quotes take 0.3 s: nothing is signed yet.
            for order_id in order_ids:
                assert ended(http, order_id)["status"] == "confirmed"
        up.terminate()
        assert reconcile(tmp_path).returncode == 0
        restore(backup, data)

        listed = reconcile(tmp_path, "--json")
        assert listed.returncode == FAILED, listed.stderr
        assert {json.loads(line)["orderId"] for line in listed.stdout.splitlines()} == {*order_ids}
        assert reconcile(tmp_path, "--cancel").returncode == 0
        assert reconcile(tmp_path).stdout == ""
        up.start()
        with httpx2.Client(base_url=up.url, trust_env=False, timeout=30.0) as http:
            assert {order_of(http, order_id)["status"] for order_id in order_ids} == {"cancelled"}
            later = place(http)["orderId"]
            assert ended(http, later)["status"] == "confirmed"
    assert sorted(memo for memo, _ in swaps_in(data / "paper-chain.sqlite3")) == sorted([*order_ids, later])
