"""The token registry: symbol, mint, decimals."""

from collections.abc import Iterable
from typing import Final

import msgspec

from order_engine.domain.errors import InvalidRequest

MAX_DECIMALS: Final = 18
WRAPPED_SOL_MINT: Final = "So11111111111111111111111111111111111111112"


class Token(msgspec.Struct, frozen=True):
    """A token that can be traded: one whole token is 10**decimals base units."""

    symbol: str
    mint: str
    decimals: int

    @property
    def is_native(self) -> bool:
        """True for native SOL, which has to be wrapped before a pool takes it."""
        return self.symbol == "SOL"


# Mints and decimals as their issuers publish them on Solana mainnet.
KNOWN_TOKENS: Final = (
    Token("SOL", WRAPPED_SOL_MINT, 9),
    Token("wSOL", WRAPPED_SOL_MINT, 9),
    Token("USDC", "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v", 6),
    Token("USDT", "Es9vMFrzaCERmJfrF4H2FYD4KCoNkY11McCe8BenwNYB", 6),
    Token("BONK", "DezXAZ8z7PnrnRJjz3wXBoRgixCa6xjnB7YaB1pPB263", 5),
    Token("JUP", "JUPyiwrYJFskUPiHa7hkeR8VUtAeFoSYbKedZNsDvCN", 6),
    Token("RAY", "4k3Dyjzvzp8eMZWUXbBCjEvwSkkk59S5iCNLY3QrkX6R", 6),
    Token("mSOL", "mSoLzYCxHdYgdzU16g5QSh3i5K3z3KZK7ytfqcJm7So", 9),
    Token("JitoSOL", "J1toso1uCk3RLmjorhTtrVwY9HJ7X8V9yYac6Y7kGCPn", 9),
)


class TokenRegistry:
    """Finds a token by its symbol (in any case) or by its mint.

    The mint of wrapped SOL names native SOL, as it does in Jupiter's API: the engine wraps and
    unwraps. Whoever holds wrapped SOL says `wSOL`.
    """

    def __init__(self, more: Iterable[Token] = ()) -> None:
        """Start from KNOWN_TOKENS; a token of `more` with a known symbol replaces that one."""
        self._by_name: dict[str, Token] = {}
        for token in (*KNOWN_TOKENS, *more):
            self._by_name[token.symbol.lower()] = token
        for token in reversed(self.tokens):
            self._by_name[token.mint] = token

    @property
    def tokens(self) -> tuple[Token, ...]:
        """Return every token once, in the order in which they were added."""
        return tuple({token.symbol: token for token in self._by_name.values()}.values())

    def resolve(self, name: str, field: str) -> Token:
        """Return the token called `name`; raise InvalidRequest naming `field` if there is none."""
        token = self._by_name.get(name) or self._by_name.get(name.lower())
        if token is None:
            known = ", ".join(token.symbol for token in self.tokens)
            raise InvalidRequest(field, f"is not a token this engine knows; known are {known}", code="unknown_token")
        return token
