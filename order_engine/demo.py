"""The demo: sample orders side by side, each with its events as they happen."""

import asyncio
from typing import IO, Any, Final, cast

from rich.console import Console
from rich.live import Live
from rich.table import Table

from order_engine.client import TERMINAL, EngineClient
from order_engine.telling import words_of
from order_engine.terminal import SturdyOutput

SAMPLES: Final = (
    ("SOL", "USDC", "1.5"),
    ("USDC", "SOL", "250"),
    ("SOL", "BONK", "0.25"),
    ("JUP", "USDC", "1000"),
    ("mSOL", "SOL", "2"),
    ("RAY", "USDT", "75"),
    ("USDT", "JitoSOL", "500"),
)
_COLOURS: Final = {"confirmed": "green", "failed": "red", "cancelled": "yellow", "retrying": "yellow"}


def sturdy_console(stream: Any) -> Console:
    """Return a console whose reader may close the pipe, as in `demo --once | head`: the command goes on silently."""
    return Console(file=cast("IO[str]", SturdyOutput(stream)), soft_wrap=True)


class DemoBoard:
    """The sample orders and their events, as a table for a terminal."""

    def __init__(self, console: Console) -> None:
        """On a terminal the table is redrawn in place; elsewhere each event is a line."""
        self._console = console
        self._orders: dict[str, dict[str, Any]] = {}
        self._lives: dict[str, list[dict[str, Any]]] = {}

    def add(self, order: dict[str, Any]) -> None:
        """Begin to show an order."""
        self._orders[order["orderId"]] = order
        self._lives[order["orderId"]] = []

    def note(self, event: dict[str, Any]) -> None:
        """Show an event."""
        self._lives[event["orderId"]].append(event)
        if not self._console.is_terminal:
            number = [*self._orders].index(event["orderId"]) + 1
            order = self._orders[event["orderId"]]
            swap = f"{order['amountIn']} {order['tokenIn']} → {order['tokenOut']}"
            line = f"#{number} {swap:<22} {event['elapsedMs'] / 1000:6.2f} s  {event['status']:<10}"
            self._console.print(f"{line} {words_of(event)}".rstrip(), highlight=False, markup=False)

    def statuses(self) -> list[str]:
        """Return the last status of each order that had an event."""
        return [life[-1]["status"] for life in self._lives.values() if life]

    def __rich__(self) -> Table:
        """Return the table."""
        table = Table(title="order-engine demo", expand=True)
        for column in ("Order", "Life", "Result"):
            table.add_column(column, ratio=2 if column == "Life" else 1)
        for order_id, order in self._orders.items():
            life = self._lives[order_id]
            path = " → ".join(
                f"[{_COLOURS.get(it['status'], 'cyan')}]{it['status']}[/] {it['elapsedMs'] / 1000:.1f}s" for it in life
            )
            swap = f"{order['amountIn']} {order['tokenIn']} → {order['tokenOut']}\n[dim]{order_id}[/]"
            table.add_row(swap, path, words_of(life[-1]) if life else "")
        return table


async def run_samples(url: str, count: int, console: Console) -> bool:
    """Place the sample orders, show their lives, and return whether all ended. Raises EngineClientError."""
    board = DemoBoard(console)
    async with EngineClient(url) as client:
        orders = [
            await client.submit(
                {"type": "market", "tokenIn": token_in, "tokenOut": token_out, "amountIn": amount, "slippageBps": 100}
            )
            for token_in, token_out, amount in (SAMPLES[at % len(SAMPLES)] for at in range(count))
        ]
        for order in orders:
            board.add(order)
        if console.is_terminal:
            with Live(board, console=console, refresh_per_second=10):
                await _follow_all(client, orders, board)
        else:
            await _follow_all(client, orders, board)
    statuses = board.statuses()
    confirmed = statuses.count("confirmed")
    console.print(f"\n{confirmed} of {count} orders confirmed.", highlight=False)
    return len(statuses) == count and TERMINAL.issuperset(statuses)


async def _follow_all(client: EngineClient, orders: list[dict[str, Any]], board: DemoBoard) -> None:
    async def follow(order_id: str) -> None:
        async for event in client.watch(order_id):
            board.note(event)

    try:
        async with asyncio.TaskGroup() as group:
            for order in orders:
                group.create_task(follow(order["orderId"]))
    except ExceptionGroup as errors:
        # One error is enough, because all orders are on the same engine.
        raise errors.exceptions[0] from None
