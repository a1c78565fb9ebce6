"""Puts the engine together from its adapters."""

import asyncio
import contextlib
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from typing import Final

import msgspec
import uuid_utils
from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.app import build_app
from order_engine.api.context import ApiContext
from order_engine.api.edge import EdgePolicy
from order_engine.api.frames import PageFrame
from order_engine.api.hosts import parse_host_names, parse_networks, parse_origins, parse_public_url
from order_engine.api.metrics import build_metrics_app
from order_engine.batching import GroupCommit
from order_engine.bus.memory import MemoryEventBus, MemoryRateLimiter, MemoryReadyQueue
from order_engine.bus.redis import RedisBus
from order_engine.bus.redis_limits import RedisRateLimiter
from order_engine.bus.redis_link import RedisNames
from order_engine.chain.assembly import SolanaAssembly
from order_engine.chain.client import SolanaChain
from order_engine.chain.history import WalletHistory
from order_engine.chain.measured import MeasuredTransport
from order_engine.chain.rpc import HttpTransport, Transport
from order_engine.clock import SteadyClock, SystemClock
from order_engine.counters import Counters
from order_engine.domain.errors import ChainUnavailable, WrongCluster
from order_engine.domain.retry import RetryPolicy
from order_engine.domain.tokens import TokenRegistry
from order_engine.engine.account_stream import AccountStreams
from order_engine.engine.callers import Callers
from order_engine.engine.executor import ExecutionPolicy, Executor
from order_engine.engine.health import ChainWatch, HealthMonitor
from order_engine.engine.intake import Intake, announcer
from order_engine.engine.limits import CallerLimit
from order_engine.engine.measured_venue import MeasuredVenue
from order_engine.engine.pauses import Pauses
from order_engine.engine.settlement import Settlement
from order_engine.engine.signing import Signing
from order_engine.engine.worker import Worker, WorkerPolicy
from order_engine.paper.local import LocalTransport
from order_engine.paper.market import REFERENCE_PRICES_USD, PaperMarket
from order_engine.paper.signer import PaperSigner
from order_engine.ports.access import AccessStore
from order_engine.ports.bus import EventBus, RateLimiter, ReadyQueue
from order_engine.ports.clock import Clock
from order_engine.ports.health import Heartbeat
from order_engine.ports.signer import Signer
from order_engine.ports.store import Store
from order_engine.ports.venues import Venue
from order_engine.service import lasting
from order_engine.settings import LEDGER_FILE, Settings, SettingsError
from order_engine.store.postgres.store import SESSION
from order_engine.token_file import load_tokens
from order_engine.wiring.paper import chain_faults, open_paper_chain, paper_venues
from order_engine.wiring.stores import ANNOUNCE_GRACE_MS, new_order_id, open_callers, open_store, store_name

_TRY_CHAIN_S: Final = 2.0
_WAIT_TOLERANCE_MS: Final = 1_000


class Engine(msgspec.Struct, frozen=True):
    """The parts of an engine process. `process_name` is unique, and the same until the process ends."""

    settings: Settings
    process_name: str
    store: Store
    orders: GroupCommit
    ready: ReadyQueue
    bus: EventBus
    limiter: RateLimiter
    counters: Counters
    clock: Clock
    tokens: TokenRegistry
    venues: Mapping[str, Venue]
    chain: SolanaChain
    signer: Signer
    store_name: str
    bus_name: str
    chain_name: str
    access: AccessStore
    callers: Callers
    pauses: Pauses


class _Buses(msgspec.Struct, frozen=True):
    """The bus of a process in its roles. `redis`: the bus that `_open_limiter` starts, or None."""

    ready: ReadyQueue
    events: EventBus
    redis: RedisBus | None


@contextlib.asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Connect everything, migrate the database if needed, and close it all at the end."""
    settings.require_services()
    chain_faults(settings)  # A wrong setting is refused before anything is opened.
    clock, paper_clock, counters = SystemClock(), SteadyClock(), Counters()
    tokens, prices = load_tokens(settings.tokens_file, REFERENCE_PRICES_USD)
    market = PaperMarket(settings.mock_seed, prices)
    signer = PaperSigner(settings.mock_seed)
    async with contextlib.AsyncExitStack() as stack:
        buses = _open_buses(settings, clock, counters)
        transport = await _open_transport(stack, settings, market, paper_clock)
        process_name = _new_process_name()
        store = await open_store(stack, settings, clock, announcer(buses.ready, buses.events), process_name)
        limiter = await _open_limiter(stack, settings, buses, store, clock)
        chain = SolanaChain(MeasuredTransport(transport, counters.meters), clock, store.pin_cluster)
        stack.push_async_callback(chain.close)
        await _try_chain(chain, settings, counters)
        access, callers, pauses = await open_callers(stack, store, clock)
        orders = GroupCommit(store, counters.meters)
        stack.push_async_callback(orders.drain)
        yield Engine(
            settings=settings,
            process_name=process_name,
            store=store,
            orders=orders,
            ready=buses.ready,
            bus=buses.events,
            limiter=limiter,
            counters=counters,
            clock=clock,
            tokens=tokens,
            venues={
                name: MeasuredVenue(venue, counters.meters, time.monotonic)
                for name, venue in paper_venues(settings, market, paper_clock, signer).items()
            },
            chain=chain,
            signer=signer,
            store_name=store_name(settings),
            bus_name="Redis" if settings.redis else "in process",
            chain_name="CHAIN_URL" if settings.chain_url else "in process",
            access=access,
            callers=callers,
            pauses=pauses,
        )


def _open_buses(settings: Settings, clock: Clock, counters: Counters) -> _Buses:
    if settings.redis is None:
        return _Buses(MemoryReadyQueue(), MemoryEventBus(), None)
    redis = RedisBus(settings.redis, settings.redis_key_prefix, clock, counters)
    return _Buses(redis, redis, redis)


async def _open_limiter(
    stack: contextlib.AsyncExitStack, settings: Settings, buses: _Buses, store: Store, clock: Clock
) -> RateLimiter:
    """Start the bus under the engine's identity if it is on Redis; return the rate limiter."""
    if settings.redis is None or buses.redis is None:
        return MemoryRateLimiter(clock)
    # The identity of the engine is stored in the database.
    identity = await store.identity()
    buses.redis.identify(identity)
    await stack.enter_async_context(lasting(buses.redis))
    names = RedisNames(settings.redis_key_prefix, identity)
    limiter = RedisRateLimiter(settings.redis, names, clock, buses.redis.troubles)
    stack.push_async_callback(limiter.close)
    return limiter


async def _open_transport(
    stack: contextlib.AsyncExitStack, settings: Settings, market: PaperMarket, clock: Clock
) -> Transport:
    if settings.chain_url:
        return HttpTransport(settings.chain_url)
    ledger = settings.sqlite_path.with_name(LEDGER_FILE)
    network, node = await open_paper_chain(stack, settings, ledger, market, clock)
    return LocalTransport(node, network)


@contextlib.asynccontextmanager
async def open_reconciliation(settings: Settings) -> AsyncIterator[tuple[Store, Intake, WalletHistory]]:
    """Open the database and the chain without a worker and an API, so that nothing is signed meanwhile."""
    async with open_engine(settings) as engine:
        yield engine.store, _build_intake(engine), engine.chain.wallet_history(engine.signer.public_key)


def _build_intake(engine: Engine) -> Intake:
    maximum = engine.settings.api_max_orders_per_min
    return Intake(
        engine.orders,
        engine.store,
        engine.limiter,
        engine.clock,
        new_order_id,
        maximum,
        engine.pauses,
        engine.counters.meters,
    )


def build_health(engine: Engine, role: str, *, works: bool) -> HealthMonitor:
    """Return the health monitor of a process; it also watches the chain if the process `works`."""
    watch = ChainWatch(engine.chain, time.monotonic) if works else None
    return HealthMonitor(
        engine.store, engine.bus, time.monotonic, Heartbeat(engine.process_name, role), watch, engine.pauses
    )


def edge_policy(settings: Settings) -> EdgePolicy:
    """Return the hosts, origins and proxies that the settings name."""
    return EdgePolicy(
        parse_host_names(settings.allowed_hosts),
        parse_origins(settings.allowed_origins),
        parse_networks(settings.trusted_proxies),
        parse_public_url(settings.public_url),
    )


def build_api(engine: Engine, health: HealthMonitor) -> ASGIApp:
    """Return the HTTP application of this engine."""
    settings = engine.settings
    return build_app(
        ApiContext(
            intake=_build_intake(engine),
            orders=engine.orders,
            reader=engine.store,
            bus=engine.bus,
            account_streams=AccountStreams(engine.store, engine.bus, PageFrame),
            tokens=engine.tokens,
            venues=engine.venues,
            clock=engine.clock,
            chain=engine.chain,
            default_slippage_bps=settings.default_slippage_bps,
            quote_timeout_s=settings.quote_timeout_ms / 1000,
            quote_limit=CallerLimit(engine.limiter, "quotes", settings.api_max_quotes_per_min),
            health=health,
            access=engine.access,
            callers=engine.callers,
            pauses=engine.pauses,
            counters=engine.counters,
            is_paper=True,  # There are no other venues yet.
            has_compat_routes=settings.compat_routes == "on",
        ),
        edge_policy(settings),
    )


def build_worker_metrics(engine: Engine, health: HealthMonitor) -> ASGIApp:
    """Return the application that serves a worker's measurements."""
    return build_metrics_app(engine.counters, health)


def build_worker(engine: Engine) -> Worker:
    """Return a worker of this engine."""
    settings = engine.settings
    settlement = Settlement(
        engine.chain,
        time.monotonic,
        poll_s=settings.chain_poll_ms / 1000,
        resend_s=settings.chain_resend_ms / 1000,
        counters=engine.counters,
    )
    retry = RetryPolicy(
        max_attempts=settings.order_max_attempts,
        backoff_ms=settings.retry_backoff_ms,
        backoff_max_ms=settings.retry_backoff_max_ms,
        jitter_percent=settings.retry_jitter_percent,
    )
    executor = Executor(
        venues=engine.venues,
        signing=Signing(engine.chain, SolanaAssembly(), engine.signer, settlement.silence),
        store=engine.orders,
        reader=engine.store,
        settlement=settlement,
        clock=engine.clock,
        randomness=random.random,
        policy=ExecutionPolicy(
            retry=retry, quote_timeout_s=settings.quote_timeout_ms / 1000, max_claims=settings.max_claims
        ),
        counters=engine.counters,
    )
    policy = WorkerPolicy(
        concurrency=settings.worker_concurrency,
        lease_ms=settings.lease_seconds * 1000,
        sweep_ms=settings.sweep_interval_ms,
        max_per_min=settings.queue_max_per_min,
        grace_s=settings.shutdown_grace_ms / 1000,
        longest_wait_ms=max(settings.retry_backoff_max_ms, ANNOUNCE_GRACE_MS) + _WAIT_TOLERANCE_MS,
    )
    return Worker(
        process_name=engine.process_name,
        queue=engine.store,
        ready=engine.ready,
        limiter=engine.limiter,
        execute=executor.run,
        policy=policy,
        counters=engine.counters,
    )


def _new_process_name() -> str:
    """Return a name that no other process has, short enough for PostgreSQL and readable in its list of sessions."""
    host = socket.gethostname().encode("ascii", "replace").decode()[:16]
    return f"{SESSION}{host}:{os.getpid()}:{uuid_utils.uuid4().hex[:16]}"


async def _try_chain(chain: SolanaChain, settings: Settings, counters: Counters) -> None:
    """Report a wrong chain at once; if the chain does not answer, the engine starts and waits for it."""
    try:
        async with asyncio.timeout(_TRY_CHAIN_S):
            await chain.finalized_point()
    except WrongCluster as error:
        database = "DATABASE_URL" if settings.postgres else str(settings.sqlite_path)
        if settings.chain_url:
            message = f"CHAIN_URL cannot be used: {error}. Name their chain, or another database than {database}."
        else:
            ledger = settings.sqlite_path.with_name(LEDGER_FILE)
            message = f"{ledger} cannot be used: {error}. Put the right file back, or move {database} away too."
        raise SettingsError(message) from error
    except (ChainUnavailable, TimeoutError) as error:
        observe.chain_lost(counters, error)
