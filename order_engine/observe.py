"""One function for each thing worth a log line: no log strings anywhere else."""

import structlog

_log = structlog.stdlib.get_logger("order_engine")


def process_started(role: str, address: str, store: str, bus: str) -> None:
    """Say what runs, where it listens and what it stands on."""
    _log.info("started", role=role, address=address, store=store, bus=bus)


def process_stopping(role: str) -> None:
    """A signal asked for the end."""
    _log.info("stopping", role=role)


def order_ended(order_id: str, status: str, attempts: int, elapsed_ms: int, reason: str | None) -> None:
    """An order came to its end in this worker."""
    _log.debug(
        "order ended",
        order_id=order_id,
        status=status,
        attempts=attempts,
        elapsed_ms=elapsed_ms,
        reason=reason,
    )


def order_crashed(order_id: str, error: Exception) -> None:
    """A bug: the order is left to its lease; its claims are counted, and it is parked in the end."""
    _log.error("order crashed", order_id=order_id, exc_info=error)


def venue_crashed(venue: str, error: Exception) -> None:
    """A bug in a venue's adapter: it cost the venue its quote, not the order."""
    _log.error("venue crashed", venue=venue, exc_info=error)


def order_let_go(order_id: str, why: str) -> None:
    """Another worker owns the order, or the store cannot be reached: this one stops working on it."""
    _log.warning("order let go", order_id=order_id, why=why)


def orders_released(count: int) -> None:
    """Unfinished orders were given back on the way out."""
    _log.info("orders released", count=count)


def order_parked(order_id: str, claims: int) -> None:
    """An order was claimed again and again without an event: it is out of the way now."""
    _log.error("order parked", order_id=order_id, claims=claims)


def attempt_in_doubt(order_id: str, signature: str, error: str) -> bool:
    """The chain could not be asked; the attempt's outcome stays unknown until it can. True: it is told."""
    _log.warning("attempt in doubt", order_id=order_id, signature=signature, error=error)
    return True


def store_unavailable(where: str, error: Exception) -> None:
    """The database does not answer; the loop named `where` tries again."""
    _log.warning("store unavailable", where=where, error=str(error))


def loop_crashed(where: str, error: Exception) -> None:
    """A bug, or a database that answers nonsense: the worker's loop named `where` goes on."""
    _log.error("loop crashed", where=where, exc_info=error)


def bus_lost(error: Exception) -> None:
    """Redis does not answer: orders go on from the database, streams from the log."""
    _log.warning("redis lost", error=str(error) or type(error).__name__)


def bus_recovered() -> None:
    """Redis answers again."""
    _log.info("redis recovered")


def announcements_dropped(count: int) -> None:
    """Announcements were lost with Redis; the sweeper and the streams' reads make up for them."""
    _log.warning("announcements dropped", count=count)


def request_crashed(request_id: str, path: str, error: Exception) -> None:
    """A bug in a handler; the client got a 500 with this request id."""
    _log.error("request crashed", request_id=request_id, path=path, exc_info=error)
