"""OrderStore and OrderReader when the database is away, and at the end."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from order_engine.domain.errors import Fenced, StoreUnavailable
from order_engine.ports.store import Accepted, OrderFilter
from order_engine.store.postgres.store import PostgresStore
from order_engine.store.sqlite.store import SqliteStore
from tests.contracts.orders import (
    ACCOUNT,
    BUILT,
    LONG_MS,
    ROUTED,
    Life,
    SingleStore,
    claim_new,
    kept,
    new_order,
    outcome_of,
)
from tests.contracts.waiting import PATIENCE_S, until
from tests.contracts.worlds import MortalPostgres, PostgresWorld, SteppedClock, StoreWorld

pytestmark = pytest.mark.asyncio

TURNS_OF_CLOSING = 100
MAX_FROZEN_S = 9.0  # The time limits of one statement, and a margin.


def every_call(store: SingleStore, life: Life) -> dict[str, Callable[[], Any]]:
    """Every method of both ports, called for one order."""
    order_id, fence = life.order.order_id, life.fence or 0
    return {
        "accept": lambda: store.accept(new_order()),
        "claim": lambda: store.claim("worker", [order_id], LONG_MS),
        "claim_due": lambda: store.claim_due("worker", 10, LONG_MS),
        "renew": lambda: store.renew("worker", {order_id: fence}, LONG_MS),
        "release": lambda: store.release("another", {order_id: fence}),
        "record": lambda: store.record(Life(life.order, fence).write(ROUTED)),
        "get": lambda: store.get(ACCOUNT, order_id),
        "attempts": lambda: store.attempts(order_id),
        "history": lambda: store.history(order_id, 0),
        "find": lambda: store.find(OrderFilter(ACCOUNT), 10),
        "find_by_key": lambda: store.find_by_key(ACCOUNT, "key"),
        "ping": store.ping,
    }


async def answer_to(call: Callable[[], Any]) -> object:
    return await outcome_of(call())


async def answers_again(store: SingleStore) -> None:
    """Wait until the store has noticed that its database is back; it may raise only StoreUnavailable before."""

    async def look() -> bool:
        try:
            await store.ping()
        except StoreUnavailable:
            return False
        return True

    await until(look)


async def test_a_killed_postgres_makes_every_call_say_so_and_all_work_when_it_is_back(
    mortal_postgres: MortalPostgres,
) -> None:
    world = PostgresWorld(mortal_postgres.url)
    store = await world.open()
    life = await claim_new(store, key="key")
    calls = every_call(store, life)

    for _ in range(2):
        mortal_postgres.kill()
        for name, call in calls.items():
            assert isinstance(await outcome_of(call()), StoreUnavailable), name
        together = await asyncio.gather(*(outcome_of(call()) for call in calls.values() for _ in range(8)))
        assert {type(it) for it in together} == {StoreUnavailable}
        with pytest.raises(StoreUnavailable):
            await world.open()

        mortal_postgres.start()
        await answers_again(store)
        assert await store.get(ACCOUNT, life.order.order_id) == life.order

    for name, call in calls.items():
        assert not isinstance(await outcome_of(call()), Exception), name
    life.write(ROUTED)
    assert await store.get(ACCOUNT, life.order.order_id) == life.order
    await world.close()


async def test_a_frozen_postgres_is_unavailable_within_seconds_and_found_again(mortal_postgres: MortalPostgres) -> None:
    world = PostgresWorld(mortal_postgres.url)
    store = await world.open()
    life = await claim_new(store, key="key")
    calls = every_call(store, life)
    mortal_postgres.pause()
    try:
        # The first calls hang on open connections, the second calls while they open new ones.
        for _ in range(2):
            async with asyncio.timeout(MAX_FROZEN_S):
                answers = await asyncio.gather(*(outcome_of(call()) for call in calls.values()))
            assert {type(it) for it in answers} == {StoreUnavailable}
    finally:
        mortal_postgres.resume()
    await answers_again(store)
    for name, call in calls.items():
        assert not isinstance(await outcome_of(call()), Exception), name
    await world.close()


async def test_a_caller_who_gives_up_on_a_frozen_postgres_has_given_up(mortal_postgres: MortalPostgres) -> None:
    world = PostgresWorld(mortal_postgres.url)
    store = await world.open()
    await store.ping()
    mortal_postgres.pause()
    try:
        asking = asyncio.create_task(store.ping())
        await asyncio.sleep(0.1)
        asking.cancel()
        async with asyncio.timeout(MAX_FROZEN_S):
            await asyncio.wait([asking])
        assert asking.cancelled()
    finally:
        mortal_postgres.resume()
    await answers_again(store)
    await world.close()


async def test_what_was_committed_before_the_kill_is_kept(mortal_postgres: MortalPostgres) -> None:
    world = PostgresWorld(mortal_postgres.url)
    store = await world.open()
    wanted = [new_order(f"key {number}") for number in range(400)]
    accepting = [asyncio.ensure_future(outcome_of(store.accept(new))) for new in wanted]
    await asyncio.wait(accepting, return_when=asyncio.FIRST_COMPLETED)
    mortal_postgres.kill()
    answers = await asyncio.gather(*accepting)
    mortal_postgres.start()
    await answers_again(store)

    assert {type(answer) for answer in answers} <= {Accepted, StoreUnavailable}
    kept_orders = {order.order_id for order in await store.find(OrderFilter(ACCOUNT), 1_000)}
    assert {it.order.order_id for it in answers if isinstance(it, Accepted)} <= kept_orders
    again = await asyncio.gather(*(store.accept(new_order(f"key {number}")) for number in range(400)))
    assert {it.order.order_id for it in again if it.is_replay} == kept_orders
    await world.close()


async def test_a_postgres_that_is_not_there_cannot_be_opened(mortal_postgres: MortalPostgres) -> None:
    mortal_postgres.kill()
    with pytest.raises(StoreUnavailable):
        await PostgresStore.open(mortal_postgres.url, None, lambda _: None, 0)


@pytest.mark.parametrize("prepare", [Path.touch, Path.mkdir, lambda path: path.write_bytes(b"not SQLite" * 1_000)])
async def test_a_path_that_is_no_sqlite_file_cannot_be_opened(
    tmp_path: Path, prepare: Callable[[Path], object]
) -> None:
    path = tmp_path / "file"
    prepare(path)
    at = path / "below" if path.is_file() and not path.stat().st_size else path
    with pytest.raises(StoreUnavailable):
        await SqliteStore.open(at, SteppedClock(), lambda _: None, 0)


# --- the end ---


async def test_closing_finishes_what_was_queued(world: StoreWorld) -> None:
    store = await world.open()
    lives = [await claim_new(store) for _ in range(20)]
    for life in lives:
        store.record(life.write(ROUTED))
        store.record(life.write(BUILT))
    await store.close()

    again = await world.open()
    for life in lives:
        order, history, _ = await kept(again, life.order.order_id)
        assert order == life.order
        assert [event.seq for event in history] == [1, 2, 3]


async def test_a_closed_store_says_that_it_is_unavailable(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    await store.close()
    for name, call in every_call(store, life).items():
        assert isinstance(await outcome_of(call()), StoreUnavailable), name
    await store.close()


async def test_what_is_asked_while_the_store_closes_is_answered_one_way_or_the_other(world: StoreWorld) -> None:
    store = await world.open()
    life = await claim_new(store)
    calls = [*every_call(store, life).values()]
    closing = asyncio.ensure_future(store.close())
    asked: list[asyncio.Future[object]] = []
    for _ in range(TURNS_OF_CLOSING):
        asked += [asyncio.ensure_future(answer_to(call)) for call in calls]
        await asyncio.sleep(0)
    await closing

    done, unanswered = await asyncio.wait(asked, timeout=PATIENCE_S / 4)
    for future in unanswered:
        future.cancel()
    assert len(unanswered) == 0
    errors = {type(it.result()) for it in done if isinstance(it.result(), Exception)}
    assert errors <= {StoreUnavailable, Fenced}
