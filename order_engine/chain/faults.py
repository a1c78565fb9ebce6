"""How the paper chain misbehaves: a rate from 0 to 1 for each fault, drawn from its seed."""

import msgspec


class ChainFaults(msgspec.Struct, forbid_unknown_fields=True):
    """The part of requests, or of transactions, that meet each fault."""

    drop: float = 0
    """A transaction that was taken is dropped; sending it again may help."""
    late: float = 0
    """A transaction lands in one of the last blocks in which it can."""
    duplicate: float = 0
    """The network delivers a transaction twice."""
    fork: float = 0
    """A block with the transaction is processed and then taken back; it may land again, or not.

    And the node that answers is on a fork that will lose: it misses what landed since, until that is finalized.
    """
    lag: float = 0
    """The node that answers is up to 250 slots behind, and goes on answering for a while."""
    lost_reply: float = 0
    """The request is carried out and its answer never comes."""
    timeout: float = 0
    """Nothing is done and no answer comes."""
    error: float = 0
    """The node answers with an error of its own."""
    rate_limit: float = 0
    """The node answers 429."""


def parse_faults(text: str) -> ChainFaults:
    """Read `drop=0.1,lag=0.3`; `all=0.1` sets every rate. Raises ValueError with a sentence."""
    names = ChainFaults.__struct_fields__
    rates: dict[str, float] = {}
    for part in filter(None, (it.strip() for it in text.split(","))):
        name, _, rate_text = part.partition("=")
        try:
            rate = float(rate_text)
        except ValueError:
            rate = -1.0
        if name not in (*names, "all") or not 0 <= rate <= 1:
            message = f"{part!r} must be one of {', '.join(names)} or all, with a rate from 0 to 1, such as drop=0.1"
            raise ValueError(message)
        rates.update(dict.fromkeys(names, rate) if name == "all" else {name: rate})
    return ChainFaults(**rates)
