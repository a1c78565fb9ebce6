"""The world's roles, simulated: a database that fails around commits, a lossy bus, a chain that lies."""

import asyncio
import base64
import random
import re
import sqlite3
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import msgspec
from solders.hash import Hash
from solders.instruction import AccountMeta, Instruction
from solders.message import MessageV0, to_bytes_versioned
from solders.pubkey import Pubkey
from solders.transaction import VersionedTransaction

from order_engine.bus.fanout import Fanout
from order_engine.domain.errors import (
    ChainUnavailable,
    NoRoute,
    SlippageExceeded,
    StoreUnavailable,
    VenueFailed,
)
from order_engine.domain.events import OrderEvent
from order_engine.domain.money import BaseUnits, Bps
from order_engine.domain.order import EpochMs, Order, OrderId, SwapRequest
from order_engine.domain.routing import Quote
from order_engine.domain.tokens import TokenRegistry
from order_engine.paper.faults import ChainFaults
from order_engine.paper.network import LedgerEntry, PaperNetwork
from order_engine.paper.node import NoReply, PaperNode, StickyNode, TooManyRequests
from order_engine.paper.signer import PaperSigner
from order_engine.paper.swap import PaperSwap
from order_engine.ports.bus import Subscription
from order_engine.ports.chain import SLIPPAGE_ERROR, UnsignedTransaction
from order_engine.store.sql import SQLITE, load_migrations
from order_engine.store.sqlite.connections import run_job
from tests.simulation.loop import VirtualLoop, host_of

WALLET = PaperSigner(0)
OWNER = WALLET.keypair.pubkey()
USDC = TokenRegistry().resolve("USDC", "")
EPOCH_MS = 1_800_000_000_000
MAX_TOLD = 160
MIGRATIONS = "\n".join(migration.statements for migration in load_migrations(SQLITE))


class Faults(msgspec.Struct):
    """The probability of each fault, drawn from the seed for each history; all zero heals the world."""

    database: float
    chain: float
    bus: float
    venue: float
    cluster: ChainFaults = msgspec.field(default_factory=ChainFaults)

    def __post_init__(self) -> None:
        half, quarter = self.chain / 2, self.chain / 4
        self.cluster = ChainFaults(
            drop=half,
            late=self.chain,
            duplicate=self.chain,
            fork=self.chain,
            lag=self.chain,
            false_height=self.chain,
            lost_reply=quarter,
            timeout=quarter,
            error=quarter,
            rate_limit=quarter,
        )

    def heal(self) -> None:
        self.database = self.chain = self.bus = self.venue = 0.0
        for name in self.cluster.__struct_fields__:
            setattr(self.cluster, name, 0.0)


class SimClock:
    """A host's clock: the world's time and the host's own error."""

    def __init__(self, loop: VirtualLoop, skew_ms: int = 0) -> None:
        self._loop = loop
        self._skew_ms = skew_ms

    def now_ms(self) -> EpochMs:
        return EpochMs(EPOCH_MS + int(self._loop.time() * 1000) + self._skew_ms)


class SimDatabase:
    """One SQLite database in memory; a host's jobs run here even if the host dies."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, faults: Faults) -> None:
        self._loop = loop
        self._random = rng
        self._faults = faults
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.executescript(MIGRATIONS)

    def run(self, job: Callable[[sqlite3.Connection], Any]) -> "asyncio.Future[Any]":
        """Run the job after a delay; sometimes it does not run, and sometimes a job that ran reports an error."""
        future: asyncio.Future[Any] = self._loop.create_future()
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        delay = self._random.expovariate(200.0)
        fate = self._random.random()

        def execute() -> None:
            if fate < self._faults.database / 2:
                answer: Any = StoreUnavailable("simulated: before the commit")
            else:
                self.connection.execute("begin")
                answer = run_job(self.connection, job)
                self.connection.execute("commit")
                if fate > 1 - self._faults.database / 2:
                    answer = StoreUnavailable("simulated: after the commit")
            if not future.done():
                future.set_exception(answer) if isinstance(answer, Exception) else future.set_result(answer)

        # An empty context: the database does not belong to the host that asks. It answers in the order
        # of the jobs, like one connection.
        self._last = max(getattr(self, "_last", 0.0), self._loop.time() + delay)
        self._loop.call_at(self._last, execute, context=Context())
        return future

    async def close(self) -> None:
        """Nothing is open between jobs."""

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Query the database directly, without faults."""
        return self.connection.execute(statement, values).fetchall()


class SimBus:
    """ReadyQueue and EventBus of every host: late, lossy, and sometimes twice."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, faults: Faults) -> None:
        self._loop = loop
        self._random = rng
        self._faults = faults
        self._fanout = Fanout()
        self._ids: list[OrderId] = []
        self._pushed = asyncio.Event()
        self.is_connected = True
        self.trouble: str | None = None

    def push(self, order_ids: Sequence[OrderId]) -> None:
        for order_id in order_ids:
            if self._random.random() >= self._faults.bus:
                self._loop.call_later(self._random.expovariate(100.0), self._enqueue, order_id, context=Context())

    def _enqueue(self, order_id: OrderId) -> None:
        self._ids.append(order_id)
        self._pushed.set()

    async def pop(self, limit: int, timeout_s: float) -> list[OrderId]:
        if not self._ids and timeout_s > 0:
            self._pushed.clear()
            try:
                async with asyncio.timeout(timeout_s):
                    await self._pushed.wait()
            except TimeoutError:
                return []
        popped, self._ids = self._ids[:limit], self._ids[limit:]
        return popped

    def publish(self, events: Sequence[OrderEvent]) -> None:
        for event in events:
            copies = 0 if self._random.random() < self._faults.bus else 1 + (self._random.random() < self._faults.bus)
            for _ in range(copies):
                delay = self._random.expovariate(50.0)
                self._loop.call_later(delay, self._fanout.deliver, [event], context=Context())

    def subscribe(self, account: str, order_id: OrderId | None) -> Subscription:
        return self._fanout.subscribe(account, order_id)


class SimVenue:
    """A venue whose price wanders; it fails and stalls as the faults say."""

    def __init__(self, name: str, rng: random.Random, faults: Faults, loop: VirtualLoop) -> None:
        self.name = name
        self._random = rng
        self._faults = faults
        self._loop = loop

    def price(self, amount_in: int) -> int:
        return amount_in * (1000 + int(self._loop.time()) % 7 - len(self.name) % 3) // 1000

    async def quote(self, request: SwapRequest) -> Quote:
        await asyncio.sleep(self._random.uniform(0.0, 0.3))
        draw = self._random.random()
        if draw < self._faults.venue / 4:
            raise NoRoute("simulated: no pool")
        if draw < self._faults.venue:
            raise VenueFailed("simulated")
        return Quote(self.name, request.amount_in, BaseUnits(self.price(request.amount_in)), Bps(30), Bps(0))

    async def build(self, order: Order) -> UnsignedTransaction:
        await asyncio.sleep(self._random.uniform(0.0, 0.1))
        if self._random.random() < self._faults.venue:
            raise VenueFailed("simulated")
        if self.price(order.request.amount_in) < (order.min_amount_out or 0):
            raise SlippageExceeded("simulated")
        instruction = f"{order.order_id} {order.attempt_number} {order.min_amount_out} {self._random.random()}".encode()
        accounts = [AccountMeta(OWNER, is_signer=True, is_writable=True)]
        swap = Instruction(Pubkey.default(), instruction, accounts)
        message = MessageV0.try_compile(OWNER, [swap], [], Hash.default())
        return UnsignedTransaction(to_bytes_versioned(message), ("swap",))


class SimLedger:
    """The chain's ledger in memory: the checks compare everything with it."""

    def __init__(self, rng: random.Random) -> None:
        self._random = rng
        self.entries: dict[str, LedgerEntry] = {}

    async def genesis_ms(self, now_ms: int) -> int:
        return now_ms

    async def latest_landing_ms(self) -> int:
        return 0

    async def append(self, entries: Sequence[LedgerEntry]) -> None:
        await asyncio.sleep(self._random.expovariate(200.0))
        for entry in entries:
            self.entries.setdefault(entry.signature, entry)

    async def find(self, signatures: Sequence[str]) -> list[LedgerEntry]:
        await asyncio.sleep(self._random.expovariate(500.0))
        return [self.entries[it] for it in signatures if it in self.entries]

    async def close(self) -> None:
        """The ledger outlives every host."""


class Exchange(msgspec.Struct, frozen=True):
    """One batch of requests to the chain and its answer; it becomes text only when the trace is read.

    `nodes`: the node to which the balancer sends each method.
    """

    host: str
    body: bytes
    nodes: dict[str, StickyNode]
    answer: bytes | str

    def __str__(self) -> str:
        asked, told = msgspec.json.decode(self.body), self.answer
        asked = asked if isinstance(asked, list) else [asked]
        if isinstance(told, bytes):
            answers = msgspec.json.decode(told)
            answers = answers if isinstance(answers, list) else [answers]
            texts = [_short(it.get("result", it.get("error"))) for it in answers]
        else:
            texts = [told] * len(asked)
        return f"rpc {self.host} " + "; ".join(map(self._line, asked, texts))

    def _line(self, request: Any, told: str) -> str:
        node = self.nodes.get(request["method"])
        view = f" ({node.lag_slots} slots behind)" if node is not None and node.lag_slots else ""
        if node is not None and node.forked_after_slot is not None:
            view = f" (on a fork after slot {node.forked_after_slot})"
        if node is not None and node.lie is not None:
            view += f" (false height: {node.lie.kind} {node.lie.blocks})"
        return f"{request['method']} {_short(request['params'])}{view}: {told}"


def _short(value: Any) -> str:
    """Leave out the middle of signatures and transactions, and everything after MAX_TOLD characters."""
    text = msgspec.json.encode(value).decode()
    text = re.sub(r"[\w+/=]{32,}", lambda word: f"{word[0][:4]}..{word[0][-4:]}", text)
    return text if len(text) <= MAX_TOLD else f"{text[:MAX_TOLD]}.."


class SimCluster:
    """The production paper chain behind a slow network; a host gets its answer, or none."""

    TIMEOUT_S = 2.0

    def __init__(
        self,
        loop: VirtualLoop,
        seed: int,
        faults: Faults,
        committed: Callable[[str], bool],
        note: Callable[[Exchange], None],
    ) -> None:
        self._note = note
        self._loop = loop
        self._random = random.Random(f"{seed}:wire")
        self._faults = faults
        self._committed = committed
        self.ledger = SimLedger(random.Random(f"{seed}:ledger"))
        self.network = PaperNetwork(self.ledger, self._execute, SimClock(loop), 1.0, seed, faults.cluster)
        self.node = PaperNode(self.network, faults.cluster, seed)
        self.unsaved: list[str] = []

    async def post(self, body: bytes) -> bytes:
        """A Transport: the chain processes a host's request even if the host dies."""
        self._check_sent(body)
        await asyncio.sleep(self._random.expovariate(50.0))
        answering = self._loop.create_task(self._answer(body, host_of.get()), context=Context())
        answering.add_done_callback(lambda done: done.cancelled() or done.exception())
        try:
            return await asyncio.shield(answering)
        except TooManyRequests as error:
            raise ChainUnavailable("simulated: 429") from error
        except NoReply as error:
            await asyncio.sleep(self.TIMEOUT_S)
            raise ChainUnavailable("simulated: timeout") from error

    async def _answer(self, body: bytes, host: str) -> bytes:
        answer: bytes | str = "nothing"
        try:
            answer = await self.node.answer(body)
        except TooManyRequests:
            answer = "HTTP 429"
            raise
        finally:
            cluster = self._faults.cluster
            is_varied = cluster.lag or cluster.fork or cluster.false_height
            self._note(Exchange(host, body, {**self.node.balanced} if is_varied else {}, answer))
        return answer

    async def close(self) -> None:
        """The chain outlives every host."""

    def _check_sent(self, body: bytes) -> None:
        requests = msgspec.json.decode(body)
        for request in requests if isinstance(requests, list) else [requests]:
            if request["method"] == "sendTransaction":
                raw = base64.b64decode(request["params"][0])
                signature = str(VersionedTransaction.from_bytes(raw).signatures[0])
                if not self._committed(signature):
                    self.unsaved.append(signature)

    def _execute(self, instruction: bytes, _at_ms: EpochMs) -> PaperSwap:
        order_id, attempt, minimum, _ = instruction.decode().split()
        reverts = self._random.random() < self._faults.venue / 4
        error = (SLIPPAGE_ERROR if self._random.random() < 0.7 else "PoolIsEmpty") if reverts else None
        return PaperSwap(
            memo=order_id,
            attempt=int(attempt),
            venue="simulated",
            token_in="SOL",
            token_in_decimals=9,
            token_out="USDC",
            token_out_mint=USDC.mint,
            token_out_decimals=USDC.decimals,
            amount_in=1,
            min_amount_out=int(minimum),
            amount_out=None if reverts else int(minimum),
            error=error,
        )
