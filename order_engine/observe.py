"""One function for each thing worth a log line: no log strings anywhere else."""

import structlog

from order_engine.counters import Counters, Faults

_log = structlog.stdlib.get_logger("order_engine")

# Longer than any transaction can live: an older attempt is in doubt because its outcome cannot be proven.
_LONG_IN_DOUBT_MS = 120_000


def client_at_fault(faults: Faults, kind: str, address: str, now_s: float) -> None:
    """A client broke the protocol or a limit: count it, and log one line a minute for all clients."""
    faults.add(kind, address)
    tell_faults(faults, now_s)


def tell_faults(faults: Faults, now_s: float) -> None:
    """Write the line about clients' faults if it is due; `now_s` is from a clock that never goes back."""
    taken = faults.take(now_s)
    if taken is not None:
        counts, addresses = taken
        _log.info("clients at fault", counts=counts, addresses=addresses)


def log_counters(counters: Counters, role: str) -> None:
    """Write all numbers as one line, for alarms from logs."""
    _log.info("numbers", role=role, **counters.numbers())


def in_doubt_counted(counters: Counters, count: int, oldest_ms: int) -> None:
    """Attempts without an outcome were counted in the database."""
    counters.in_doubt, counters.oldest_submitted_ms = count, oldest_ms
    if oldest_ms > _LONG_IN_DOUBT_MS:
        _log.warning("long in doubt", count=count, oldest_s=oldest_ms // 1000)


def in_doubt_at_start(count: int, oldest_ms: int) -> None:
    """A worker starts and finds attempts without an outcome: it proves each as soon as its lease lapses."""
    if count:
        _log.info("in doubt at start", count=count, oldest_s=oldest_ms // 1000)


def orders_deleted(counters: Counters, count: int) -> None:
    """Orders that ended more than RETENTION_DAYS ago were deleted."""
    counters.deleted += count
    if count:
        _log.debug("orders deleted", count=count)


def process_started(role: str, address: str, store: str, bus: str, chain: str) -> None:
    """A process started: log its role, its address, and its store, bus and chain."""
    _log.info("started", role=role, address=address, store=store, bus=bus, chain=chain)


def chain_started(address: str, ledger: str) -> None:
    """The paper chain started: log its address and its ledger's file."""
    _log.info("started", role="chain", address=address, ledger=ledger)


def serving_without_keys() -> None:
    """The engine has no API key: every program on this machine may trade, and no other machine is served."""
    _log.warning("no api key", hint="only this machine is served; `order-engine keys create --account NAME` makes one")


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


def order_ended(
    counters: Counters, order_id: str, status: str, attempts: int, elapsed_ms: int, reason: str | None
) -> None:
    """An order ended in this worker."""
    counters.meters.ended(status, reason)
    _log.debug(
        "order ended",
        order_id=order_id,
        status=status,
        attempts=attempts,
        elapsed_ms=elapsed_ms,
        reason=reason,
    )


def order_crashed(counters: Counters, order_id: str, error: Exception) -> None:
    """A bug: the order waits until its lease lapses; its claims are counted, and it is parked in the end."""
    counters.crashed += 1
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


def write_fenced(counters: Counters, order_id: str) -> None:
    """Another worker or the client moved the order on, so this worker's write was refused."""
    counters.fenced_writes += 1
    _log.warning("write fenced", order_id=order_id)


def orders_released(count: int) -> None:
    """Unfinished orders were released at the end of the process."""
    _log.info("orders released", count=count)


def order_parked(counters: Counters, order_id: str, claims: int) -> None:
    """An order was claimed again and again without an event, and is parked now."""
    counters.parked += 1
    _log.error("order parked", order_id=order_id, claims=claims)


def chain_lost(counters: Counters, error: Exception) -> None:
    """The chain does not answer; signed transactions stay in doubt until it does."""
    counters.chain_outages += 1
    _log.warning("chain lost", error=str(error))


def chain_recovered() -> None:
    """The chain answers again."""
    _log.info("chain recovered")


def chain_not_believed(counters: Counters, error: Exception) -> None:
    """The chain has returned impossible numbers for several seconds; until it stops, no expiry is accepted."""
    counters.chain_lies += 1
    _log.error("chain not believed", error=str(error))


def chain_believed() -> None:
    """The chain's numbers are possible again."""
    _log.info("chain believed again")


def still_in_doubt(signature: str, why: str) -> None:
    """A transaction has had no proven outcome for minutes; `why` is the chain's last answer about it."""
    _log.warning("still in doubt", signature=signature, why=why)


def send_failed(counters: Counters) -> None:
    """The chain refused a transaction or did not answer; the transaction may still have been sent."""
    counters.failed_sends += 1


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


def announcements_dropped(counters: Counters, count: int) -> None:
    """Announcements were lost with Redis; the sweeper and the streams' reads make up for them."""
    counters.lost_announcements += count


def message_unproven(counters: Counters) -> None:
    """A message on this engine's channels is not from this engine; it was ignored. Logged once, then counted."""
    counters.unproven_messages += 1
    if counters.unproven_messages == 1:
        _log.warning("message on redis is not ours")


def request_crashed(request_id: str, path: str, error: Exception) -> None:
    """A bug in a handler; the client got a 500 with this request id."""
    _log.error("request crashed", request_id=request_id, path=path, exc_info=error)
