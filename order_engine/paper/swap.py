"""One swap of the paper world: the instruction that a venue builds, and its outcome once the program has run."""

import msgspec


class PaperSwap(msgspec.Struct, frozen=True, kw_only=True):
    """A swap of `amount_in` base units; after its execution, `amount_out` base units or the program's `error`.

    `memo` is the id of the order that the swap was signed for. The ledger keeps it, so that the
    engine's orders and the chain's swaps can be compared. A quote needs neither memo nor attempt.
    """

    memo: str = ""
    attempt: int = 0
    venue: str
    token_in: str
    token_in_decimals: int
    token_out: str
    token_out_mint: str
    token_out_decimals: int
    amount_in: int
    min_amount_out: int = 0
    amount_out: int | None = None
    error: str | None = None
