"""Money is integers: base units inside, decimal text at the edge, never a float.

A token with d decimals has 10**d base units to one whole token (SOL: 9, so 1 SOL is 10**9
lamports). Solana's token amounts are u64; ours end at 2**63 - 1, the maximum of a database's bigint.
No supply in the registry exceeds it.
"""

import re
from typing import Final, NewType

BaseUnits = NewType("BaseUnits", int)
Bps = NewType("Bps", int)

MAX_BASE_UNITS: Final = 2**63 - 1
BPS_ONE: Final = 10_000

MAX_AMOUNT_TEXT: Final = 256
# The only grammar of an amount, in text and as a JSON number: no sign, no leading zero, no exponent, no bare point.
_DECIMAL = re.compile(r"(0|[1-9]\d*)(?:\.(\d+))?", re.ASCII)


class AmountError(ValueError):
    """The text is not an amount that this token can have; the message says why."""


def parse_amount(text: str, decimals: int) -> BaseUnits:
    """Turn decimal text in whole tokens into base units, exactly.

    Accepts "1", "1.5" and "1.50": at most 256 characters of plain decimal notation. Zeros beyond the
    token's decimals are exact and are accepted. Raises AmountError for anything else, for more
    decimals than the token has, for zero and for more than MAX_BASE_UNITS.
    """
    match = _DECIMAL.fullmatch(text) if len(text) <= MAX_AMOUNT_TEXT else None
    if match is None:
        if text.startswith("-"):
            raise AmountError("must be greater than zero")
        raise AmountError(
            'must be a decimal number such as "1.5": digits and at most one point, '
            f"{MAX_AMOUNT_TEXT} characters at most, without sign, exponent, spaces or leading zeros"
        )
    whole, fraction = match[1], (match[2] or "").rstrip("0")
    digits = int(whole + fraction)
    if digits == 0:
        raise AmountError("must be greater than zero")
    if len(fraction) > decimals:
        raise AmountError(f"has more decimals than the token has ({decimals})")
    base_units = digits * 10 ** (decimals - len(fraction))
    if base_units > MAX_BASE_UNITS:
        raise AmountError(f"must be at most {format_amount(BaseUnits(MAX_BASE_UNITS), decimals)}")
    return BaseUnits(base_units)


def format_amount(base_units: int, decimals: int) -> str:
    """Turn base units into decimal text in whole tokens, without trailing zeros."""
    if decimals == 0:
        return str(base_units)
    whole, fraction = divmod(base_units, 10**decimals)
    text = f"{fraction:0{decimals}d}".rstrip("0")
    return f"{whole}.{text}" if text else str(whole)


def format_known_amount(base_units: int | None, decimals: int) -> str | None:
    """Return `format_amount` of an amount, or None while it is not known."""
    return None if base_units is None else format_amount(base_units, decimals)


def min_out(amount_out: int, slippage_bps: int) -> BaseUnits:
    """Return the minimum that the swap may give: amount_out less the slippage, rounded down.

    The formula is the one of Jupiter's `otherAmountThreshold` and the DEXs' own programs:
    floor(amount_out * (10000 - slippage_bps) / 10000); never less than one base unit.
    """
    return BaseUnits(max(1, amount_out * (BPS_ONE - slippage_bps) // BPS_ONE))


def difference_bps(larger: int, smaller: int) -> Bps:
    """Return by how many bps of `smaller` the larger amount is ahead, rounded down."""
    return Bps((larger - smaller) * BPS_ONE // smaller)
