"""Runs the processes: listens, works, and ends within ten seconds of being asked to."""

import asyncio
import contextlib
import logging
import os
import resource
import signal
import socket
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from typing import Any, Final
from urllib.parse import urlsplit

import structlog
import uvicorn
from starlette.types import ASGIApp

from order_engine import observe
from order_engine.api.connections import HttpProtocol, WebSocketProtocol, end_what_lingers
from order_engine.engine.retention import delete_ended_forever
from order_engine.engine.watch import watch_in_doubt
from order_engine.settings import DEFAULT_CHAIN_URL, LEDGER_FILE, Settings, SettingsError
from order_engine.wiring import Engine, build_api, build_worker, open_chain_app, open_engine

_BACKLOG: Final = 2048
_ALL_ADDRESSES: Final = ("::", "*")
_FILES: Final = 65_536
_CLOSE_STREAMS_S: Final = 1
_MOST_STOPPING_S: Final = 9.5
_MOST_FRAME_BYTES: Final = 64 * 1024
_DAY_MS: Final = 24 * 60 * 60 * 1000


def run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    """Run a process's main coroutine on the fastest loop there is, with room for many sockets."""
    # Each open stream is a file; some systems start a process with as few as 256.
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _FILES if most == resource.RLIM_INFINITY else min(_FILES, most)
    with contextlib.suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, most))
    if sys.platform == "win32":
        return asyncio.run(main())
    import uvloop  # noqa: PLC0415 - there is none on Windows

    return uvloop.run(main())


def configure_logging(settings: Settings) -> None:
    """Send log lines to stderr, in the shape and from the level that the settings ask for."""
    level = logging.getLevelNamesMapping()[settings.log_level.upper()]
    renderer: Any = (
        structlog.processors.JSONRenderer()
        if settings.log_format == "json"
        # Plain tracebacks: the rich ones print local variables, and take minutes over a deep recursion.
        else structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(), exception_formatter=structlog.dev.plain_traceback
        )
    )
    processors: list[Any] = [
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.EventRenamer("message") if settings.log_format == "json" else _as_is,
    ]
    if settings.log_format == "json":
        processors.append(structlog.processors.format_exc_info)
    structlog.configure(
        processors=[*processors, renderer],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=True,
    )
    # What libraries log through the standard library has the same shape.
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=processors,
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, renderer],
        )
    )
    logging.basicConfig(level=logging.WARNING, handlers=[handler])


def listen(host: str, port: int, setting: str = "HOST and PORT") -> socket.socket:
    """Bind an address now, so that a port in use is one clear sentence that names the setting.

    `::` and `*` are all addresses, of IPv4 and of IPv6, as far as the machine has both.
    """
    try:
        if host in _ALL_ADDRESSES and socket.has_dualstack_ipv6():
            everywhere = ("::", port)
            return socket.create_server(everywhere, family=socket.AF_INET6, backlog=_BACKLOG, dualstack_ipv6=True)
        known = socket.getaddrinfo("0.0.0.0" if host == "*" else host, port, type=socket.SOCK_STREAM)  # noqa: S104 - asked for
        family, *_, address = known[0]
        return socket.create_server(address[:2], family=family, backlog=_BACKLOG)
    except (OSError, UnicodeError) as error:
        message = (
            f"{setting}: {host!r}, port {port}, cannot be listened on: {getattr(error, 'strerror', None) or error}."
        )
        raise SettingsError(message) from error


def address_of(listener: socket.socket) -> str:
    """Return the URL of a listening socket."""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def run_api(settings: Settings) -> int:
    """Serve HTTP until a signal."""
    with listen(settings.host, settings.port) as listener:
        async with open_engine(settings) as engine:
            _tell(engine, "api", address_of(listener))
            stopped = _stop_on_signal("api")
            async with serving(build_api(engine), listener):
                await stopped.wait()
    return 0


async def run_worker(settings: Settings) -> int:
    """Work until a signal."""
    async with open_engine(settings) as engine:
        worker = build_worker(engine)
        _tell(engine, "worker", "")
        stopped = _stop_on_signal("worker", worker.stop)
        async with _watching(engine, "worker"):
            await worker.run()
        if not stopped.is_set():
            message = "the worker ended without being asked to"
            raise RuntimeError(message)
    return 0


async def run_both(settings: Settings) -> int:
    """Serve HTTP and work in one process until a signal."""
    with listen(settings.host, settings.port) as listener:
        async with embedded(settings, listener) as engine:
            _tell(engine, "up", address_of(listener))
            await _stop_on_signal("up").wait()
    return 0


async def run_chain(settings: Settings) -> int:
    """Serve the paper chain at the address that CHAIN_URL names, until a signal."""
    url = urlsplit(settings.chain_url or DEFAULT_CHAIN_URL)
    if url.scheme != "http":
        message = f"CHAIN_URL={settings.chain_url!r} cannot be served: order-engine chain speaks http:// only."
        raise SettingsError(message)
    with listen(url.hostname or "", 80 if url.port is None else url.port, "CHAIN_URL") as listener:
        async with open_chain_app(settings) as app:
            observe.chain_started(address_of(listener), str(settings.data_dir / LEDGER_FILE))
            stopped = _stop_on_signal("chain")
            async with serving(app, listener):
                await stopped.wait()
    return 0


@contextlib.asynccontextmanager
async def embedded(settings: Settings, listener: socket.socket) -> AsyncIterator[Engine]:
    """Run API and worker in this process for as long as the context lasts."""
    async with open_engine(settings) as engine, serving(build_api(engine), listener):
        worker = build_worker(engine)
        working = asyncio.create_task(worker.run())
        async with _watching(engine, "up"):
            try:
                yield engine
            finally:
                worker.stop()
                await working


@contextlib.asynccontextmanager
async def _watching(engine: Engine, role: str) -> AsyncIterator[None]:
    """Count what is in doubt and delete what ended long ago, for as long as the context lasts."""
    tasks = [asyncio.create_task(watch_in_doubt(engine.store, role))]
    if engine.settings.retention_days:
        keep_ms = engine.settings.retention_days * _DAY_MS
        tasks.append(asyncio.create_task(delete_ended_forever(engine.store, keep_ms)))
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)


@contextlib.asynccontextmanager
async def serving(app: ASGIApp, listener: socket.socket) -> AsyncIterator[None]:
    """Serve the app on the socket; open streams get a moment to end when the context does."""
    config = uvicorn.Config(
        app,
        http=HttpProtocol,
        ws=WebSocketProtocol,
        ws_max_size=_MOST_FRAME_BYTES,
        ws_per_message_deflate=False,
        lifespan="off",
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=_CLOSE_STREAMS_S,
    )
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]))
    ending = asyncio.create_task(end_what_lingers(server.server_state.connections))
    try:
        yield
    finally:
        server.should_exit = True
        await task
        ending.cancel()


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process has more to end than its sockets."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals alone."""
        yield


def _stop_on_signal(role: str, also: Callable[[], None] | None = None) -> asyncio.Event:
    stopped = asyncio.Event()

    def stop() -> None:
        observe.process_stopping(role)
        # Nothing is lost by an end without goodbyes; a server that hangs must not hold up the end.
        loop.call_later(_MOST_STOPPING_S, give_up)
        stopped.set()
        if also is not None:
            also()

    def give_up() -> None:
        observe.process_cut_off(role)
        os._exit(1)

    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop)
    return stopped


def _tell(engine: Engine, role: str, address: str) -> None:
    observe.process_started(role, address, engine.store_name, engine.bus_name, engine.chain_name)


def _as_is(_logger: Any, _name: str, event: Any) -> Any:
    return event
