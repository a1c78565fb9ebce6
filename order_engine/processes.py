"""The commands that run the engine: the demo, its processes, and its migrations."""

import asyncio
import json
import shlex
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any, Final

from rich.console import Console

from order_engine.client import EngineClient, EngineClientError
from order_engine.conversing import exit_code_of
from order_engine.demo import run_samples, sturdy_console
from order_engine.domain.access import LOCAL_ACCOUNT
from order_engine.domain.errors import ChainUnavailable
from order_engine.domain.order import Order
from order_engine.engine.reconcile import find_executed
from order_engine.logs import configure_logging
from order_engine.ports.chain import LandedMemo
from order_engine.serve import (
    address_of,
    embedded,
    listen,
    run,
    run_api,
    run_both,
    run_chain,
    run_worker,
)
from order_engine.service import PartEnded
from order_engine.settings import DEFAULT_ENGINE_URL, Settings, SettingsError, load_settings
from order_engine.telling import say_done
from order_engine.terminal import (
    ENDED,
    FAILED,
    OK,
    SIGNALLED,
    UNREACHABLE,
    Json,
    output_is_secondary,
    print_aside,
    print_error,
    print_line,
    usage,
)
from order_engine.wiring import migrate as bring_schema_up_to_date
from order_engine.wiring import open_reconciliation

_DEMO_PORTS: Final = 20


def demo(*, orders: int = 5, once: bool = False, port: int | None = None, json: Json = False) -> int:
    """Run the whole engine in this process, place sample orders and show each order's events.

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
    return _run(lambda: _demo(settings, orders, once=once, port=port, as_json=json))


def up(*, json: Json = False) -> int:
    """Run API and worker in one process, on SQLite unless DATABASE_URL names PostgreSQL."""
    return _serve(partial(run_both, on_started=_say_where), as_json=json)


def api(*, json: Json = False) -> int:
    """Run the API alone; workers are separate processes."""
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


def reconcile(*, cancel: bool = False, json: Json = False) -> int:
    """After a restore, before workers start: list the orders that wait here and that the chain has executed already.

    Parameters
    ----------
    cancel
        Cancel them, so that no worker signs them again.

    """
    settings = load_settings()
    configure_logging(settings)

    async def compare() -> int:
        async with open_reconciliation(settings) as (store, intake, history):
            try:
                found = await find_executed(store, LOCAL_ACCOUNT, history.landed_memos)
            except ChainUnavailable as error:
                print_error(
                    f"Nothing is known yet: {error}. Run it again when the chain answers; start no worker before."
                )
                return UNREACHABLE
            for it in found:
                _show_executed(it.order, it.landed, as_json=json)
                if cancel:
                    await intake.cancel_order(LOCAL_ACCOUNT, it.order.order_id)
        what_next = "they are cancelled" if cancel else "cancel them with --cancel before a worker starts"
        print_error(f"{len(found)} waiting orders were executed already" + (f"; {what_next}." if found else "."))
        return FAILED if found and not cancel else OK

    return run(compare)


# --- how the commands do it ----------------------------------------------------------------------


def _serve(main_of: Callable[[Settings], Coroutine[Any, Any, int]], *, as_json: bool, alone: bool = False) -> int:
    settings = load_settings(**({"log_format": "json"} if as_json else {}))
    if alone and settings.postgres is None:
        # The SQLite file belongs to one process, so an API and a worker in two processes cannot share it.
        return usage(
            "DATABASE_URL must name PostgreSQL where API and worker run apart; on SQLite there is `order-engine up`."
        )
    configure_logging(settings)
    return _run(lambda: main_of(settings))


def _run(main: Callable[[], Coroutine[Any, Any, int]]) -> int:
    try:
        return run(main)
    except PartEnded as error:
        print_aside([f"order-engine ends: {error}."])
        return ENDED


async def _demo(settings: Settings, orders: int, *, once: bool, port: int | None, as_json: bool) -> int:
    console = sturdy_console(sys.stderr if as_json else sys.stdout)
    signalled = _first_signal()
    with _demo_listener(settings, port) as listener:
        url = address_of(listener)
        console.print(f"order-engine is up at {url} — placing {orders} sample orders\n", highlight=False)
        async with embedded(settings, listener):
            samples = asyncio.create_task(_show_samples(url, orders, console, as_json=as_json))
            try:
                await asyncio.wait({samples, signalled}, return_when=asyncio.FIRST_COMPLETED)
                is_stopped = not samples.done()
            finally:
                samples.cancel()
                await asyncio.wait({samples})
            if is_stopped:
                print_error(
                    "The demo is stopped. Orders that were placed are on paper, and the next demo goes on with them."
                )
                return SIGNALLED + signalled.result()
            code = await samples
            if not once:
                for line in ("", "Where to look next (Ctrl+C ends the demo):", *_places(url)):
                    console.print(line, highlight=False, markup=False)
                await signalled
    return code


async def _show_samples(url: str, orders: int, console: Console, *, as_json: bool) -> int:
    try:
        all_ended = await run_samples(url, orders, console)
        if as_json:
            async with EngineClient(url) as client:
                page = await client.list_orders(limit=min(orders, 100))
            with output_is_secondary("The sample orders ended."):
                for order in reversed(page["orders"]):
                    print_line(json.dumps(order))
    except EngineClientError as error:
        return exit_code_of(error)
    return OK if all_ended else FAILED


def _show_executed(order: Order, landed: LandedMemo, *, as_json: bool) -> None:
    """Print an order that waits here, and the transaction that executed it."""
    if as_json:
        document = {"orderId": order.order_id, "status": order.status, "txSignature": landed.signature}
        print_line(json.dumps(document | {"slot": landed.slot}))
    else:
        print_line(f"{order.order_id}  {order.status} here, executed in slot {landed.slot} by {landed.signature}")


def _first_signal() -> "asyncio.Future[int]":
    """Return the number of the first SIGINT or SIGTERM; a second one ends the process by Python's default."""
    loop = asyncio.get_running_loop()
    first: asyncio.Future[int] = loop.create_future()

    def note(number: int) -> None:
        for each in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(each)
        first.set_result(number)

    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, note, number)
    return first


def _demo_listener(settings: Settings, port: int | None) -> socket.socket:
    """Bind the requested port, or the first free one, because a busy port should not stop a demo."""
    if port is not None:
        return listen(settings.host, port)
    for candidate in range(settings.port, settings.port + _DEMO_PORTS):
        try:
            return listen(settings.host, candidate)
        except SettingsError:
            continue
    return listen(settings.host, 0)


def _say_where(settings: Settings, store_name: str, address: str) -> None:
    """Print on a terminal where the data and the documents are, and how to place an order."""
    if settings.log_format != "console":
        return  # A log in JSON already has the address and the store.
    print_aside((f"  the data            {store_name}", *_places(_reachable(address))))


def _places(url: str) -> tuple[str, ...]:
    command = _command()
    at = "" if url == DEFAULT_ENGINE_URL else f"ENGINE_URL={url} "
    return (
        f"  API documentation   {url}/docs",
        f"  the orders          curl {url}/v1/orders",
        f"  place an order      {at}{command} submit market SOL USDC 1.5 --wait",
        f"  follow one          {at}{command} watch ORDER_ID",
    )


def _reachable(address: str) -> str:
    """Return an address for this machine where the engine listens on all of them."""
    for listened, reached in (("//0.0.0.0:", "//127.0.0.1:"), ("//[::]:", "//[::1]:")):
        address = address.replace(listened, reached)
    return address


def _command() -> str:
    """Return the shell text that calls this command: its name alone only if PATH finds it."""
    program = Path(sys.argv[0]).absolute()
    if program.name == "__main__.py":
        return f"{shlex.quote(sys.executable)} -m order_engine"
    if shutil.which(program.name) == str(program):
        return program.name
    here = Path.cwd()
    return shlex.quote(str(program.relative_to(here) if program.is_relative_to(here) else program))
