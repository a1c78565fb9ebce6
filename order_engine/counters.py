"""The counters of a process, for alarms and lines in the log. The root of the process makes them and passes them in."""

from collections import Counter
from typing import Final

import msgspec

from order_engine.meters import Meters

_FAULTS_EVERY_S: Final = 60.0


class Counters(msgspec.Struct):
    """The numbers of this process for alarms: gauges as last counted, and counts since its start."""

    in_doubt: int = 0
    """Attempts of all workers without a proven outcome."""
    oldest_submitted_ms: int = 0
    """Age of the oldest of them."""
    fenced_writes: int = 0
    """Writes that the database refused because another worker owned the order."""
    lost_announcements: int = 0
    """Ids and events that Redis did not get; the sweep and the streams' reads made up for them."""
    unproven_messages: int = 0
    """Messages on Redis that this engine did not send; they were ignored."""
    parked: int = 0
    """Orders that were claimed again and again without an event."""
    crashed: int = 0
    """Orders whose work ended in an unexpected error."""
    chain_outages: int = 0
    """Times that the chain did not answer for several seconds."""
    chain_lies: int = 0
    """Times that the chain returned impossible numbers for several seconds."""
    deleted: int = 0
    """Orders that ended longer ago than RETENTION_DAYS."""
    failed_sends: int = 0
    """Sends that the chain refused or did not answer; each transaction is sent again until its outcome is proven."""
    meters: Meters = msgspec.field(default_factory=Meters)

    def numbers(self) -> dict[str, int]:
        """Return the numbers by name, without the meters."""
        return {name: getattr(self, name) for name in self.__struct_fields__ if name != "meters"}


class Faults:
    """Faults of clients since the last line about them: how many of each kind, and one address for each kind."""

    def __init__(self) -> None:
        """Start without any."""
        self._counts: Counter[str] = Counter()
        self._addresses: dict[str, str] = {}
        self._next_line_s = float("-inf")

    def add(self, kind: str, address: str) -> None:
        """Count a fault. `kind` is one of a few words of our own."""
        self._counts[kind] += 1
        self._addresses.setdefault(kind, address[:64])

    def take(self, now_s: float) -> tuple[dict[str, int], dict[str, str]] | None:
        """Return counts and addresses and reset them; None without any, or if the last line is less than 60 s old."""
        if not self._counts or now_s < self._next_line_s:
            return None
        taken = dict(self._counts), self._addresses
        self._counts, self._addresses = Counter(), {}
        self._next_line_s = now_s + _FAULTS_EVERY_S
        return taken
