"""Headers, ids, times and numbers in a query are read strictly too."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from order_engine.api.parsing import parse_integer, parse_key, parse_order_id, parse_time
from order_engine.api.schemas import time_text
from order_engine.domain.errors import InvalidRequest
from tests.unit.samples import QUICK, order_id_of

KEY = "Idempotency-Key"
_ID = order_id_of(1)


@pytest.mark.parametrize("key", [None, "a", "x" * 255, "!~", "6f1c-9a"])
def test_a_key_of_visible_ascii_is_taken(key: str | None) -> None:
    assert parse_key([] if key is None else [key], KEY) == key


@pytest.mark.parametrize("key", ["", " ", "a b", "x" * 256, "é", "a\0", "a\n", "\x7f", "\ud800"])
def test_any_other_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_key([key], KEY)
    assert caught.value.field == KEY


@pytest.mark.parametrize("text", [_ID, _ID.upper()])
def test_an_order_id_is_a_uuid_in_any_case(text: str) -> None:
    assert parse_order_id(text) == _ID


@pytest.mark.parametrize(
    "text", ["", "1", _ID[:-1], f"{_ID}0", f" {_ID}", f"{_ID}\n", _ID.replace("-", ""), f"{{{_ID}}}"]
)
def test_anything_else_is_no_order_id(text: str) -> None:
    assert parse_order_id(text) is None


@QUICK
@given(st.integers(0, 4_102_444_800_000))
@example(1_094_113_341_195)
@example(1_094_613_988_619)
@example(2_191_377_530_206)
def test_a_time_comes_back_to_the_millisecond(epoch_ms: int) -> None:
    assert parse_time(time_text(epoch_ms), "createdAfter") == epoch_ms


@pytest.mark.parametrize(
    ("text", "epoch_ms"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("2026-01-31T12:00:00Z", 1_769_860_800_000),
        ("2026-01-31T14:00:00+02:00", 1_769_860_800_000),
        ("2026-01-31T12:00:00.5Z", 1_769_860_800_500),
        ("2026-01-31T12:00:00.123456-00:00", 1_769_860_800_123),
        ("2026-01-31T12:00:00.123456789Z", 1_769_860_800_123),
        ("2026-01-31T12:00:00.999999999Z", 1_769_860_800_999),
        ("2026-01-31T12:00:00.1234567Z", 1_769_860_800_123),
        ("2026-01-31t12:00:00z", 1_769_860_800_000),
        ("2026-01-31t14:00:00.000000001+02:00", 1_769_860_800_000),
    ],
)
def test_a_time_is_rfc_3339(text: str, epoch_ms: int) -> None:
    assert parse_time(text, "createdAfter") == epoch_ms


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "0", "1769860800", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31 12:00:00Z", "\0"),
        *("2026-02-30T12:00:00Z", "2026-01-31T25:00:00Z", "2026-01-31T12:00:61Z", "2026-01-31T12:00:00+25:00"),
        *(
            "2026-01-31T12:00:00.Z",
            "2026-01-31T12:00:00.1234567890Z",
            "20260131T120000Z",
            "0000-01-01T00:00:00Z",
            "2026-01-31T12:00:00Z ",
        ),
    ],
)
def test_any_other_time_is_refused_by_its_field_s_name(text: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_time(text, "createdBefore")
    assert caught.value.field == "createdBefore"


@QUICK
@given(st.text(max_size=40) | st.from_regex(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)"))
def test_any_text_is_a_time_or_an_invalid_request(text: str) -> None:
    try:
        epoch_ms = parse_time(text, "createdAfter")
    except InvalidRequest:
        return
    assert isinstance(epoch_ms, int)


@pytest.mark.parametrize(("text", "number"), [("1", 1), ("100", 100), ("7", 7)])
def test_a_whole_number_within_bounds_is_taken(text: str, number: int) -> None:
    assert parse_integer(text, "limit", 1, 100) == number


@pytest.mark.parametrize(
    "text",
    [
        "",
        "0",
        "007",
        "00001",
        "01",
        "101",
        "-1",
        "+1",
        "-0",
        "1.0",
        "1.",
        "1e1",
        "1E1",
        " 1",
        "1\n",
        "\u0661",
        "0x1",
        "1_0",
        "true",
        "9" * 5_000,
        "\0",
    ],
)
def test_any_other_number_is_refused_with_its_bounds(text: str) -> None:
    with pytest.raises(InvalidRequest, match="from 1 to 100") as caught:
        parse_integer(text, "limit", 1, 100)
    assert caught.value.field == "limit"
