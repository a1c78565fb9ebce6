"""Each part of the engine is killed, frozen, cut off, slowed and started again under load: nothing is lost or wrong."""

import asyncio
import itertools
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final

import psutil
import pytest

from tests.faults.crowd import Crowd, check_streams
from tests.faults.load import check_confirmed, wait_for_postgres
from tests.faults.proxy import Proxy
from tests.faults.zygote import Zygote
from tests.servers import PostgresServer, RedisServer, postgres_server, redis_server
from tests.stack import EngineProcess, Stack, distributed_stack

LEASE_S: Final = 1
FAULT_S: Final = LEASE_S + 0.6
SLOW_S: Final = 0.1
ORDERS, STREAMS, SECONDS = 60, 20, 2.0
SETTINGS: Final = {
    "MOCK_DELAY_SCALE": "0.2",
    "LEASE_SECONDS": str(LEASE_S),
    "SWEEP_INTERVAL_MS": "200",
    "MAX_CLAIMS": "100",
    "CHAIN_RESEND_MS": "500",
    "SHUTDOWN_GRACE_MS": "500",
    "LOG_LEVEL": "info",
}
URLS: Final = {"postgres": "DATABASE_URL", "redis": "REDIS_URL", "chain": "CHAIN_URL"}


@pytest.fixture(scope="module")
def zygote() -> Iterator[Zygote]:
    with Zygote() as running:
        yield running


@pytest.fixture(scope="module")
def mortal_postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        _skip_unless_ours(server)
        yield server


@pytest.fixture(scope="module")
def mortal_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with redis_server(tmp_path_factory.mktemp("redis")) as server:
        _skip_unless_ours(server)
        yield server


def _skip_unless_ours(server: PostgresServer | RedisServer) -> None:
    if not server.owned:
        pytest.skip("the servers were given to the tests: they are not theirs to kill")


class Parts:
    """Two processes of each kind and the servers, with a proxy between each process and each server."""

    def __init__(self, stack: Stack, postgres: PostgresServer, redis: RedisServer) -> None:
        self.stack = stack
        self.postgres = postgres
        self.redis = redis
        self.processes: dict[str, list[EngineProcess]] = {"worker": [], "api": []}
        self.links: dict[tuple[str, str], list[Proxy]] = {}

    def links_of(self, victim: str) -> list[Proxy]:
        """Every connection of the first process of a kind, or every connection to a server."""
        if victim in self.processes:
            return [self.links[victim, server][0] for server in URLS]
        return [proxy for (_, server), proxies in self.links.items() if server == victim for proxy in proxies]

    def process(self, victim: str) -> EngineProcess:
        if victim == "chain":
            assert self.stack.chain is not None
            return self.stack.chain
        return self.processes[victim][0]

    def tree(self, victim: str) -> list[psutil.Process]:
        server = psutil.Process(self.postgres.pid if victim == "postgres" else self.redis.pid)
        return [server, *server.children(recursive=True)]


@asynccontextmanager
async def running(
    directory: Path, zygote: Zygote, postgres: PostgresServer, redis: RedisServer
) -> AsyncIterator[Parts]:
    url = await postgres.create_database()
    async with AsyncExitStack() as cleanup:
        cleanup.push_async_callback(postgres.drop_database, url)
        stack = cleanup.enter_context(distributed_stack(directory, url, redis.url, zygote.launch, **SETTINGS))
        parts = Parts(stack, postgres, redis)
        for role, _ in itertools.product(parts.processes, range(2)):
            settings = {}
            for server, setting in URLS.items():
                there = stack.setting(setting)
                port = there.rpartition(":")[2].partition("/")[0]
                proxy = await cleanup.enter_async_context(Proxy(int(port)))
                parts.links.setdefault((role, server), []).append(proxy)
                settings[setting] = there.replace(f":{port}", f":{proxy.port}")
            parts.processes[role].append(await asyncio.to_thread(stack.spawn, role, **settings))
        yield parts


async def kill(parts: Parts, victim: str) -> None:
    if victim in ("postgres", "redis"):
        server = parts.postgres if victim == "postgres" else parts.redis
        await asyncio.to_thread(server.kill)
        await asyncio.to_thread(server.start)
        return
    parts.process(victim).kill()
    await asyncio.sleep(FAULT_S / 2)
    parts.process(victim).start(wait=False)


async def pause(parts: Parts, victim: str) -> None:
    if victim in ("postgres", "redis"):
        frozen = parts.tree(victim)
        for process in frozen:
            process.suspend()
        await asyncio.sleep(FAULT_S)
        for process in reversed(frozen):
            process.resume()
        return
    parts.process(victim).pause()
    await asyncio.sleep(FAULT_S)
    parts.process(victim).resume()


async def partition(parts: Parts, victim: str) -> None:
    for link in parts.links_of(victim):
        link.partition()
    await asyncio.sleep(FAULT_S)
    for link in parts.links_of(victim):
        link.heal()


async def slow(parts: Parts, victim: str) -> None:
    for link in parts.links_of(victim):
        link.delay_s = SLOW_S
    await asyncio.sleep(FAULT_S)
    for link in parts.links_of(victim):
        link.heal()


async def restart(parts: Parts, victim: str) -> None:
    if victim in ("postgres", "redis"):
        server = parts.postgres if victim == "postgres" else parts.redis
        await asyncio.to_thread(server.stop)
        await asyncio.to_thread(server.start)
        return
    assert await asyncio.to_thread(parts.process(victim).terminate) < 10
    parts.process(victim).start(wait=False)


FAULTS: Final = {"kill": kill, "pause": pause, "partition": partition, "slow": slow, "restart": restart}


@pytest.mark.asyncio
@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("victim", ["worker", "api", "redis", "postgres", "chain"])
async def test_nothing_is_lost_or_wrong(
    tmp_path: Path,
    zygote: Zygote,
    mortal_postgres: PostgresServer,
    mortal_redis: RedisServer,
    victim: str,
    fault: str,
) -> None:
    async with running(tmp_path, zygote, mortal_postgres, mortal_redis) as parts, AsyncExitStack() as cleanup:
        crowd = Crowd([api.url for api in parts.processes["api"]], seed=1)
        cleanup.push_async_callback(crowd.close)
        is_over = asyncio.Event()
        is_over.set()
        placing = asyncio.create_task(crowd.place(ORDERS, STREAMS, SECONDS, is_over))
        await asyncio.sleep(SECONDS / 3)
        await FAULTS[fault](parts, victim)
        async with asyncio.timeout(60):
            await placing
            accepted = [*crowd.accepted.values()]
            histories = await wait_for_postgres(parts.stack.database_url, parts.stack.ledger, accepted)
            await crowd.until_told()
        assert not crowd.wrong
        assert len(set(accepted)) == len(histories) == ORDERS
        assert len(crowd.streams) == STREAMS
        check_streams(crowd.streams, histories)
        check_confirmed(histories)
