"""The composition root: the only file that names concrete adapters."""

import asyncio
import contextlib
import fcntl
import os
import random
import socket
import time
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final

import asyncpg
import msgspec
import uuid_utils
from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.app import build_app
from order_engine.api.context import ACCOUNT, ApiContext
from order_engine.api.edge import EdgePolicy
from order_engine.api.frames import PageFrame
from order_engine.api.hosts import parse_host_names, parse_networks, parse_origins, parse_public_url
from order_engine.batching import GroupCommit
from order_engine.bus.memory import MemoryEventBus, MemoryRateLimiter, MemoryReadyQueue
from order_engine.bus.redis import RedisBus
from order_engine.bus.redis_limits import RedisRateLimiter
from order_engine.bus.redis_link import RedisNames
from order_engine.chain.client import PaperWallet, SolanaChain
from order_engine.chain.history import WalletHistory
from order_engine.chain.rpc import HttpTransport, Transport
from order_engine.clock import SteadyClock, SystemClock
from order_engine.domain.errors import ChainUnavailable, WrongCluster, WrongSchema
from order_engine.domain.order import OrderId
from order_engine.domain.retry import RetryPolicy
from order_engine.domain.tokens import TokenRegistry
from order_engine.engine.account_stream import AccountStream
from order_engine.engine.executor import ExecutionPolicy, Executor
from order_engine.engine.health import ChainWatch, HealthMonitor
from order_engine.engine.intake import Intake, announcer
from order_engine.engine.limits import CallerLimit
from order_engine.engine.settlement import Settlement
from order_engine.engine.worker import Worker, WorkerPolicy
from order_engine.paper.faults import ChainFaults, parse_faults
from order_engine.paper.ledger import SqliteLedger
from order_engine.paper.local import LocalTransport
from order_engine.paper.market import METEORA, RAYDIUM, REFERENCE_PRICES_USD, PaperMarket
from order_engine.paper.network import PaperNetwork
from order_engine.paper.node import PaperNode
from order_engine.paper.server import build_chain_app
from order_engine.paper.venue import PaperFaults, PaperVenue
from order_engine.ports.bus import EventBus, RateLimiter, ReadyQueue
from order_engine.ports.clock import Clock
from order_engine.ports.health import Heartbeat
from order_engine.ports.store import Announce, Store
from order_engine.ports.venues import Venue
from order_engine.settings import LEDGER_FILE, Settings, SettingsError
from order_engine.store.postgres.store import SESSION, PostgresStore
from order_engine.store.sqlite.store import SqliteStore
from order_engine.token_file import load_tokens

# How long a fresh order is left to the ready queue before a sweep takes it.
ANNOUNCE_GRACE_MS: Final = 1_000
_TRY_CHAIN_S: Final = 2.0
_WAIT_TOLERANCE_MS: Final = 1_000


class Engine(msgspec.Struct, frozen=True):
    """One process's engine, before it is told what to be. `session` is its name in this life."""

    settings: Settings
    session: str
    store: Store
    orders: GroupCommit
    ready: ReadyQueue
    bus: EventBus
    limiter: RateLimiter
    clock: Clock
    tokens: TokenRegistry
    venues: Mapping[str, Venue]
    chain: SolanaChain
    store_name: str
    bus_name: str
    chain_name: str


@contextlib.asynccontextmanager
async def open_engine(settings: Settings) -> AsyncIterator[Engine]:
    """Connect everything, migrate the database if needed, and close it all at the end."""
    settings.require_services()
    chain_faults(settings)
    clock, paper_clock = SystemClock(), SteadyClock()
    tokens, prices = load_tokens(settings.tokens_file, REFERENCE_PRICES_USD)
    market = PaperMarket(settings.mock_seed, prices)
    faults = PaperFaults(settings.mock_fail_rate, settings.mock_delay_scale)
    wallet = PaperWallet(settings.mock_seed)
    async with contextlib.AsyncExitStack() as stack:
        ready: ReadyQueue
        bus: EventBus
        limiter: RateLimiter
        redis_bus: RedisBus | None = None
        if settings.redis is not None:
            ready = bus = redis_bus = RedisBus(settings.redis, settings.redis_key_prefix, clock)
            stack.push_async_callback(redis_bus.close)
        else:
            ready, bus, limiter = MemoryReadyQueue(), MemoryEventBus(), MemoryRateLimiter(clock)
        announce = announcer(ready, bus)
        if settings.chain_url:
            transport: Transport = HttpTransport(settings.chain_url)
        else:
            network, node = await _open_paper_chain(
                stack, settings, settings.sqlite_path.with_name(LEDGER_FILE), market, paper_clock
            )
            transport = LocalTransport(node, network)
        session = _new_session()
        store = await _open_store(stack, settings, clock, announce, session)
        if settings.redis is not None and redis_bus is not None:
            # Only the database knows who this engine is.
            identity = await store.identity()
            await redis_bus.start(identity)
            names = RedisNames(settings.redis_key_prefix, identity)
            limiter = redis_limiter = RedisRateLimiter(settings.redis, names, clock, redis_bus.troubles)
            stack.push_async_callback(redis_limiter.close)
        chain = SolanaChain(transport, wallet, clock, store.pin_cluster)
        stack.push_async_callback(chain.close)
        await _try_chain(chain, settings)
        orders = GroupCommit(store)
        stack.push_async_callback(orders.drain)
        yield Engine(
            settings,
            session,
            store,
            orders,
            ready,
            bus,
            limiter,
            clock,
            tokens,
            {
                terms.name: PaperVenue(terms.name, market, paper_clock, faults, settings.mock_seed, wallet.public_key)
                for terms in (RAYDIUM, METEORA)
            },
            chain,
            _store_name(settings),
            "Redis" if settings.redis else "in process",
            "CHAIN_URL" if settings.chain_url else "in process",
        )


@contextlib.asynccontextmanager
async def open_chain_app(settings: Settings) -> AsyncIterator[ASGIApp]:
    """Return the HTTP application of the paper chain on its ledger in DATA_DIR."""
    _, prices = load_tokens(settings.tokens_file, REFERENCE_PRICES_USD)
    async with contextlib.AsyncExitStack() as stack:
        path = settings.data_dir / LEDGER_FILE
        network, node = await _open_paper_chain(
            stack, settings, path, PaperMarket(settings.mock_seed, prices), SteadyClock()
        )
        stack.push_async_callback(network.close)
        yield build_chain_app(node)


async def migrate(settings: Settings) -> str:
    """Bring the database's schema up to date; returns what the database is."""
    async with contextlib.AsyncExitStack() as stack:
        await _open_store(stack, settings, SystemClock(), lambda _events: None, "order-engine migrate")
    return _store_name(settings)


@contextlib.asynccontextmanager
async def open_reconciliation(settings: Settings) -> AsyncIterator[tuple[Store, Intake, WalletHistory]]:
    """Open the database and the chain, and neither a worker nor an API: nothing is signed meanwhile."""
    async with open_engine(settings) as engine:
        yield engine.store, _build_intake(engine), engine.chain.wallet_history()


def chain_faults(settings: Settings) -> ChainFaults:
    """Return the faults of the paper chain; raises SettingsError."""
    try:
        return parse_faults(settings.chain_faults)
    except ValueError as error:
        message = f"CHAIN_FAULTS={settings.chain_faults!r} cannot be used: {error}; .env.example lists them all."
        raise SettingsError(message) from error


def _build_intake(engine: Engine) -> Intake:
    maximum = engine.settings.api_max_orders_per_min
    return Intake(engine.orders, engine.store, engine.limiter, engine.clock, new_order_id, maximum)


def build_health(engine: Engine, role: str, *, works: bool) -> HealthMonitor:
    """Return the health monitor of a process; `works` tells whether it looks at the chain."""
    watch = ChainWatch(engine.chain, time.monotonic) if works else None
    return HealthMonitor(engine.store, engine.bus, time.monotonic, Heartbeat(engine.session, role), watch)


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
            _build_intake(engine),
            engine.orders,
            engine.store,
            engine.bus,
            AccountStream(engine.store, engine.bus, ACCOUNT, PageFrame),
            engine.tokens,
            engine.venues,
            engine.clock,
            engine.chain,
            settings.default_slippage_bps,
            settings.quote_timeout_ms / 1000,
            CallerLimit(engine.limiter, "quotes", settings.api_max_quotes_per_min),
            health,
            all(isinstance(venue, PaperVenue) for venue in engine.venues.values()),
            settings.compat_routes == "on",
        ),
        edge_policy(settings),
    )


def build_worker(engine: Engine) -> Worker:
    """Return a worker of this engine."""
    settings = engine.settings
    settlement = Settlement(
        engine.chain, time.monotonic, settings.chain_poll_ms / 1000, settings.chain_resend_ms / 1000
    )
    retry = RetryPolicy(
        settings.order_max_attempts,
        settings.retry_backoff_ms,
        settings.retry_backoff_max_ms,
        settings.retry_jitter_percent,
    )
    executor = Executor(
        engine.venues,
        engine.chain,
        engine.orders,
        engine.store,
        settlement,
        engine.clock,
        random.random,
        ExecutionPolicy(retry, settings.quote_timeout_ms / 1000, settings.max_claims),
    )
    policy = WorkerPolicy(
        settings.worker_concurrency,
        settings.lease_seconds * 1000,
        settings.sweep_interval_ms,
        settings.queue_max_per_min,
        settings.shutdown_grace_ms / 1000,
        max(settings.retry_backoff_max_ms, ANNOUNCE_GRACE_MS) + _WAIT_TOLERANCE_MS,
    )
    return Worker(engine.session, engine.store, engine.ready, engine.limiter, executor.run, policy)


def _new_session() -> str:
    """Return a name that no other process has, short enough for PostgreSQL and readable in its list of sessions."""
    host = socket.gethostname().encode("ascii", "replace").decode()[:16]
    return f"{SESSION}{host}:{os.getpid()}:{uuid_utils.uuid4().hex[:16]}"


async def _open_store(
    stack: contextlib.AsyncExitStack, settings: Settings, clock: Clock, announce: Announce, session: str
) -> Store:
    """Connect to the database and migrate it; of a file, this process is the only owner."""
    store: Store
    if settings.postgres is not None:
        target = settings.postgres
        try:
            store = await PostgresStore.open(target.dsn, target.schema, announce, ANNOUNCE_GRACE_MS, session)
        except WrongSchema as error:
            raise SettingsError(f"DATABASE_URL cannot be used: {error}.") from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise SettingsError(
                f"The role in DATABASE_URL may do too little: PostgreSQL says {error}. As the owner of the database, "
                "run `order-engine migrate`, and grant the role the rights that README.md lists."
            ) from error
        except asyncpg.PostgresError as error:
            # The server answered: it does not know an option of the URL, for example.
            raise SettingsError(f"DATABASE_URL cannot be used: PostgreSQL says {error}.") from error
    else:
        path = settings.sqlite_path
        _lock(stack, path)
        try:
            store = sqlite = await SqliteStore.open(path, clock, announce, ANNOUNCE_GRACE_MS)
        except WrongSchema as error:
            raise SettingsError(f"{path} cannot be used: {error}.") from error
        # Nobody else has the file, so whoever holds a lease on it is a former life of this process.
        observe.leases_taken_back(await sqlite.take_back_leases())
    stack.push_async_callback(store.close)
    return store


async def _try_chain(chain: SolanaChain, settings: Settings) -> None:
    """Say at once what is wrong with the chain; without one the engine starts all the same, and waits for it."""
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
        observe.chain_lost(error)


def _store_name(settings: Settings) -> str:
    return "PostgreSQL" if settings.postgres else f"SQLite {settings.sqlite_path.absolute()}"


def new_order_id() -> OrderId:
    """Return a UUIDv7: unique, and in the order of time."""
    return OrderId(str(uuid_utils.uuid7()))


async def _open_paper_chain(
    stack: contextlib.AsyncExitStack, settings: Settings, path: Path, market: PaperMarket, clock: Clock
) -> tuple[PaperNetwork, PaperNode]:
    """Open the ledger, of which this process is the only owner, and the chain on it."""
    _lock(stack, path)
    faults = chain_faults(settings)
    seed, scale = settings.mock_seed, settings.mock_delay_scale
    try:
        ledger = SqliteLedger(path)
    except WrongSchema as error:
        message = f"{path} cannot be used: {error}. Move it away, together with the database whose orders it executed."
        raise SettingsError(message) from error
    network = PaperNetwork(ledger, market.execute, clock, scale, seed, faults)
    await network.start()
    return network, PaperNode(network, faults, seed)


def _lock(stack: contextlib.AsyncExitStack, path: Path) -> None:
    """Keep a second engine off the file: their buses would not know of each other. Only its owner may read it."""
    try:
        for directory in (*reversed(path.parent.parents), path.parent):
            directory.mkdir(mode=0o700, exist_ok=True)
        lock = stack.enter_context(_open_private(path.with_name(f"{path.name}.lock")))
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Before SQLite opens it: to close a file drops the locks of its process. SQLite's other files get its mode.
        _open_private(path).close()
    except BlockingIOError as error:
        message = f"Another order-engine is running on {path}; stop it, or set DATA_DIR to another directory."
        raise SettingsError(message) from error
    except OSError as error:
        message = f"The directory {path.parent} cannot be used ({error.strerror}); set DATA_DIR to another directory."
        raise SettingsError(message) from error


def _open_private(path: Path) -> BinaryIO:
    """Open or create a file that only its owner may read, whatever the umask."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.fchmod(descriptor, 0o600)
    return os.fdopen(descriptor, "r+b")
