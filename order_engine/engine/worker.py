"""Claims orders, runs many at once, renews their leases, sweeps for lost orders, stops cleanly."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

import msgspec

from order_engine import observe
from order_engine.counters import Counters
from order_engine.domain.errors import Fenced, Paused, StoreUnavailable, WrongCluster
from order_engine.domain.order import OrderId
from order_engine.ports.bus import RateLimiter, ReadyQueue
from order_engine.ports.store import LONGEST_WAIT_MS, Claim, WorkQueue

_STORE_RETRY_S: Final = 0.5
_RATE_KEY: Final = "queue"
_RATE_RETRY_S: Final = 1
_ALONE_S: Final = 1.0
_RENEWALS_PER_LEASE: Final = 3


class WorkerPolicy(msgspec.Struct, frozen=True):
    """A worker's limits. `max_per_min` counts orders started by all workers together; 0 is no limit.

    `longest_wait_ms`: an order that is due in more than this is due now: the clock was set back.
    """

    concurrency: int
    lease_ms: int
    sweep_ms: int
    max_per_min: int
    grace_s: float
    longest_wait_ms: int = LONGEST_WAIT_MS


class Worker:
    """A Service that runs up to `concurrency` orders at once."""

    name: Final = "worker"

    def __init__(  # noqa: PLR0913 - the ports it speaks through
        self,
        process_name: str,
        queue: WorkQueue,
        ready: ReadyQueue,
        limiter: RateLimiter,
        execute: Callable[[Claim], Awaitable[None]],
        policy: WorkerPolicy,
        counters: Counters,
    ) -> None:
        """`process_name` is unique to this run of the worker; `execute` works on one claimed order until it rests."""
        self._process_name = process_name
        self._queue = queue
        self._ready = ready
        self._limiter = limiter
        self._execute = execute
        self._policy = policy
        self._counters = counters
        self._running: dict[OrderId, tuple[Claim, asyncio.Task[None]]] = {}
        self._orphans: dict[OrderId, int] = {}
        self._slot_freed = asyncio.Event()
        self._stopping = asyncio.Event()
        self._next_sweep_s = 0.0
        self._is_more_due = False
        self._loops: list[asyncio.Task[None]] = []

    def stop(self) -> None:
        """See Service. Claims nothing more; running orders get the grace to finish."""
        self._stopping.set()
        self._slot_freed.set()

    async def start(self) -> None:
        """See Service."""
        self._loops = [asyncio.create_task(self._claim_until_stopped()), asyncio.create_task(self._renew_forever())]

    async def run(self) -> None:
        """See Service. After `stop`, running orders finish within the grace; the rest is given back."""
        try:
            await asyncio.wait(self._loops, return_when=asyncio.FIRST_COMPLETED)
            await self._finish()
        finally:
            for task in self._loops:
                task.cancel()
            results = await asyncio.gather(*self._loops, return_exceptions=True)
        for result in results:
            if isinstance(result, Exception):
                raise result
        if not self._stopping.is_set():
            raise RuntimeError("the worker stopped claiming without being asked to")

    # --- claiming ---

    async def _claim_until_stopped(self) -> None:
        """Claim orders while there is room. `stop` cancels no claim, so every claimed order is started."""
        while not self._stopping.is_set():
            try:
                free = await self._free_slots()
                await self._give_back_orphans()
                await self._claim_some(free)
            except StoreUnavailable as error:
                observe.store_unavailable("claim", error)
                await asyncio.sleep(_STORE_RETRY_S)
            except Exception as error:  # noqa: BLE001 - a worker that stops claiming is worse than a bug logged twice
                observe.loop_crashed("claim", error)
                await asyncio.sleep(_STORE_RETRY_S)

    async def _give_back_orphans(self) -> None:
        """Release orders that were let go, so that they do not wait for their leases to lapse.

        The next claim continues from the stored order. A release that is too late finds another
        fence and does nothing.
        """
        if not self._orphans:
            return
        orphans, self._orphans = self._orphans, {}
        try:
            await self._queue.release(self._process_name, orphans)
        except StoreUnavailable:
            self._orphans = {**orphans, **self._orphans}
            raise

    async def _free_slots(self) -> int:
        """Wait for room under the concurrency and the rate; return how many orders may start, 0 when stopping."""
        while not self._stopping.is_set():
            free = self._policy.concurrency - len(self._running)
            if free > 0 and self._policy.max_per_min:
                window = await self._limiter.hit(_RATE_KEY, self._policy.max_per_min, cost=0)
                if window.remaining == 0:
                    await asyncio.sleep(min(window.reset_s, _RATE_RETRY_S))
                    continue
                free = min(free, window.remaining)
            if free > 0:
                return free
            self._slot_freed.clear()
            try:
                await asyncio.wait_for(self._slot_freed.wait(), self._policy.sweep_ms / 1000)
            except TimeoutError:
                # A full worker has nothing to claim. Ask the store anyway, so that it always has a live session and
                # is not taken for dead (ADR 8).
                await self._queue.expire_dead_leases()
        return 0

    async def _claim_some(self, free: int) -> None:
        """Start announced orders; sweep when it is time, or when more orders are due than were announced."""
        # The event loop's clock is never set back.
        now_s = asyncio.get_running_loop().time()
        is_time = now_s >= self._next_sweep_s
        order_ids: list[OrderId] = []
        if free and not is_time:
            timeout_s = 0 if self._is_more_due else self._next_sweep_s - now_s
            order_ids = await self._ready.pop(free, timeout_s)
        if free == 0 or self._stopping.is_set():
            return
        if order_ids:
            await self._start_all(await self._queue.claim(self._process_name, order_ids, self._policy.lease_ms))
        elif is_time or self._is_more_due:
            if is_time:
                self._next_sweep_s = now_s + self._policy.sweep_ms / 1000
                await self._queue.expire_dead_leases()
                free -= await self._start_poison_order()
            # A poison order may have run alone for 1 s, and `stop` may have been called meanwhile.
            if free and not self._stopping.is_set():
                due = await self._queue.claim_due(
                    self._process_name, free, self._policy.lease_ms, self._policy.longest_wait_ms
                )
                await self._start_all(due)
                self._is_more_due = len(due) == free

    async def _start_poison_order(self) -> int:
        """Start one poison order, if there is one; return how many were started (0 or 1)."""
        # A poison order that ended a worker before goes to an idle worker first: a busy one waits for one lease.
        waited_ms = self._policy.lease_ms if self._running else 0
        is_alone = not self._running
        claims = await self._queue.claim_poison(self._process_name, waited_ms, self._policy.lease_ms)
        await self._start_all(claims)
        running = [task for _, task in self._running.values()]
        if is_alone and running:
            # Run the poison order alone for 1 s, so that a crash takes no other order with it.
            await asyncio.wait(running, timeout=_ALONE_S)
        return len(claims)

    async def _start_all(self, claims: Sequence[Claim]) -> None:
        """Start the claimed orders at once, because their leases run; then count them against the rate."""
        for claim in claims:
            self._start(claim)
        if claims and self._policy.max_per_min:
            await self._limiter.hit(_RATE_KEY, self._policy.max_per_min, cost=len(claims))

    def _start(self, claim: Claim) -> None:
        order_id = claim.order.order_id
        if order_id in self._running:
            self._running[order_id][1].cancel()  # The old run's lease lapsed: it can write nothing.
        task = asyncio.create_task(self._work(claim), name=f"order {order_id}")
        self._running[order_id] = (claim, task)
        task.add_done_callback(lambda _: self._free(order_id, claim))

    def _free(self, order_id: OrderId, claim: Claim) -> None:
        # If the order was claimed again meanwhile, the new run keeps its slot.
        if order_id in self._running and self._running[order_id][0] is claim:
            del self._running[order_id]
        self._slot_freed.set()

    async def _work(self, claim: Claim) -> None:
        """Run one order; an error here does not reach another order's task."""
        order_id = claim.order.order_id
        try:
            await self._execute(claim)
        except Fenced:
            observe.write_fenced(self._counters, order_id)
        except (StoreUnavailable, WrongCluster, Paused) as error:
            observe.order_let_go(order_id, str(error))
            self._orphans[order_id] = claim.fence
        except Exception as error:  # noqa: BLE001 - a bug with one order must not stop the others
            observe.order_crashed(self._counters, order_id, error)

    # --- leases ---

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._policy.lease_ms / 1000 / _RENEWALS_PER_LEASE)
            fences = {order_id: claim.fence for order_id, (claim, _) in self._running.items()}
            if not fences:
                continue
            try:
                held = await self._queue.renew(self._process_name, fences, self._policy.lease_ms)
            except StoreUnavailable as error:
                observe.store_unavailable("renew", error)
                continue
            except Exception as error:  # noqa: BLE001 - the next turn may go well, and the leases need it
                observe.loop_crashed("renew", error)
                continue
            for order_id in (it for it in fences if it not in held):
                running = self._running.get(order_id)
                if running is not None and running[0].fence == fences[order_id]:
                    running[1].cancel()

    # --- the end ---

    async def _finish(self) -> None:
        """Let orders finish within the grace, then give back the rest; the fence makes a late write harmless."""
        tasks = [task for _, task in self._running.values()]
        if tasks:
            await asyncio.wait(tasks, timeout=self._policy.grace_s)
        left = {order_id: claim.fence for order_id, (claim, _) in self._running.items()}
        tasks = [task for _, task in self._running.values()]
        for task in tasks:
            task.cancel()
        if not left:
            return
        await asyncio.wait(tasks)
        try:
            await self._queue.release(self._process_name, left)
        except StoreUnavailable as error:
            observe.store_unavailable("release", error)
            return
        self._ready.push([*left])
        observe.orders_released(len(left))
