"""The store of orders, as the engine writes and reads it."""

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

import msgspec

from order_engine.domain.events import OrderEvent
from order_engine.domain.order import (
    AttemptOutcome,
    EpochMs,
    Order,
    OrderId,
    OrderStatus,
    SignedAttempt,
)
from order_engine.ports.health import HealthStore


class IdempotencyKey(msgspec.Struct, frozen=True):
    """A client's key, unique per account, and the digest of the request it came with."""

    key: str
    digest: str


class NewOrder(msgspec.Struct, frozen=True):
    """An order to accept: its first event, and its idempotency key if the client gave one."""

    order: Order
    event: OrderEvent
    idempotency: IdempotencyKey | None


class Accepted(msgspec.Struct, frozen=True):
    """The stored order. `is_replay`: the key was known; `digest` is that of the first request."""

    order: Order
    is_replay: bool
    digest: str | None


class Claim(msgspec.Struct, frozen=True):
    """The right to work on an order until the lease lapses. `claims` counts its claims since the order's last event."""

    order: Order
    fence: int
    claims: int


class ProvenOutcome(msgspec.Struct, frozen=True):
    """The proven outcome of one attempt, with the chain's answers that prove it (a JSON object)."""

    attempt_number: int
    outcome: AttemptOutcome
    evidence: msgspec.Raw


class Write(msgspec.Struct, frozen=True):
    """Events to append to one order, and the order after them: all of it is stored, or nothing.

    It is refused (Fenced) unless the order is still at `expected_seq` and, with a `fence`, still
    held by it. Without a fence (a client's cancellation) a worker that holds the order loses it.
    A status `retrying` frees the order and makes it due in `due_in_ms` by the database's clock.
    """

    order: Order
    events: tuple[OrderEvent, ...]
    expected_seq: int
    fence: int | None
    due_in_ms: int = 0
    signed: SignedAttempt | None = None
    proven: ProvenOutcome | None = None


# No setting allows a longer lease or pause: a longer one was given before the clock was set back.
LONGEST_LEASE_MS: Final = 600_000
LONGEST_WAIT_MS: Final = 3_600_000

# A client order id is not given to another order for this long after its order has ended.
CLIENT_ORDER_ID_KEPT_MS: Final = 24 * 60 * 60 * 1000


class EngineIdentity(msgspec.Struct, frozen=True):
    """A database's own identity for all of its processes, made once with its first migration.

    `engine_id` names the engine where several share a server; `bus_secret` proves to one process that
    a message comes from another one.
    """

    engine_id: str
    bus_secret: bytes

    def __repr__(self) -> str:
        """Leave the secret out of logs and tracebacks."""
        return f"EngineIdentity({self.engine_id!r})"


class OrderStore(Protocol):
    """Accepts and records, many at once. May raise StoreUnavailable; then a write may or may not be kept.

    Each item gets its own result, in order: one that is refused fails alone. A caller with one order
    uses GroupCommit (batching.py). If the caller is cancelled, its writes may still be kept.
    """

    async def accept_many(self, new_orders: Sequence[NewOrder]) -> Sequence[Accepted | Exception]:
        """Store each order, its first event and its idempotency key; committed when this returns.

        A known key returns its order again. ClientOrderIdTaken: another order of the account has the
        client order id, and has not ended or ended less than CLIENT_ORDER_ID_KEPT_MS ago.
        """

    async def record_many(self, writes: Sequence[Write]) -> Sequence[Exception | None]:
        """Store each write, those of one order in their order; committed when this returns."""


class WorkQueue(Protocol):
    """Claims and leases. May raise StoreUnavailable.

    A cancelled call may still take effect: a claim then holds its orders until their leases lapse.
    """

    async def claim(self, worker: str, order_ids: Sequence[OrderId], lease_ms: int) -> list[Claim]:
        """Take those of the orders that no worker holds and that are due now."""

    async def claim_due(
        self, worker: str, limit: int, lease_ms: int, longest_wait_ms: int = LONGEST_WAIT_MS
    ) -> list[Claim]:
        """Take up to `limit` orders whose lease lapsed or that have been due for a while, but no poison orders.

        An order that is due in more than `longest_wait_ms` counts as due now, because the clock was set
        back. For the same reason a lease of more than LONGEST_LEASE_MS counts as lapsed.
        """

    async def claim_poison(self, worker: str, waited_ms: int, lease_ms: int) -> list[Claim]:
        """Take one poison order (domain/quarantine.py), unless the worker holds one already.

        After a worker died with it as a poison order, it waits at least `waited_ms` after its lease.
        """

    async def expire_dead_leases(self) -> None:
        """End the leases of dead workers at once, as far as the store knows that they are dead.

        Safe even if the store is wrong: the fence keeps two workers apart.
        """

    async def renew(self, worker: str, claims: Mapping[OrderId, int], lease_ms: int) -> set[OrderId]:
        """Extend the leases (order id -> fence); return the orders that are still held."""

    async def release(self, worker: str, claims: Mapping[OrderId, int]) -> None:
        """Give back unfinished orders (order id -> fence): they are due now, and their last claim does not count."""


class Upkeep(Protocol):
    """The database as a whole. May raise StoreUnavailable. A cancelled call may still take effect."""

    async def delete_ended(self, older_than_ms: int, limit: int) -> int:
        """Delete up to `limit` of the orders that ended `older_than_ms` ago, the oldest first, with all their data.

        Returns the number of deleted orders. An idempotency key is deleted with its order.
        """

    async def pin_cluster(self, genesis_hash: str) -> str:
        """Store the cluster's genesis hash and return the stored one, which is final once an attempt is signed.

        An attempt that was signed for another cluster than the stored one is refused.
        """

    async def identity(self) -> EngineIdentity:
        """Return the identity of the engine; always the same for one database."""

    async def ping(self) -> None:
        """Return if the database answers."""

    async def close(self) -> None:
        """Disconnect from the database."""


class OrderFilter(msgspec.Struct, frozen=True):
    """Which orders to list: each field that is not None narrows the list. Newest first, strictly before `before`.

    An order ends with its terminal event; a filter by end finds only orders that have ended.
    """

    account: str
    status: OrderStatus | None = None
    token_in: str | None = None
    token_out: str | None = None
    client_order_id: str | None = None
    created_after_ms: EpochMs | None = None
    created_before_ms: EpochMs | None = None
    ended_after_ms: EpochMs | None = None
    ended_before_ms: EpochMs | None = None
    before: OrderId | None = None


class InDoubt(msgspec.Struct, frozen=True):
    """A signed transaction without a proven outcome."""

    order_id: OrderId
    attempt: SignedAttempt


class InDoubtCount(msgspec.Struct, frozen=True):
    """How many attempts have no outcome, and how long ago the oldest was signed."""

    count: int
    oldest_ms: int


# The cursor before the first event of the log.
BEGINNING: Final = "0"


class LogPage(msgspec.Struct, frozen=True):
    """Events, ordered by seq for each order, the cursor after them, and whether there were more."""

    events: Sequence[OrderEvent]
    cursor: str
    has_more: bool = False


class OrderReader(Protocol):
    """Reads orders and attempts. May raise StoreUnavailable. Cancelling a call has no effect on the store."""

    async def get_many(self, wanted: Sequence[tuple[str, OrderId]]) -> Sequence[Order | None]:
        """Return the order of each (account, order id), or None if the account has no such order."""

    async def attempts(self, order_id: OrderId) -> list[SignedAttempt]:
        """Return every signed transaction of the order, the first one first."""

    async def in_doubt(self, account: str, limit: int) -> list[InDoubt]:
        """Return up to `limit` attempts of the account without an outcome, the oldest first."""

    async def count_in_doubt(self) -> InDoubtCount:
        """Return how many attempts of all accounts have no outcome."""

    async def find(self, order_filter: OrderFilter, limit: int) -> list[Order]:
        """Return up to `limit` orders that match, newest first."""

    async def find_by_key(self, account: str, key: str) -> Accepted | None:
        """Return the order that was accepted with this idempotency key."""


class EventLog(Protocol):
    """Reads events. May raise StoreUnavailable. Cancelling a call has no effect on the store."""

    async def histories(self, wanted: Sequence[tuple[OrderId, int]]) -> Sequence[Sequence[OrderEvent] | Exception]:
        """Return for each (order id, after) the order's events with a seq greater than `after`, in order."""

    async def account_events(self, account: str, after: str | None, until: str | None, limit: int) -> LogPage:
        """Return the first of the account's events that were committed after `after` and up to `until`.

        Every event lies between exactly one page's cursor and the next one's, whenever it was
        committed. The events of one commit stay together, so there can be more than `limit`; a
        limit of 0 only checks whether `after` is a cursor. `after`: BEGINNING, or a cursor of this
        database; None returns an empty page whose cursor stands at the end. `until`: a
        cursor that is not before `after`, or None for the end; the last page's cursor is `until`.

        Raises UnknownCursor.
        """


class Store(OrderStore, WorkQueue, Upkeep, OrderReader, EventLog, HealthStore, Protocol):
    """All roles of a store, for the code that composes the engine."""


Announce = Callable[[Sequence[OrderEvent]], None]
"""Called by a store with the events of each committed batch, after the commit."""
