"""Reads the refusals of the function check_account_limits, which checks the limits of an account."""

import msgspec

from order_engine.domain.account_limits import too_fast, too_large, too_many_open, too_much_a_day
from order_engine.domain.errors import LimitExceeded


def limit_exceeded(detail: str) -> LimitExceeded:
    """Return the refusal that the database names in the detail of its error."""
    rule, *values = msgspec.json.decode(detail)
    if rule == "rate":
        limit, now_ms, again_at_ms = map(int, values)
        return too_fast(limit, now_ms, again_at_ms)
    if rule == "open":
        limit, used, now_ms = map(int, values)
        return too_many_open(limit, used, now_ms)
    symbol, decimals, *numbers = values
    if rule == "order":
        limit, now_ms = map(int, numbers)
        return too_large(symbol, decimals, limit, now_ms)
    limit, used, now_ms = map(int, numbers)
    return too_much_a_day(symbol, decimals, limit, used, now_ms)
