"""The real engine under everything at once: processes killed and frozen, servers killed, commits cut."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, suppress
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from redis.asyncio import Redis

from tests.faults import points
from tests.faults.crowd import Crowd, check_streams
from tests.faults.load import check_confirmed, wait_for_postgres
from tests.faults.proxy import CUTS, Proxy
from tests.faults.zygote import Zygote
from tests.servers import PostgresServer, RedisServer
from tests.stack import EngineProcess, Stack, distributed_stack

_WORKERS: Final = 5
_APIS: Final = 2
# Longer than the search for dead workers takes, so that orders are taken over by it and by lapsed leases.
_LEASE_S: Final = 2
# A life longer than the lease, so that leases are renewed, and short enough for a test.
_LONGEST_LIFE_S: Final = 2.5
# How long a life lasts that ends at random: an API's is long enough to serve the clients that waited for it.
_LIFE_S: Final = {"worker": (0.1, 1.5), "api": (1.0, 4.0), "chain": (1.0, 4.0)}
_NTH: Final = {"worker": (1, 1, 2, 5), "api": (1, 5, 25), "chain": (1, 5, 25)}
_SETTINGS: Final = {
    "MOCK_DELAY_SCALE": "0.1",
    "LEASE_SECONDS": str(_LEASE_S),
    "SWEEP_INTERVAL_MS": "200",
    "MAX_CLAIMS": "100",  # No order is poison here: workers die because they are killed.
    "CHAIN_RESEND_MS": "500",
    "SHUTDOWN_GRACE_MS": "0",
    "LOG_LEVEL": "warning",
}
_HEAL_S: Final = 120.0
_MAX_OVERTIME_S: Final = 120.0


class Plan(NamedTuple):
    """The size of a storm: the minimum of kills and pauses, and about how many seconds it lasts.

    With `every_point` it lasts until each named point was hit.
    """

    kills: int
    pauses: int
    orders: int
    streams: int
    seconds: float
    every_point: bool


class Report(NamedTuple):
    """The faults, and the orders and streams of the clients."""

    kills: Counter[str]
    points: Counter[str]
    pauses: int
    cuts: Counter[str]
    flushes: int
    orders: int
    streams: int
    reconnects: int
    took_s: float

    def lines(self) -> Iterator[str]:
        at_points = sum(self.points.values())
        kills = sum(self.kills.values()) + at_points
        yield f"{kills} kills: {at_points} at {len(self.points)} named points, {_listed(self.kills)}"
        yield f"{self.pauses} pauses longer than the lease of {_LEASE_S} s"
        yield f"{sum(self.cuts.values())} commits cut ({_listed(self.cuts)})"
        yield f"{self.flushes} times Redis flushed"
        yield f"{self.orders} orders: each kept, terminal, executed at most once, true"
        yield f"{self.streams} streams over {self.reconnects} connections: gapless, nothing twice"
        yield f"in {self.took_s:.0f} s"


class Storm:
    """One run: the processes, the faults, and the clients in between."""

    def __init__(self, plan: Plan, seed: int, directory: Path, postgres: PostgresServer, redis: RedisServer) -> None:
        self._plan = plan
        self._random = random.Random(seed)
        self._directory = directory
        self._postgres = postgres
        self._redis = redis
        self._marks = directory / "marks"
        self._is_over = asyncio.Event()
        self._kills: Counter[str] = Counter()
        self._pauses = 0
        self._flushes = 0
        self._to_visit = {role: self._in_turn(role) for role in points.BY_ROLE}

    async def run(self, tell: Callable[[str], None]) -> Report:
        """Run the storm, heal, and check everything; raises AssertionError if a check fails."""
        began = time.monotonic()
        async with AsyncExitStack() as stack:
            proxy = await stack.enter_async_context(Proxy(_port(self._postgres.url)))
            url = await self._postgres.create_database()
            zygote = stack.enter_context(Zygote())
            engine = stack.enter_context(
                distributed_stack(self._directory, _through(url, proxy), self._redis.url, zygote.launch, **_SETTINGS)
            )
            apis = [await asyncio.to_thread(engine.spawn, "api") for _ in range(_APIS)]
            workers = [engine.make("worker") for _ in range(_WORKERS)]
            crowd = Crowd([api.url for api in apis], self._random.randrange(2**32))
            stack.push_async_callback(crowd.close)
            async with asyncio.TaskGroup() as tasks:
                telling = tasks.create_task(self._tell_progress(tell, crowd))
                tasks.create_task(
                    crowd.place(self._plan.orders, self._plan.streams, self._plan.seconds * 0.9, self._is_over)
                )
                await self._break_things(engine, apis, workers, proxy)
                tell("healing")
                telling.cancel()
                proxy.heal()
                for process in (engine.chain, *apis, *workers):
                    assert process is not None
                    self._end_life(process)
                    process.start(wait=False)
            histories = await wait_for_postgres(url, engine.ledger, [*crowd.accepted.values()], _HEAL_S)
            async with asyncio.timeout(_HEAL_S):
                await crowd.until_told()
            assert not crowd.wrong, crowd.wrong
            assert len(set(crowd.accepted.values())) == len(crowd.accepted) == len(histories) >= self._plan.orders
            check_streams(crowd.streams, histories)
            check_confirmed(histories)
            assert not self._plan.every_point or (self._flushes and {*proxy.cuts} == {*CUTS}), proxy.cuts
            return Report(
                self._kills,
                self._visited(),
                self._pauses,
                proxy.cuts,
                self._flushes,
                len(crowd.accepted),
                len(crowd.streams),
                crowd.reconnects,
                time.monotonic() - began,
            )

    # --- faults ---

    async def _break_things(
        self, engine: Stack, apis: list[EngineProcess], workers: list[EngineProcess], proxy: Proxy
    ) -> None:
        assert engine.chain is not None
        async with asyncio.TaskGroup() as breaking:
            for process in (*workers, *apis, engine.chain):
                breaking.create_task(self._lives(process))
            breaking.create_task(self._break_servers())
            breaking.create_task(self._cut_commits(proxy))
            ends_at = time.monotonic() + self._plan.seconds
            while time.monotonic() < ends_at or not self._is_enough():
                await asyncio.sleep(0.1)
                assert time.monotonic() < ends_at + _MAX_OVERTIME_S, f"never reached: {self._unvisited()}"
            self._is_over.set()

    def _visited(self) -> Counter[str]:
        return Counter(self._marks.read_text().splitlines() if self._marks.exists() else ())

    def _unvisited(self) -> set[str]:
        return {name for role in points.BY_ROLE for name in points.names(role)} - {*self._visited()}

    def _killed(self) -> int:
        return sum(self._kills.values()) + sum(self._visited().values())

    def _is_enough(self) -> bool:
        is_everywhere = not self._plan.every_point or not self._unvisited()
        return self._killed() >= self._plan.kills and self._pauses >= self._plan.pauses and is_everywhere

    async def _lives(self, process: EngineProcess) -> None:
        """Start the process again and again; each life ends at a named point, at random, or after a pause."""
        if process.process is None:
            process.start(wait=False)
        while not self._is_over.is_set():
            await self._wait(self._random.uniform(*_LIFE_S[process.role]))
            if process.role == "worker" and self._random.random() < 0.5:
                await self._pause(process)
            self._end_life(process)
            await self._live_to_a_point(process)
            process.start(wait=False)

    async def _live_to_a_point(self, process: EngineProcess) -> None:
        """One life that kills itself at a named point, or is killed if it does not get there in 2.5 s."""
        name = next(self._to_visit[process.role])
        needs_sigterm = points.point_of(process.role, name).needs == "SIGTERM"
        is_first_visit = name not in self._visited()
        nth = 1 if needs_sigterm or is_first_visit else self._random.choice(_NTH[process.role])
        process.start(wait=False, KILL_AT=f"{name}:{nth}", KILL_MARKS=str(self._marks))
        assert process.process is not None
        deadline = time.monotonic() + _LONGEST_LIFE_S
        if needs_sigterm:
            await self._wait(1.0)
            process.process.send_signal(15)
        while process.process.poll() is None and time.monotonic() < deadline and not self._is_over.is_set():
            await asyncio.sleep(0.02)
        self._end_life(process)

    def _end_life(self, process: EngineProcess) -> None:
        """Send SIGKILL, unless the process has ended: at a named point, or for lack of a server at its start."""
        if process.process is not None and process.process.poll() is None:
            process.kill()
            self._kills[process.role] += 1

    async def _pause(self, process: EngineProcess) -> None:
        process.pause()
        await self._wait(_LEASE_S + 0.5)
        process.resume()
        assert process.process is not None
        if process.process.poll() is None:
            self._pauses += 1
        await self._wait(0.3)

    async def _break_servers(self) -> None:
        while not self._is_over.is_set():
            await self._wait(self._random.uniform(1, 4))
            match self._random.choice(("postgres", "redis", "redis", "flush", "flush", "flush")):
                case "postgres":
                    await self._kill_server("postgres", self._postgres)
                case "redis":
                    await self._kill_server("redis", self._redis)
                case _:
                    async with Redis.from_url(self._redis.url) as redis:
                        await redis.flushall()
                    self._flushes += 1

    async def _kill_server(self, name: str, server: PostgresServer | RedisServer) -> None:
        await asyncio.to_thread(server.kill)
        self._kills[name] += 1
        await self._wait(self._random.uniform(0, 1))
        await asyncio.to_thread(server.start)

    async def _cut_commits(self, proxy: Proxy) -> None:
        while not self._is_over.is_set():
            await self._wait(self._random.uniform(0.2, 1))
            proxy.cut_a_commit(self._random.choice(CUTS))

    async def _wait(self, seconds: float) -> None:
        """Sleep, but not beyond the storm's end."""
        with suppress(TimeoutError):
            await asyncio.wait_for(self._is_over.wait(), seconds)

    def _in_turn(self, role: str) -> Iterator[str]:
        while True:
            names = points.names(role)
            self._random.shuffle(names)
            yield from names

    async def _tell_progress(self, tell: Callable[[str], None], crowd: Crowd) -> None:
        while True:
            await asyncio.sleep(5)
            done = f"{self._killed()} kills, {self._pauses} pauses, {len(crowd.accepted)} orders accepted"
            tell(f"{done} after {_listed(crowd.refusals)}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{count} {name}" for name, count in sorted(counts.items()))


def _port(url: str) -> int:
    port = urlsplit(url).port
    assert port is not None
    return port


def _through(url: str, proxy: Proxy) -> str:
    return url.replace(f":{_port(url)}/", f":{proxy.port}/")
