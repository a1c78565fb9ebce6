"""Clients that misuse the server, all at once: the others are served, and memory stays as it was."""

import time

import psutil
import pytest

from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import ended, events_of, is_gapless, place
from tests.hostile.attack import ALL_AT_ONCE, attacking

ATTACK_S = 6.0
MAX_GROWTH_BYTES = 64 * 1024 * 1024


@pytest.fixture
def engine(engines: Engines, shape: str) -> Engine:
    return engines.get(shape, MOCK_DELAY_SCALE="0", LOG_FORMAT="json")


def test_hostile_clients_neither_stop_the_others_nor_fill_the_memory(engine: Engine) -> None:
    server = engine.processes[0]
    with engine.client() as client:
        for order in [place(client) for _ in range(200)]:
            ended(client, order["orderId"])
        before = psutil.Process(server.pid).memory_info().rss
        port = int(engine.url.rpartition(":")[2])
        orders, growth = [], 0
        with attacking(ALL_AT_ONCE, port):
            until = time.monotonic() + ATTACK_S
            while time.monotonic() < until or "clients at fault" not in server.log_text():
                orders.append(place(client))
                growth = max(growth, psutil.Process(server.pid).memory_info().rss - before)
        for order in orders:
            assert ended(client, order["orderId"])["status"] == "confirmed"
            assert is_gapless(events_of(client, order["orderId"]))
    assert growth < MAX_GROWTH_BYTES
    log = server.log_text()
    assert "Traceback" not in log
    assert len(log.splitlines()) < 20  # A line a minute, and a few more.
