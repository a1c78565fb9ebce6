"""Nothing wrong gets past the parser, and each refusal names the wrong field."""

import contextlib
import json
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from order_engine.api.json_body import decode_loose
from order_engine.api.parsing import parse_metadata, parse_order, parse_quote
from order_engine.api.problems import problem_response
from order_engine.api.schemas import MAX_METADATA_BYTES
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.money import MAX_BASE_UNITS, format_amount
from order_engine.domain.order import SwapRequest
from order_engine.domain.tokens import KNOWN_TOKENS, WRAPPED_SOL_MINT, Token
from tests.unit.samples import QUICK, SOL, TOKENS, USDC

FIELDS = ("type", "tokenIn", "tokenOut", "amountIn", "slippageBps", "clientOrderId", "metadata")


def body_of(field: str = "type", literal: str = '"market"') -> bytes:
    """A correct body, except that one field has this JSON text."""
    literals = {"type": '"market"', "tokenIn": '"SOL"', "tokenOut": '"USDC"', "amountIn": '"1.5"', field: literal}
    text = ",".join(f"{json.dumps(name)}:{value}" for name, value in literals.items())
    return f"{{{text}}}".encode("utf-8", "surrogatepass")


def parse(body: bytes) -> SwapRequest:
    return parse_order(body, TOKENS, 50)


def refusal(body: bytes) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        parse(body)
    problem = json.loads(bytes(problem_response(caught.value, "r").body))
    assert problem["status"] in {400, 422}
    return caught.value


def nested(depth: int) -> str:
    return '{"a":' + "[" * depth + "]" * depth + "}"


# --- accepted bodies -----------------------------------------------------------------------------


def test_a_good_order_becomes_a_request() -> None:
    body = json.dumps(
        {
            "type": "market",
            "tokenIn": "sol",
            "tokenOut": USDC.mint,
            "amountIn": "1.5",
            "slippageBps": 75,
            "clientOrderId": "mine-1",
            "metadata": {"strategy": {"name": "é", "legs": [1, 2.50]}},
        }
    )
    request = parse(body.encode())
    assert (request.token_in, request.token_out, request.amount_in) == (SOL, USDC, 1_500_000_000)
    assert (request.slippage_bps, request.client_order_id) == (75, "mine-1")
    assert request.metadata is not None
    assert bytes(request.metadata).decode() in body


@pytest.mark.parametrize("field", ["slippageBps", "clientOrderId", "metadata"])
def test_what_is_null_or_missing_takes_its_default(field: str) -> None:
    assert parse(body_of(field, "null")) == parse(body_of()) == SwapRequest(SOL, USDC, parse(body_of()).amount_in, 50)


@pytest.mark.parametrize("literal", ["0.1", '"0.1"', "0.10", "0.100000000", "0.1000000000000", '"0.1000000000000"'])
def test_an_amount_is_read_digit_by_digit(literal: str) -> None:
    assert parse(body_of("amountIn", literal)).amount_in == 100_000_000


def test_an_amount_that_no_float_can_hold_is_exact() -> None:
    assert parse(body_of("amountIn", "9007199.254740993")).amount_in == 9_007_199_254_740_993


@QUICK
@given(st.sampled_from(KNOWN_TOKENS), st.integers(1, MAX_BASE_UNITS), st.booleans())
@example(SOL, MAX_BASE_UNITS, False)  # noqa: FBT003
@example(SOL, 1, False)  # noqa: FBT003
def test_an_amount_comes_back_as_it_went(token: Token, base_units: int, quoted: bool) -> None:  # noqa: FBT001
    other = "USDC" if token != USDC else "SOL"
    text = format_amount(base_units, token.decimals)
    amount = f'"{text}"' if quoted else text
    body = f'{{"type":"market","tokenIn":"{token.symbol}","tokenOut":"{other}","amountIn":{amount}}}'
    assert parse(body.encode()).amount_in == base_units


def test_a_quote_takes_the_same_fields_but_no_order_s() -> None:
    assert parse_quote(b'{"tokenIn":"SOL","tokenOut":"USDC","amountIn":1}', TOKENS, 50).amount_in == 10**9
    with pytest.raises(InvalidRequest) as caught:
        parse_quote(body_of(), TOKENS, 50)
    assert (caught.value.field, caught.value.code) == ("type", "unknown_field")


# --- refused bodies ------------------------------------------------------------------------------


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize(
    "literal",
    [
        *("NaN", "Infinity", "-Infinity", "true", "false", "[]", "[1]"),
        *('"\\u0000"', '"a\\u0000b"', '"\\ud800"', '"a\\udfffb"', '"\ud800"', "1e30", "1" + "0" * 30, "-1", '""'),
    ],
)
def test_a_value_that_fits_no_field_is_refused_by_the_field_s_name(field: str, literal: str) -> None:
    assert refusal(body_of(field, literal)).field == field


@pytest.mark.parametrize("field", FIELDS)
def test_a_raw_nul_byte_is_refused_by_the_field_s_name(field: str) -> None:
    error = refusal(body_of(field, '"a\0b"'))
    assert (error.field, error.code) == (field, "malformed_json")


@pytest.mark.parametrize("field", ["type", "tokenIn", "tokenOut", "amountIn"])
def test_what_every_order_needs_may_not_be_missing_or_null(field: str) -> None:
    assert refusal(body_of(field, "null")).field == field
    left = {name: value for name, value in json.loads(body_of()).items() if name != field}
    assert refusal(json.dumps(left).encode()).field == field


@pytest.mark.parametrize(
    ("field", "literal"),
    [
        *(("type", literal) for literal in ('"limit"', '"MARKET"', "1", "{}")),
        *(("tokenIn", literal) for literal in ("1", "{}", '["SOL"]')),
        *(("tokenOut", literal) for literal in ("1", "{}", '["USDC"]')),
        *(("amountIn", literal) for literal in ("{}", '"1,5"', '" 1"', '"1 "', '"+1"', '"0x1"', '"1_0"', '"NaN"')),
        *(
            ("amountIn", literal)
            for literal in ('"-1"', '"one"', '"\u0661"', "-1.5", "-0", "0", "0.0", '"0"', "0e9", "1e-99")
        ),
        *(
            ("amountIn", literal)
            for literal in (
                '"1e3"',
                "1e3",
                '"1E3"',
                "1E3",
                "1e-1",
                '"00001"',
                '"01.5"',
                '"1."',
                '".5"',
                '"-0"',
                '"1\u0660"',
            )
        ),
        *(("amountIn", literal) for literal in ('"true"', '{"amount":1}', "1e1000", '"1e30"', '"' + "9" * 5_000 + '"')),
        *(
            ("slippageBps", literal)
            for literal in ("0", "1001", "1.5", '"50"', "{}", "-50", "1e2", "50.0", "5e1", "-0")
        ),
        *(("clientOrderId", literal) for literal in ("1", "{}", '"with space"', '"é"', f'"{"x" * 65}"', '"tab\\t"')),
        *(
            ("metadata", literal)
            for literal in ("1", '"text"', '{"a":"\\u0000"}', '{"\\u0000":1}', '{"a":["\\u0000"]}')
        ),
        *(("metadata", literal) for literal in ('{"a":"\\ud800"}', '{"\\ud800":1}', '{"a":{"b":["\\udc00"]}}')),
        ("metadata", json.dumps({"a": "x" * MAX_METADATA_BYTES})),
    ],
)
def test_a_wrong_value_is_refused_by_its_field_s_name(field: str, literal: str) -> None:
    assert refusal(body_of(field, literal)).field == field


@pytest.mark.parametrize("literal", ['{"a":NaN}', '{"a":[1,-Infinity]}', '{"a":{"b":Infinity}}', '{"a":"\0"}'])
def test_what_is_no_json_deep_in_the_metadata_is_refused_as_metadata(literal: str) -> None:
    assert refusal(body_of("metadata", literal)).field == "metadata"


@pytest.mark.parametrize("depth", [1, 100, 300, 400, 500, 700, 900, 990, 1_000, 1_500, 2_000])
def test_metadata_of_any_depth_is_taken_or_refused_as_metadata(depth: int) -> None:
    body = body_of("metadata", nested(depth))
    try:
        request = parse(body)
    except InvalidRequest as error:
        refused = error.field
    else:
        assert request.metadata is not None
        assert bytes(request.metadata).decode() == nested(depth)
        return
    assert refused == "metadata"


@pytest.mark.parametrize("field", FIELDS)
@pytest.mark.parametrize("depth", [400, 1_000, 4_000])
def test_depth_crashes_no_field(field: str, depth: int) -> None:
    assert refusal(body_of(field, "[" * depth + "]" * depth)).field in {field, ""}
    assert refusal(body_of(field, "[" * depth)).field in {field, ""}
    assert refusal(body_of(field, "[" * depth + "NaN" + "]" * depth)).field in {field, ""}


@pytest.mark.parametrize(
    ("token_in", "token_out"),
    [
        *(("SOL", "SOL"), ("SOL", "sol"), ("SOL", "wSOL"), ("WSOL", "SOL"), ("USDC", USDC.mint)),
        *((WRAPPED_SOL_MINT, "SOL"), ("wSOL", WRAPPED_SOL_MINT), (USDC.mint, USDC.mint)),
    ],
)
def test_the_same_token_twice_is_refused_however_it_is_called(token_in: str, token_out: str) -> None:
    body = {"type": "market", "tokenIn": token_in, "tokenOut": token_out, "amountIn": "1"}
    error = refusal(json.dumps(body).encode())
    assert (error.field, error.code) == ("tokenOut", "same_token")


@pytest.mark.parametrize(
    ("token_in", "amount"), [("SOL", "0.0000000001"), ("USDC", "1.0000001"), ("BONK", "0.000001"), ("USDC", 1.0000001)]
)
def test_too_many_decimals_are_refused_with_how_many_there_are(token_in: str, amount: object) -> None:
    body = {"type": "market", "tokenIn": token_in, "tokenOut": "RAY", "amountIn": amount}
    error = refusal(json.dumps(body).encode())
    assert (error.field, error.code) == ("amountIn", "invalid_amount")
    assert f"({TOKENS.resolve(token_in, '').decimals})" in str(error)


@pytest.mark.parametrize("field", ["tokenIn", "tokenOut"])
def test_an_unknown_token_is_refused_with_the_known_ones(field: str) -> None:
    error = refusal(body_of(field, '"DOGE"'))
    assert (error.field, error.code) == (field, "unknown_token")
    assert "SOL" in str(error)


@pytest.mark.parametrize("name", ["amount", "AmountIn", "token_in", "x", "price", "a.b", "a[0]", "é"])
def test_an_unknown_field_is_refused_by_its_name(name: str) -> None:
    error = refusal(body_of(name, "1"))
    assert (error.field, error.code) == (name, "unknown_field")


@pytest.mark.parametrize("name", ["a`b", " - at `$.tokenIn`", "x` - at `$.tokenIn"])
def test_a_strange_field_does_not_pass_for_another(name: str) -> None:
    assert refusal(body_of(name, "1")).field == name


REPEATED = [
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","amountIn":"1"}', "amountIn"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","amountIn":"-5"}', "amountIn"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","type":"limit"}', "type"),
    ('{"type":"limit","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","type":"market"}', "type"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","amount\\u0049n":"2"}', "amountIn"),
    (
        '{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","slippageBps":50,"slippageBps":50}',
        "slippageBps",
    ),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":null,"metadata":{}}', "metadata"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"a":1,"a":1}}', "metadata"),
    (
        '{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"a":{"b":[{"c":1,"c":2}]}}}',
        "metadata",
    ),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"a":1,"\\u0061":1}}', "metadata"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"\\u00e9":1,"é":1}}', "metadata"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","metadata":{"":1,"":1}}', "metadata"),
    ('{"type":"market","tokenIn":"SOL","tokenOut":"USDC","amountIn":"1","x":1,"x":2}', "x"),
]


@pytest.mark.parametrize(("body", "field"), REPEATED)
def test_a_member_that_is_there_twice_is_refused_at_every_depth(body: str, field: str) -> None:
    for text in (body, body.replace(":", " :\n "), body.replace(",", " , ")):
        error = refusal(text.encode())
        assert (error.field, error.code) == (field, "duplicate_member")
        assert json.loads(bytes(problem_response(error, "r").body))["status"] == 400


def test_names_that_only_look_alike_are_not_repeated() -> None:
    metadata = r'{"a":1,"A":1,"a ":1,"\u0430":1,"b":[{"a":1},{"a":1}],"c":":\",\"a\":1","d":{"a":{"a":1}}}'
    request = parse(body_of("metadata", metadata))
    assert request.metadata is not None
    assert bytes(request.metadata).decode() == metadata


@QUICK
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "\u00e9", ":", '"', "\\"]), st.booleans()), max_size=5), st.booleans()
)
def test_an_object_is_taken_exactly_if_its_names_are_distinct(names: list[tuple[str, bool]], inside: bool) -> None:  # noqa: FBT001
    escaped = [json.dumps(name, ensure_ascii=is_ascii) for name, is_ascii in names]
    text = "{" + ",".join(f"{name}:{at}" for at, name in enumerate(escaped)) + "}"
    body = (f'{{"z":[{text}]}}' if inside else text).encode()
    if len({name for name, _ in names}) == len(names):
        assert decode_loose(body) is not None
        return
    with pytest.raises(InvalidRequest) as caught:
        decode_loose(body)
    assert caught.value.code == "duplicate_member"


@pytest.mark.parametrize("value", [" - at `$.amountIn`", "' - at `$.amountIn", "field `tokenIn`"])
def test_a_strange_value_does_not_blame_another_field(value: str) -> None:
    assert refusal(body_of("type", json.dumps(value))).field == "type"


@pytest.mark.parametrize("body", [rb'{"\ud800":NaN}', rb'{"\ud800":"\ud800"}', rb'{"\udfff":Infinity,"type":"market"}'])
def test_a_field_whose_name_is_no_unicode_can_still_be_answered(body: bytes) -> None:
    assert refusal(body).code == "malformed_json"


@pytest.mark.parametrize(
    "body",
    [
        *(b"", b" ", b"\0", b"{", b"}", b"null", b"[]", b"1", b'"text"', b"NaN", b"\xff\xfe", b"\xef\xbb\xbf{}"),
        *(b"{'type':'market'}", b'{"type":"market",}', b"[" * 10_000, "{}".encode("utf-16")),
    ],
)
def test_what_is_no_object_is_refused_as_a_whole(body: bytes) -> None:
    assert refusal(body).field == ""


# --- random bodies -------------------------------------------------------------------------------

any_text = st.text(st.characters(exclude_categories=()), max_size=8)
any_json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | any_text,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(any_text, inner, max_size=3),
    max_leaves=8,
)
any_order = st.fixed_dictionaries(
    {"type": st.just("market") | any_json},
    optional={
        "tokenIn": st.sampled_from(["SOL", "wsol"]) | any_json,
        "tokenOut": st.sampled_from(["USDC", "BONK"]) | any_json,
        "amountIn": st.floats() | st.integers() | st.sampled_from(["1", "1.5", "1e-3"]) | any_json,
        "slippageBps": st.integers(-1, 1_002) | any_json,
        "clientOrderId": any_text | any_json,
        "metadata": any_json,
        "x": any_json,
    },
)


@st.composite
def damaged_orders(draw: st.DrawFn) -> bytes:
    body = json.dumps(draw(any_order), ensure_ascii=draw(st.booleans())).encode("utf-8", "surrogatepass")
    at = draw(st.integers(0, len(body)))
    return body[:at] + draw(st.binary(max_size=3)) + body[at + draw(st.integers(0, 3)) :]


def is_lawful(request: SwapRequest) -> bool:
    return (
        request.token_in.mint != request.token_out.mint
        and 0 < request.amount_in <= MAX_BASE_UNITS
        and 1 <= request.slippage_bps <= 1_000
        and (request.metadata is None or isinstance(msgspec.json.decode(request.metadata), dict))
    )


@QUICK
@given(st.binary(max_size=200) | damaged_orders())
def test_any_bytes_are_an_order_or_an_invalid_request(body: bytes) -> None:
    try:
        request = parse(body)
    except InvalidRequest:
        return
    assert is_lawful(request)


@QUICK
@given(any_order | any_json)
def test_any_json_is_an_order_or_an_invalid_request(value: Any) -> None:
    try:
        request = parse(json.dumps(value).encode())
    except InvalidRequest as error:
        field = error.field
    else:
        assert is_lawful(request)
        return
    assert isinstance(value, dict) or field == ""


@QUICK
@given(st.binary(max_size=200) | damaged_orders())
def test_any_bytes_are_an_object_or_an_invalid_request(body: bytes) -> None:
    try:
        fields = decode_loose(body)
    except InvalidRequest:
        return
    for name, raw in fields.items():
        with contextlib.suppress(InvalidRequest):
            parse_metadata(raw, name)
