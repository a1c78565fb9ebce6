"""A token is found by its symbol or by its mint, and by nothing else."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from order_engine.domain.errors import InvalidRequest
from order_engine.domain.tokens import KNOWN_TOKENS, MAX_DECIMALS, WRAPPED_SOL_MINT, Token, TokenRegistry
from tests.unit.samples import QUICK, SOL, TOKENS, USDC, WSOL

WIF = Token("WIF", "EKpQGSJtjMFqKZ9KQanSqYXRcF8fBopzLHYxdM65zcjm", 6)


@pytest.mark.parametrize("token", KNOWN_TOKENS, ids=lambda token: token.symbol)
def test_every_known_token_is_found_by_its_symbol_in_any_case(token: Token) -> None:
    for name in (token.symbol, token.symbol.lower(), token.symbol.upper(), token.symbol.swapcase()):
        assert TOKENS.resolve(name, "tokenIn") == token


@pytest.mark.parametrize("token", KNOWN_TOKENS, ids=lambda token: token.symbol)
def test_every_known_token_is_found_by_its_mint(token: Token) -> None:
    assert TOKENS.resolve(token.mint, "tokenIn") == (SOL if token == WSOL else token)


def test_the_mint_of_wrapped_sol_names_native_sol() -> None:
    assert TOKENS.resolve(WRAPPED_SOL_MINT, "tokenIn") == SOL
    assert SOL.is_native
    assert not WSOL.is_native
    assert not USDC.is_native
    assert SOL.mint == WSOL.mint


@pytest.mark.parametrize(
    "name", ["", " ", "SOL ", "DOGE", "\0", "sol\0", "SOL/USDC", USDC.mint.lower(), USDC.mint[:-1]]
)
def test_an_unknown_name_is_refused_with_the_field_and_what_is_known(name: str) -> None:
    with pytest.raises(InvalidRequest, match="known are SOL, wSOL, USDC") as caught:
        TOKENS.resolve(name, "tokenOut")
    assert caught.value.field == "tokenOut"
    assert caught.value.code == "unknown_token"


@QUICK
@given(st.text(max_size=60))
def test_any_name_is_a_known_token_or_an_invalid_request(name: str) -> None:
    try:
        token = TOKENS.resolve(name, "tokenIn")
    except InvalidRequest:
        return
    assert token in KNOWN_TOKENS


def test_the_registry_lists_every_token_once_in_order() -> None:
    assert TOKENS.tokens == KNOWN_TOKENS
    assert TokenRegistry([WIF]).tokens == (*KNOWN_TOKENS, WIF)


def test_another_token_is_found_by_symbol_and_mint() -> None:
    registry = TokenRegistry([WIF])
    assert registry.resolve("wif", "tokenIn") == registry.resolve(WIF.mint, "tokenIn") == WIF


@pytest.mark.parametrize("symbol", ["USDC", "usdc"])
def test_a_token_with_a_known_symbol_replaces_the_known_one(symbol: str) -> None:
    mine = Token(symbol, WIF.mint, 6)
    registry = TokenRegistry([mine])
    assert registry.resolve("USDC", "tokenIn") == registry.resolve(WIF.mint, "tokenIn") == mine
    assert len(registry.tokens) == len(KNOWN_TOKENS)
    with pytest.raises(InvalidRequest):
        registry.resolve(USDC.mint, "tokenIn")


def test_a_second_token_of_a_known_mint_does_not_take_the_mint_over() -> None:
    twin = Token("TWIN", USDC.mint, 6)
    registry = TokenRegistry([twin])
    assert registry.resolve(USDC.mint, "tokenIn") == USDC
    assert registry.resolve("twin", "tokenIn") == twin


def test_one_registry_s_tokens_are_not_another_s() -> None:
    TokenRegistry([WIF])
    with pytest.raises(InvalidRequest):
        TokenRegistry().resolve("WIF", "tokenIn")


def test_no_known_token_has_more_decimals_than_amounts_allow() -> None:
    assert all(0 <= token.decimals <= MAX_DECIMALS for token in KNOWN_TOKENS)
    assert len({token.symbol.lower() for token in KNOWN_TOKENS}) == len(KNOWN_TOKENS)
