"""Every part that works as long as its process keeps the contract of Service."""

import ast
import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from starlette.types import Receive, Scope, Send

import order_engine
from order_engine.api.connections import HttpServer, tell_faults
from order_engine.api.guard import LingeringEnd
from order_engine.api.limits import Limits
from order_engine.bus.redis import RedisBus
from order_engine.clock import SystemClock
from order_engine.counters import Counters, Faults
from order_engine.engine.doubt_monitor import DoubtMonitor
from order_engine.engine.retention import delete_ended
from order_engine.serve import listen
from order_engine.service import Repeated, Service, lasting
from order_engine.settings import Settings
from order_engine.wiring import Engine, build_health, build_worker, open_engine
from tests.contracts.buses import new_identity
from tests.contracts.waiting import PATIENCE_S
from tests.servers import RedisServer


class World:
    """The parts that services are made of."""

    def __init__(self, engine: Engine, redis_url: Callable[[], str], stack: AsyncExitStack) -> None:
        self.engine = engine
        self.redis_url = redis_url
        self.stack = stack


async def no_app(_scope: Scope, _receive: Receive, _send: Send) -> None:
    raise NotImplementedError


def heartbeat(world: World) -> Service:
    return Repeated("heartbeat", build_health(world.engine, "test", works=True).beat)


def doubt_monitor(world: World) -> Service:
    engine = world.engine
    return Repeated("in-doubt counter", DoubtMonitor(engine.store, engine.clock, "test", engine.counters).count)


def retention(world: World) -> Service:
    return Repeated("retention", partial(delete_ended, world.engine.store, 86_400_000, world.engine.counters))


def clients_faults(_: World) -> Service:
    return Repeated("count of clients' faults", partial(tell_faults, Faults()))


def lingering_end(_: World) -> Service:
    return Repeated("end of lingering connections", LingeringEnd(set()).end)


def worker(world: World) -> Service:
    return build_worker(world.engine)


def http_server(world: World) -> Service:
    listener = world.stack.enter_context(listen("127.0.0.1", 0))
    return HttpServer(no_app, listener, Limits(), Faults())


def redis_bus(world: World) -> Service:
    bus = RedisBus(world.redis_url(), "test", SystemClock(), Counters())
    bus.identify(new_identity())
    return bus


def look_at_keys(world: World) -> Service:
    return Repeated("look at API keys", world.engine.callers.refresh)


def look_at_pauses(world: World) -> Service:
    return Repeated("look at pauses", world.engine.pauses.look)


SERVICES = (
    look_at_keys,
    look_at_pauses,
    heartbeat,
    doubt_monitor,
    retention,
    clients_faults,
    lingering_end,
    worker,
    http_server,
    redis_bus,
)


def test_every_service_of_the_package_is_tried_here() -> None:
    package = Path(order_engine.__file__).parent
    trees = [ast.parse(path.read_text()) for path in package.rglob("*.py")]
    methods = [
        (node.name, {it.name for it in node.body if isinstance(it, ast.AsyncFunctionDef | ast.FunctionDef)})
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]
    classes = {name for name, its in methods if its >= {"start", "run", "stop"}}
    assert classes == {"Service", "Repeated", "Worker", "HttpServer", "RedisBus"}
    repeated = [
        ast.unparse(node.args[0])
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.Call) and ast.unparse(node.func) == "Repeated"
    ]
    assert len(repeated) == len(SERVICES) - len(classes - {"Service", "Repeated"})


@pytest_asyncio.fixture
async def world(tmp_path: Path, request: pytest.FixtureRequest) -> AsyncIterator[World]:
    def redis_url() -> str:
        redis: RedisServer = request.getfixturevalue("redis")
        return redis.url

    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(open_engine(Settings(data_dir=tmp_path)))
        yield World(engine, redis_url, stack)


@pytest.fixture(params=SERVICES, ids=lambda make: make.__name__)
def service(request: pytest.FixtureRequest, world: World) -> Service:
    make: Callable[[World], Service] = request.param
    return make(world)


async def within_patience(awaited: Awaitable[Any]) -> None:
    async with asyncio.timeout(PATIENCE_S):
        await awaited


@pytest.mark.asyncio
async def test_it_works_until_it_is_asked_to_end(service: Service) -> None:
    await within_patience(service.start())
    running = asyncio.create_task(service.run())
    _, pending = await asyncio.wait([running], timeout=0.05)
    assert pending, "it ended before it was asked to"
    service.stop()
    service.stop()
    await within_patience(running)


@pytest.mark.asyncio
async def test_it_may_be_asked_to_end_before_it_is_run(service: Service) -> None:
    await within_patience(service.start())
    service.stop()
    await within_patience(service.run())


@pytest.mark.asyncio
async def test_nothing_of_it_is_left_when_it_has_ended(service: Service) -> None:
    before = asyncio.all_tasks()
    async with asyncio.timeout(PATIENCE_S):
        async with lasting(service):
            await asyncio.sleep(0.02)
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.001)


@pytest.mark.asyncio
async def test_a_cancelled_run_ends_the_work_too(service: Service) -> None:
    before = asyncio.all_tasks()
    await within_patience(service.start())
    running = asyncio.create_task(service.run())
    await asyncio.sleep(0.02)
    running.cancel()
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.wait([running])
        while asyncio.all_tasks() - before:
            await asyncio.sleep(0.001)
