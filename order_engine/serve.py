"""Runs the processes: listens, works, and ends within 10 s of a signal."""

import asyncio
import contextlib
import gc
import ipaddress
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import partial
from typing import Any, Final
from urllib.parse import urlsplit

from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.connections import HttpServer, tell_faults
from order_engine.api.guard import LingeringEnd
from order_engine.api.limits import Limits
from order_engine.counters import Faults
from order_engine.engine.doubt_monitor import DoubtMonitor
from order_engine.engine.health import HealthMonitor
from order_engine.engine.retention import delete_ended
from order_engine.service import Repeated, Service, lasting
from order_engine.settings import DEFAULT_CHAIN_URL, LEDGER_FILE, Settings, SettingsError
from order_engine.wiring import (
    Engine,
    build_api,
    build_health,
    build_worker,
    build_worker_metrics,
    edge_policy,
    open_chain_app,
    open_engine,
)

_BACKLOG: Final = 2048
_FILES: Final = 65_536
_OTHER_FILES: Final = 512
_MAX_STOPPING_S: Final = 9.3
_LAST_WORDS_S: Final = 0.2
# Python's defaults are (700, 10, 10). This process makes less cyclic garbage than they expect.
_COLLECTOR_THRESHOLDS: Final = (10_000, 20, 20)
_DAY_MS: Final = 24 * 60 * 60 * 1000


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a process's main coroutine on the fastest loop there is, with room for many sockets.

    Only the process's user can read the files that it creates, even with another umask: they hold every order.
    """
    os.umask(0o077)
    # Each open stream is a file; some systems start a process with as few as 256.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    if sys.platform == "win32":
        return asyncio.run(main())
    import uvloop  # noqa: PLC0415 - there is none on Windows

    return uvloop.run(main())


def listen(host: str, port: int, setting: str = "HOST and PORT") -> socket.socket:
    """Bind an address now, so that a port in use is reported in one sentence that names the setting.

    `::` is all addresses, of IPv4 and of IPv6, as far as the machine has both.
    """
    try:
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # `::` means all addresses of both kinds, even if the machine's default differs.
        is_dual = address[0] == "::" and socket.has_dualstack_ipv6()
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG, dualstack_ipv6=is_dual)
    except (OSError, UnicodeError) as error:
        cause = getattr(error, "strerror", None) or error
        message = f"{setting}: {host!r}, port {port}, cannot be listened on: {cause}."
        raise SettingsError(message) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run_api(settings: Settings) -> int:
    """Serve HTTP until a signal."""
    with listen(settings.host, settings.port) as listener:
        async with open_engine(settings) as engine:
            _require_keys(engine, listener)
            _tell(engine, "api", address_of(listener))
            _tell_keys(engine)
            health = build_health(engine, "api", works=False)
            async with _beating(health), serving(build_api(engine, health), listener, _limits(settings)):
                await _stop_on_signal("api").wait()
    return 0


async def run_worker(settings: Settings) -> int:
    """Work until a signal."""
    async with open_engine(settings) as engine:
        _tell(engine, "worker", "")
        health = build_health(engine, "worker", works=True)
        async with _beating(health), _measured(engine, health), _working(engine, "worker"):
            await _stop_on_signal("worker").wait()
    return 0


async def run_both(settings: Settings, on_started: Callable[[Settings, str, str], None]) -> int:
    """Serve HTTP and work in one process until a signal; `on_started` gets the store's name and the address."""
    with listen(settings.host, settings.port) as listener:
        async with embedded(settings, listener) as engine:
            _tell(engine, "up", address_of(listener))
            _tell_keys(engine)
            on_started(settings, engine.store_name, address_of(listener))
            await _stop_on_signal("up").wait()
    return 0


async def run_chain(settings: Settings) -> int:
    """Serve the paper chain at the address that CHAIN_URL names, until a signal."""
    url = urlsplit(settings.chain_url or DEFAULT_CHAIN_URL)
    if url.scheme != "http":
        message = "CHAIN_URL cannot be served: order-engine chain speaks http:// only."
        raise SettingsError(message)
    with listen(url.hostname or "", 80 if url.port is None else url.port, "CHAIN_URL") as listener:
        async with open_chain_app(settings) as app:
            observe.chain_started(address_of(listener), str(settings.data_dir / LEDGER_FILE))
            async with serving(app, listener):
                await _stop_on_signal("chain").wait()
    return 0


@contextlib.asynccontextmanager
async def embedded(settings: Settings, listener: socket.socket) -> AsyncIterator[Engine]:
    """Run API and worker in this process for as long as the context lasts; see `lasting`."""
    async with open_engine(settings) as engine:
        _require_keys(engine, listener)
        health = build_health(engine, "up", works=True)
        api = serving(build_api(engine, health), listener, _limits(settings))
        async with _beating(health), api, _working(engine, "up"):
            yield engine


def _tell_keys(engine: Engine) -> None:
    if engine.callers.is_open:
        observe.serving_without_keys()


@contextlib.asynccontextmanager
async def _measured(engine: Engine, health: HealthMonitor) -> AsyncIterator[None]:
    """Serve the measurements on METRICS_PORT, if it is set."""
    if not engine.settings.metrics_port:
        yield
        return
    with listen("127.0.0.1", engine.settings.metrics_port, "METRICS_PORT") as listener:
        async with serving(build_worker_metrics(engine, health), listener):
            yield


def _require_keys(engine: Engine, listener: socket.socket) -> None:
    """Refuse to serve other machines while the engine has no API key; raises SettingsError."""
    host = listener.getsockname()[0]
    if not engine.callers.is_open:
        return
    if not ipaddress.ip_address(host.partition("%")[0]).is_loopback:
        raise SettingsError(
            f"HOST={engine.settings.host} can be reached from other machines, and this engine has no API key. Make one "
            "with `order-engine keys create --account NAME`, or set HOST=127.0.0.1."
        )


def _beating(health: HealthMonitor) -> contextlib.AbstractAsyncContextManager[None]:
    return lasting(Repeated("heartbeat", health.beat))


@contextlib.asynccontextmanager
async def _working(engine: Engine, role: str) -> AsyncIterator[None]:
    """Run a worker, count attempts in doubt and delete old orders, for as long as the context lasts."""
    monitor = DoubtMonitor(engine.store, engine.clock, role, engine.counters)
    services: list[Service] = [Repeated("in-doubt counter", monitor.count)]
    if engine.settings.retention_days:
        keep_ms = engine.settings.retention_days * _DAY_MS
        services.append(Repeated("retention", partial(delete_ended, engine.store, keep_ms, engine.counters)))
    services.append(build_worker(engine))
    _spare_the_collector()
    async with contextlib.AsyncExitStack() as stack:
        for service in services:
            await stack.enter_async_context(lasting(service))
        yield


def _spare_the_collector() -> None:
    """Make the garbage collector's passes rare and short.

    The objects of the start live as long as the process, so they are left out. With Python's own
    thresholds a burst of orders spent about a quarter of the worker's time on passes that found nothing, and
    each full pass stopped the process for 40 to 100 ms.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_COLLECTOR_THRESHOLDS)


def _limits(settings: Settings) -> Limits:
    """Return the limits of clients; each connection is a file, and some files are reserved for the databases."""
    files, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    room = max(files - _OTHER_FILES, files // 2) if files != resource.RLIM_INFINITY else settings.max_connections
    policy = edge_policy(settings)
    return Limits(
        min(settings.max_connections or room, room),
        settings.max_connections_per_address,
        settings.websocket_max_frames,
        settings.websocket_max_kib,
        policy.is_trusted_proxy,
        policy.forwarded_client,
    )


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket, limits: Limits | None = None) -> AsyncIterator[None]:
    """Serve the app on the socket; open streams get 1 s to end when the context ends."""
    faults = Faults()
    server = HttpServer(app, listener, limits or Limits(), faults)
    _spare_the_collector()
    async with (
        lasting(Repeated("end of lingering connections", LingeringEnd(server.connections).end)),
        lasting(Repeated("count of clients' faults", partial(tell_faults, faults))),
        lasting(server),
    ):
        yield


def _stop_on_signal(role: str) -> asyncio.Event:
    stopped = asyncio.Event()

    def stop() -> None:
        # Set the event first, so that the process ends even if the log line fails.
        stopped.set()
        # A hanging server must not delay the end; nothing is lost if the process ends without closing connections.
        loop.call_later(_MAX_STOPPING_S, give_up)
        observe.process_stopping(role)

    def give_up() -> None:
        loop.call_later(_LAST_WORDS_S, os._exit, 1)
        observe.process_cut_off(role)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


def _tell(engine: Engine, role: str, address: str) -> None:
    observe.process_started(role, address, engine.store_name, engine.bus_name, engine.chain_name)
