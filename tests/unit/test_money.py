"""Money is exact: decimal text and base units say the same thing, or the text is refused."""

import decimal
from fractions import Fraction

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from msgspec.structs import replace

from order_engine.domain.money import (
    BPS_ONE,
    MAX_BASE_UNITS,
    AmountError,
    BaseUnits,
    difference_bps,
    format_amount,
    min_out,
    parse_amount,
)
from order_engine.domain.order import price_text
from order_engine.domain.tokens import MAX_DECIMALS
from tests.unit.samples import QUICK, REQUEST, USDC

decimals_of_a_token = st.integers(0, MAX_DECIMALS)
amounts = st.integers(1, MAX_BASE_UNITS)


@pytest.mark.parametrize(
    ("text", "decimals", "base_units"),
    [
        ("1", 9, 1_000_000_000),
        ("1.5", 9, 1_500_000_000),
        ("1.50", 9, 1_500_000_000),
        ("0.000000001", 9, 1),
        ("1.5000000000", 9, 1_500_000_000),
        ("2." + "0" * 254, 0, 2),
        ("0.10", 1, 1),
        ("9223372036.854775807", 9, MAX_BASE_UNITS),
        ("0.1", 1, 1),
        ("7", 0, 7),
    ],
)
def test_text_becomes_base_units(text: str, decimals: int, base_units: int) -> None:
    assert parse_amount(text, decimals) == base_units


@pytest.mark.parametrize(
    "text",
    [
        *("", " ", " 1", "1 ", "1\n", "1,5", "1_000", "+1", ".5", "1.", "1e", "e5", "0x10", "1e5.5"),
        *("1e3", "1E3", "1e-9", "1e+2", "2.5e3", "0e5", "1e30", "1..5", "1.5.0", "1'000", "2." + "0" * 255),
        *(
            "NaN",
            "nan",
            "Infinity",
            "inf",
            "1\0",
            "\0",
            "\ud800",
            "\u0661",
            "1\u0661",
            "1.\uff11",
            "½",
            "one",
            "1" * 257,
            "1e9999",
        ),
    ],
)
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(AmountError, match="must be a decimal number"):
        parse_amount(text, 9)


@pytest.mark.parametrize("text", ["01", "00.5", "007"])
def test_a_leading_zero_is_refused_as_json_refuses_it(text: str) -> None:
    with pytest.raises(AmountError):
        parse_amount(text, 9)


@pytest.mark.parametrize("text", ["0", "0.0", "0.000000000", "0.0000000000000", "-1", "-0", "-0.5", "-1e30"])
def test_what_is_not_above_zero_is_refused(text: str) -> None:
    with pytest.raises(AmountError, match="greater than zero"):
        parse_amount(text, 9)


@pytest.mark.parametrize(
    ("text", "decimals"), [("0.0000000001", 9), ("1.00000000010", 9), ("1.0000001", 6), ("0.5", 0)]
)
def test_more_decimals_than_the_token_has_are_refused(text: str, decimals: int) -> None:
    with pytest.raises(AmountError, match=rf"more decimals than the token has \({decimals}\)"):
        parse_amount(text, decimals)


@pytest.mark.parametrize("text", ["9223372036.854775808", "1" + "0" * 30, "9" * 64, "9" * 256])
def test_more_than_the_database_holds_is_refused(text: str) -> None:
    with pytest.raises(AmountError, match=r"at most 9223372036\.854775807"):
        parse_amount(text, 9)


@QUICK
@given(amounts, decimals_of_a_token)
@example(MAX_BASE_UNITS, 0)
@example(MAX_BASE_UNITS, MAX_DECIMALS)
@example(1, MAX_DECIMALS)
def test_formatting_and_parsing_are_each_other_s_inverse(base_units: int, decimals: int) -> None:
    text = format_amount(base_units, decimals)
    assert parse_amount(text, decimals) == base_units
    assert Fraction(text) == Fraction(base_units, 10**decimals)
    assert "e" not in text.lower()
    assert "." not in text or not text.endswith(("0", "."))


@QUICK
@given(amounts, decimals_of_a_token, st.integers(0, 20))
def test_zeros_behind_the_last_digit_change_nothing(base_units: int, decimals: int, zeros: int) -> None:
    text = format_amount(base_units, decimals)
    longer = f"{text}{'' if '.' in text else '.'}0{'0' * zeros}"
    assert parse_amount(longer, decimals) == base_units


@QUICK
@given(st.text(), decimals_of_a_token)
def test_any_text_is_an_amount_within_bounds_or_an_amount_error(text: str, decimals: int) -> None:
    try:
        base_units = parse_amount(text, decimals)
    except AmountError:
        return
    assert 0 < base_units <= MAX_BASE_UNITS


@QUICK
@given(amounts, st.integers(1, 1_000))
@example(1, 1_000)
@example(MAX_BASE_UNITS, 1)
def test_the_minimum_out_is_the_amount_less_the_slippage_rounded_down(amount: int, slippage_bps: int) -> None:
    exact = Fraction(amount * (BPS_ONE - slippage_bps), BPS_ONE)
    minimum = min_out(amount, slippage_bps)
    assert 1 <= minimum <= amount
    assert minimum == max(1, exact.numerator // exact.denominator)


@pytest.mark.parametrize(
    ("amount", "slippage_bps", "minimum"), [(10_000, 50, 9_950), (10_001, 50, 9_950), (1, 1_000, 1), (199, 100, 197)]
)
def test_the_minimum_out_of_known_cases(amount: int, slippage_bps: int, minimum: int) -> None:
    assert min_out(amount, slippage_bps) == minimum


@QUICK
@given(amounts, amounts)
def test_a_difference_is_in_bps_of_the_smaller_rounded_down(one: int, two: int) -> None:
    smaller, larger = sorted((one, two))
    bps = difference_bps(larger, smaller)
    assert bps <= Fraction((larger - smaller) * BPS_ONE, smaller) < bps + 1


@QUICK
@given(amounts, amounts)
@example(3_700_766_944_494_792, 440_584_560_522)
def test_a_price_is_right_to_twelve_significant_digits(amount_in: int, amount_out: int) -> None:
    request = replace(REQUEST, amount_in=BaseUnits(amount_in))
    exact = Fraction(amount_out * 10**request.token_in.decimals, amount_in * 10**request.token_out.decimals)
    with decimal.localcontext(prec=12):
        rounded = decimal.Decimal(exact.numerator) / decimal.Decimal(exact.denominator)
    assert decimal.Decimal(price_text(request, amount_out)) == rounded


@pytest.mark.parametrize(
    ("amount_in", "amount_out", "text"),
    [
        (1_000_000_000, 150_000_000, "150"),
        (3_000_000_000, 1_000_000, "0.333333333333"),
        (MAX_BASE_UNITS, 1, "0.000000000000000108420217249"),
        (1, 10**12, "1000000000000000"),
    ],
)
def test_a_price_is_plain_decimal_text(amount_in: int, amount_out: int, text: str) -> None:
    assert REQUEST.token_out == USDC
    assert price_text(replace(REQUEST, amount_in=BaseUnits(amount_in)), amount_out) == text
