"""The settings of the simulated market and chain."""

from typing import Final

from pydantic import BaseModel, Field

# At MOCK_DELAY_SCALE=1.
SLOWEST_PAPER_QUOTE_MS: Final = 250


class PaperSettings(BaseModel):
    """The paper market and chain."""

    mock_fail_rate: float = Field(0, ge=0, le=1, description="Fraction of the paper venues' swaps that fail, 0 to 1.")
    mock_delay_scale: float = Field(
        1, ge=0, le=100, description="Factor on the paper delays. 1: quotes about 0.2 s, swaps 2-3 s. 0: none."
    )
    mock_seed: int = Field(1, ge=0, description="Seed of the paper prices, delays and failures.")
    chain_faults: str = Field(
        "",
        description="Rates from 0 to 1 at which the paper chain misbehaves, such as drop=0.1,lag=0.3: drop, late, "
        "duplicate, fork, lag, false_height, lost_reply, timeout, error, rate_limit, or all.",
    )
