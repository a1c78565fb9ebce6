"""Bugs that engines of this kind have had, planted one at a time: the simulation must catch each.

Each is a change to the real rule, made from here: a patched method or a replaced port, never a
flag in the product. Where the database would refuse the bug's writes, the refusal is removed too,
or the bug shows as an order that never ends.
"""

import asyncio
import contextlib
import re
import sqlite3
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from order_engine.batching import GroupCommit
from order_engine.domain.errors import ChainUnavailable, StoreUnavailable
from order_engine.domain.events import TransactionBuilt, TransactionSigned
from order_engine.domain.lifecycle import TERMINAL, open_order
from order_engine.domain.order import OrderStatus, SignedAttempt
from order_engine.engine import order_stream
from order_engine.engine.executor import Executor, OrderWriter
from order_engine.engine.intake import Intake, Submission
from order_engine.ports.store import Accepted, Claim, IdempotencyKey, NewOrder
from order_engine.store.sql import SQLITE, load_queries
from order_engine.store.sqlite import store as sqlite_store
from order_engine.store.sqlite.store import SqliteStore
from tests.simulation import ports
from tests.simulation.loop import host_of

Plant = Callable[[pytest.MonkeyPatch], None]
EVIDENCE = msgspec.Raw(b'{"planted": true}')
PLANTED: dict[str, Plant] = {}


def planted(plant: Plant) -> Plant:
    """Add a bug to the list, by its function's name."""
    PLANTED[plant.__name__] = plant
    return plant


def change_query(patch: pytest.MonkeyPatch, name: str, statement: str) -> None:
    """Replace one statement of the SQLite store."""
    real = sqlite_store.load_queries
    patch.setattr(sqlite_store, "load_queries", lambda dialect: {**real(dialect), name: statement})


async def sign_and_send_unsaved(executor: Any, journal: OrderWriter) -> SignedAttempt:
    """Build, sign and send, but commit nothing: that is left to the caller."""
    order = journal.order
    transaction = await executor._venues[order.venue].build(order)
    if order.status is OrderStatus.ROUTING:
        journal.append(TransactionBuilt(order.venue, transaction.steps))
    signed = await executor._signing.sign(transaction)
    with contextlib.suppress(ChainUnavailable):
        await executor._settlement._sends.submit(signed.raw)
    return SignedAttempt(
        order.attempt_number,
        signed.signature,
        signed.raw,
        signed.owner,
        signed.last_valid_block_height,
        signed.signed_point,
        signed.blockhash_slot,
        0,
        signed.genesis_hash,
    )


# --- sending ---


@planted
def sends_before_it_persists(patch: pytest.MonkeyPatch) -> None:
    async def build(self: Any, journal: OrderWriter) -> SignedAttempt | None:
        attempt = await sign_and_send_unsaved(self, journal)
        journal.append(TransactionSigned(attempt.signature, attempt.last_valid_block_height), signed=attempt)
        await journal.commit()
        return attempt

    patch.setattr(Executor, "_build_and_sign", build)


@planted
def does_not_wait_for_the_commit(patch: pytest.MonkeyPatch) -> None:
    """Record, then send at once, while the write is still on its way."""

    async def commit(self: Any) -> None:
        if self.order.status is not OrderStatus.SUBMITTED and self._last_write is not None:
            await self._last_write

    patch.setattr(OrderWriter, "commit", commit)


@planted
def signs_again_after_an_unsure_commit(patch: pytest.MonkeyPatch) -> None:
    """The engine assumes that a failed commit did not happen, and signs and sends another swap."""
    real = Executor._build_and_sign

    async def build(self: Any, journal: OrderWriter) -> SignedAttempt | None:
        try:
            return await real(self, journal)
        except StoreUnavailable:
            order = await self._reader.get(journal.order.account, journal.order.order_id)
            await sign_and_send_unsaved(self, OrderWriter(self._store, self._clock, Claim(order, 0, 0), self._counters))
            raise

    patch.setattr(Executor, "_build_and_sign", build)


@planted
def the_queue_runs_the_whole_job_again(patch: pytest.MonkeyPatch) -> None:
    """BullMQ's stalled job: the worker that takes over an order in flight signs a new swap for it."""
    real = Executor._settle

    async def settle(self: Any, journal: OrderWriter, attempt: SignedAttempt) -> None:
        if journal._last_write is None and host_of.get() not in attempt.signature:
            # As in the queue: the job is tried again after any error.
            with contextlib.suppress(Exception):
                await sign_and_send_unsaved(self, journal)
        await real(self, journal, attempt)

    async def run(self: Any, claim: Claim) -> None:
        journal = OrderWriter(self._store, self._clock, claim, self._counters)
        if claim.order.is_in_doubt:
            await settle(self, journal, (await self._reader.attempts(claim.order.order_id))[-1])
            await journal.commit()
        else:
            await real_run(self, claim)

    real_run = Executor.run
    patch.setattr(Executor, "run", run)


# --- owning ---


@planted
def nothing_refuses_a_stale_write(patch: pytest.MonkeyPatch) -> None:
    """A worker that wakes up from a pause continues to write: no fence, no seq, no refusal by the database.

    Each of these guards is enough alone, so the bug removes all three. Two runs of one order that
    use the same seq can write only one of their events: while the seq is checked, a stale fence
    never gets through; if neither is checked, the keys and triggers of the database refuse.
    """
    move_order = load_queries(SQLITE)["move_order"]
    change_query(patch, "move_order", f"{move_order.rpartition('where')[0]} where order_id = :order_id")
    lenient = re.sub(r"create trigger .*?\nend;\n", "", ports.MIGRATIONS, flags=re.DOTALL)
    patch.setattr(ports, "MIGRATIONS", re.sub(r"create unique index .*?;\n", "", lenient))


@planted
def nobody_looks_for_lapsed_leases(patch: pytest.MonkeyPatch) -> None:
    change_query(
        patch,
        "claimable_due",
        "select order_id from orders where due_at_ms <= :now_ms order by due_at_ms limit :most",
    )


@planted
def leases_go_by_the_workers_clock(patch: pytest.MonkeyPatch) -> None:
    """A worker whose clock is a day ahead takes leases that outlive the worker by a day."""
    real = SqliteStore._take

    def take(self: Any, connection: sqlite3.Connection, worker: str, order_ids: Any, lease_ms: int) -> Any:
        ahead_ms = 86_400_000 if worker.startswith("worker1") else 0
        return real(self, connection, worker, order_ids, lease_ms + ahead_ms)

    patch.setattr(SqliteStore, "_take", take)


@planted
def only_announced_orders_are_found(patch: pytest.MonkeyPatch) -> None:
    """The dual write: an order whose announcement is lost waits for ever."""
    change_query(
        patch,
        "claimable_due",
        "select order_id from orders where lease_until_ms <= :now_ms or (status = 'retrying' and due_at_ms <= :now_ms) "
        "limit :most",
    )


# --- accepting ---


@planted
def answers_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    async def accept(self: Any, new: NewOrder) -> Any:
        self._accepts.submit(new)
        return await asyncio.sleep(0, Accepted(new.order, is_replay=False, digest=None))

    patch.setattr(GroupCommit, "accept", accept)


@planted
def checks_the_key_and_then_inserts(patch: pytest.MonkeyPatch) -> None:
    """Two requests with one key look at the same moment, and both find nothing."""

    async def submit(self: Any, account: str, _client: str, request: Any, idempotency: IdempotencyKey) -> Submission:
        known = await self._reader.find_by_key(account, idempotency.key)
        if known is not None:
            return Submission(known.order, is_replay=True, rate=None)
        order, event = open_order(self._new_order_id(), account, request, self._clock.now_ms())
        await self._store.accept(NewOrder(order, event, None))
        return Submission(order, is_replay=False, rate=None)

    patch.setattr(Intake, "submit_order", submit)


# --- streaming ---


@planted
def reads_the_log_and_then_subscribes(patch: pytest.MonkeyPatch) -> None:
    """The client never gets the events between the two steps."""

    async def replay(reader: Any, bus: Any, account: Any, order_id: Any, after: int) -> Any:
        events = await order_stream._read(reader, order_id, after)
        async with bus.subscribe(account, order_id) as live:
            while True:
                if events:
                    after = events[-1].seq
                    yield events
                    if events[-1].status in TERMINAL:
                        return
                arrived = await live.next(order_stream.POLL_CONNECTED_S)
                events = [event for event in arrived if event.seq > after]

    patch.setattr("tests.simulation.world.follow_order", replay)


@planted
def passes_on_whatever_arrives(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(order_stream, "next_in_line", lambda arrived, _seq: [*arrived])


@planted
def publishes_before_the_commit(patch: pytest.MonkeyPatch) -> None:
    real = SqliteStore._write_folded

    async def write_folded(self: Any, writes: Any) -> Any:
        self._announce([event for write in writes for event in write.events])
        return await real(self, writes)

    patch.setattr(SqliteStore, "_write_folded", write_folded)
