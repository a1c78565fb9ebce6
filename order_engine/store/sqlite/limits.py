"""Checks the limits of an account in the transaction that accepts its order."""

import sqlite3
from collections.abc import Mapping

import msgspec

from order_engine.domain.account_limits import (
    DAY_MS,
    MINUTE_MS,
    too_fast,
    too_large,
    too_many_open,
    too_much_a_day,
)
from order_engine.domain.errors import LimitExceeded
from order_engine.domain.order import Order
from order_engine.store.sqlite.statements import fetch_one


def use_limits(
    connection: sqlite3.Connection, sql: Mapping[str, str], order: Order, now_ms: int
) -> LimitExceeded | None:
    """Count the order against its account's limits; beyond one, return the refusal and count nothing."""
    account, token = order.account, order.request.token_in
    row = fetch_one(connection, sql["find_limits"], (account,))
    if row is None:
        return None
    busy_until_ms = now_ms
    if (rate := row["orders_per_minute"]) is not None:
        busy_until_ms = max(row["busy_until_ms"], now_ms) + MINUTE_MS // rate
        room_ms = row["burst"] * MINUTE_MS // rate
        if busy_until_ms - now_ms > room_ms:
            return too_fast(rate, now_ms, busy_until_ms - room_ms)
    if (most := row["open_orders"]) is not None:
        used = fetch_one(connection, sql["count_open"], (account,))[0]
        if used >= most:
            return too_many_open(most, used, now_ms)
    per_order = _amounts(row["amount_per_order"]).get(token.mint)
    if per_order is not None and order.request.amount_in > per_order:
        return too_large(token.symbol, token.decimals, per_order, now_ms)
    per_day = _amounts(row["amount_per_day"]).get(token.mint)
    if per_day is not None:
        today = (account, now_ms // DAY_MS, token.mint)
        found = fetch_one(connection, sql["used_today"], today)
        sold = 0 if found is None else int(found["amount"])
        if sold + order.request.amount_in > per_day:
            return too_much_a_day(token.symbol, token.decimals, per_day, sold, now_ms)
        connection.execute(sql["set_used"], (*today, str(sold + order.request.amount_in)))
    if rate is not None:
        connection.execute(sql["set_busy_until"], (busy_until_ms, account))
    return None


def _amounts(text: str) -> dict[str, int]:
    return msgspec.json.decode(text, type=dict[str, int])
