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
    Token("bSOL", "bSo13r4TkiE4KumL71LsHTPpL2euBYLFx6h9HP3piy1", 9),
    Token("stSOL", "7dHbWXmci3dT8UFYWYZweBLXgycu7Y3iL6trKn1Y7ARj", 9),
    Token("INF", "5oVNBeEEQvYi1cX3ir8Dx5n1P7pdxydbGF2X4TxVusJm", 9),
    Token("dSOL", "Dso1bDeDjCQxTrWHqUUi63oBvV7Mdm6WaobLbQ7gnPQ", 9),
    Token("ETH", "7vfCXTUXx5WJV5JADk17DUJ4ksgau7utNKj4b963voxs", 8),
    Token("WBTC", "3NZ9JMVBmGAqocybic2c7LQCJScmgsAZ6vQqTDzcqmJh", 8),
    Token("PYUSD", "2b1kV6DkPAnxd5ixfnxCpjxmKwqjjaYmCZfHsFu24GXo", 6),
    Token("USDY", "A1KLoBrKBde8Ty9qtNQUtq3C2ortoC3u7twggz7sEto6", 6),
    Token("PYTH", "HZ1JovNiVvGrGNiiYvEozEVgZ58xaU3RKwX8eACQBCt3", 6),
    Token("JTO", "jtojtomepa8beP8AuQc6eXt5FriJwfFMwQx2v2f9mCL", 9),
    Token("ORCA", "orcaEKTdK7LKz57vaAYr9QeNsVEPfiu6QeMU1kektZE", 6),
    Token("W", "85VBFQZC9TZkfaptBWjvUw7YbZjy52A6mjtPGjstQAmQ", 6),
    Token("RENDER", "rndrizKT3MK1iimdxRdWabcF7Zg7AR5T4nud4EkHBof", 8),
    Token("HNT", "hntyVP6YFm1Hg25TN9WGLqM12b8TQmcknKrdu1oxWux", 8),
    Token("TNSR", "TNSRxcUxoT9xBG3de7PiJyTDYu7kskLqcpddxnEJAS6", 9),
    Token("DRIFT", "DriFtupJYLTosbwoN8koMbEYSx54aFAVLddWsbksjwg7", 6),
    Token("KMNO", "KMNo3nJsBXfcpJTVhZcXLW7RmTwTt4GVFE7suUBo9sS", 6),
    Token("MNDE", "MNDEFzGvMt87ueuHvVU9VcTqsAP5b3fTGPsHuuPA5ey", 9),
    Token("WIF", "EKpQGSJtjMFqKZ9KQanSqYXRcF8fBopzLHYxdM65zcjm", 6),
    Token("POPCAT", "7GCihgDB8fe6KNjn2MYtkzZcRjQy3t9GHdC8uHYmW2hr", 9),
    Token("MEW", "MEW1gQWJ3nEXg2qgERiKu7FAFj79PHvQVREQUzScPP5", 5),
    Token("BOME", "ukHH6c7mMyiWCf1b9pnWe25TSpkDDt3H5pQZgZ74J82", 6),
    Token("SAMO", "7xKXtg2CW87d97TXJSDpbD5jBkheTqA83TZRuJosgAsU", 9),
    Token("FIDA", "EchesyfXePKdLtoiZSL8pBe8Myagyy8ZRqsACNCFGnvp", 6),
    Token("COPE", "8HGyAAB1yoM1ttS7pXjHMa3dukTFGQggnFFH3hJZgzQh", 6),
    Token("SRM", "SRMuApVNdxXokk5GT7XD5cUUgXMBCoAz2LHeuAoKWRt", 6),
    Token("MNGO", "MangoCzJ36AjZyKwVj3VnYU4GTonjfVEnJmvvWaxLac", 6),
    Token("STEP", "StepAscQoEioFxxWGnh2sLBDFp9d8rvKz2Yp39iDpyT", 9),
    Token("MAPS", "MAPS41MDahZ9QdKXhVa4dWB9RuyfV4XqhyAZ8XcYepb", 6),
    Token("OXY", "z3dn17yLaGMKffVogeFHQ9zWVcXgqgf3PQnDsNs2g6M", 6),
    Token("MEDIA", "ETAtLmCmsoiEEKfNrHKJ2kYy3MoABhU6NQvpSfij5tDs", 6),
    Token("ROPE", "8PMHT4swUMtBzgHnh5U564N5sjPSiUz2cjEQzFnnP1Fo", 9),
    Token("KIN", "kinXdEcpDQeHPEuQnqmUgtYykqKGVFq6CeVX5iAHJq6", 5),
    Token("TULIP", "TuLipcqtGVXP9XR62wM8WWCm6a9vhLs7T1uoWBk6FDs", 6),
)


class TokenConflict(ValueError):  # noqa: N818 - two tokens are in conflict
    """Two tokens have the same symbol or the same mint; `field` is `symbol` or `mint`."""

    def __init__(self, field: str, message: str) -> None:
        """Say which token has the name already."""
        super().__init__(message)
        self.field = field


class TokenRegistry:
    """Finds a token by its symbol (in any case) or by its mint.

    The mint of wrapped SOL names native SOL, as it does in Jupiter's API: the engine wraps and
    unwraps. Only the symbol `wSOL` names wrapped SOL.
    """

    def __init__(self, more: Iterable[Token] = ()) -> None:
        """Hold KNOWN_TOKENS and `more`; raise TokenConflict if two of them share a symbol or a mint.

        Symbols are compared without case. Only SOL and wSOL share a mint.
        """
        self._by_name: dict[str, Token] = {token.symbol.lower(): token for token in KNOWN_TOKENS}
        self._by_name |= {token.mint: token for token in reversed(KNOWN_TOKENS)}
        for token in more:
            self._add(token)

    def _add(self, token: Token) -> None:
        symbol = token.symbol.lower()
        for field, name in (("symbol", symbol), ("mint", token.mint)):
            other = self._by_name.get(name)
            if other is not None:
                message = f"belongs to {other.symbol} already (mint {other.mint}, {other.decimals} decimals)"
                raise TokenConflict(field, message)
        self._by_name[symbol] = self._by_name[token.mint] = token

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
