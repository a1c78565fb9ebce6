"""Systems that do this engine's work in the usual ways, to be measured beside it.

| Name | Parts |
|---|---|
| `fastify` | Fastify + BullMQ + pg + ioredis in TypeScript: a statement and a PUBLISH for each event |
| `fastify-transaction` | the same code; an event is an UPDATE and an INSERT in a transaction, which is more usual |
| `fastify-group-commit` | the same code; waiting orders and events are stored, queued and published together |
| `python-queue` | FastAPI + SAQ + SQLAlchemy's ORM on asyncpg |

All of them keep `orders (order_id, status, seq, created_at_ms, updated_at_ms, ...)` and `order_events (order_id, seq,
status, ...)` in PostgreSQL with its default durability, and store an order before they answer 202. The venues are
simulated in the worker; there is no chain, no lease, no fence and no proof.
"""

import json
import os
import subprocess
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import psutil

from bench.peers.toolchains import HERE, NodeToolchain, PythonToolchain, Toolchain
from tests.servers import free_port

READY_S = 30.0
END_S = 5.0
WORKER_READY = "ready"
BODY = json.dumps(
    {"type": "market", "tokenIn": "SOL", "tokenOut": "USDC", "amountIn": 1, "slippageBps": 100},
    separators=(",", ":"),
).encode()

# For `wait_until_all_ended`: the peers have no index on open orders, like most systems of their kind. `exists` ends
# at the first open order, and the query runs every 0.1 s only, so that it costs them little.
OPEN_ORDERS = "select exists (select from orders where status not in ('confirmed', 'failed', 'cancelled'))"
POLL_S = 0.1


@dataclass(frozen=True)
class RunningPeer:
    """A peer that serves: the URL for orders, the body to post, and the processes to measure."""

    url: str
    body: bytes
    pids: dict[str, int]

    def stream_url(self, order_id: str) -> str:
        """Return the address of the WebSocket with the order's events."""
        origin = self.url.removeprefix("http:").removesuffix("/api/orders/execute")
        return f"ws:{origin}/ws?orderId={order_id}"


@dataclass(frozen=True)
class Peer:
    """One system to compare with: its name, its parts and how it is started."""

    name: str
    title: str
    toolchain: Toolchain
    environment: Mapping[str, str] = field(default_factory=dict)
    has_streams: bool = True

    def available(self) -> str | None:
        """Return why the peer cannot run here, or None if it can."""
        return self.toolchain.missing()

    def prepare(self) -> None:
        """Install and build the peer if it is missing; only this needs the package registries."""
        self.toolchain.prepare()

    @contextmanager
    def running(
        self, directory: Path, database_url: str, redis_url: str, concurrency: int, delay_scale: float = 0.0
    ) -> Iterator[RunningPeer]:
        """The peer's API and worker on a free port of 127.0.0.1; the logs are left in `directory`."""
        home = self.toolchain.prepare()
        port = free_port()
        environment = {
            **{name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TMPDIR")},
            "NODE_ENV": "production",
            "DATABASE_URL": database_url,
            "REDIS_URL": redis_url,
            "REDIS_KEY_PREFIX": f"peer-{uuid.uuid4().hex}",
            "PORT": str(port),
            "WORKER_CONCURRENCY": str(concurrency),
            "DELAY_SCALE": str(delay_scale),
            **self.environment,
        }
        processes: list[subprocess.Popen[bytes]] = []

        def start(role: str) -> tuple[subprocess.Popen[bytes], Path]:
            log = directory / f"{self.name}-{role}.log"
            command = self.toolchain.command(home, role, port)
            with log.open("wb") as out:
                process = subprocess.Popen(
                    command, env=environment, cwd=HERE, stdin=subprocess.DEVNULL, stdout=out, stderr=out
                )
            processes.append(process)
            return process, log

        try:
            api, api_log = start("api")  # brings the schema up
            _wait(api, api_log, lambda: _answers(f"http://127.0.0.1:{port}/health"))
            worker, worker_log = start("worker")
            _wait(worker, worker_log, lambda: WORKER_READY in worker_log.read_text("utf-8", "replace").split())
            pids = {"api": api.pid, "worker": worker.pid}
            yield RunningPeer(f"http://127.0.0.1:{port}/api/orders/execute", BODY, pids)
        finally:
            _end(processes)


def _answers(url: str) -> bool:
    with suppress(httpx2.TransportError):
        return httpx2.get(url, timeout=1.0, trust_env=False).is_success
    return False


def _wait(process: subprocess.Popen[bytes], log: Path, is_ready: Callable[[], bool]) -> None:
    """Return when the process is ready; raises RuntimeError if it ends or is not ready after READY_S."""
    deadline = time.monotonic() + READY_S
    while not is_ready():
        ended = process.poll() is not None
        if ended or time.monotonic() > deadline:
            why = f"ended with {process.returncode}" if ended else f"was not ready after {READY_S} s"
            raise RuntimeError(f"{log.stem} {why}:\n{log.read_text('utf-8', 'replace')}")
        time.sleep(0.05)


def _end(processes: list[subprocess.Popen[bytes]]) -> None:
    """End the processes and their children: SIGTERM first, SIGKILL after END_S."""
    living: list[psutil.Process] = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            parent = psutil.Process(process.pid)
            living += [parent, *parent.children(recursive=True)]
        process.terminate()
    _, living = psutil.wait_procs(living, timeout=END_S)
    for it in living:
        with suppress(psutil.NoSuchProcess):
            it.kill()
    for process in processes:
        process.wait()


_NODE = NodeToolchain(HERE / "fastify")
_PYTHON = PythonToolchain(HERE / "python_queue")
PEERS = {
    peer.name: peer
    for peer in (
        Peer("fastify", "Fastify + BullMQ, a statement per event", _NODE),
        Peer(
            "fastify-transaction", "Fastify + BullMQ, a transaction per event", _NODE, {"EVENT_WRITES": "transaction"}
        ),
        Peer("fastify-group-commit", "Fastify + BullMQ, group commit", _NODE, {"GROUP_COMMIT": "1"}),
        Peer("python-queue", "FastAPI + SAQ + SQLAlchemy", _PYTHON, has_streams=False),
    )
}
