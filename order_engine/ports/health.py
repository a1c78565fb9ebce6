"""Heartbeats: each process tells the others its state; the database counts the orders that wait."""

from collections.abc import Sequence
from typing import Protocol

import msgspec


class ChainState(msgspec.Struct, frozen=True):
    """A worker's view of the chain: its trouble (None: no trouble), and the finalized slot that it saw last."""

    trouble: str | None = None
    finalized_slot: int | None = None


class Heartbeat(msgspec.Struct, frozen=True):
    """A process writes this every few seconds. `chain` is None for a process that does no work.

    `write_trouble`: why the last orders could not be stored, or None.
    """

    process_name: str
    role: str
    chain: ChainState | None = None
    write_trouble: str | None = None


class ProcessSeen(msgspec.Struct, frozen=True):
    """A process's last heartbeat, and how long ago that was by the database's clock."""

    heartbeat: Heartbeat
    seen_ago_ms: int


class StoreHealth(msgspec.Struct, frozen=True):
    """The engine's health, as far as the database knows it.

    `processes`: those that were seen in the last hour. `waiting`: orders that are due and that no worker
    has taken, up to MAX_COUNTED_WAITING of them; `oldest_due_ms`: for how long the oldest has been due.
    `schema_trouble`: why the schema is not the one of this version, or None.
    `in_doubt`: attempts without a proven outcome; `oldest_in_doubt_ms`: the time since the oldest was signed.
    """

    processes: Sequence[ProcessSeen]
    waiting: int
    oldest_due_ms: int
    in_doubt: int
    oldest_in_doubt_ms: int
    schema_trouble: str | None = None


MAX_COUNTED_WAITING = 1_000


class HealthStore(Protocol):
    """Keeps heartbeats. May raise StoreUnavailable. A cancelled `beat` may still be written."""

    async def beat(self, heartbeat: Heartbeat) -> None:
        """Write the process's heartbeat, and forget processes that were not seen for an hour."""

    async def health(self) -> StoreHealth:
        """Return the engine's present health."""

    @property
    def write_trouble(self) -> str | None:
        """Why this process could not store orders a moment ago; None if the last write of orders succeeded."""
