"""Whether orders can be taken and ended, and why an order waits."""

import asyncio
from typing import Any

import pytest

from order_engine.domain.errors import ChainUnavailable
from order_engine.domain.order import OrderStatus
from order_engine.engine.health import ChainWatch, assess
from order_engine.engine.waiting import waiting_for
from order_engine.ports.health import ChainState, Heartbeat, ProcessSeen, StoreHealth
from tests.unit.chains import open_chain_world
from tests.unit.samples import order_in


def seen(role: str, chain: ChainState | None, ago_ms: int = 500) -> ProcessSeen:
    return ProcessSeen(Heartbeat(f"{role} of a test", role, chain), ago_ms)


API = seen("api", None)
WORKER = seen("worker", ChainState(None, 1_000))
TROUBLED = ProcessSeen(Heartbeat("worker 2", "worker", ChainState(None, 1_000), "PostgreSQL takes no writes"), 500)
SILENT = seen("worker", ChainState("the chain does not answer", None))


def health(*processes: ProcessSeen, **changes: Any) -> StoreHealth:
    waiting: dict[str, int] = {"waiting": 0, "oldest_due_ms": 0, "in_doubt": 0, "oldest_in_doubt_ms": 0, **changes}
    return StoreHealth(processes, **waiting)


@pytest.mark.parametrize(
    ("found", "store", "bus", "status", "told"),
    [
        (health(API, WORKER), None, None, "ready", None),
        (health(API, WORKER, SILENT), None, None, "ready", None),
        (health(API), None, None, "degraded", "no worker is running"),
        (health(API, seen("worker", ChainState(), 60_000)), None, None, "degraded", "no worker is running"),
        (health(API, SILENT), None, None, "degraded", "the chain does not answer"),
        (health(WORKER), None, "Redis is lost", "degraded", "Redis is lost"),
        (
            health(WORKER, TROUBLED),
            None,
            None,
            "degraded",
            "1 of 2 cannot store their work: PostgreSQL takes no writes",
        ),
        (health(WORKER, waiting=7, oldest_due_ms=45_000), None, None, "degraded", "7 orders wait for a worker"),
        (health(WORKER, waiting=900, oldest_due_ms=5_000), None, None, "ready", None),
        (health(WORKER, in_doubt=2, oldest_in_doubt_ms=300_000), None, None, "degraded", "oldest for 300 s"),
        (health(WORKER), "PostgreSQL takes no writes", None, "unavailable", "takes no writes"),
        (None, "PostgreSQL does not answer", None, "unavailable", "does not answer"),
    ],
)
def test_the_verdict_names_its_reason(
    found: StoreHealth | None, store: str | None, bus: str | None, status: str, told: str | None
) -> None:
    report = assess(found, store, bus)
    assert report.status == status
    assert [told in reason for reason in report.reasons if told] == ([] if told is None else [True])


@pytest.mark.parametrize("status", [*OrderStatus])
def test_an_order_that_waits_says_for_what(status: OrderStatus) -> None:
    order = order_in(status)
    well = waiting_for(order, assess(health(WORKER), None, None))
    without = waiting_for(order, assess(health(API), None, None))
    silent = waiting_for(order, assess(health(SILENT), None, None))
    lost = waiting_for(order, assess(None, "PostgreSQL does not answer", None))
    if status in (OrderStatus.CONFIRMED, OrderStatus.FAILED, OrderStatus.CANCELLED):
        assert (well, without, silent, lost) == (None, None, None, None)
        return
    assert well is not None
    assert ";" not in well
    assert "no worker is running" in str(without)
    assert "PostgreSQL does not answer" in str(lost)
    needs_chain = status in (OrderStatus.BUILDING, OrderStatus.SUBMITTED)
    assert ("the chain does not answer" in str(silent)) is needs_chain


@pytest.mark.asyncio
async def test_a_head_that_stands_still_is_noticed() -> None:
    async with open_chain_world() as world:
        passed_s = 0.0
        watch = ChainWatch(world.chain, lambda: passed_s)
        first = await watch.look()
        assert first.trouble is None
        passed_s = 30.0
        assert "stood still for 30 s" in str((await watch.look()).trouble)
        world.clock.ms += 1_000
        moved = await watch.look()
        assert moved.trouble is None
        assert (moved.finalized_slot or 0) > (first.finalized_slot or 0)


class Hanging:
    """A chain for ChainWatch that raises the error, or never answers if there is none."""

    def __init__(self, error: Exception | None) -> None:
        self._error = error

    async def latest_blockhash(self) -> Any:
        if self._error is not None:
            raise self._error
        await asyncio.Event().wait()


@pytest.mark.asyncio
@pytest.mark.parametrize("error", [ChainUnavailable("the chain answers HTTP 502"), None], ids=["error", "hangs"])
async def test_a_chain_that_does_not_answer_is_in_trouble(error: Exception | None) -> None:
    state = await ChainWatch(Hanging(error), lambda: 0.0).look()  # type: ignore[arg-type]
    assert "answer" in str(state.trouble)
