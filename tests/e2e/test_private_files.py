"""The files of an engine hold every order: only its user can open them, with any umask."""

import os
from pathlib import Path

import httpx2

from tests.e2e.conversation import ended, place
from tests.stack import embedded_stack


def test_files_are_their_users_alone_whatever_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        with embedded_stack(tmp_path, MOCK_DELAY_SCALE="0") as stack:
            up = stack.spawn("up")
            with httpx2.Client(base_url=up.url, trust_env=False, timeout=30.0) as http:
                assert ended(http, place(http)["orderId"])["status"] == "confirmed"
            data = tmp_path / "data"
            assert data.stat().st_mode & 0o777 == 0o700
            modes = {path.name: oct(path.stat().st_mode & 0o777) for path in data.iterdir()}
            assert len(modes) >= 6
            assert {*modes.values()} == {oct(0o600)}, modes
            # Files of an earlier version are protected too; an existing directory keeps its mode.
            up.terminate()
            data.chmod(0o755)
            (data / "order-engine.sqlite3").chmod(0o644)
            up.start()
            assert (data / "order-engine.sqlite3").stat().st_mode & 0o777 == 0o600
            assert data.stat().st_mode & 0o777 == 0o755
    finally:
        os.umask(before)
