"""The servers that the tests run against keep the promises that the tests rely on."""

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import TimeoutError as RedisTimeoutError

from tests.programs import machine_postgres, machine_redis, wheel_postgres, wheel_redis
from tests.servers import (
    PostgresServer,
    RedisServer,
    free_port,
    postgres_server,
    redis_server,
)

# The program of a test process that is killed then.
_ORPHANS = """
import pathlib, sys
from tests import servers
directory = pathlib.Path(sys.argv[1])
with servers.postgres_server(directory) as postgres, servers.redis_server(directory) as redis:
    if len(sys.argv) > 2:
        redis.pause()
    print(postgres.url, redis.url, flush=True)
    sys.stdin.read()
"""


def _found(path: Path | None) -> Path:
    if path is None:
        pytest.skip("not installed here")
    return path


@pytest.fixture(params=[machine_postgres, wheel_postgres])
def postgres(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[PostgresServer]:
    with postgres_server(tmp_path, binaries=_found(request.param())) as server:
        yield server


@pytest.fixture(params=[machine_redis, wheel_redis])
def redis_(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[RedisServer]:
    with redis_server(tmp_path, program=_found(request.param())) as server:
        yield server


async def _value(url: str, query: str) -> object:
    connection = await asyncpg.connect(url, timeout=10)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def _client(server: RedisServer, patience: float = 10) -> Redis:
    return Redis.from_url(server.url, socket_timeout=patience, retry=Retry(NoBackoff(), 0))


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _runs(server: PostgresServer) -> bool:
    try:
        return server.pid > 0
    except RuntimeError:
        return False


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.asyncio
async def test_private_postgres_serves_as_configured(postgres: PostgresServer) -> None:
    assert postgres.owned
    assert urlsplit(postgres.url).hostname == "127.0.0.1"
    assert await _value(postgres.url, "SHOW fsync") == "on"
    assert await _value(postgres.url, "SHOW max_connections") == "200"
    assert await _value(postgres.url, "SHOW listen_addresses") == "127.0.0.1"
    assert await _value(postgres.url, "SHOW unix_socket_directories") == ""
    assert await _value(postgres.url, "SHOW server_encoding") == "UTF8"


@pytest.mark.asyncio
async def test_databases_are_separate_and_only_created_ones_are_dropped(postgres: PostgresServer) -> None:
    one, two = await asyncio.gather(postgres.create_database(), postgres.create_database())
    await _value(one, "CREATE TABLE t (n int)")
    assert await _value(one, "SELECT to_regclass('t') IS NOT NULL")
    assert await _value(two, "SELECT to_regclass('t') IS NULL")
    connection = await asyncpg.connect(one)
    await postgres.drop_database(one)  # even though a client is connected
    connection.terminate()
    with pytest.raises(asyncpg.InvalidCatalogNameError):
        await _value(postgres.as_administrator(one), "SELECT 1")
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await _value(one, "SELECT 1")  # Its owner is dropped too.
    for url in (one, postgres.url):
        with pytest.raises(RuntimeError, match="not created here"):
            await postgres.drop_database(url)
    assert await _value(two, "SELECT 1") == 1


@pytest.mark.asyncio
async def test_postgres_keeps_committed_data_when_killed(postgres: PostgresServer) -> None:
    url = await postgres.create_database()
    pid = postgres.pid
    connection = await asyncpg.connect(url)
    await connection.execute("CREATE TABLE t (n int)")
    await connection.execute("INSERT INTO t VALUES (1)")
    await connection.execute("BEGIN; INSERT INTO t VALUES (2)")
    busy = asyncio.create_task(_value(url, "SELECT pg_sleep(60)"))
    async with asyncio.timeout(30):
        while not await _value(url, "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'"):
            pass

    postgres.kill()

    assert not _listens(_port(url))
    with pytest.raises((OSError, asyncpg.PostgresConnectionError)):
        await busy
    connection.terminate()
    with pytest.raises(RuntimeError, match="does not run"):
        _ = postgres.pid
    postgres.kill()  # does nothing: the server is dead
    postgres.start()
    postgres.start()  # does nothing: the server runs
    assert postgres.pid != pid
    assert await _value(url, "SELECT sum(n) FROM t") == 1
    await postgres.drop_database(url)


@pytest.mark.asyncio
async def test_postgres_keeps_data_when_stopped(postgres: PostgresServer) -> None:
    url = await postgres.create_database()
    await _value(url, "CREATE TABLE t AS SELECT 7 AS n")
    connection = await asyncpg.connect(url)
    postgres.stop()
    assert not _listens(_port(url))
    connection.terminate()
    postgres.start()
    assert await _value(url, "SELECT n FROM t") == 7


@pytest.mark.asyncio
async def test_postgres_starts_again_after_a_crash_of_its_own(postgres: PostgresServer) -> None:
    os.kill(postgres.pid, signal.SIGKILL)
    _until(lambda: not _runs(postgres))
    postgres.start()
    assert await _value(postgres.url, "SELECT 1") == 1


def test_killed_postgres_leaves_no_files_and_no_shared_memory(tmp_path: Path) -> None:
    with postgres_server(tmp_path, binaries=machine_postgres() or wheel_postgres()) as server:
        data = Path(str(asyncio.run(_value(server.url, "SHOW data_directory"))))
        segment = (data / "postmaster.pid").read_text().split("\n")[6].split()[1]
        assert segment in _shared_memory()
        server.kill()
        assert segment in _shared_memory()
    assert segment not in _shared_memory()
    assert not data.parent.exists()


def _shared_memory() -> list[str]:
    ipcs = shutil.which("ipcs")
    if ipcs is None:
        pytest.skip("no ipcs here")
    return subprocess.run([ipcs, "-m"], check=True, capture_output=True, text=True).stdout.split()


@pytest.mark.asyncio
async def test_two_servers_of_a_kind_run_side_by_side(tmp_path: Path) -> None:
    binaries, program = machine_postgres() or wheel_postgres(), machine_redis() or wheel_redis()
    with ExitStack() as stack:
        one, two = (stack.enter_context(postgres_server(tmp_path, binaries=binaries)) for _ in range(2))
        three, four = (stack.enter_context(redis_server(tmp_path, program=program)) for _ in range(2))
        assert len({_port(server.url) for server in (one, two, three, four)}) == 4
        one.kill()
        assert await _value(two.url, "SELECT 1") == 1
        three.kill()
        async with _client(four) as client:
            assert await client.ping()


@pytest.mark.asyncio
async def test_given_postgres_is_used_but_not_controlled(postgres: PostgresServer, tmp_path: Path) -> None:
    with postgres_server(tmp_path, url=f"{postgres.url}?application_name=given") as given:
        assert not given.owned
        url = await given.create_database()
        assert urlsplit(url).query == "application_name=given"
        assert await _value(url, "SHOW application_name") == "given"
        assert str(await _value(url, "SELECT current_database()")).startswith("oe_test_")
        mine = await postgres.create_database()
        with pytest.raises(RuntimeError, match="not created here"):
            await given.drop_database(mine)
        await given.drop_database(url)
        for control in (given.kill, given.start, given.stop, lambda: given.pid):
            with pytest.raises(RuntimeError):
                control()
    assert await _value(mine, "SELECT 1") == 1


@pytest.mark.asyncio
async def test_given_redis_is_used_but_not_controlled(redis_: RedisServer, tmp_path: Path) -> None:
    async with _client(redis_) as client:
        await client.set("key", "value")
        with redis_server(tmp_path, url=redis_.url) as given:
            assert not given.owned
            assert given.url == redis_.url
            for control in (
                given.kill,
                given.start,
                given.stop,
                given.pause,
                given.resume,
                lambda: given.pid,
            ):
                with pytest.raises(RuntimeError):
                    control()
        assert await client.get("key") == b"value"


@pytest.mark.asyncio
async def test_the_environment_gives_servers_unless_told_otherwise(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_DATABASE_URL", "postgresql://somewhere/else")
    monkeypatch.setenv("TEST_REDIS_URL", "redis://somewhere/3")
    with postgres_server(tmp_path) as postgres, redis_server(tmp_path) as redis_:
        assert (postgres.owned, postgres.url) == (False, "postgresql://somewhere/else")
        assert (redis_.owned, redis_.url) == (False, "redis://somewhere/3")
    with redis_server(tmp_path, program=machine_redis() or wheel_redis()) as redis_:
        assert redis_.owned


@pytest.mark.asyncio
async def test_redis_forgets_when_killed(redis_: RedisServer) -> None:
    assert redis_.owned
    async with _client(redis_) as client:
        assert (await client.config_get("bind", "save", "appendonly")) == {
            "bind": "127.0.0.1",
            "save": "",
            "appendonly": "no",
        }
        await client.set("key", "value")
    pid = redis_.pid
    redis_.kill()
    assert not _listens(_port(redis_.url))
    redis_.start()
    assert redis_.pid != pid
    async with _client(redis_) as client:
        assert await client.get("key") is None
    redis_.stop()
    assert not _listens(_port(redis_.url))
    redis_.start()
    assert _listens(_port(redis_.url))


def test_redis_leaves_nothing_but_its_log(redis_: RedisServer, tmp_path: Path) -> None:
    redis_.stop()
    assert [path.suffix for path in tmp_path.iterdir()] == [".log"]


@pytest.mark.asyncio
async def test_paused_redis_answers_when_it_is_resumed(redis_: RedisServer) -> None:
    async with _client(redis_, patience=0.2) as client, _client(redis_) as patient:
        await client.ping()
        redis_.pause()
        with pytest.raises(RedisTimeoutError):
            await client.ping()
        late = asyncio.ensure_future(patient.ping())
        await asyncio.wait([late], timeout=0.1)
        assert not late.done()
        redis_.resume()
        assert await late


@pytest.mark.parametrize("end", [RedisServer.stop, RedisServer.kill])
def test_paused_redis_can_be_ended(redis_: RedisServer, end: Callable[[RedisServer], None]) -> None:
    redis_.pause()
    end(redis_)
    assert not _listens(_port(redis_.url))


def test_programs_that_the_server_account_cannot_reach_are_copied(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("the server runs as ourselves")
    installed = _found(wheel_postgres())
    package = installed.parents[1]
    for source in (installed.parent, package.parent / f"{package.name}.libs", package / ".dylibs"):
        if source.is_dir():
            shutil.copytree(source, tmp_path / source.relative_to(package.parent), symlinks=True)
    hidden = tmp_path / installed.relative_to(package.parent)
    tmp_path.chmod(0o700)
    with postgres_server(tmp_path / "logs", binaries=hidden) as server:
        programs = asyncio.run(_value(server.url, "SELECT setting FROM pg_config WHERE name = 'BINDIR'"))
        assert not Path(str(programs)).is_relative_to(tmp_path)
    assert hidden.owner() == "root"


@pytest.mark.parametrize("paused", [False, True])
def test_servers_do_not_outlive_a_killed_test_process(paused: bool, tmp_path: Path) -> None:  # noqa: FBT001
    arguments = [sys.executable, "-c", _ORPHANS, str(tmp_path), *["paused"] * paused]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("TEST_")}
    with subprocess.Popen(
        arguments,
        cwd=Path(__file__).parent,
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        postgres, redis_ = process.stdout.readline().split()
        assert _listens(_port(postgres))
        assert _listens(_port(redis_))
        data = Path(str(asyncio.run(_value(postgres, "SHOW data_directory"))))
        process.kill()
    _until(lambda: not _listens(_port(postgres)) and not _listens(_port(redis_)))
    _until(lambda: not data.parent.exists())


def test_a_server_that_cannot_start_says_why(tmp_path: Path) -> None:
    with redis_server(tmp_path, program=machine_redis() or wheel_redis()) as server:
        server.stop()
        taken = socket.create_server(("127.0.0.1", _port(server.url)))
        with taken, pytest.raises(RuntimeError, match="Address already in use"):
            server.start()
        server.start()
    with pytest.raises(RuntimeError, match="initdb failed"), postgres_server(tmp_path, binaries=tmp_path):
        pytest.fail("there are no programs there")


def test_a_taken_port_is_no_obstacle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    binaries, program = machine_postgres() or wheel_postgres(), machine_redis() or wheel_redis()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = other.getsockname()[1]
        ports = iter([taken, free_port(), taken, free_port()])
        monkeypatch.setattr("tests.servers.free_port", lambda: next(ports))
        with postgres_server(tmp_path, binaries=binaries) as postgres:
            assert _port(postgres.url) != taken
        with redis_server(tmp_path, program=program) as redis_:
            assert _port(redis_.url) != taken


def test_free_ports_are_free_and_not_for_outgoing_connections() -> None:
    for port in {free_port() for _ in range(50)}:
        assert port < 32768
        socket.create_server(("127.0.0.1", port)).close()
