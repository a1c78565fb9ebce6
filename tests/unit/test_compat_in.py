"""An order of a compatible system trades exactly as it says, or the refusal names the wrong field."""

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from starlette.datastructures import Headers

from order_engine.api.compat_in import LooseOrder, parse_exec_frame, parse_job, parse_keys, parse_loose_order
from order_engine.api.context import ApiContext
from order_engine.domain.errors import InvalidRequest
from order_engine.domain.money import format_amount
from tests.unit.samples import QUICK, SOL, TOKENS, USDC


def context(*, is_paper: bool) -> ApiContext:
    """Hold the three fields that the parsers read."""
    used = {"tokens": TOKENS, "default_slippage_bps": 50, "is_paper": is_paper}
    return ApiContext(**(dict.fromkeys(ApiContext.__struct_fields__) | used))


PAPER, REAL = context(is_paper=True), context(is_paper=False)
PAIR = {"tokenIn": "SOL", "tokenOut": "USDC"}


def parse(body: Any, where: ApiContext = PAPER) -> LooseOrder:
    return parse_loose_order(where, json.dumps(body).encode())


def refusal(body: Any, where: ApiContext = PAPER, read: Any = parse_loose_order) -> str:
    with pytest.raises(InvalidRequest) as caught:
        read(where, json.dumps(body).encode())
    return caught.value.field


# --- defaults spend money on paper alone ---------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "symbol"),
        ({"type": "market"}, "symbol"),
        ({"amount": 1}, "symbol"),
        ({"symbol": "TOKEN", "amount": 1}, "symbol"),
        ({"symbol": "SOL", "amount": 1}, "symbol"),
        ({"symbol": "SOL/USDC"}, "amountIn"),
    ],
    ids=str,
)
def test_no_chain_but_the_paper_one_has_defaults(body: dict[str, Any], field: str) -> None:
    assert parse(body).note is not None
    assert refusal(body, REAL) == field
    assert refusal({"type": "market", "payload": body}, REAL, parse_exec_frame) == f"payload.{field}"
    assert refusal({"orderId": "job", "payload": body}, REAL, parse_job) == f"payload.{field}"
    assert refusal({"orderId": "job"}, REAL, parse_job) == "payload.symbol"


@pytest.mark.parametrize("body", [{**PAIR, "amount": 1}, {"symbol": "SOL/USDC", "amountIn": "1"}], ids=str)
def test_what_names_everything_is_an_order_on_any_chain(body: dict[str, Any]) -> None:
    for where in (PAPER, REAL):
        order = parse(body, where)
        assert (order.swap.token_in, order.swap.token_out, order.swap.amount_in) == (SOL, USDC, 10**9)
        assert order.note is None
        job = parse_job(where, json.dumps({"orderId": "job", "payload": body}).encode())
        assert (job.swap.client_order_id, job.swap.amount_in, job.note) == ("job", 10**9, None)


@pytest.mark.parametrize("body", [b"", b" ", b"\n\t", b"null", b"[]", b'""', b"0", b"\xef\xbb\xbf{}", b"{} {}", b"\0"])
def test_nothing_is_no_order(body: bytes) -> None:
    for read in (parse_loose_order, parse_job, parse_exec_frame):
        with pytest.raises(InvalidRequest):
            read(PAPER, body)


# --- one order, one meaning ----------------------------------------------------------------------

amounts = st.sampled_from([1, "1", 1.0, "1.0", "1.000", 2, "2", 0, -1, "1e0", "01", True, None, "x"])
symbols = st.sampled_from(["SOL/USDC", "sol/usdc", "USDC/SOL", "SOL", "TOKEN", "SOL/NOPE", "", "SOL-USDC", None, 1])
tokens = st.sampled_from(["SOL", "sol", SOL.mint, "USDC", USDC.mint, "NOPE", None, 1])
types = st.sampled_from(["market", "MARKET", "limit", "", None, 1])
loose_orders = st.fixed_dictionaries(
    {},
    optional={
        "type": types,
        "orderType": types,
        "tokenIn": tokens,
        "tokenOut": tokens,
        "symbol": symbols,
        "amount": amounts,
        "amountIn": amounts,
        "slippageBps": st.sampled_from([50, "50", 50.0, "050", "5e1", 0, 1001, None, True]),
        "side": st.just("buy"),
        "metadata": st.sampled_from([None, {}, {"symbol": "TOKEN"}, {"symbol": "OTHER"}, []]),
    },
)


@QUICK
@given(loose_orders)
@example({"symbol": "TOKEN", "amount": 1})
@example({"tokenIn": "SOL", "tokenOut": "USDC", "symbol": "sol/usdc", "amount": "1.0", "amountIn": 1})
@example({"type": "MARKET", "orderType": "market", "symbol": "SOL/USDC", "slippageBps": "50"})
def test_an_order_trades_what_each_of_its_fields_says_or_is_refused_by_one_of_them(body: dict[str, Any]) -> None:
    order, field = None, None
    try:
        order = parse(body)
    except InvalidRequest as error:
        field = error.field
    if order is None:
        assert field in {*body, "tokenIn", "tokenOut", "amountIn"}
        return
    swap = order.swap
    assert "side" not in body
    for name in {"type", "orderType"} & body.keys():
        assert body[name].lower() == "market"
    for name in {"amount", "amountIn"} & body.keys():
        assert Decimal(str(body[name])) == Decimal(format_amount(swap.amount_in, swap.token_in.decimals))
    for name, token in (("tokenIn", swap.token_in), ("tokenOut", swap.token_out)):
        if name in body:
            assert TOKENS.resolve(body[name], name) == token
    if "/" in body.get("symbol", ""):
        assert [TOKENS.resolve(half, "") for half in body["symbol"].split("/")] == [swap.token_in, swap.token_out]
    elif "symbol" in body:
        assert json.loads(bytes(swap.metadata or b"{}"))["symbol"] == body["symbol"]
        assert body["symbol"] in (order.note or "")
    if body.get("slippageBps") is not None:
        assert str(swap.slippage_bps) == str(body["slippageBps"])
    names_all = ("tokenIn" in body or "/" in body.get("symbol", "")) and bool({"amount", "amountIn"} & body.keys())
    assert (order.note is None) is names_all


def test_a_payload_keeps_what_it_says_about_anything_else() -> None:
    payload = {"user": {"id": 1}, "note": "x", "amount": "2.5", "symbol": "USDC/SOL", "sides": 2}
    order = parse_job(PAPER, json.dumps({"orderId": "job", "payload": payload}).encode())
    assert (order.swap.token_in, order.swap.token_out, order.swap.amount_in) == (USDC, SOL, 2_500_000)
    assert bytes(order.swap.metadata or b"").decode() == json.dumps(payload)


@pytest.mark.parametrize("name", ["limitPrice", "LIMITPRICE", "side", "Amount", "tokenin", "SYMBOL", "stopLoss"])
def test_a_payload_may_not_say_what_is_not_honoured(name: str) -> None:
    assert refusal({"orderId": "job", "payload": {name: 1}}, PAPER, parse_job) == f"payload.{name}"


# --- keys ----------------------------------------------------------------------------------------

FIRST, SECOND = "idempotency-key", "x-idempotency-key"


@pytest.mark.parametrize(
    ("headers", "key"),
    [({}, None), ({FIRST: "a"}, "a"), ({SECOND: "a"}, "a"), ({FIRST: "a", SECOND: "a"}, "a")],
    ids=str,
)
def test_a_key_has_two_names(headers: dict[str, str], key: str | None) -> None:
    assert parse_keys(Headers(headers)) == key


@pytest.mark.parametrize(
    ("pairs", "field"),
    [
        ([(FIRST, "a"), (SECOND, "b")], SECOND),
        ([(FIRST, "a"), (FIRST, "b")], FIRST),
        ([(SECOND, "a"), (SECOND, "a")], SECOND),
        ([(FIRST, ""), (SECOND, "b")], FIRST),
        ([(SECOND, "a b")], SECOND),
    ],
    ids=str,
)
def test_two_keys_are_refused_rather_than_one_of_them_chosen(pairs: list[tuple[str, str]], field: str) -> None:
    headers = Headers(raw=[(name.encode(), value.encode()) for name, value in pairs])
    with pytest.raises(InvalidRequest) as caught:
        parse_keys(headers)
    assert caught.value.field == field


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({"orderId": "job", "payload": []}, "must be a JSON object: The body is wrong: expected `object`, got `array`"),
        ({"orderId": "..", "payload": {}}, "must be 1-64 visible ASCII characters, and not `.` or `..`"),
    ],
)
def test_a_refusal_is_a_sentence_that_one_full_stop_ends(body: Any, sentence: str) -> None:
    with pytest.raises(InvalidRequest) as caught:
        parse_job(PAPER, json.dumps(body).encode())
    assert str(caught.value) == sentence  # The problem document adds the full stop.
