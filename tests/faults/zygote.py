"""Starts engine processes in milliseconds instead of a second: forks a process that has imported all the code.

It takes a JSON line on stdin for each process and answers with the pid. Its children end with it.
"""

import contextlib
import importlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import psutil


class ForkedProcess:
    """A forked engine process with the interface of subprocess.Popen; its exit code is unknown."""

    def __init__(self, pid: int) -> None:
        self.pid = pid
        self.returncode: int | None = None
        try:
            self._process: psutil.Process | None = psutil.Process(pid)
        except psutil.NoSuchProcess:
            self._process = None

    def poll(self) -> int | None:
        if self._process is not None and self._process.is_running():
            return None
        self.returncode = 0
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        if self._process is not None:
            try:
                self._process.wait(timeout)
            except psutil.TimeoutExpired as error:
                raise subprocess.TimeoutExpired("order-engine", timeout or 0) from error
        self.returncode = 0
        return 0

    def send_signal(self, number: int) -> None:
        if self._process is not None:
            with contextlib.suppress(psutil.NoSuchProcess):
                self._process.send_signal(number)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


class Zygote:
    """The forking process, for as long as the context lasts."""

    def __enter__(self) -> Self:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.zygote"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=Path(__file__).parents[2],
            text=True,
            bufsize=1,
        )
        assert self._answer() == "ready"
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()

    def launch(self, role: str, environment: Mapping[str, str], directory: Path, log: Path) -> ForkedProcess:
        """Start `order-engine ROLE`, as tests.stack.Launch has it."""
        assert self._process.stdin is not None
        request = {"role": role, "environment": dict(environment), "directory": str(directory), "log": str(log)}
        self._process.stdin.write(json.dumps(request) + "\n")
        return ForkedProcess(int(self._answer()))

    def _answer(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


def _become(request: dict[str, Any]) -> int:
    """Turn this child into the engine process that was asked for; returns its exit code."""
    for number in (signal.SIGCHLD, signal.SIGINT):
        signal.signal(number, signal.SIG_DFL)
    with Path(request["log"]).open("ab") as log, Path(os.devnull).open("rb") as nothing:
        os.dup2(nothing.fileno(), 0)
        os.dup2(log.fileno(), 1)
        os.dup2(log.fileno(), 2)
    environment = request["environment"]
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(request["directory"])
    sys.argv = ["order-engine", request["role"]]
    from order_engine.cli import main  # noqa: PLC0415 - imported before the first fork
    from tests.faults import points  # noqa: PLC0415

    if kill_at := os.environ.pop("KILL_AT", None):
        points.arm(request["role"], kill_at, os.environ.pop("KILL_MARKS"))
    if amount_in := os.environ.pop("POISON", None):
        points.poison(amount_in)
    try:
        main()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    return 0


def serve() -> None:
    """Fork a child for each request; kill the remaining children when the requests end."""
    for module in ("cli", "processes", "api.app"):
        importlib.import_module(f"order_engine.{module}")
    importlib.import_module("uvloop")
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # The kernel reaps.
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # A Ctrl+C is for the tests, which then close stdin.
    children: list[psutil.Process] = []
    print("ready", flush=True)  # noqa: T201 - this is how it answers
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = _become(json.loads(line))
            finally:
                sys.stderr.flush()
                os._exit(code)
        with contextlib.suppress(psutil.NoSuchProcess):
            children.append(psutil.Process(pid))
        children = [child for child in children if child.is_running()]
        print(pid, flush=True)  # noqa: T201
    for child in children:
        with contextlib.suppress(psutil.NoSuchProcess):
            child.kill()


if __name__ == "__main__":
    serve()
