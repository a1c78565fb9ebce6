"""Tells whether the engine can accept and end orders: each process writes a heartbeat and reads all of them."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Final, Literal

import msgspec

from order_engine.domain.errors import ChainUnavailable, StoreUnavailable
from order_engine.engine.pauses import Pauses
from order_engine.ports.bus import EventBus
from order_engine.ports.chain import Chain
from order_engine.ports.health import MAX_COUNTED_WAITING, ChainState, HealthStore, Heartbeat, StoreHealth

_BEAT_S: Final = 2.0
_DEAD_AFTER_MS: Final = 10_000
_KEPT_S: Final = 1.0
_CHAIN_TIMEOUT_S: Final = 2.0
_HEAD_STANDS_STILL_S: Final = 20.0
_LONG_DUE_MS: Final = 30_000
_LONG_IN_DOUBT_MS: Final = 120_000

Readiness = Literal["ready", "degraded", "unavailable"]


class Report(msgspec.Struct, frozen=True):
    """The engine's health: `reasons` says in sentences why it is not ready; `parts` has one line for each part.

    `chain_trouble`: why no worker gets a usable answer from the chain, or None.
    """

    status: Readiness
    reasons: Sequence[str]
    parts: dict[str, str]
    has_workers: bool = True
    chain_trouble: str | None = None


class ChainWatch:
    """Looks at the chain for each heartbeat; a chain that stands still or gives no blockhash ends no order."""

    def __init__(self, chain: Chain, now_s: Callable[[], float]) -> None:
        """`now_s`: a monotonic clock."""
        self._chain = chain
        self._now_s = now_s
        self._slot = 0
        self._moved_s = now_s()

    async def look(self) -> ChainState:
        """Return the chain's present state."""
        try:
            async with asyncio.timeout(_CHAIN_TIMEOUT_S):
                slot = (await self._chain.latest_blockhash()).finalized.slot
        except (ChainUnavailable, TimeoutError) as error:
            return ChainState(str(error) or "the chain does not answer", self._slot or None)
        now_s = self._now_s()
        if slot != self._slot:  # Also a lower slot: a node that lags still moves.
            self._slot, self._moved_s = slot, now_s
        still_s = now_s - self._moved_s
        if still_s > _HEAD_STANDS_STILL_S:
            return ChainState(f"the chain's finalized slot {slot} has stood still for {still_s:.0f} s", slot)
        return ChainState(None, slot)


class HealthMonitor:
    """Writes this process's heartbeat, and reports the health of the whole engine."""

    def __init__(
        self,
        store: HealthStore,
        bus: EventBus,
        now_s: Callable[[], float],
        heartbeat: Heartbeat,
        chain_watch: ChainWatch | None,
        pauses: Pauses,
    ) -> None:
        """`chain_watch` is None for a process that does no work."""
        self._store = store
        self._bus = bus
        self._now_s = now_s
        self._heartbeat = heartbeat
        self._chain_watch = chain_watch
        self._pauses = pauses
        self._write_trouble: str | None = None
        self._report: tuple[float, Report] | None = None
        self._asking: asyncio.Lock = asyncio.Lock()

    async def beat(self) -> float:
        """Write a heartbeat; returns the pause before the next one, in s.

        A failure also shows that the database takes no writes.
        """
        try:
            chain = None if self._chain_watch is None else await self._chain_watch.look()
            trouble = self._store.write_trouble
            await self._store.beat(msgspec.structs.replace(self._heartbeat, chain=chain, write_trouble=trouble))
            self._write_trouble = None
        except StoreUnavailable as error:
            self._write_trouble = str(error)
        except Exception as error:
            self._write_trouble = f"the last write failed: {error}"
            raise
        return _BEAT_S

    async def store_health(self) -> StoreHealth:
        """Return the queue and the processes as the database has them now. Raises StoreUnavailable."""
        return await self._store.health()

    async def report(self) -> Report:
        """Return the engine's health, at most 1 s old; all callers share one look at the store."""
        async with self._asking:
            now_s = self._now_s()
            if self._report is None or now_s - self._report[0] >= _KEPT_S:
                self._report = (now_s, await self._look())
            return self._report[1]

    async def _look(self) -> Report:
        trouble = self._bus.trouble
        bus_trouble = None if trouble is None else f"Redis: {trouble}; orders are late by a second, none is lost"
        try:
            health = await self._store.health()
        except StoreUnavailable as error:
            return assess(None, str(error), bus_trouble, self._pauses)
        except Exception as error:  # noqa: BLE001 - the report must name any error of the database
            return assess(None, f"the database cannot be read: {error}", bus_trouble, self._pauses)
        return assess(health, self._write_trouble or self._store.write_trouble, bus_trouble, self._pauses)


def assess(
    health: StoreHealth | None, store_trouble: str | None, bus_trouble: str | None, pauses: Pauses | None = None
) -> Report:
    """Return the verdict. `health` is None while the database cannot be read; then `store_trouble` says why.

    Without a database that takes writes no order can be accepted: unavailable. Any other trouble that
    keeps orders from ending makes the engine degraded: it accepts orders and reports the trouble.
    """
    parts = {"store": store_trouble or "ok", "bus": bus_trouble or "ok"}
    reasons = [it for it in (store_trouble, bus_trouble) if it is not None]
    if pauses is not None:
        parts["pauses"] = pauses.describe()
        reasons += [parts["pauses"]] if pauses.is_everything_paused else []
    has_workers, chain_trouble = True, None
    if health is not None:
        has_workers = bool(_alive_workers(health))
        chain_trouble = _chain_trouble(health)
        found = {
            "workers": _workers(health),
            "chain": _chain(health),
            "queue": _queue(health),
            "inDoubt": _in_doubt(health),
            "schema": (health.schema_trouble or "up to date", health.schema_trouble is None),
        }
        parts |= {name: text for name, (text, _) in found.items()}
        reasons += [text for text, is_well in found.values() if not is_well]
    status: Readiness = "degraded" if reasons else "ready"
    return Report(status if store_trouble is None else "unavailable", reasons, parts, has_workers, chain_trouble)


def _alive_workers(health: StoreHealth) -> list[Heartbeat]:
    alive = (it.heartbeat for it in health.processes if it.seen_ago_ms < _DEAD_AFTER_MS)
    return [it for it in alive if it.chain is not None]


def _workers(health: StoreHealth) -> tuple[str, bool]:
    if alive := _alive_workers(health):
        troubles = [it.write_trouble for it in alive if it.write_trouble is not None]
        if troubles:
            return f"{len(troubles)} of {len(alive)} cannot store their work: {troubles[0]}", False
        return f"{len(alive)} alive", True
    return "no worker is running: orders are accepted and wait; start one with `order-engine worker`", False


def _chain_trouble(health: StoreHealth) -> str | None:
    troubles = [it.chain.trouble for it in _alive_workers(health) if it.chain is not None]
    return None if None in troubles else next(iter(troubles), None)


def _chain(health: StoreHealth) -> tuple[str, bool]:
    states = [it.chain for it in _alive_workers(health) if it.chain is not None]
    if not states:
        return "no worker looks at it", True
    if (trouble := _chain_trouble(health)) is not None:
        return trouble, False
    slots = [it.finalized_slot for it in states if it.finalized_slot is not None]
    return f"answers, finalized slot {max(slots, default=0)}", True


def _queue(health: StoreHealth) -> tuple[str, bool]:
    count = f"{health.waiting}{' or more' if health.waiting >= MAX_COUNTED_WAITING else ''}"
    if health.oldest_due_ms > _LONG_DUE_MS:
        return f"{count} orders wait for a worker, the oldest for {health.oldest_due_ms // 1000} s", False
    return f"{count} orders wait for a worker", True


def _in_doubt(health: StoreHealth) -> tuple[str, bool]:
    if health.oldest_in_doubt_ms > _LONG_IN_DOUBT_MS:
        age_s = health.oldest_in_doubt_ms // 1000
        return f"{health.in_doubt} attempts are in doubt, the oldest for {age_s} s; see `order-engine attempts`", False
    return f"{health.in_doubt} attempts", True
