"""The commands that run the engine: the demo, its processes, and its migrations."""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from order_engine.client import EngineClient
from order_engine.demo import DemoConsole, run_samples
from order_engine.logs import configure_logging
from order_engine.serve import (
    PartEnded,
    address_of,
    embedded,
    listen,
    run,
    run_api,
    run_both,
    run_chain,
    run_worker,
)
from order_engine.settings import Settings, SettingsError, load_settings
from order_engine.terminal import ENDED, FAILED, OK, Json, print_line, say_done, talk, usage
from order_engine.wiring import migrate as bring_schema_up_to_date

_DEMO_PORTS: Final = 20


def demo(*, orders: int = 5, once: bool = False, port: int | None = None, json: Json = False) -> int:
    """Run the whole engine embedded, place sample orders and show each one's life.

    Parameters
    ----------
    orders
        How many sample orders to place.
    once
        End when all are terminal, with exit code 0.
    port
        Port of the API; without it the first free one from PORT on.

    """
    if not 1 <= orders <= 100:  # noqa: PLR2004 - a demo, not a benchmark
        return usage("--orders must be from 1 to 100")
    settings = load_settings(
        api_max_orders_per_min=0, log_level="warning", database_url="", redis_url="", redis_host="", chain_url=""
    )
    settings = settings.model_copy(update={"data_dir": settings.data_dir / "demo"})
    configure_logging(settings)
    return run(lambda: _demo(settings, orders, once=once, port=port, as_json=json))


def up(*, json: Json = False) -> int:
    """Run API and worker in one process, on SQLite unless DATABASE_URL says otherwise."""
    return _serve(run_both, as_json=json)


def api(*, json: Json = False) -> int:
    """Run the API alone; workers run beside it."""
    return _serve(run_api, as_json=json, alone=True)


def worker(*, json: Json = False) -> int:
    """Run a worker alone."""
    return _serve(run_worker, as_json=json, alone=True)


def chain(*, json: Json = False) -> int:
    """Run the paper chain alone, at the address that CHAIN_URL names; its ledger is in DATA_DIR."""
    return _serve(run_chain, as_json=json)


def migrate(*, json: Json = False) -> int:
    """Bring the database's schema up to date."""
    settings = load_settings()
    configure_logging(settings)

    async def bring_up_to_date() -> int:
        name = await bring_schema_up_to_date(settings)
        say_done(f"The schema in {name} is up to date.", {"migrated": True}, as_json=json)
        return OK

    return run(bring_up_to_date)


# --- how the commands do it ----------------------------------------------------------------------


def _serve(main_of: Callable[[Settings], Coroutine[Any, Any, int]], *, as_json: bool, alone: bool = False) -> int:
    settings = load_settings(**({"log_format": "json"} if as_json else {}))
    if alone and settings.postgres is None:
        # The file belongs to one process, which nothing that runs beside it could reach.
        return usage(
            "DATABASE_URL must name PostgreSQL where API and worker run apart; on SQLite there is `order-engine up`."
        )
    configure_logging(settings)
    try:
        return run(lambda: main_of(settings))
    except PartEnded as error:
        talk(f"order-engine ends: {error}.")
        return ENDED


async def _demo(settings: Settings, orders: int, *, once: bool, port: int | None, as_json: bool) -> int:
    console = DemoConsole(stderr=as_json, soft_wrap=True)
    with _demo_listener(settings, port) as listener:
        url = address_of(listener)
        console.print(f"order-engine is up at {url} — placing {orders} sample orders\n", highlight=False)
        async with embedded(settings, listener):
            all_ended = await run_samples(url, orders, console)
            if as_json:
                async with EngineClient(url) as client:
                    page = await client.list_orders(limit=min(orders, 100))
                    for order in reversed(page["orders"]):
                        print_line(json.dumps(order))
            if not once:
                await _stay_up(console, url)
    return OK if all_ended else FAILED


def _demo_listener(settings: Settings, port: int | None) -> socket.socket:
    """Take the port asked for, or the first free one: a demo should not stop at a busy port."""
    if port is not None:
        return listen(settings.host, port)
    for candidate in range(settings.port, settings.port + _DEMO_PORTS):
        try:
            return listen(settings.host, candidate)
        except SettingsError:
            continue
    return listen(settings.host, 0)


async def _stay_up(console: Console, url: str) -> None:
    command = _command()
    for line in (
        "",
        "Where to look next (Ctrl+C ends the demo):",
        f"  API documentation   {url}/docs",
        f"  the orders          curl {url}/v1/orders",
        f"  place an order      ENGINE_URL={url} {command} submit market SOL USDC 1.5 --wait",
        f"  follow one          ENGINE_URL={url} {command} watch ORDER_ID",
    ):
        console.print(line, highlight=False)
    stopped = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    await stopped.wait()


def _command() -> str:
    """Return how to call this command from here."""
    program = Path(sys.argv[0])
    try:
        return str(program.resolve().relative_to(Path.cwd()))
    except ValueError:
        return program.name
