"""OrderReader: every way to read stored orders."""

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from order_engine.domain.lifecycle import TERMINAL
from order_engine.domain.order import AttemptOutcome, Order, OrderId, OrderStatus
from order_engine.ports.store import InDoubtCount, OrderFilter
from tests.contracts.orders import (
    ACCOUNT,
    BONK,
    BUILT,
    CONFIRMED,
    CREATED_AT_MS,
    FAILED,
    ROUTED,
    SOL,
    USDC,
    SingleStore,
    attempt_of,
    claim_new,
    new_order,
    sign_new,
)
from tests.contracts.worlds import StoreWorld

pytestmark = pytest.mark.asyncio


async def test_another_accounts_order_looks_like_one_that_does_not_exist(world: StoreWorld) -> None:
    store = await world.open()
    new = new_order(account="other")
    await store.accept(new)
    assert await store.get("other", new.order.order_id) == new.order
    assert await store.get(ACCOUNT, new.order.order_id) is None
    assert await store.get(ACCOUNT, new_order().order.order_id) is None
    assert await store.find(OrderFilter(ACCOUNT), 10) == []


async def test_what_does_not_exist_has_no_history_and_no_attempts(world: StoreWorld) -> None:
    store = await world.open()
    unknown = new_order().order.order_id
    assert await store.history(unknown, 0) == []
    assert await store.attempts(unknown) == []
    assert await store.find_by_key(ACCOUNT, "key") is None
    await store.ping()


async def test_a_history_is_read_from_after_the_cursor(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    for fact in (ROUTED, BUILT, FAILED):
        await store.record(life.write(fact))
    order_id = life.order.order_id

    assert [event.seq for event in await store.history(order_id, 0)] == [1, 2, 3, 4]
    assert await store.history(order_id, 1) == life.events
    assert await store.history(order_id, 3) == life.events[2:]
    assert await store.history(order_id, 4) == []
    assert await store.history(order_id, 1_000_000) == []
    assert [event.elapsed_ms for event in life.events] == [7, 14, 21]


async def test_many_readers_at_once_each_read_after_their_own_cursor(world: StoreWorld) -> None:
    store = await world.open()
    lives = [await claim_new(store) for _ in range(5)]
    await asyncio.gather(*(store.record(life.write(fact)) for life in lives for fact in (ROUTED, BUILT, FAILED)))
    wanted = [(life, after) for after in (3, 0, 2, 4, 0) for life in lives]
    histories = await asyncio.gather(*(store.history(life.order.order_id, after) for life, after in wanted))

    for (life, after), history in zip(wanted, histories, strict=True):
        assert {event.order_id for event in history} <= {life.order.order_id}
        assert [event.seq for event in history] == [*range(after + 1, 5)]


# --- find ---


async def filled(store: SingleStore) -> list[Order]:
    """24 orders of one account that differ in every field of a filter, newest first."""
    orders = []
    for number in range(24):
        life = await claim_new(
            store,
            at_ms=CREATED_AT_MS + 1_000 * (number // 2),
            token_in=(SOL, USDC)[number % 2],
            token_out=(BONK, SOL, USDC)[number % 3],
            client_order_id=(None, "mine", "MINE", "yours")[number] if number < 4 else f"number {number}",
        )
        if fact := (None, ROUTED, FAILED)[number % 3]:
            await store.record(life.write(fact))
        orders.append(life.order)
        await store.accept(new_order(account="other", client_order_id="mine" if number == 1 else None))
    return sorted(orders, key=lambda order: order.order_id, reverse=True)


MOMENT = CREATED_AT_MS + 5_000
FILTERS: dict[str, tuple[dict[str, Any], Callable[[Order], bool]]] = {
    "everything": ({}, lambda _: True),
    "status": ({"status": OrderStatus.ROUTING}, lambda order: order.status is OrderStatus.ROUTING),
    "token in": ({"token_in": "USDC"}, lambda order: order.request.token_in == USDC),
    "token out": ({"token_out": "BONK"}, lambda order: order.request.token_out == BONK),
    "client's id": ({"client_order_id": "mine"}, lambda order: order.request.client_order_id == "mine"),
    "created after": ({"created_after_ms": MOMENT}, lambda order: order.created_at_ms > MOMENT),
    "created before": ({"created_before_ms": MOMENT}, lambda order: order.created_at_ms < MOMENT),
    "created between": (
        {"created_after_ms": MOMENT - 2_000, "created_before_ms": MOMENT},
        lambda order: MOMENT - 2_000 < order.created_at_ms < MOMENT,
    ),
    "ended after": (
        {"ended_after_ms": MOMENT},
        lambda order: order.status in TERMINAL and order.updated_at_ms > MOMENT,
    ),
    "ended before": (
        {"ended_before_ms": MOMENT},
        lambda order: order.status in TERMINAL and order.updated_at_ms < MOMENT,
    ),
    "ended between": (
        {"ended_after_ms": MOMENT - 3_000, "ended_before_ms": MOMENT + 3_000},
        lambda order: order.status in TERMINAL and MOMENT - 3_000 < order.updated_at_ms < MOMENT + 3_000,
    ),
    "ended, and not terminal": ({"ended_after_ms": 0, "status": OrderStatus.ROUTING}, lambda _: False),
    "several together": (
        {"status": OrderStatus.PENDING, "token_in": "SOL", "token_out": "BONK", "created_before_ms": MOMENT},
        lambda order: (
            order.status is OrderStatus.PENDING
            and order.request.token_in == SOL
            and order.request.token_out == BONK
            and order.created_at_ms < MOMENT
        ),
    ),
    "what nobody has": ({"status": OrderStatus.CONFIRMED}, lambda _: False),
}


async def test_every_filter_finds_what_matches_and_nothing_else_newest_first(world: StoreWorld) -> None:
    store = await world.open()
    orders = await filled(store)
    for name, (fields, matches) in FILTERS.items():
        assert await store.find(OrderFilter(ACCOUNT, **fields), 100) == [it for it in orders if matches(it)], name


async def test_the_cursor_pages_through_all_without_gap_or_duplicate(world: StoreWorld) -> None:
    store = await world.open()
    orders = await filled(store)
    for name, (fields, matches) in FILTERS.items():
        found: list[Order] = []
        before: OrderId | None = None
        while page := await store.find(OrderFilter(ACCOUNT, **fields, before=before), 5):
            assert len(page) <= 5
            found += page
            before = page[-1].order_id
            await store.accept(new_order())  # an order that arrives meanwhile is newer than every cursor
        assert found == [it for it in orders if matches(it)], name
        orders = await store.find(OrderFilter(ACCOUNT), 1_000)


async def test_the_cursor_stands_strictly_before_its_order_and_needs_no_order_there(world: StoreWorld) -> None:
    store = await world.open()
    one, between, two = new_order(), new_order(), new_order()
    for new in (two, one):
        await store.accept(new)
    assert await store.find(OrderFilter(ACCOUNT, before=two.order.order_id), 9) == [one.order]
    assert await store.find(OrderFilter(ACCOUNT, before=between.order.order_id), 9) == [one.order]
    assert await store.find(OrderFilter(ACCOUNT, before=one.order.order_id), 9) == []


async def test_a_filters_text_is_taken_literally(world: StoreWorld) -> None:
    store = await world.open()
    await store.accept(new_order(client_order_id="100%_sure"))
    for text in ("%", "100%", "100__sure", "' or '1'='1"):
        assert await store.find(msgspec.structs.replace(OrderFilter(ACCOUNT), client_order_id=text), 9) == []


async def test_attempts_without_an_outcome_are_told_oldest_first(world: StoreWorld) -> None:
    store = await world.open()
    assert await store.in_doubt(ACCOUNT, 10) == []
    assert await store.count_in_doubt() == InDoubtCount(0, 0)
    lives = [await sign_new(store) for _ in range(3)]
    await store.record(lives[1].settle(CONFIRMED, AttemptOutcome.LANDED))

    told = await store.in_doubt(ACCOUNT, 10)
    assert [it.order_id for it in told] == [lives[0].order.order_id, lives[2].order.order_id]
    assert told[0].attempt == attempt_of(lives[0].order)
    assert [it.order_id for it in await store.in_doubt(ACCOUNT, 1)] == [lives[0].order.order_id]
    assert await store.in_doubt("other", 10) == []
    counted = await store.count_in_doubt()
    assert counted.count == 2
    assert counted.oldest_ms > 0
