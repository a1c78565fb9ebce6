"""The invariants, asserted against the database, the chain's ledger and the clients' answers and events."""

from collections import Counter
from itertools import pairwise
from typing import Any

from order_engine.domain.lifecycle import TERMINAL, TRANSITIONS
from order_engine.domain.order import OrderStatus


def violations_of(world: Any) -> list[str]:
    """Return a sentence for each violation."""
    orders = {row["order_id"]: row for row in world.database.rows("select * from orders")}
    events: dict[str, list[Any]] = {order_id: [] for order_id in orders}
    for row in world.database.rows("select * from order_events order by order_id, seq"):
        events.setdefault(row["order_id"], []).append(row)
    return [
        *_kept(world, orders),
        *_executed_once(world, orders),
        *_signed_before_sent(world),
        *_lawful(orders, events),
        *_streamed_exactly(world, events),
    ]


def _kept(world: Any, orders: Any) -> list[str]:
    found = []
    for client in world.clients:
        answers = set(client.answers)
        found += [f"I1: {order_id} was answered with 202 and is gone" for order_id in answers - orders.keys()]
        if len(answers) > 1:
            found.append(f"I7: {client.key} placed {len(answers)} orders")
    found += [
        f"I1: {it['order_id']} is {it['status']} for ever" for it in orders.values() if it["status"] not in TERMINAL
    ]
    keys = Counter(it["idempotency_key"] for it in orders.values())
    found += [f"I7: {times} orders have the key {key}" for key, times in keys.items() if times > 1 or key is None]
    return found


def _executed_once(world: Any, orders: Any) -> list[str]:
    swaps = Counter(it.memo for it in world.cluster.ledger.entries.values() if it.error is None)
    found = [f"I2: {order_id} executed {times} times" for order_id, times in swaps.items() if times > 1]
    for order_id, order in orders.items():
        outcomes = Counter(
            row[0] for row in world.database.rows("select outcome from attempts where order_id = ?", order_id)
        )
        is_confirmed = order["status"] == "confirmed"
        if is_confirmed != (outcomes["landed"] == 1) or (order["status"] in TERMINAL and outcomes[None]):
            found.append(f"I3: {order_id} is {order['status']} with outcomes {dict(outcomes)}")
        if is_confirmed != (swaps[order_id] > 0):
            found.append(f"I3: {order_id} is {order['status']} and executed {swaps[order_id]} times")
    return found


def _signed_before_sent(world: Any) -> list[str]:
    return [f"I4: {signature} was sent before it was committed" for signature in world.cluster.unsaved]


def _lawful(orders: Any, events: dict[str, list[Any]]) -> list[str]:
    found = []
    for order_id, history in events.items():
        statuses = [OrderStatus(it["status"]) for it in history]
        is_lawful = (
            [it["seq"] for it in history] == list(range(1, len(history) + 1))
            and statuses[0] is OrderStatus.PENDING
            and all(after in TRANSITIONS[before] for before, after in pairwise(statuses))
            and order_id in orders
            and (orders[order_id]["status"], orders[order_id]["seq"]) == (statuses[-1].value, len(history))
        )
        if not is_lawful:
            found.append(f"I5: the history of {order_id} is not lawful: {statuses}")
    return found


def _streamed_exactly(world: Any, events: dict[str, list[Any]]) -> list[str]:
    found = []
    for client in world.clients:
        if not client.answers:
            continue
        told = [(event.seq, event.status.value, bytes(event.data).decode()) for event in client.seen]
        kept = [(it["seq"], it["status"], it["data"]) for it in events.get(client.answers[0], [])]
        if told != kept:
            found.append(f"I6: {client.key} was told {[it[:2] for it in told]}, kept was {[it[:2] for it in kept]}")
        if client.is_cancelled and kept and kept[-1][1] != "cancelled":
            found.append(f"I3: {client.key} was told that it is cancelled, and it is {kept[-1][1]}")
    return found
