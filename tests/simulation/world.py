"""One history: hosts that die and pause, clients that retry, and the checks at the end."""

import asyncio
import random
from collections.abc import Callable, Coroutine
from contextvars import Context, copy_context
from typing import Any, Final, cast

import msgspec
import structlog

from order_engine.chain.assembly import SolanaAssembly
from order_engine.chain.client import SolanaChain
from order_engine.counters import Counters
from order_engine.domain.errors import CancelTooLate, OrderEngineError, RateLimited
from order_engine.domain.events import OrderEvent
from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.money import BaseUnits
from order_engine.domain.order import OrderId, SwapRequest
from order_engine.domain.retry import RetryPolicy
from order_engine.domain.tokens import TokenRegistry
from order_engine.engine import order_stream
from order_engine.engine.executor import ExecutionPolicy, Executor
from order_engine.engine.intake import Intake, announcer
from order_engine.engine.order_stream import follow_order
from order_engine.engine.pauses import Pauses
from order_engine.engine.settlement import Settlement
from order_engine.engine.signing import Signing
from order_engine.engine.worker import Worker, WorkerPolicy
from order_engine.meters import Meters
from order_engine.ports.access import Pause, SwitchStore
from order_engine.ports.bus import RateVerdict
from order_engine.ports.store import IdempotencyKey
from order_engine.store.sqlite.store import SqliteStore
from tests.contracts.orders import SingleStore
from tests.simulation.checks import violations_of
from tests.simulation.loop import Stuck, VirtualLoop, host_of
from tests.simulation.ports import WALLET, Faults, SimBus, SimClock, SimCluster, SimDatabase, SimVenue

LEASE_MS = 6_000
# Half of the storms outlast a blockhash (63 s), and some of them a node's status cache (120 s).
STORMS_S = ((10.0, 60.0), (100.0, 250.0))
HEALED_WITHIN_S = 900.0
REPLY_TIMEOUT_S = 4.0
GRACE_MS = 1_000


class Host(msgspec.Struct):
    """One life of one process: its name is new each time it starts."""

    name: str
    clock: SimClock
    store: SingleStore
    tasks: list["asyncio.Task[Any]"] = []


# How long a quiet stream waits before it reads the log. With the real interval, a history would
# consist of such reads mostly.
POLL_S: Final = 6.0


class Client(msgspec.Struct):
    """One client: its request, and the answers and events that it got; it believes nothing else."""

    key: str
    request: SwapRequest
    answers: list[str] = []
    seen: list[OrderEvent] = []
    is_cancelled: bool = False
    answered: asyncio.Event = msgspec.field(default_factory=asyncio.Event)

    @property
    def idempotency(self) -> IdempotencyKey:
        """The key with the digest of the client's only request."""
        return IdempotencyKey(self.key, "digest")


class NoLimit:
    """A RateLimiter that never refuses."""

    async def hit(self, _key: str, per_minute: int, _cost: int = 1) -> RateVerdict:
        return RateVerdict(is_allowed=True, limit=per_minute, remaining=per_minute, reset_s=1)


class NoSwitches:
    """A SwitchStore without pauses; nothing else of it is used."""

    async def pauses(self) -> list[Pause]:
        return []


class World:
    """The hosts, clients, database, bus and chain of a history, made from one seed."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.loop = VirtualLoop(seed)
        self.random = random.Random(f"{seed}:world")
        self.faults = Faults(*(self.random.choice((0.0, 0.05, 0.2, 0.4)) for _ in range(4)))
        self.database = SimDatabase(self.loop, random.Random(f"{seed}:database"), self.faults)
        self.cluster = SimCluster(self.loop, seed, self.faults, self._is_committed, self.note)
        self._notes: list[tuple[float, object]] = []
        self.clients: list[Client] = []
        self._number = 0
        self._lives = 0

    # --- hosts ---

    def start_host(self, role: str) -> Host:
        """Begin a new life of a process."""
        self._lives += 1
        name = f"{role}#{self._lives}"
        announce = announcer(self.bus, self.bus)
        store = SingleStore(
            SqliteStore(self.database, self.database, SimClock(self.loop), self._traced(announce), GRACE_MS)
        )
        skew_ms = self.random.randrange(-20_000, 20_000) if self.faults.database else 0
        host = Host(name, SimClock(self.loop, skew_ms), store, [])
        self.note(f"start {name}")
        if role.startswith("worker"):
            self.run_on(host, _live(self._worker(host)))
        return host

    def _start_api(self) -> None:
        self.api = self.start_host("api")
        self._api_gone: asyncio.Future[None] = self.loop.create_future()

    def run_on(self, host: Host, coroutine: Coroutine[Any, Any, Any]) -> "asyncio.Task[Any]":
        """Run a coroutine on a host: it stops for ever when the host is killed."""
        context = copy_context()
        context.run(host_of.set, host.name)
        task = self.loop.create_task(coroutine, context=context)
        host.tasks.append(task)
        return task

    def kill(self, host: Host) -> None:
        self.note(f"kill {host.name}")
        self.loop.kill(host.name)

    def _worker(self, host: Host) -> Worker:
        chain, counters = SolanaChain(self.cluster, host.clock, host.store.pin_cluster), Counters()
        settlement = Settlement(chain, self.loop.time, poll_s=1.5, resend_s=4.0, counters=counters)
        venues = {
            name: SimVenue(name, random.Random(f"{self.seed}:{name}:{host.name}"), self.faults, self.loop)
            for name in ("raydium", "meteora")
        }
        policy = ExecutionPolicy(RetryPolicy(backoff_ms=500), quote_timeout_s=1.0, max_claims=5)
        jitter = random.Random(f"{self.seed}:jitter:{host.name}").random
        signing = Signing(chain, SolanaAssembly(), WALLET, settlement.silence)
        executor = Executor(venues, signing, host.store, host.store, settlement, host.clock, jitter, policy, counters)
        limits = WorkerPolicy(concurrency=3, lease_ms=LEASE_MS, sweep_ms=3_000, max_per_min=0, grace_s=5.0)
        return Worker(host.name, host.store, self.bus, NoLimit(), executor.run, limits, counters)

    def _intake(self, host: Host) -> Intake:
        return Intake(
            host.store,
            host.store,
            NoLimit(),
            host.clock,
            self._new_order_id,
            0,
            Pauses(cast("SwitchStore", NoSwitches())),
            Meters(),
        )

    # --- the history ---

    def run(self) -> list[str]:
        """Live the whole history and return the violations."""
        structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
        asyncio.set_event_loop(None)
        often, order_stream.POLL_CONNECTED_S = order_stream.POLL_CONNECTED_S, POLL_S  # type: ignore[misc]
        try:
            return self.loop.run_until_complete(self._live())
        except Stuck:
            return ["I1: nothing can happen any more, and not every order is terminal"]
        finally:
            order_stream.POLL_CONNECTED_S = often  # type: ignore[misc]
            self.loop.bury()
            self.database.connection.close()

    async def _live(self) -> list[str]:
        self.bus = SimBus(self.loop, random.Random(f"{self.seed}:bus"), self.faults)
        await self.loop.create_task(self.cluster.network.start(), context=Context())
        self._start_api()
        self.workers = [self.start_host(f"worker{number}") for number in (1, 2)]
        registry = TokenRegistry()
        sol, usdc = registry.resolve("SOL", ""), registry.resolve("USDC", "")
        storm_s = self.random.uniform(*self.random.choice(STORMS_S))
        asking = []
        for number in range(self.random.randint(2, 5)):
            amount = BaseUnits(10**9 + number)
            client = Client(f"key{number}", SwapRequest(sol, usdc, amount, self.random.choice((1, 50, 1000))), [], [])
            self.clients.append(client)
            asking += [
                self.loop.create_task(self._ask(client, self.random.uniform(0, min(storm_s / 2, 30.0))))
                for _ in range(self.random.choice((1, 1, 2, 3)))
            ]
            asking.append(self.loop.create_task(self._follow(client)))
        breaking = self.loop.create_task(self._break_things())
        await asyncio.sleep(storm_s)
        breaking.cancel()
        self._heal()
        done, late = await asyncio.wait(asking, timeout=HEALED_WITHIN_S)
        for task in done:
            if task.exception() is not None:
                raise task.exception() or AssertionError
        found = [f"I1, I6: {len(late)} clients still wait after the world has healed"] if late else []
        return found + violations_of(self)

    async def _break_things(self) -> None:
        while True:
            await asyncio.sleep(self.random.expovariate(1 / 8.0))
            draw = self.random.random()
            place = self.random.randrange(len(self.workers))
            victim = self.workers[place]
            if draw < 0.4:
                self.kill(victim)
                await asyncio.sleep(self.random.uniform(0.0, 5.0))
                self.workers[place] = self.start_host(f"worker{place + 1}")
            elif draw < 0.8:
                self.note(f"pause {victim.name}")
                self.loop.pause(victim.name)
                await asyncio.sleep(self.random.uniform(1.0, 25.0))
                self.note(f"resume {victim.name}")
                self.loop.resume(victim.name)
            elif draw < 0.92:
                self.kill(self.api)
                self._api_gone.set_result(None)
                self._start_api()
            else:
                for worker in self.workers:
                    self.kill(worker)
                await asyncio.sleep(self.random.uniform(60.0, 200.0))
                self.workers = [self.start_host(f"worker{number}") for number in (1, 2)]

    def _heal(self) -> None:
        self.note("heal")
        self.faults.heal()
        for place, worker in enumerate(self.workers):
            self.loop.resume(worker.name)
            if self.loop.is_dead(worker.name):
                self.workers[place] = self.start_host(f"worker{place + 1}")

    # --- clients ---

    async def _ask(self, client: Client, after_s: float) -> None:
        """Place the order with the same key until it is answered; then sometimes cancel it."""
        await asyncio.sleep(after_s)
        while True:
            order_id = await self._call(
                lambda host: self._intake(host).submit_order("a", "c", client.request, client.idempotency),
                lambda submission: submission.order.order_id,
            )
            if order_id is not None:
                client.answers.append(order_id)
                client.answered.set()
                self.note(f"answered {client.key} {order_id}")
                break
            await asyncio.sleep(self.random.uniform(0.2, 3.0))
        if self.random.random() < 0.15:
            await asyncio.sleep(self.random.uniform(0.0, 2.0))
            answer = await self._call(lambda host: self._intake(host).cancel_order("a", order_id), lambda it: it.status)
            client.is_cancelled = client.is_cancelled or answer == "cancelled"

    async def _follow(self, client: Client) -> None:
        """Read the order's stream to its end, over as many connections as it takes."""
        await client.answered.wait()
        while not (client.seen and client.seen[-1].status in TERMINAL):
            host = self.api
            task = self.run_on(host, self._stream(host, client, self.random.uniform(0.5, 60.0)))
            await asyncio.wait([task, self._api_gone], return_when=asyncio.FIRST_COMPLETED)
            await asyncio.sleep(0.5)

    async def _stream(self, host: Host, client: Client, patience_s: float) -> None:
        after = client.seen[-1].seq if client.seen else 0
        try:
            async with asyncio.timeout(patience_s):
                async for batch in follow_order(host.store, self.bus, "a", OrderId(client.answers[0]), after):
                    client.seen.extend(batch)
        except (TimeoutError, OrderEngineError):
            pass

    async def _call(self, ask: Callable[[Host], Coroutine[Any, Any, Any]], tell: Callable[[Any], str]) -> str | None:
        """Ask the API's host; returns None if no answer comes, for example because it is killed."""
        answer: asyncio.Future[str | None] = self.loop.create_future()
        host = self.api

        async def serve() -> None:
            try:
                told: str | None = tell(await ask(host))
            except (CancelTooLate, RateLimited) as error:
                told = type(error).__name__
            except OrderEngineError:
                told = None
            if not answer.done():
                answer.set_result(told)

        self.run_on(host, serve())
        try:
            async with asyncio.timeout(REPLY_TIMEOUT_S):
                return await answer
        except TimeoutError:
            return None

    # --- the trace ---

    def note(self, line: object) -> None:
        """Add a line to the trace; it becomes text only when the trace is read."""
        self._notes.append((self.loop.time(), line))

    @property
    def trace(self) -> list[str]:
        """Return the lines of the trace, in their order."""
        return [f"{at_s:10.4f} {line}" for at_s, line in self._notes]

    def _traced(self, announce: Callable[[Any], None]) -> Callable[[Any], None]:
        def announce_and_note(events: Any) -> None:
            for event in events:
                self.note(f"event {event.order_id[-4:]} {event.seq} {event.status} {bytes(event.data).decode()}")
            announce(events)

        return announce_and_note

    def _is_committed(self, signature: str) -> bool:
        return bool(self.database.rows("select 1 from attempts where signature = ?", signature))

    def _new_order_id(self) -> OrderId:
        self._number += 1
        return OrderId(f"00000000-0000-7000-8000-{self._number:012d}")


async def _live(worker: Worker) -> None:
    await worker.start()
    await worker.run()
