"""The command line: data on stdout, messages on stderr, and an exit code that tells the result."""

import asyncio
import contextlib
import shlex
import sys
from typing import TYPE_CHECKING, Any, Final, Literal

from cyclopts import App, CycloptsError

from order_engine import __version__
from order_engine.client import EngineClient, new_idempotency_key
from order_engine.conversing import Parting, RetryFor, Seconds, converse, may_be_placed
from order_engine.domain.errors import Unavailable
from order_engine.settings import SettingsError
from order_engine.telling import (
    show_as_csv,
    show_attempt,
    show_csv_header,
    show_event,
    show_in_doubt,
    show_listed,
    show_order,
    show_page,
    show_readiness,
    show_whole_order,
)
from order_engine.terminal import (
    FAILED,
    NOT_WRITTEN,
    OK,
    UNREACHABLE,
    AllOrders,
    Csv,
    Json,
    OutputLostError,
    output_is_secondary,
    prepare_console,
    print_error,
    usage,
)

if TYPE_CHECKING:
    from rich.console import Console

_PAGE: Final = 20
_LARGEST_PAGE: Final = 100

app = App(
    name="order-engine",
    version=__version__,
    help="A self-hosted order execution engine for swaps on Solana DEXs.",
    help_flags=["--help", "-h"],
)
# Named as text, so that commands that only talk to a running engine need not import the engine, which takes 0.8 s.
_PROCESSES: Final = ("demo", "up", "api", "worker", "chain", "reconcile", "migrate")
for _name in _PROCESSES:
    app.command(f"order_engine.processes:{_name}", name=_name)
_OPERATING: Final = ("pause", "resume", "audit")
for _name in _OPERATING:
    app.command(f"order_engine.operating:{_name}", name=_name)
keys = App(name="keys", help="Make, list and revoke API keys.")
app.command(keys)
limits = App(name="limits", help="Set and show the limits of accounts.")
app.command(limits)
limits.command("order_engine.operating:set_limits", name="set")
limits.command("order_engine.operating:show_limits", name="show")
for _name, _function in (("create", "create_key"), ("list", "list_keys"), ("revoke", "revoke_key")):
    keys.command(f"order_engine.operating:{_function}", name=_name)


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
    timeout: Seconds = 60.0,
    retry_for: RetryFor = None,
    json: Json = False,
) -> int:
    """Place an order, such as: submit market SOL USDC 1.5.

    Parameters
    ----------
    slippage_bps
        The maximum that the price may move against you, in bps.
    client_order_id
        Your own name for the order.
    idempotency_key
        Makes it safe to repeat the command: the same key places one order. Without it, a new key is made.
    wait
        Follow the order to its end; exit code 4 if it fails.
    timeout
        How long to wait for the end, in seconds; exit code 5 after that. The order goes on.

    """
    order: dict[str, Any] = {"type": order_type, "tokenIn": token_in, "tokenOut": token_out, "amountIn": amount_in}
    if slippage_bps is not None:
        order["slippageBps"] = slippage_bps
    if client_order_id is not None:
        order["clientOrderId"] = client_order_id
    parting = Parting()
    key = new_idempotency_key() if idempotency_key is None else idempotency_key

    async def place(client: EngineClient) -> int:
        parting.sentence = may_be_placed(key)
        placed = await client.submit(order, key)
        order_id = placed["orderId"]
        parting.sentence = f"The order is placed and goes on; follow it with: order-engine watch {order_id}"
        parting.is_placed = True
        if not wait:
            with output_is_secondary(parting.sentence):
                show_order(placed, as_json=json)
            return OK
        async with asyncio.timeout(timeout):
            return await _follow(client, order_id, parting, as_json=json)

    def tell(sentence: str) -> None:
        print_error(sentence if parting.is_placed else f"{sentence} The idempotency key is {key}.")

    return converse(place, retry_for, parting, tell)


@app.command
def watch(
    order_id: str | None = None,
    /,
    *,
    all_orders: AllOrders = False,
    after: str | None = None,
    timeout: Seconds | None = None,
    retry_for: RetryFor = None,
    json: Json = False,
) -> int:
    """Follow an order's events from its start to its end, or with --all every order's from now on.

    Parameters
    ----------
    after
        Of an order: the seq of the last event that was seen. With --all: the cursor of the last page
        that was seen, or 0 for the first event ever.
    timeout
        How long to follow, in seconds; exit code 5 after that.

    """
    if (order_id is None) is not all_orders:
        return usage("Name one order, or ask for every order with --all.")
    parting = Parting()
    if order_id is None:

        async def follow_all(client: EngineClient) -> int:
            async with asyncio.timeout(timeout):
                return await _follow_all(client, after, parting, as_json=json)

        return converse(follow_all, retry_for, parting)
    if after is not None and not (after.isascii() and after.isdecimal()):
        return usage("--after must be the seq of an event; a cursor goes with --all.")
    seq = int(after or "0")

    async def follow(client: EngineClient) -> int:
        async with asyncio.timeout(timeout):
            return await _follow(client, order_id, parting, after=seq, as_json=json)

    return converse(follow, retry_for, parting)


@app.command
def get(order_id: str, /, *, retry_for: RetryFor = None, json: Json = False) -> int:
    """Show an order, each venue's quote, and the proof of each attempt's outcome."""

    async def show(client: EngineClient) -> int:
        show_whole_order(await client.get(order_id), as_json=json)
        return OK

    return converse(show, retry_for)


@app.command(name="list")
def list_orders(  # noqa: PLR0913 - the filters
    *,
    status: str | None = None,
    token_in: str | None = None,
    token_out: str | None = None,
    client_order_id: str | None = None,
    created_after: str | None = None,
    created_before: str | None = None,
    ended_after: str | None = None,
    ended_before: str | None = None,
    all_orders: AllOrders = False,
    limit: int | None = None,
    cursor: str | None = None,
    csv: Csv = False,
    retry_for: RetryFor = None,
    json: Json = False,
) -> int:
    """List orders, newest first, with the times of their acceptance and of their end.

    Parameters
    ----------
    created_after, created_before, ended_after, ended_before
        A time such as 2026-01-31T12:00:00Z.
    limit
        How many to show, at most 100; 20 without it.
    cursor
        The cursor at the end of the page before.

    """
    if csv and json:
        return usage("Choose one of --csv and --json.")
    if all_orders and limit is not None:
        return usage("Choose one of --all and --limit.")
    filters = {
        "status": status,
        "tokenIn": token_in,
        "tokenOut": token_out,
        "clientOrderId": client_order_id,
        "createdAfter": created_after,
        "createdBefore": created_before,
        "endedAfter": ended_after,
        "endedBefore": ended_before,
        "limit": _LARGEST_PAGE if all_orders else _PAGE if limit is None else limit,
        "cursor": cursor,
    }

    async def show(client: EngineClient) -> int:
        is_first = True
        async for page in client.list_all(**filters):
            if csv and is_first:
                show_csv_header()
            is_first = False
            for order in page["orders"]:
                show_as_csv(order) if csv else show_listed(order, as_json=json)
            if page["nextCursor"] and not all_orders:
                print_error(f"More: order-engine list --cursor {page['nextCursor']}")
                break
        return OK

    return converse(show, retry_for)


@app.command
def attempts(
    order_id: str | None = None,
    /,
    *,
    in_doubt: bool = False,
    limit: int = 100,
    retry_for: RetryFor = None,
    json: Json = False,
) -> int:
    """Show an order's signed transactions, or with --in-doubt all whose outcome is not proven yet.

    Parameters
    ----------
    in_doubt
        Those of every order, oldest first, with the blocks that are left until each can be proven dead.
    limit
        How many to show, at most 1000.

    """
    if (order_id is None) is not in_doubt:
        return usage("Name one order, or ask for all of them that are in doubt with --in-doubt.")

    async def show(client: EngineClient) -> int:
        if order_id is not None:
            for attempt in (await client.get(order_id))["attempts"]:
                show_attempt(attempt, as_json=json)
            return OK
        show_in_doubt(await client.attempts_in_doubt(limit), as_json=json)
        return OK

    return converse(show, retry_for)


@app.command
def status(*, retry_for: RetryFor = None, json: Json = False) -> int:
    """Tell whether the engine can accept and execute orders, and if not, why; exit code 4 unless it is ready."""

    async def show(client: EngineClient) -> int:
        readiness = await client.readiness()
        show_readiness(readiness, as_json=json)
        return OK if readiness["status"] == "ready" else FAILED

    return converse(show, retry_for)


@app.command
def cancel(order_id: str, /, *, retry_for: RetryFor = None, json: Json = False) -> int:
    """Cancel an order that is not signed yet."""
    parting = Parting()

    async def take_back(client: EngineClient) -> int:
        parting.sentence = "The order may have been cancelled; to cancel it again is safe."
        cancelled = await client.cancel(order_id)
        parting.sentence = "The order is cancelled."
        with output_is_secondary(parting.sentence):
            show_order(cancelled, as_json=json)
        return OK

    return converse(take_back, retry_for, parting)


def main() -> None:
    """Run the command line and exit."""
    prepare_console()
    try:
        code = app(console=_console_for_help(), result_action="return_value", exit_on_error=False, print_error=False)
    except CycloptsError as error:
        code = usage(str(error))
    except SettingsError as error:
        code = usage(str(error))
    except Unavailable as error:
        print_error(str(error))
        code = UNREACHABLE
    except OutputLostError as error:
        # A reader that closed the pipe, as in `order-engine list | head -1`, has read enough.
        if not error.is_reader_gone:
            print_error(str(error))
        code = OK if error.is_reader_gone else NOT_WRITTEN
    sys.exit(code if isinstance(code, int) else OK)


# --- how the commands do it ----------------------------------------------------------------------


def _console_for_help() -> "Console | None":
    """Return the console for the help if the command asks for it, and import all that the help tells of."""
    words = sys.argv[1:]
    if words and not {*app.help_flags, *app.version_flags} & {*words}:
        return None
    from order_engine.demo import sturdy_console  # noqa: PLC0415 - only here is rich needed

    for name in (*_PROCESSES, *_OPERATING):
        _ = app[name]  # Imports the command, whose docstring is its help.
    return sturdy_console(sys.stdout)


async def _follow(client: EngineClient, order_id: str, parting: Parting, *, after: int = 0, as_json: bool) -> int:
    """Show the order's events; for a placed order, return its result even if they cannot be shown."""
    status = "unknown"
    # Closed here: a generator that the loop's end collects would still wait for the connection.
    async with contextlib.aclosing(client.watch(order_id, after)) as events:
        async for event in events:
            status = event["status"]
            if parting.is_placed:
                with output_is_secondary(parting.sentence):
                    show_event(event, as_json=as_json)
            else:
                show_event(event, as_json=as_json)
                parting.sentence = (
                    f"The order goes on; see the rest with: order-engine watch {order_id} --after {event['seq']}"
                )
    if status == "unknown":
        # All events were seen before, so read the result from the order itself.
        status = (await client.get(order_id))["status"]
    return OK if status == "confirmed" else FAILED


async def _follow_all(client: EngineClient, after: str | None, parting: Parting, *, as_json: bool) -> int:
    go_on = "Go on from here with: order-engine watch --all --after"
    parting.sentence = f"{go_on} {shlex.quote(after)}" if after else ""
    async with contextlib.aclosing(client.stream(after)) as pages:
        async for page in pages:
            show_page(page, as_json=as_json)
            parting.sentence = f"{go_on} {shlex.quote(page['cursor'])}"
    return OK
