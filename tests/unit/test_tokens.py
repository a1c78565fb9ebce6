"""A token is found by its symbol or by its mint, and by nothing else."""

from collections import Counter
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st
from solders.pubkey import Pubkey

from order_engine.domain.errors import InvalidRequest
from order_engine.domain.tokens import KNOWN_TOKENS, MAX_DECIMALS, WRAPPED_SOL_MINT, Token, TokenConflict, TokenRegistry
from order_engine.paper.market import REFERENCE_PRICES_USD
from tests.unit.samples import QUICK, SOL, TOKENS, USDC, WSOL

OWN = Token("OWN", "2VhjJ9WxaGC3EZFwJG9BDUs9KxKCAjQY4vgd1qxgYWVg", 6)


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
    assert TokenRegistry([OWN]).tokens == (*KNOWN_TOKENS, OWN)


def test_another_token_is_found_by_symbol_and_mint() -> None:
    registry = TokenRegistry([OWN])
    assert registry.resolve("own", "tokenIn") == registry.resolve(OWN.mint, "tokenIn") == OWN


@pytest.mark.parametrize("symbol", ["USDC", "usdc", "Usdc", "WSOL", "sol"])
def test_a_known_symbol_is_not_given_away(symbol: str) -> None:
    with pytest.raises(TokenConflict, match="belongs to") as caught:
        TokenRegistry([Token(symbol, OWN.mint, 6)])
    assert caught.value.field == "symbol"


@pytest.mark.parametrize("mint", [USDC.mint, WRAPPED_SOL_MINT])
@pytest.mark.parametrize("decimals", [6, 9])
def test_a_known_mint_has_no_second_token(mint: str, decimals: int) -> None:
    with pytest.raises(TokenConflict, match="belongs to") as caught:
        TokenRegistry([Token("TWIN", mint, decimals)])
    assert caught.value.field == "mint"


def test_added_tokens_do_not_share_a_name_either() -> None:
    for twin in (Token("own", USDC.mint[::-1], 6), Token("TWIN", OWN.mint, 9)):
        with pytest.raises(TokenConflict):
            TokenRegistry([OWN, twin])


@pytest.mark.parametrize("token", KNOWN_TOKENS, ids=lambda token: token.symbol)
def test_every_known_token_has_an_address_and_a_paper_price(token: Token) -> None:
    assert len(bytes(Pubkey.from_string(token.mint))) == 32
    assert str(Pubkey.from_string(token.mint)) == token.mint
    assert Fraction(REFERENCE_PRICES_USD[token.symbol]) > 0


def test_sol_and_wrapped_sol_are_the_one_pair_that_shares_a_mint() -> None:
    shared = [mint for mint, count in Counter(token.mint for token in KNOWN_TOKENS).items() if count > 1]
    assert shared == [WRAPPED_SOL_MINT]
    assert {token.symbol for token in KNOWN_TOKENS if token.mint == WRAPPED_SOL_MINT} == {"SOL", "wSOL"}
    assert REFERENCE_PRICES_USD.keys() == {token.symbol for token in KNOWN_TOKENS}


def test_one_registry_s_tokens_are_not_another_s() -> None:
    TokenRegistry([OWN])
    with pytest.raises(InvalidRequest):
        TokenRegistry().resolve("OWN", "tokenIn")


def test_no_known_token_has_more_decimals_than_amounts_allow() -> None:
    assert all(0 <= token.decimals <= MAX_DECIMALS for token in KNOWN_TOKENS)
    assert len({token.symbol.lower() for token in KNOWN_TOKENS}) == len(KNOWN_TOKENS)
