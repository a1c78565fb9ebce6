"""Engines in both shapes, as processes, shared by the tests of one file."""

import asyncio
import resource
import ssl
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

from tests.contracts.worlds import PostgresWorld, elsewhere, migrate
from tests.servers import PostgresServer, RedisServer
from tests.stack import EngineProcess, distributed_stack, embedded_stack

EMBEDDED = "embedded"
DISTRIBUTED = "distributed"
_FILES_FOR_500_SOCKETS = 4_096
_NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # Made once: a new one takes longer than an order.


@dataclass(frozen=True)
class Engine:
    """A running engine: its URL and its processes."""

    url: str
    processes: tuple[EngineProcess, ...]

    def log_text(self) -> str:
        return "\n".join(process.log_text() for process in self.processes)

    def client(self) -> httpx2.Client:
        return httpx2.Client(base_url=self.url, timeout=60.0, trust_env=False, verify=_NO_TLS)

    def async_client(self) -> httpx2.AsyncClient:
        limits = httpx2.Limits(max_connections=250)
        return httpx2.AsyncClient(base_url=self.url, timeout=60.0, trust_env=False, limits=limits, verify=_NO_TLS)


class Engines:
    """Starts an engine for each shape and settings when it is first asked for; it ends with the file."""

    def __init__(self, stack: ExitStack, directory: Path, postgres: PostgresServer, redis: RedisServer) -> None:
        self._stack = stack
        self._directory = directory
        self._postgres = postgres
        self._redis = redis
        self._running: dict[tuple[object, ...], Engine] = {}

    def get(self, shape: str, **settings: str) -> Engine:
        settings = {"LOG_FORMAT": "json", **settings}  # A crash logs one line, not a page of locals.
        key = (shape, *sorted(settings.items()))
        if key not in self._running:
            directory = self._directory / f"engine-{len(self._running)}"
            directory.mkdir()
            start = self._start_embedded if shape == EMBEDDED else self._start_distributed
            self._running[key] = start(directory, settings)
        return self._running[key]

    def _start_embedded(self, directory: Path, settings: dict[str, str]) -> Engine:
        up = self._stack.enter_context(embedded_stack(directory, **settings)).spawn("up")
        return Engine(up.url, (up,))

    def _start_distributed(self, directory: Path, settings: dict[str, str]) -> Engine:
        database_url = asyncio.run(self._postgres.create_database())
        self._stack.callback(lambda: asyncio.run(self._postgres.drop_database(database_url)))
        # The owner makes the schema; the processes may only read and write.
        elsewhere(lambda: migrate(PostgresWorld(database_url)))
        user_url = asyncio.run(self._postgres.create_user(database_url))
        stack = self._stack.enter_context(distributed_stack(directory, user_url, self._redis.url, **settings))
        api, worker = stack.spawn("api"), stack.spawn("worker")
        return Engine(api.url, (api, worker))


@pytest.fixture(scope="session", autouse=True)
def _enough_files() -> Iterator[None]:
    """500 sockets at once need more files than some systems allow by default; processes inherit the limit."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES_FOR_500_SOCKETS if hard == resource.RLIM_INFINITY else min(_FILES_FOR_500_SOCKETS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture(scope="module")
def engines(
    postgres: PostgresServer, redis: RedisServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Engines]:
    with ExitStack() as stack:
        yield Engines(stack, tmp_path_factory.mktemp("engines"), postgres, redis)


@pytest.fixture(params=[EMBEDDED, DISTRIBUTED])
def shape(request: pytest.FixtureRequest) -> str:
    """Run the test in both shapes: `up` on SQLite, and `api` beside `worker` on PostgreSQL and Redis."""
    return str(request.param)


@pytest.fixture
def engine(engines: Engines, shape: str) -> Engine:
    """An engine that finishes an order at once."""
    return engines.get(shape, MOCK_DELAY_SCALE="0")


@pytest.fixture
def http(engine: Engine) -> Iterator[httpx2.Client]:
    with engine.client() as client:
        yield client
