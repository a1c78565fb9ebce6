"""One function for each thing worth a log line: no log strings anywhere else."""

from collections import Counter
from typing import Final

import msgspec
import structlog

_log = structlog.stdlib.get_logger("order_engine")

# Longer than any transaction can live: an older attempt is in doubt because its outcome cannot be proven.
_LONG_IN_DOUBT_MS = 120_000


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


numbers = Counters()

_FAULTS_EVERY_S: Final = 60.0


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


_faults = Faults()


def client_at_fault(kind: str, address: str, now_s: float) -> None:
    """A client broke the protocol or a limit: count it, and log one line a minute for all clients."""
    _faults.add(kind, address)
    tell_faults(now_s)


def tell_faults(now_s: float) -> None:
    """Write the line about clients' faults if it is due; `now_s` is from a clock that never goes back."""
    taken = _faults.take(now_s)
    if taken is not None:
        counts, addresses = taken
        _log.info("clients at fault", counts=counts, addresses=addresses)


def log_counters(role: str) -> None:
    """Write all numbers as one line, for alarms from logs."""
    _log.info("numbers", role=role, **msgspec.structs.asdict(numbers))


def in_doubt_counted(count: int, oldest_ms: int) -> None:
    """Attempts without an outcome were counted in the database."""
    numbers.in_doubt, numbers.oldest_submitted_ms = count, oldest_ms
    if oldest_ms > _LONG_IN_DOUBT_MS:
        _log.warning("long in doubt", count=count, oldest_s=oldest_ms // 1000)


def in_doubt_at_start(count: int, oldest_ms: int) -> None:
    """A worker starts and finds attempts without an outcome: it proves each as soon as its lease lapses."""
    if count:
        _log.info("in doubt at start", count=count, oldest_s=oldest_ms // 1000)


def orders_deleted(count: int) -> None:
    """Orders that ended more than RETENTION_DAYS ago were deleted."""
    numbers.deleted += count
    if count:
        _log.debug("orders deleted", count=count)


def process_started(role: str, address: str, store: str, bus: str, chain: str) -> None:
    """A process started: log its role, its address, and its store, bus and chain."""
    _log.info("started", role=role, address=address, store=store, bus=bus, chain=chain)


def chain_started(address: str, ledger: str) -> None:
    """The paper chain started: log its address and its ledger's file."""
    _log.info("started", role="chain", address=address, ledger=ledger)


def leases_taken_back(count: int) -> None:
    """An earlier run of this process ended with unfinished orders; they continue at once."""
    if count:
        _log.info("leases taken back", count=count)


def process_stopping(role: str) -> None:
    """A signal asked the process to end."""
    _log.info("stopping", role=role)


def part_ended(name: str, error: BaseException | None) -> None:
    """A part that must last as long as the process ended by itself: the process ends too, with exit code 1."""
    _log.error("part ended", part=name, error=str(error or ""), exc_info=error)


def process_cut_off(role: str) -> None:
    """A signal asked the process to end, and a part that hangs kept it from ending in time."""
    _log.error("cut off", role=role)


def order_ended(order_id: str, status: str, attempts: int, elapsed_ms: int, reason: str | None) -> None:
    """An order ended in this worker."""
    _log.debug(
        "order ended",
        order_id=order_id,
        status=status,
        attempts=attempts,
        elapsed_ms=elapsed_ms,
        reason=reason,
    )


def order_crashed(order_id: str, error: Exception) -> None:
    """A bug: the order waits until its lease lapses; its claims are counted, and it is parked in the end."""
    numbers.crashed += 1
    _log.error("order crashed", order_id=order_id, exc_info=error)


def venue_crashed(venue: str, error: Exception) -> None:
    """A bug in a venue's adapter: it cost the venue its quote, not the order."""
    _log.error("venue crashed", venue=venue, exc_info=error)


def order_let_go(order_id: str, why: str) -> None:
    """The store cannot be reached: this worker stops working on the order."""
    _log.warning("order let go", order_id=order_id, why=why)


def order_taken_back(order_id: str) -> None:
    """The client cancelled an order while a worker worked on it, before anything was signed."""
    _log.debug("order taken back", order_id=order_id)


def write_fenced(order_id: str) -> None:
    """Another worker or the client moved the order on, so this worker's write was refused."""
    numbers.fenced_writes += 1
    _log.warning("write fenced", order_id=order_id)


def orders_released(count: int) -> None:
    """Unfinished orders were released at the end of the process."""
    _log.info("orders released", count=count)


def order_parked(order_id: str, claims: int) -> None:
    """An order was claimed again and again without an event, and is parked now."""
    numbers.parked += 1
    _log.error("order parked", order_id=order_id, claims=claims)


def chain_lost(error: Exception) -> None:
    """The chain does not answer; signed transactions stay in doubt until it does."""
    numbers.chain_outages += 1
    _log.warning("chain lost", error=str(error))


def chain_recovered() -> None:
    """The chain answers again."""
    _log.info("chain recovered")


def chain_not_believed(error: Exception) -> None:
    """The chain has returned impossible numbers for several seconds; until it stops, no expiry is accepted."""
    numbers.chain_lies += 1
    _log.error("chain not believed", error=str(error))


def chain_believed() -> None:
    """The chain's numbers are possible again."""
    _log.info("chain believed again")


def still_in_doubt(signature: str, why: str) -> None:
    """A transaction has had no proven outcome for minutes; `why` is the chain's last answer about it."""
    _log.warning("still in doubt", signature=signature, why=why)


def send_failed() -> None:
    """The chain refused a transaction or did not answer; the transaction may still have been sent."""
    numbers.failed_sends += 1


def sends_refused(error: Exception) -> None:
    """The chain has accepted no transaction for several seconds; signed ones will expire unexecuted."""
    _log.warning("sends refused", error=str(error))


def sends_accepted() -> None:
    """The chain takes transactions again."""
    _log.info("sends accepted")


def store_unavailable(where: str, error: Exception) -> None:
    """The database does not answer; the loop named `where` tries again."""
    _log.warning("store unavailable", where=where, error=str(error))


def loop_crashed(where: str, error: Exception) -> None:
    """A bug, or a database that answers nonsense: the worker's loop named `where` goes on."""
    _log.error("loop crashed", where=where, exc_info=error)


def clock_set_back(by_ms: int) -> None:
    """The machine's clock was set back; waiting orders use other clocks, and are not delayed."""
    _log.warning("clock set back", by_s=by_ms // 1000)


def bus_lost(reason: str) -> None:
    """Redis does not answer or refuses; workers then find orders in the database, and streams read the log."""
    _log.warning("redis lost", error=reason)


def bus_recovered() -> None:
    """Redis answers again."""
    _log.info("redis recovered")


def announcements_dropped(count: int) -> None:
    """Announcements were lost with Redis; the sweeper and the streams' reads make up for them."""
    numbers.lost_announcements += count


def message_unproven() -> None:
    """A message on this engine's channels is not from this engine; it was ignored. Logged once, then counted."""
    numbers.unproven_messages += 1
    if numbers.unproven_messages == 1:
        _log.warning("message on redis is not ours")


def request_crashed(request_id: str, path: str, error: Exception) -> None:
    """A bug in a handler; the client got a 500 with this request id."""
    _log.error("request crashed", request_id=request_id, path=path, exc_info=error)
