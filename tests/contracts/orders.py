"""The orders, facts and writes that the contract suites use."""

from collections.abc import Awaitable
from typing import Any, Final

import msgspec

from order_engine.batching import GroupCommit
from order_engine.domain.chain_point import ChainPoint
from order_engine.domain.errors import ReasonCode
from order_engine.domain.events import (
    AttemptFailed,
    Fact,
    OrderCancelled,
    OrderEvent,
    OrderFailed,
    RouteCompared,
    SwapConfirmed,
    TransactionBuilt,
    TransactionSigned,
)
from order_engine.domain.lifecycle import apply, open_order
from order_engine.domain.money import BaseUnits, Bps
from order_engine.domain.order import AttemptOutcome, EpochMs, Order, OrderId, OrderStatus, SignedAttempt, SwapRequest
from order_engine.domain.routing import Quote, choose_quote
from order_engine.domain.tokens import TokenRegistry
from order_engine.meters import Meters
from order_engine.ports.store import IdempotencyKey, NewOrder, ProvenOutcome, Store, Write
from order_engine.wiring import new_order_id

_tokens: Final = TokenRegistry()
SOL: Final = _tokens.resolve("SOL", "tokenIn")
USDC: Final = _tokens.resolve("USDC", "tokenOut")
BONK: Final = _tokens.resolve("BONK", "tokenOut")

ACCOUNT: Final = "acme"
CREATED_AT_MS: Final = EpochMs(1_760_000_000_000)
OWNER: Final = "the key that signs everything here"
GENESIS: Final = "genesis hash of the cluster that everything here is signed for"
LONG_MS: Final = 600_000  # a lease or a pause that no test outlives

_offers = [Quote(name, BaseUnits(10), BaseUnits(out), Bps(30), Bps(1)) for name, out in (("a", 150), ("b", 149))]
ROUTED: Final = RouteCompared(choose_quote(_offers), BaseUnits(148))
BUILT: Final = TransactionBuilt("a", ("wrap SOL into wSOL", "swap SOL for USDC on a"))
CONFIRMED: Final = SwapConfirmed(BaseUnits(149), 1_234)
FAILED: Final = OrderFailed(ReasonCode.NO_ROUTE, "no venue trades this")
CANCELLED: Final = OrderCancelled("Cancelled by the client.")
EVIDENCE: Final = msgspec.Raw(b'{"slot":1234,"contextSlot":1300}')


class SingleStore(GroupCommit):
    """A store with the methods of GroupCommit, for tests that write one order at a time."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, Meters())
        self._store = store

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def close(self) -> None:
        await self.drain()
        await self._store.close()


def asked(**changes: Any) -> SwapRequest:
    """A swap request with plain values; `changes` are fields that differ."""
    plain = SwapRequest(SOL, USDC, BaseUnits(1_500_000_000), 50)
    return msgspec.structs.replace(plain, **changes)


def new_order(
    key: str | None = None,
    *,
    digest: str = "digest of the first",
    account: str = ACCOUNT,
    at_ms: int = CREATED_AT_MS,
    **changes: Any,
) -> NewOrder:
    """A new order; `changes` are fields of its request."""
    order, event = open_order(new_order_id(), account, asked(**changes), EpochMs(at_ms))
    return NewOrder(order, event, None if key is None else IdempotencyKey(key, digest))


def pause(for_ms: int) -> AttemptFailed:
    """The fact that an attempt failed and that the next one is due after the pause."""
    return AttemptFailed(ReasonCode.VENUE_ERROR, "the venue refused", for_ms)


def attempt_of(order: Order) -> SignedAttempt:
    """The order's signed transaction in its current attempt."""
    name = f"{order.order_id}/{order.attempt_number}"
    raw = b"\x00raw\xff" + name.encode()
    return SignedAttempt(
        order.attempt_number,
        f"signature of {name}",
        raw,
        OWNER,
        1_150,
        ChainPoint(850, 900),
        930,
        CREATED_AT_MS,
        GENESIS,
    )


def signed(attempt: SignedAttempt) -> TransactionSigned:
    """The fact that goes with a signed attempt."""
    return TransactionSigned(attempt.signature, attempt.last_valid_block_height)


def proof(attempt: SignedAttempt, outcome: AttemptOutcome) -> ProvenOutcome:
    """The attempt's outcome, as the chain proved it."""
    return ProvenOutcome(attempt.attempt_number, outcome, EVIDENCE)


class Life:
    """One order as the holder of its fence moves it: every write follows from the write before."""

    def __init__(self, order: Order, fence: int | None) -> None:
        self.order = order
        self.fence = fence
        self.events: list[OrderEvent] = []

    def write(self, fact: Fact, *, signed: SignedAttempt | None = None, proven: ProvenOutcome | None = None) -> Write:
        """The next write."""
        before = self.order
        self.order, event = apply(before, fact, EpochMs(before.updated_at_ms + 7))
        self.events.append(event)
        due_in_ms = fact.retry_in_ms if isinstance(fact, AttemptFailed) else 0
        return Write(self.order, (event,), before.seq, self.fence, due_in_ms, signed, proven)

    def sign(self) -> Write:
        """The write that signs the current attempt."""
        attempt = attempt_of(self.order)
        return self.write(signed(attempt), signed=attempt)

    def settle(self, fact: Fact, outcome: AttemptOutcome) -> Write:
        """The write that proves the current attempt's outcome."""
        return self.write(fact, proven=proof(attempt_of(self.order), outcome))


def unlawful(life: Life) -> Write:
    """A write that every database must refuse: an order never becomes pending again."""
    seq = life.order.seq + 1
    order = msgspec.structs.replace(life.order, status=OrderStatus.PENDING, seq=seq)
    event = OrderEvent(
        order.order_id,
        order.account,
        seq,
        order.status,
        order.attempt_number,
        order.updated_at_ms,
        0,
        msgspec.Raw(b"{}"),
    )
    return Write(order, (event,), life.order.seq, life.fence)


async def claim_new(store: SingleStore, worker: str = "worker", lease_ms: int = LONG_MS, **changes: Any) -> Life:
    """Accept an order and claim it."""
    new = new_order(**changes)
    await store.accept(new)
    (claim,) = await store.claim(worker, [new.order.order_id], lease_ms)
    return Life(claim.order, claim.fence)


async def sign_new(store: SingleStore) -> Life:
    """Accept an order, claim it and move it on until its first attempt is signed."""
    life = await claim_new(store)
    for write in (life.write(ROUTED), life.write(BUILT), life.sign()):
        await store.record(write)
    return life


async def kept(store: SingleStore, order_id: OrderId) -> tuple[object, ...]:
    """Everything that the store keeps of an order, to be compared."""
    order = await store.get(ACCOUNT, order_id)
    return order, await store.history(order_id, 0), await store.attempts(order_id)


async def outcome_of(awaitable: Awaitable[object]) -> object:
    """The result, or the error as a value."""
    try:
        return await awaitable
    except Exception as error:  # noqa: BLE001 - the test looks at it
        return error
