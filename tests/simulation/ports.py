"""The world's roles, simulated: a database that fails around commits, a lossy bus, a lying chain."""

import asyncio
import random
import sqlite3
from collections.abc import Callable, Sequence
from contextvars import Context
from typing import Any

import msgspec

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
from order_engine.ports import (
    SLIPPAGE_ERROR,
    Blockhash,
    FinalizedPoint,
    SignatureStatus,
    SignatureStatuses,
    SignedTransaction,
    Subscription,
    UnsignedTransaction,
)
from order_engine.store.sql import SQLITE, load_migrations
from order_engine.store.sqlite import run_job
from tests.simulation.loop import VirtualLoop

EPOCH_MS = 1_800_000_000_000
MIGRATIONS = "\n".join(migration.statements for migration in load_migrations(SQLITE))


class Faults(msgspec.Struct):
    """How likely what goes wrong is, drawn from the seed for each history; all zero heals the world."""

    database: float = 0.0
    chain: float = 0.0
    bus: float = 0.0
    venue: float = 0.0

    def heal(self) -> None:
        self.database = self.chain = self.bus = self.venue = 0.0


class SimClock:
    """A host's clock: the world's time and the host's own error."""

    def __init__(self, loop: VirtualLoop, skew_ms: int = 0) -> None:
        self._loop = loop
        self._skew_ms = skew_ms

    def now_ms(self) -> EpochMs:
        return EpochMs(EPOCH_MS + int(self._loop.time() * 1000) + self._skew_ms)


class SimDatabase:
    """One SQLite database in memory; what a host asks of it runs here, whatever becomes of the host."""

    def __init__(self, loop: VirtualLoop, rng: random.Random, faults: Faults) -> None:
        self._loop = loop
        self._random = rng
        self._faults = faults
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.row_factory = sqlite3.Row
        self.connection.executescript(MIGRATIONS)

    def run(self, job: Callable[[sqlite3.Connection], Any]) -> "asyncio.Future[Any]":
        """Run the job after a while; sometimes not at all, sometimes without telling that it was done."""
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

        # An empty context: the database is no part of the host that asks. Asked in order, it answers
        # in order, as one connection does.
        self._last = max(getattr(self, "_last", 0.0), self._loop.time() + delay)
        self._loop.call_at(self._last, execute, context=Context())
        return future

    async def close(self) -> None:
        """Nothing is open between jobs."""

    def rows(self, statement: str, *values: Any) -> list[sqlite3.Row]:
        """Look at the truth."""
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

    def subscribe(self, order_id: OrderId | None) -> Subscription:
        return self._fanout.subscribe(order_id)


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
        message = f"{order.order_id} {order.attempt} {order.min_amount_out} {self._random.random()}"
        return UnsignedTransaction(message.encode(), ("swap",))


class Landing(msgspec.Struct):
    """What the chain's ledger keeps of a transaction that landed."""

    order_id: str
    slot: int
    error: str | None
    amount_out: int


class SimChain:
    """A chain with expiry, finality and several views, some of which lag; its ledger is the witness."""

    SLOT_S = 0.4
    VALID_BLOCKS = 150
    FINAL_AFTER = 32
    CACHE_SLOTS = 300

    def __init__(self, loop: VirtualLoop, rng: random.Random, faults: Faults, committed: Callable[[str], bool]) -> None:
        self._loop = loop
        self._random = rng
        self._faults = faults
        self._committed = committed
        self._number = 0
        self.ledger: dict[str, Landing] = {}
        self._doomed: set[str] = set()
        self._not_before: dict[str, float] = {}
        self._views: dict[str, tuple[float, int]] = {}
        self.unsaved: list[str] = []

    def slot(self) -> int:
        return 1000 + int(self._loop.time() / self.SLOT_S)

    @staticmethod
    def height(slot: int) -> int:
        return slot - slot // 20

    async def latest_blockhash(self) -> Blockhash:
        await self._travel()
        return Blockhash("hash", self.height(self.slot()) + self.VALID_BLOCKS)

    def sign(self, transaction: UnsignedTransaction, blockhash: Blockhash) -> SignedTransaction:
        self._number += 1
        signature = f"sig{self._number}"
        # Most land soon; some never do, and some wait in the leaders' queues until they nearly expire.
        draw = self._random.random()
        if draw < self._faults.chain / 2:
            self._doomed.add(signature)
        elif draw < self._faults.chain:
            self._not_before[signature] = self._loop.time() + self._random.uniform(45.0, 70.0)
        raw = f"{signature} {blockhash.last_valid_block_height} {transaction.message.decode()}".encode()
        return SignedTransaction(signature, raw, blockhash.last_valid_block_height)

    async def send(self, raw: bytes) -> None:
        signature, last_valid, order_id, *_ = raw.decode().split()
        if not self._committed(signature):
            self.unsaved.append(signature)
        await asyncio.sleep(self._random.expovariate(50.0))
        if signature not in self._doomed and self._random.random() >= self._faults.chain:
            delay = max(self._random.uniform(0.4, 3.0), self._not_before.get(signature, 0.0) - self._loop.time())
            minimum = int(raw.decode().split()[4])
            self._loop.call_later(delay, self._land, signature, order_id, int(last_valid), minimum, context=Context())
        if self._random.random() < self._faults.chain:
            raise ChainUnavailable("simulated: the reply was lost")

    def _land(self, signature: str, order_id: str, last_valid: int, minimum: int) -> None:
        slot = self.slot()
        if signature in self.ledger or self.height(slot) > last_valid:
            return
        reverts = self._random.random() < self._faults.venue / 4
        error = (SLIPPAGE_ERROR if self._random.random() < 0.7 else "custom program error") if reverts else None
        self.ledger[signature] = Landing(order_id, slot, error, minimum)

    async def finalized_point(self) -> FinalizedPoint:
        await self._travel()
        slot = self._seen_slot("height") - self.FINAL_AFTER
        return FinalizedPoint(self.height(slot), slot)

    async def signature_statuses(self, signatures: Sequence[str]) -> SignatureStatuses:
        await self._travel()
        seen = self._seen_slot("status")
        found = {it: self.ledger[it] for it in signatures if it in self.ledger and self.ledger[it].slot <= seen}
        return SignatureStatuses(
            seen,
            {it: SignatureStatus(at.slot, at.error, None if at.error else at.amount_out) for it, at in found.items()},
        )

    def _seen_slot(self, question: str) -> int:
        """The answering node may be behind, and the balancer keeps each kind of question at one node for a while."""
        until, lag = self._views.get(question, (-1.0, 0))
        if self._loop.time() >= until:
            lag = self._random.randrange(250) if self._random.random() < self._faults.chain else 0
            self._views[question] = (self._loop.time() + self._random.expovariate(1 / 20.0), lag)
        return self.slot() - (lag if self._faults.chain else 0)

    async def _travel(self) -> None:
        await asyncio.sleep(self._random.expovariate(50.0))
        draw = self._random.random()
        if draw < self._faults.chain / 2:
            raise ChainUnavailable("simulated: 429")
        if draw < self._faults.chain:
            await asyncio.sleep(2.0)
            raise ChainUnavailable("simulated: timeout")
