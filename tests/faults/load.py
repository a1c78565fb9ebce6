"""Posts many orders while faults happen, and checks how the orders ended."""

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import asyncpg
import httpx2

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderStatus
from tests.stack import market_order

HANG_S = 90.0


class Load:
    """Orders posted over a few connections; remembers every one that was answered with 2xx."""

    def __init__(self, url: str, connections: int = 32, amount: str = "1") -> None:
        self.url = url
        self.amount = amount
        self.connections = connections
        self.accepted: list[str] = []
        self.refusals: Counter[str] = Counter()

    async def post(self, count: int, while_posting: Callable[[int], None] | None = None) -> None:
        """Post `count` orders, one try each; `while_posting` gets the number that is accepted so far."""
        left = iter(range(count))
        limits = httpx2.Limits(max_connections=self.connections)
        async with httpx2.AsyncClient(base_url=self.url, limits=limits, timeout=30.0, trust_env=False) as client:

            async def post_some() -> None:
                for _ in left:
                    try:
                        response = await client.post("/v1/orders", json=market_order(self.amount, slippageBps=1000))
                    except httpx2.TransportError as error:
                        self.refusals[type(error).__name__] += 1
                        continue
                    if response.is_success:
                        self.accepted.append(response.json()["orderId"])
                    else:
                        self.refusals[str(response.status_code)] += 1
                    if while_posting is not None:
                        while_posting(len(self.accepted))

            await asyncio.gather(*(post_some() for _ in range(self.connections)))


async def wait_until_in_doubt(url: str, count: int) -> None:
    """Wait until `count` orders are signed and not proven."""
    async with asyncio.timeout(HANG_S), httpx2.AsyncClient(base_url=url, trust_env=False) as client:
        while len((await client.get("/v1/attempts", params={"limit": 1000})).json()["attempts"]) < count:
            await asyncio.sleep(0.1)


def check_confirmed(histories: dict[str, "History"]) -> None:
    """Check that every order is confirmed: kills and cuts alone make no order fail."""
    other = {order_id: it for order_id, it in histories.items() if it[-1][1] != "confirmed"}
    assert not other, other


History = list[tuple[int, str]]


def check_histories(accepted: Sequence[str], histories: dict[str, History]) -> None:
    """Every accepted order is there, gapless, lawful, with one terminal event, the last."""
    for order_id in accepted:
        history = histories[order_id]
        assert [seq for seq, _ in history] == list(range(1, len(history) + 1)), (order_id, history)
        statuses = [OrderStatus(status) for _, status in history]
        assert statuses[0] is OrderStatus.PENDING
        assert all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
        assert [status in TERMINAL for status in statuses].count(True) == 1
        assert statuses[-1] in TERMINAL


def check_ledger(histories: dict[str, History], swaps: Sequence[tuple[str, Any]]) -> None:
    """No order executed twice, and an order is confirmed exactly if it executed."""
    executed = Counter(memo for memo, error in swaps if error is None)
    assert not [memo for memo, times in executed.items() if times > 1]
    confirmed = {order_id for order_id, history in histories.items() if history[-1][1] == "confirmed"}
    assert confirmed == set(executed)


def swaps_in(ledger: Path) -> list[tuple[str, Any]]:
    """Return the chain's own ledger: the order of each transaction, and its error if it reverted."""
    chain = sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)
    try:
        return chain.execute("select memo, error from paper_chain_swaps").fetchall()
    finally:
        chain.close()


async def wait_for_postgres(
    url: str, ledger: Path, accepted: Sequence[str], timeout_s: float = HANG_S
) -> dict[str, History]:
    """Wait until every order in the database is terminal, check histories and ledger; returns the histories."""
    connection = await asyncpg.connect(url)
    try:
        async with asyncio.timeout(timeout_s):
            while await connection.fetchval(
                "select count(*) from orders where status not in ('confirmed', 'failed', 'cancelled')"
            ):
                await asyncio.sleep(0.1)
        histories: dict[str, History] = {}
        for row in await connection.fetch("select order_id, seq, status from order_events order by order_id, seq"):
            histories.setdefault(str(row[0]), []).append((row[1], row[2]))
    finally:
        await connection.close()
    check_histories(accepted, histories)
    check_ledger(histories, swaps_in(ledger))
    return histories


async def wait_for_sqlite(data: Path, accepted: Sequence[str], timeout_s: float = HANG_S) -> None:
    """The same for the embedded engine's two files."""
    orders = sqlite3.connect(f"file:{data}/order-engine.sqlite3?mode=ro", uri=True)
    try:
        async with asyncio.timeout(timeout_s):
            while orders.execute(
                "select count(*) from orders where status not in ('confirmed', 'failed', 'cancelled')"
            ).fetchone()[0]:
                await asyncio.sleep(0.1)
        histories: dict[str, History] = {}
        for order_id, seq, status in orders.execute("select order_id, seq, status from order_events order by 1, 2"):
            histories.setdefault(order_id, []).append((seq, status))
    finally:
        orders.close()
    check_histories(accepted, histories)
    check_ledger(histories, swaps_in(data / "paper-chain.sqlite3"))
