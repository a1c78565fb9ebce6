"""The measured systems: this engine in several configurations, and its peers, started and loaded in the same way."""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bench.measure import NOBODY_WAITS, POLL_S
from bench.peers.peer import OPEN_ORDERS, PEERS, Peer
from bench.peers.peer import POLL_S as PEER_POLL_S
from tests.stack import distributed_stack

V1_ORDERS = "/v1/orders"
V1_STREAM = "/v1/orders/{}/stream"
PEER_STREAM = "/ws?orderId={}"


@dataclass(frozen=True)
class Running:
    """A subject that serves. The processes in `outside` are listed, but not counted as its own."""

    urls: list[str]
    body: bytes | None
    pids: dict[str, int]
    outside: dict[str, int] = field(default_factory=dict)

    @property
    def url(self) -> str:
        """Return the URL for orders, if there is an API."""
        return self.urls[0]


class Subject(Protocol):
    """One system in one configuration, on PostgreSQL and Redis."""

    name: str
    title: str
    orders_factor: float
    open_orders: str
    poll_s: float
    stream_path: str | None

    def missing(self) -> str | None:
        """Return why it cannot run here, or None."""
        ...

    def running(self, directory: Path, database_url: str, redis_url: str) -> AbstractContextManager[Running]:
        """Start it; it ends with the context."""
        ...


@dataclass(frozen=True)
class EngineSubject:
    """This engine: API processes and workers. `settings` are environment variables."""

    name: str
    title: str
    concurrency: int
    settings: Mapping[str, str] = field(default_factory=dict)
    workers: int = 1
    apis: int = 1
    orders_factor = 1.0
    open_orders = NOBODY_WAITS
    poll_s = POLL_S
    stream_path = V1_STREAM

    def missing(self) -> str | None:
        """Return None: the bench has everything that this engine needs."""
        return None

    @contextmanager
    def running(self, directory: Path, database_url: str, redis_url: str) -> Iterator[Running]:
        """Start the chain, the API and the workers."""
        settings = {
            "MOCK_DELAY_SCALE": "0",
            "WORKER_CONCURRENCY": str(self.concurrency),
            "LOG_LEVEL": "warning",
            **self.settings,
        }
        with distributed_stack(directory, database_url, redis_url, **settings) as stack:
            apis = [stack.spawn("api") for _ in range(self.apis)]
            workers = [stack.spawn("worker", LOG_LEVEL="info") for _ in range(self.workers)]
            pids = _numbered("api", [it.pid for it in apis]) | _numbered("worker", [it.pid for it in workers])
            yield Running([it.url + V1_ORDERS for it in apis], None, pids, {"chain": stack.chain_pid})


@dataclass(frozen=True)
class PeerSubject:
    """A system that does the same in another way."""

    peer: Peer
    concurrency: int
    orders_factor: float = 1.0
    open_orders = OPEN_ORDERS
    poll_s = PEER_POLL_S

    @property
    def name(self) -> str:
        """Return a short name with its concurrency."""
        return f"{self.peer.name}-{self.concurrency}"

    @property
    def title(self) -> str:
        """Return its parts and its concurrency."""
        return f"{self.peer.title}, {self.concurrency} at once"

    @property
    def stream_path(self) -> str | None:
        """Return the path of an order's stream, if it has one."""
        return PEER_STREAM if self.peer.has_streams else None

    def missing(self) -> str | None:
        """Return why it cannot run here, or None; builds it if it can."""
        reason = self.peer.available()
        if reason is None:
            self.peer.prepare()
        return reason

    @contextmanager
    def running(self, directory: Path, database_url: str, redis_url: str) -> Iterator[Running]:
        """Start its API and its worker."""
        with self.peer.running(directory, database_url, redis_url, self.concurrency) as peer:
            yield Running([peer.url], peer.body, peer.pids)


def _numbered(role: str, pids: list[int]) -> dict[str, int]:
    return {role if len(pids) == 1 else f"{role} {number}": pid for number, pid in enumerate(pids, 1)}


def engine(concurrency: int) -> EngineSubject:
    """Return this engine with one API and one worker."""
    return EngineSubject(f"engine-{concurrency}", f"order-engine, {concurrency} at once", concurrency)


ENGINE = engine(500)
# The peer (a) of the comparison: built as most systems of this kind are.
USUAL_PEER = PeerSubject(PEERS["fastify"], 100)
BATCHING_PEER = PeerSubject(PEERS["fastify-group-commit"], 100)
SUBJECTS = (
    ENGINE,
    engine(100),
    engine(10),
    USUAL_PEER,
    PeerSubject(PEERS["fastify"], 10),
    PeerSubject(PEERS["fastify-transaction"], 100),
    BATCHING_PEER,
    # It has about a tenth of the speed, so it gets a tenth of the orders.
    PeerSubject(PEERS["python-queue"], 100, orders_factor=0.1),
)
