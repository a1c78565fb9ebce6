"""How much an account may trade. The database enforces the limits in the statement that accepts an order."""

from collections.abc import Mapping
from typing import Final

import msgspec

from order_engine.domain.errors import LimitExceeded
from order_engine.domain.money import format_amount

MINUTE_MS: Final = 60_000
DAY_MS: Final = 24 * 60 * 60 * 1000


class AccountLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The limits of one account; None or a missing token is no limit. Amounts are base units by mint.

    `burst`: how many orders may come at once although `orders_per_minute` would spread them. A day is
    one of UTC.
    """

    account: str
    orders_per_minute: int | None = None
    burst: int = 1
    open_orders: int | None = None
    amount_per_order: Mapping[str, int] = {}
    amount_per_day: Mapping[str, int] = {}


def too_fast(limit: int, now_ms: int, again_at_ms: int) -> LimitExceeded:
    """Return the refusal of an order that comes too soon."""
    return LimitExceeded(f"{limit} orders a minute", str(limit), None, again_at_ms, now_ms)


def too_many_open(limit: int, used: int, now_ms: int) -> LimitExceeded:
    """Return the refusal of an order while as many as allowed are open."""
    return LimitExceeded(f"{limit} open orders", str(limit), str(used), None, now_ms)


def too_large(symbol: str, decimals: int, limit: int, now_ms: int) -> LimitExceeded:
    """Return the refusal of an order that sells too much at once."""
    allowed = format_amount(limit, decimals)
    return LimitExceeded(f"{allowed} {symbol} an order", allowed, None, None, now_ms)


def too_much_a_day(symbol: str, decimals: int, limit: int, used: int, now_ms: int) -> LimitExceeded:
    """Return the refusal of an order that sells more than is left of the day; `used` is without it."""
    allowed, sold = format_amount(limit, decimals), format_amount(used, decimals)
    tomorrow_ms = (now_ms // DAY_MS + 1) * DAY_MS
    return LimitExceeded(f"{allowed} {symbol} a day", allowed, f"{sold} {symbol}", tomorrow_ms, now_ms)
