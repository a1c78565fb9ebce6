"""The patterns of the OpenAPI document accept the same texts as the code."""

import itertools
import re
import string
from typing import Any

import jsonschema_rs
import pytest

from docs.generate import openapi_document
from order_engine.api.openapi import build_document
from order_engine.api.parsing import make_request
from order_engine.api.routes import COMPAT_OPERATIONS, V1_OPERATIONS
from order_engine.api.schemas import CLIENT_ORDER_ID_PATTERN, MarketOrderRequest
from order_engine.domain.errors import InvalidRequest, ReasonCode
from order_engine.domain.order import OrderStatus
from order_engine.domain.tokens import Token, TokenRegistry

SCHEMAS: dict[str, Any] = openapi_document()["components"]["schemas"]
ODD = Token("a.B$", "So1111111111111111111111111111111111111111y", 3)


def is_name(text: str) -> bool:
    """Whether the code takes the text as a client order id."""
    wire = MarketOrderRequest("market", "SOL", "USDC", b'"1"')
    try:
        make_request(TokenRegistry(), wire, 50, text, None)
    except InvalidRequest:
        return False
    return True


def test_a_client_order_id_is_the_same_in_the_document_and_in_the_code() -> None:
    pattern = re.compile(CLIENT_ORDER_ID_PATTERN)
    short = ["".join(it) for size in (1, 2) for it in itertools.product(".-/!~ a\x7f\u00e9", repeat=size)]
    for text in (*short, *string.printable, "...", "x" * 64, "x" * 65, ""):
        assert (pattern.match(text) is not None and not text.endswith("\n")) == is_name(text), text


def test_a_token_name_is_the_same_in_the_document_and_in_the_code() -> None:
    tokens = TokenRegistry([ODD])
    document = build_document([*V1_OPERATIONS, *COMPAT_OPERATIONS], tokens)
    pattern = re.compile(document["components"]["schemas"]["TokenName"]["pattern"])
    known = [name for token in tokens.tokens for name in (token.symbol, token.symbol.swapcase(), token.mint)]
    for name in known:
        assert pattern.match(name), name
    for name in ("", "DOGE", "SOL ", "SO", "aXB$", tokens.tokens[2].mint.lower(), "SOL/USDC"):
        assert not pattern.match(name), name
        with pytest.raises(InvalidRequest):
            tokens.resolve(name, "tokenIn")


def test_closed_lists_are_enums() -> None:
    order = SCHEMAS["OrderView"]["properties"]
    assert order["status"]["enum"] == [*OrderStatus]
    assert SCHEMAS["ReasonView"]["properties"]["code"]["enum"] == [*ReasonCode]
    filters = {it["name"]: it["schema"] for it in openapi_document()["paths"]["/v1/orders"]["get"]["parameters"]}
    assert filters["status"]["enum"] == [*OrderStatus]
    assert filters["limit"] == {"type": "integer", "minimum": 1, "maximum": 100}


def test_every_operation_documents_the_answers_of_the_edge() -> None:
    for path, operations in openapi_document()["paths"].items():
        for method, operation in operations.items():
            wanted = {"400", "403", "421", "431", "503"} | ({"413", "415"} if method == "post" else set())
            assert wanted <= operation["responses"].keys(), (method, path)


@pytest.mark.parametrize("amount", ["1", "0.5", "1.50", "0.001", 1, 1.5])
def test_an_amount_that_is_taken_fits_the_document(amount: object) -> None:
    body = {"type": "market", "tokenIn": "sol", "tokenOut": "USDC", "amountIn": amount}
    schema = {"$ref": "#/components/schemas/MarketOrderRequest", "components": {"schemas": SCHEMAS}}
    validator = jsonschema_rs.validator_for(schema)
    assert validator.is_valid(body)
    for wrong in ("", "0", "0.0", "-1", "+1", "1.", ".5", "01", "1e3", " 1", 0, -1, True, None, [1]):
        assert not validator.is_valid({**body, "amountIn": wrong}), wrong
    assert not validator.is_valid({**body, "unknown": 1})
