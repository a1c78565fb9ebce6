"""The processor time of single steps of an order: no other arrangement of the engine would save it.

Every step runs the engine's own code on real orders; only the node's answers are played back from
memory, so that the node's work is not counted with the client's.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from bench.measure import Stand, cpu_seconds
from order_engine.chain.client import SolanaChain
from order_engine.clock import SystemClock
from order_engine.domain.lifecycle import apply
from order_engine.domain.order import AttemptOutcome, Order, SignedAttempt
from order_engine.domain.routing import choose_quote
from order_engine.engine.quoting import ask_venues
from order_engine.engine.settlement import Settlement
from order_engine.paper.local import LocalTransport
from order_engine.paper.market import METEORA, RAYDIUM, REFERENCE_PRICES_USD, PaperMarket
from order_engine.paper.venue import PaperFaults, PaperVenue
from order_engine.store.postgres.store import PostgresStore
from tests.contracts.orders import BUILT, CONFIRMED, GENESIS, LONG_MS, ROUTED, USDC, Life, SingleStore, new_order
from tests.unit.chains import WALLET, ChainWorld, Genesis, open_chain_world, sign

ORDERS = 2_000
AT_ONCE = 100
_SLOW_S = 3_600.0  # Long enough that nothing is sent or looked at twice.
_TRIGGERS = """
select format('drop trigger %I on %s', tgname, tgrelid::regclass) from pg_trigger
where not tgisinternal and tgrelid in (
    'orders'::regclass, 'order_events'::regclass, 'attempts'::regclass, 'cluster'::regclass)
"""


async def quotes_piece() -> dict[str, Any]:
    """Ask both venues and compare their quotes."""
    venues, requests = _venues(), [new_order().order.request for _ in range(ORDERS)]

    async def quote() -> None:
        for request in requests:
            choose_quote(await ask_venues(venues, request, _SLOW_S))

    return _figure(await _own_cpu_s(quote()))


async def build_piece() -> dict[str, Any]:
    """Build the swap: its price now, its instruction, its message."""
    venue, orders = _venues()[0], [_routed() for _ in range(ORDERS)]

    async def build() -> None:
        for order in orders:
            await venue.build(order)

    return _figure(await _own_cpu_s(build()))


async def sign_piece() -> dict[str, Any]:
    """Put the blockhash into the message, sign it, and make the bytes that are sent."""
    venue = _venues()[0]
    transactions = [await venue.build(_routed()) for _ in range(ORDERS)]
    async with open_chain_world() as world:
        blockhash = await world.chain.latest_blockhash()

        async def sign_all() -> None:
            for transaction in transactions:
                await sign(transaction, blockhash)

        return _figure(await _own_cpu_s(sign_all()))


async def chain_piece() -> dict[str, Any]:
    """Send the bytes, look the signature up, fetch the swap's result, and decide the outcome: the client's work."""
    async with open_chain_world() as world:
        attempts = [await _attempt(world, f"order {number}") for number in range(ORDERS)]
        tape = _Tape(LocalTransport(world.node, world.network), {})
        await _prove_all(world, tape, attempts)
        return _figure(await _own_cpu_s(_prove_all(world, _Tape(None, tape.answers), attempts)))


async def store_piece(stand: Stand, *, has_triggers: bool = True) -> dict[str, Any]:
    """Accept orders, claim them and write their outcomes: the worker's time, and all of PostgreSQL's."""
    url = await stand.postgres.create_database()
    store = SingleStore(await PostgresStore.open(url, None, lambda _events: None, 0))
    await store.pin_cluster(GENESIS)
    if not has_triggers:
        connection = await asyncpg.connect(url)
        for row in await connection.fetch(_TRIGGERS):
            await connection.execute(row[0])
        await connection.close()
    own_s = server_s = 0.0
    for number in range(1 + ORDERS // AT_ONCE):
        news = [new_order() for _ in range(AT_ONCE)]
        before_s = cpu_seconds(stand.postgres.pid)
        await asyncio.gather(*(store.accept(new) for new in news))
        used_s = await _own_cpu_s(_carry(store, [new.order.order_id for new in news]))
        if number:  # The first time also prepares statements and makes pages.
            own_s += used_s
            server_s += cpu_seconds(stand.postgres.pid) - before_s
    await store.close()
    await stand.postgres.drop_database(url)
    return _figure(own_s, server_s)


async def _carry(store: PostgresStore, order_ids: Sequence[Any]) -> None:
    lives = [Life(it.order, it.fence) for it in await store.claim("worker", order_ids, LONG_MS)]
    for life in lives:
        store.record(life.write(ROUTED))
        store.record(life.write(BUILT))
    await asyncio.gather(*(store.record(life.sign()) for life in lives))
    await asyncio.gather(*(store.record(life.settle(CONFIRMED, AttemptOutcome.LANDED)) for life in lives))


async def statement_piece(stand: Stand, step: str) -> dict[str, Any]:
    """Take one step of the order path with a statement for each order: PostgreSQL's time for each statement."""
    url = await stand.postgres.create_database()
    store = SingleStore(await PostgresStore.open(url, None, lambda _events: None, 0))
    await store.pin_cluster(GENESIS)
    own_s = server_s = 0.0
    for is_counted in (False, True):  # The first time also prepares statements and makes pages.
        orders = [_SingleSteps(store) for _ in range(ORDERS)]
        for name in _SingleSteps.NAMES:
            before_s = cpu_seconds(stand.postgres.pid)
            used_s = await _own_cpu_s(_one_by_one(getattr(it, name) for it in orders))
            if is_counted and name == step:
                own_s, server_s = used_s, cpu_seconds(stand.postgres.pid) - before_s
    await store.close()
    await stand.postgres.drop_database(url)
    return _figure(own_s, server_s)


async def _one_by_one(steps: Iterable[Callable[[], Awaitable[None]]]) -> None:
    for step in steps:
        await step()


class _SingleSteps:
    """The statements of one order, in the order in which they run."""

    NAMES = ("accept", "claim", "submit", "confirm")

    def __init__(self, store: SingleStore) -> None:
        self._store = store
        self._new = new_order()
        self._life = Life(self._new.order, None)

    async def accept(self) -> None:
        await self._store.accept(self._new)

    async def claim(self) -> None:
        [claim] = await self._store.claim("worker", [self._new.order.order_id], LONG_MS)
        self._life = Life(claim.order, claim.fence)

    async def submit(self) -> None:
        for fact in (ROUTED, BUILT):
            self._store.record(self._life.write(fact))
        await self._store.record(self._life.sign())

    async def confirm(self) -> None:
        await self._store.record(self._life.settle(CONFIRMED, AttemptOutcome.LANDED))


@dataclass
class _Tape:
    """A Transport that records a node's answers, or plays them back if it has no node."""

    node: LocalTransport | None
    answers: dict[bytes, bytes]

    async def post(self, body: bytes) -> bytes:
        if self.node is not None:
            self.answers[body] = await self.node.post(body)
        return self.answers[body]

    async def close(self) -> None:
        """There is nothing to close."""


async def _attempt(world: ChainWorld, memo: str) -> SignedAttempt:
    signed = await world.signed(memo)
    height, point = signed.last_valid_block_height, signed.signed_point
    return SignedAttempt(
        1,
        signed.signature,
        signed.raw,
        signed.owner,
        height,
        point,
        signed.blockhash_slot,
        world.clock.ms,
        signed.genesis_hash,
    )


async def _prove_all(world: ChainWorld, tape: _Tape, attempts: Sequence[SignedAttempt]) -> None:
    chain = SolanaChain(tape, world.clock, Genesis().keep)
    settlement = Settlement(chain, lambda: 0.0, _SLOW_S, _SLOW_S)
    for begin in range(0, len(attempts), AT_ONCE):
        await asyncio.gather(*(settlement.prove(it, USDC, 1, 0) for it in attempts[begin : begin + AT_ONCE]))
    await chain.close()


def _venues() -> list[PaperVenue]:
    market, faults = PaperMarket(1, REFERENCE_PRICES_USD), PaperFaults(0, 0)
    return [PaperVenue(terms.name, market, SystemClock(), faults, 1, WALLET.public_key) for terms in (RAYDIUM, METEORA)]


def _routed() -> Order:
    order = new_order().order
    return apply(order, ROUTED, order.created_at_ms)[0]


async def _own_cpu_s(work: Coroutine[Any, Any, None]) -> float:
    before_s = time.process_time()
    await work
    return time.process_time() - before_s


def _figure(worker_s: float, postgres_s: float | None = None) -> dict[str, Any]:
    """Return an order's processor time in microseconds; None where PostgreSQL does no work."""
    return {
        "worker_us": 1e6 * worker_s / ORDERS,
        "postgres_us": None if postgres_s is None else 1e6 * postgres_s / ORDERS,
        "refused": 0,
        "unconfirmed": 0,
        "gaps": 0,
    }
