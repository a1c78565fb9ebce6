"""How the paper chain misbehaves: a rate from 0 to 1 for each fault, drawn from its seed."""

from typing import Final

import msgspec

# One draw decides between these faults, so their rates may add up to at most 1.
_ONE_DRAW: Final = ("rate_limit", "timeout", "lost_reply")


class ChainFaults(msgspec.Struct, forbid_unknown_fields=True):
    """The fraction of requests, or of transactions, that each fault affects."""

    drop: float = 0
    """A transaction that was accepted is dropped; sending it again may help."""
    late: float = 0
    """A transaction lands in one of the last blocks in which it can."""
    duplicate: float = 0
    """The network delivers a transaction twice."""
    fork: float = 0
    """A block with the transaction is processed and then taken back; it may land again, or not.

    And the node that answers is on a fork that will lose: it does not see later transactions until they are finalized.
    """
    lag: float = 0
    """The node that answers is up to 250 slots behind, and answers for a while."""
    false_height: float = 0
    """The node that answers tells a false block height for a while: the slot, another fork's, a jump or a constant."""
    lost_reply: float = 0
    """The request is carried out and its answer never comes."""
    timeout: float = 0
    """Nothing is done and no answer comes."""
    error: float = 0
    """The node answers with an error of its own."""
    rate_limit: float = 0
    """The node answers 429."""


def parse_faults(text: str) -> ChainFaults:
    """Read `drop=0.1, lag=0.3`; `all=0.1` sets every rate. Raises ValueError with a sentence.

    The sentence does not list the faults, because the setting's description, shown with it, does.
    """
    names = ChainFaults.__struct_fields__
    rates: dict[str, float] = {}
    for part in filter(None, (it.strip() for it in text.split(","))):
        name, _, rate_text = (it.strip() for it in part.partition("="))
        if name not in (*names, "all"):
            message = f"{name!r} is not a fault"
            raise ValueError(message)
        try:
            rate = float(rate_text)
        except ValueError:
            rate = -1.0
        if not 0 <= rate <= 1:
            message = f"{part!r} must have a rate from 0 to 1, such as {name}=0.1"
            raise ValueError(message)
        rates.update(dict.fromkeys(names, rate) if name == "all" else {name: rate})
    if sum(rates.get(name, 0) for name in _ONE_DRAW) > 1:
        message = (
            f"{', '.join(_ONE_DRAW[:-1])} and {_ONE_DRAW[-1]} may add up to 1 at most: a request meets one of them"
        )
        raise ValueError(message)
    return ChainFaults(**rates)
