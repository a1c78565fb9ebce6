"""Clients that misuse the server, all at once: the others are served, and memory stays as it was."""

import asyncio

import psutil
import pytest

from tests.e2e.conftest import Engine, Engines
from tests.e2e.conversation import ended, events_of, is_gapless, place
from tests.hostile.attack import KINDS, attack

pytestmark = pytest.mark.asyncio

ATTACK_S = 6.0
SOCKETS = {"deaf_websocket": 50, "deaf_sse": 50, "pipeline": 20}
MAX_GROWTH_BYTES = 64 * 1024 * 1024


@pytest.fixture
def engine(engines: Engines, shape: str) -> Engine:
    return engines.get(shape, MOCK_DELAY_SCALE="0", LOG_FORMAT="json")


async def test_hostile_clients_neither_stop_the_others_nor_fill_the_memory(engine: Engine) -> None:
    server = engine.processes[0]
    with engine.client() as client:
        for order in [place(client) for _ in range(200)]:
            ended(client, order["orderId"])
        before = psutil.Process(server.pid).memory_info().rss
        port = int(engine.url.rpartition(":")[2])
        async with asyncio.TaskGroup() as group:
            attackers = [group.create_task(attack(kind, port, SOCKETS.get(kind, 8))) for kind in KINDS]
            until = asyncio.get_running_loop().time() + ATTACK_S
            orders, growth = [], 0
            while asyncio.get_running_loop().time() < until:
                orders.append(await asyncio.to_thread(place, client))
                growth = max(growth, psutil.Process(server.pid).memory_info().rss - before)
            for attacker in attackers:
                attacker.cancel()
        for order in orders:
            assert ended(client, order["orderId"])["status"] == "confirmed"
            assert is_gapless(events_of(client, order["orderId"]))
    assert growth < MAX_GROWTH_BYTES
    log = server.log_text()
    assert "Traceback" not in log
    assert log.count("clients at fault") == 1
    assert len(log.splitlines()) < 10
