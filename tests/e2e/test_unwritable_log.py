"""A log that cannot be written stops nothing: orders are taken and confirmed, and a signal ends the process."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx2
import pytest

from tests.e2e.conversation import ended, place
from tests.servers import free_port

HANG_S = 30.0


@contextmanager
def stderr_that(way: str) -> Iterator[int | None]:
    """A file descriptor for stderr that takes nothing, or None for a process that has none."""
    if way == "is closed":
        yield None
        return
    if way == "is on a full disk":
        full = os.open("/dev/full", os.O_WRONLY)
        yield full
        os.close(full)
        return
    reader, writer = os.pipe()
    if way == "has no reader any more":
        os.close(reader)
        yield writer
    else:  # Its reader reads nothing, and the pipe is full.
        os.set_blocking(writer, False)
        while True:
            try:
                os.write(writer, b"x" * 4096)
            except BlockingIOError:
                break
        os.set_blocking(writer, True)
        yield writer
        os.close(reader)
    os.close(writer)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="only Linux has a disk that is always full")
@pytest.mark.parametrize("way", ["is closed", "is on a full disk", "has no reader any more", "is never read"])
def test_a_log_that_cannot_be_written_stops_nothing(tmp_path: Path, way: str) -> None:
    port = free_port()
    settings = {"PORT": str(port), "DATA_DIR": str(tmp_path), "MOCK_DELAY_SCALE": "0", "LOG_LEVEL": "debug"}
    close = "exec 2>&-; " if way == "is closed" else ""
    command = ["/bin/sh", "-c", f'{close}exec "$0" -m order_engine up', sys.executable]
    with stderr_that(way) as stderr:
        process = subprocess.Popen(
            command, cwd=tmp_path, env={"PATH": os.environ["PATH"], **settings}, stdout=stderr, stderr=stderr
        )
        try:
            with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=HANG_S) as http:
                deadline = time.monotonic() + HANG_S
                while not _answers(http) and time.monotonic() < deadline:
                    assert process.poll() is None
                    time.sleep(0.05)
                for _ in range(20):
                    http.get("/v1/orders?limit=x")
                assert ended(http, place(http)["orderId"])["status"] == "confirmed"
            process.send_signal(signal.SIGTERM)
            assert process.wait(HANG_S) == 0
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _answers(http: httpx2.Client) -> bool:
    try:
        return http.get("/health").is_success
    except httpx2.TransportError:
        return False


@pytest.mark.parametrize("delay_s", [0.0, 0.1, 0.25, 0.5, 1.0])
def test_a_signal_in_the_first_second_ends_the_process(tmp_path: Path, delay_s: float) -> None:
    environment = {"PATH": os.environ["PATH"], "PORT": "0", "DATA_DIR": str(tmp_path)}
    process = subprocess.Popen([sys.executable, "-m", "order_engine", "up"], cwd=tmp_path, env=environment)
    try:
        time.sleep(delay_s)
        process.send_signal(signal.SIGTERM)
        # It ends by itself, by the signal, or by the handler that is active while the program is loaded.
        assert process.wait(HANG_S) in (0, -signal.SIGTERM, 128 + signal.SIGTERM)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
