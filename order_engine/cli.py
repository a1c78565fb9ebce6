"""The command line: data on stdout, talk on stderr, and an exit code that says how it ended."""

import asyncio
import json
import os
import socket
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from cyclopts import App, Parameter
from rich.console import Console

from order_engine import __version__
from order_engine.client import EngineClient, EngineRefusedError, EngineUnreachableError
from order_engine.demo import DemoConsole, run_samples
from order_engine.domain.errors import Unavailable
from order_engine.serve import (
    address_of,
    configure_logging,
    embedded,
    listen,
    run,
    run_api,
    run_both,
    run_chain,
    run_worker,
)
from order_engine.settings import Settings, SettingsError, load_client_settings, load_settings
from order_engine.terminal import print_line, say_done, show_attempt, show_in_doubt, show_order, talk
from order_engine.wiring import migrate as bring_schema_up_to_date

OK: Final = 0
USAGE: Final = 2
REJECTED: Final = 3
FAILED: Final = 4
TIMED_OUT: Final = 5
UNREACHABLE: Final = 6

_DEMO_PORTS: Final = 20

app = App(
    name="order-engine",
    version=__version__,
    help="A self-hosted order execution engine for swaps on Solana DEXs.",
    help_flags=["--help", "-h"],
)
Json = Annotated[bool, Parameter(name="--json", negative="", help="Print JSON, one document a line.")]


@app.command
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
        return _usage("--orders must be from 1 to 100")
    settings = load_settings(
        api_max_orders_per_min=0, log_level="warning", database_url="", redis_url="", redis_host="", chain_url=""
    )
    settings = settings.model_copy(update={"data_dir": settings.data_dir / "demo"})
    configure_logging(settings)
    return run(lambda: _demo(settings, orders, once=once, port=port, as_json=json))


@app.command
def up(*, json: Json = False) -> int:
    """Run API and worker in one process, on SQLite unless DATABASE_URL says otherwise."""
    return _serve(run_both, as_json=json)


@app.command
def api(*, json: Json = False) -> int:
    """Run the API alone; workers run beside it."""
    return _serve(run_api, as_json=json, alone=True)


@app.command
def worker(*, json: Json = False) -> int:
    """Run a worker alone."""
    return _serve(run_worker, as_json=json, alone=True)


@app.command
def chain(*, json: Json = False) -> int:
    """Run the paper chain alone, at the address that CHAIN_URL names; its ledger is in DATA_DIR."""
    return _serve(run_chain, as_json=json)


@app.command
def migrate(*, json: Json = False) -> int:
    """Bring the database's schema up to date."""
    settings = load_settings()
    configure_logging(settings)

    async def bring_up_to_date() -> int:
        name = await bring_schema_up_to_date(settings)
        say_done(f"The schema in {name} is up to date.", {"migrated": True}, as_json=json)
        return OK

    return run(bring_up_to_date)


@app.command
def submit(  # noqa: PLR0913 - an order's fields
    order_type: Literal["market"],
    token_in: str,
    token_out: str,
    amount_in: str,
    /,
    *,
    slippage_bps: int | None = None,
    client_order_id: str | None = None,
    idempotency_key: str | None = None,
    wait: bool = False,
    timeout: float = 60.0,
    json: Json = False,
) -> int:
    """Place an order, such as: submit market SOL USDC 1.5.

    Parameters
    ----------
    slippage_bps
        The most that the price may move against you, in bps.
    client_order_id
        Your own name for the order.
    idempotency_key
        Makes it safe to repeat the command: the same key places one order.
    wait
        Follow the order to its end; exit code 4 if it fails.
    timeout
        How long to wait, in seconds; exit code 5 after that. The order goes on.

    """
    order: dict[str, Any] = {"type": order_type, "tokenIn": token_in, "tokenOut": token_out, "amountIn": amount_in}
    if slippage_bps is not None:
        order["slippageBps"] = slippage_bps
    if client_order_id is not None:
        order["clientOrderId"] = client_order_id

    async def place(client: EngineClient) -> int:
        placed = await client.submit(order, idempotency_key)
        if not wait:
            show_order(placed, as_json=json)
            return OK
        async with asyncio.timeout(timeout):
            return await _follow(client, placed["orderId"], as_json=json)

    return _ask(place)


@app.command
def watch(order_id: str, /, *, after: int = 0, timeout: float | None = None, json: Json = False) -> int:
    """Follow an order's life from its start (or after a seq) to its end."""

    async def follow(client: EngineClient) -> int:
        async with asyncio.timeout(timeout):
            return await _follow(client, order_id, after=after, as_json=json)

    return _ask(follow)


@app.command
def get(order_id: str, /, *, json: Json = False) -> int:
    """Show an order, and what proves the outcome of each of its attempts."""

    async def show(client: EngineClient) -> int:
        order = await client.get(order_id)
        show_order(order, as_json=json)
        if not json:
            for attempt in order["attempts"]:
                show_attempt(attempt, as_json=json)
        return OK

    return _ask(show)


@app.command(name="list")
def list_orders(  # noqa: PLR0913 - the filters
    *,
    status: str | None = None,
    token_in: str | None = None,
    token_out: str | None = None,
    client_order_id: str | None = None,
    limit: int = 20,
    cursor: str | None = None,
    json: Json = False,
) -> int:
    """List orders, newest first."""

    async def show(client: EngineClient) -> int:
        page = await client.list_orders(
            status=status,
            tokenIn=token_in,
            tokenOut=token_out,
            clientOrderId=client_order_id,
            limit=limit,
            cursor=cursor,
        )
        for order in page["orders"]:
            show_order(order, as_json=json)
        if page["nextCursor"]:
            talk(f"More: order-engine list --cursor {page['nextCursor']}")
        return OK

    return _ask(show)


@app.command
def attempts(order_id: str | None = None, /, *, in_doubt: bool = False, limit: int = 100, json: Json = False) -> int:
    """Show an order's signed transactions, or with --in-doubt all whose outcome is not proven yet.

    Parameters
    ----------
    in_doubt
        Every order's, oldest first, with the blocks that are left until each can be proven dead.
    limit
        How many to show, at most 1000.

    """
    if (order_id is None) is not in_doubt:
        return _usage("Name one order, or ask for all of them that are in doubt with --in-doubt.")

    async def show(client: EngineClient) -> int:
        if order_id is not None:
            for attempt in (await client.get(order_id))["attempts"]:
                show_attempt(attempt, as_json=json)
            return OK
        show_in_doubt(await client.attempts_in_doubt(limit), as_json=json)
        return OK

    return _ask(show)


@app.command
def cancel(order_id: str, /, *, json: Json = False) -> int:
    """Cancel an order that is not signed yet."""

    async def take_back(client: EngineClient) -> int:
        show_order(await client.cancel(order_id), as_json=json)
        return OK

    return _ask(take_back)


def main() -> None:
    """Run the command line and exit."""
    try:
        code = app(result_action="return_value")
    except SettingsError as error:
        code = _usage(str(error))
    except Unavailable as error:
        talk(str(error))
        code = UNREACHABLE
    except BrokenPipeError:
        # Whoever read our output went away; that is their right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


# --- how the commands do it ----------------------------------------------------------------------


def _serve(main_of: Callable[[Settings], Coroutine[Any, Any, int]], *, as_json: bool, alone: bool = False) -> int:
    settings = load_settings(**({"log_format": "json"} if as_json else {}))
    if alone and settings.postgres is None:
        # The file belongs to one process, which nothing that runs beside it could reach.
        return _usage(
            "DATABASE_URL must name PostgreSQL where API and worker run apart; on SQLite there is `order-engine up`."
        )
    configure_logging(settings)
    return run(lambda: main_of(settings))


def _ask(talk_to: Callable[[EngineClient], Coroutine[Any, Any, int]]) -> int:
    """Talk to the engine that ENGINE_URL names, and turn what goes wrong into an exit code."""
    settings = load_client_settings()

    async def converse() -> int:
        async with EngineClient(settings.engine_url, settings.engine_api_key.get_secret_value()) as client:
            return await talk_to(client)

    try:
        return asyncio.run(converse())
    except EngineRefusedError as error:
        talk(f"Refused: {error}")
        return REJECTED
    except EngineUnreachableError as error:
        talk(str(error))
        return UNREACHABLE
    except TimeoutError:
        talk("The time is up; the order goes on. `order-engine watch` shows how it ends.")
        return TIMED_OUT


async def _follow(client: EngineClient, order_id: str, *, after: int = 0, as_json: bool) -> int:
    status = "unknown"
    async for event in client.watch(order_id, after, talk):
        status = event["status"]
        if as_json:
            print_line(json.dumps(event))
        else:
            reason = event["data"].get("reason", {}).get("message", "")
            print_line(f"{event['seq']:>3}  {event['at']}  {status:<10} {reason}".rstrip())
    if status == "unknown":
        # Everything was seen before: how it ended is in the order itself.
        status = (await client.get(order_id))["status"]
    return OK if status == "confirmed" else FAILED


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
    import signal  # noqa: PLC0415 - for the one command that waits here

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


def _usage(sentence: str) -> int:
    talk(sentence)
    return USAGE
