"""The command line: data on stdout, talk on stderr, and an exit code that says how it ended."""

import asyncio
import json
import os
import sys
from collections.abc import Callable, Coroutine
from typing import Any, Final, Literal

from cyclopts import App

from order_engine import __version__
from order_engine.client import EngineClient, EngineRefusedError, EngineUnreachableError
from order_engine.domain.errors import Unavailable
from order_engine.settings import SettingsError, load_client_settings
from order_engine.terminal import (
    FAILED,
    OK,
    REJECTED,
    TIMED_OUT,
    UNREACHABLE,
    Json,
    print_line,
    show_attempt,
    show_in_doubt,
    show_order,
    talk,
    usage,
)

app = App(
    name="order-engine",
    version=__version__,
    help="A self-hosted order execution engine for swaps on Solana DEXs.",
    help_flags=["--help", "-h"],
)
# What runs the engine takes a while to load, which who asks one that is running need not wait for.
_PROCESSES: Final = {
    "demo": "Run the whole engine embedded, place sample orders and show each one's life.",
    "up": "Run API and worker in one process, on SQLite unless DATABASE_URL says otherwise.",
    "api": "Run the API alone; workers run beside it.",
    "worker": "Run a worker alone.",
    "chain": "Run the paper chain alone, at the address that CHAIN_URL names; its ledger is in DATA_DIR.",
    "reconcile": "After a restore: list the orders that wait here and that the chain has executed already.",
    "migrate": "Bring the database's schema up to date.",
}
for _name, _help in _PROCESSES.items():
    app.command(f"order_engine.processes:{_name}", name=_name, help=_help)


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
        return usage("Name one order, or ask for all of them that are in doubt with --in-doubt.")

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
        code = usage(str(error))
    except Unavailable as error:
        talk(str(error))
        code = UNREACHABLE
    except BrokenPipeError:
        # Whoever read our output went away; that is their right.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        code = OK
    sys.exit(code if isinstance(code, int) else OK)


# --- how the commands do it ----------------------------------------------------------------------


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
