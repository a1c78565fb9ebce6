"""The real engine as processes, for the end-to-end tests and the fault tests."""

import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import httpx2

from tests.servers import free_port

_READY_S = 30.0
_LISTENS_AT = "http://127.0.0.1"


class Process(Protocol):
    """A process as subprocess.Popen shows it."""

    pid: int
    returncode: int | None

    def poll(self) -> int | None: ...
    def wait(self, timeout: float | None = None) -> int: ...
    def send_signal(self, number: int, /) -> None: ...
    def kill(self) -> None: ...


class Launch(Protocol):
    """Starts `order-engine ROLE` in a directory, with an environment, writing to a log."""

    def __call__(self, role: str, environment: Mapping[str, str], directory: Path, log: Path) -> Process: ...


def launch_program(role: str, environment: Mapping[str, str], directory: Path, log: Path) -> Process:
    """Start the program as a user does."""
    with log.open("ab") as output:
        return subprocess.Popen(
            [sys.executable, "-m", "order_engine", role],
            env=dict(environment),
            cwd=directory,
            stdout=output,
            stderr=output,
            stdin=subprocess.DEVNULL,
        )


class EngineProcess:
    """One `order-engine` process with an environment of its own."""

    def __init__(
        self, role: str, environment: Mapping[str, str], directory: Path, launch: Launch = launch_program
    ) -> None:
        self.role = role
        self.port = int(environment.get("PORT", "0"))
        self.url = f"{_LISTENS_AT}:{self.port}"
        self._environment = dict(environment)
        self._directory = directory
        self._launch = launch
        self.log = directory / f"{role}-{uuid.uuid4().hex[:8]}.log"
        self.process: Process | None = None
        self.starts = 0
        self._log_start = 0

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    def start(self, *, wait: bool = True, **once: str) -> "EngineProcess":
        """Start the process, also again; `once` are settings for this start only."""
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        environment = {**inherited, **self._environment, **once}
        self.log.touch()
        self._log_start = self.log.stat().st_size
        self.process = self._launch(self.role, environment, self._directory, self.log)
        self.starts += 1
        if wait:
            self.wait_until_ready()
        return self

    def wait_until_ready(self) -> None:
        deadline = time.monotonic() + _READY_S
        while time.monotonic() < deadline:
            assert self.process is not None
            if self.process.poll() is not None:
                raise AssertionError(f"{self.role} ended with {self.process.returncode}:\n{self.log_text()}")
            if self.role == "worker":
                if "started" in self.log_text()[self._log_start :]:
                    return
            else:
                try:
                    if httpx2.get(f"{self.url}/health", timeout=1.0, trust_env=False).is_success:
                        return
                except httpx2.TransportError:
                    pass
            time.sleep(0.05)
        raise AssertionError(f"{self.role} was not ready after {_READY_S} s:\n{self.log_text()}")

    def log_text(self) -> str:
        return self.log.read_text("utf-8", "replace")

    def kill(self) -> None:
        """Send SIGKILL and wait until the process has ended."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def terminate(self, timeout_s: float = 15.0) -> float:
        """Send SIGTERM; returns how many seconds the process took to end."""
        assert self.process is not None
        began = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(timeout_s)
        return time.monotonic() - began

    def pause(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.process is not None
        self.process.send_signal(signal.SIGCONT)

    def close(self) -> None:
        if self.process is not None and self.process.poll() is None:
            self.kill()


class Stack:
    """An engine in one of its two shapes, on servers that the test owns."""

    def __init__(self, environment: Mapping[str, str], directory: Path, launch: Launch = launch_program) -> None:
        self._environment = dict(environment)
        self._directory = directory
        self._launch = launch
        self._processes: list[EngineProcess] = []
        self.ledger = Path(self._environment["DATA_DIR"]) / "paper-chain.sqlite3"
        self.chain: EngineProcess | None = None

    def operate(self, *words: str) -> "subprocess.CompletedProcess[str]":
        """Run another command beside the engine, with the same settings."""
        inherited = {name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")}
        command = [sys.executable, "-m", "order_engine", *words]
        environment = {**inherited, **self._environment}
        return subprocess.run(
            command, env=environment, cwd=self._directory, capture_output=True, text=True, timeout=_READY_S, check=False
        )

    @property
    def database_url(self) -> str:
        return self.setting("DATABASE_URL")

    def setting(self, name: str) -> str:
        """The value of a setting for every process that has no other."""
        return self._environment[name]

    def running(self, role: str) -> list[EngineProcess]:
        return [it for it in self._processes if it.role == role and it.process and it.process.poll() is None]

    @property
    def chain_pid(self) -> int:
        assert self.chain is not None, "this stack has its chain in process"
        return self.chain.pid

    def spawn(self, role: str, **settings: str) -> EngineProcess:
        """Start a process and wait until it is ready; settings are environment variables."""
        return self.make(role, **settings).start()

    def make(self, role: str, **settings: str) -> EngineProcess:
        """Return a process that is not started yet."""
        environment = {**self._environment, **settings}
        if role == "chain":
            environment["PORT"] = environment["CHAIN_URL"].rpartition(":")[2]
        elif role != "worker":
            environment.setdefault("PORT", str(free_port()))
        process = EngineProcess(role, environment, self._directory, self._launch)
        self._processes.append(process)
        return process

    def close(self) -> None:
        for process in self._processes:
            process.close()


@contextmanager
def embedded_stack(directory: Path, **settings: str) -> Iterator[Stack]:
    """A stack for `up`: SQLite in the directory, everything in one process."""
    environment = {"DATA_DIR": str(directory / "data"), "API_MAX_ORDERS_PER_MIN": "0", "API_MAX_QUOTES_PER_MIN": "0"}
    environment |= settings
    stack = Stack(environment, directory)
    try:
        yield stack
    finally:
        stack.close()


@contextmanager
def distributed_stack(
    directory: Path, database_url: str, redis_url: str, launch: Launch = launch_program, **settings: str
) -> Iterator[Stack]:
    """A stack for `api` and `worker`: PostgreSQL, Redis and a chain, which is started."""
    environment = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "REDIS_KEY_PREFIX": f"test-{uuid.uuid4().hex}",
        "API_MAX_ORDERS_PER_MIN": "0",
        "API_MAX_QUOTES_PER_MIN": "0",
        "CHAIN_URL": f"{_LISTENS_AT}:{free_port()}",
        "DATA_DIR": str(directory / "data"),
        **settings,
    }
    stack = Stack(environment, directory, launch)
    try:
        stack.chain = stack.spawn("chain")
        yield stack
    finally:
        stack.close()


def market_order(amount: str = "1", **fields: Any) -> dict[str, Any]:
    """The body of a small market order."""
    return {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": amount, **fields}
