"""HealthStore: live processes, waiting orders and orders in doubt."""

import asyncpg
import pytest

from order_engine.domain.errors import StoreUnavailable
from order_engine.ports.health import MAX_COUNTED_WAITING, ChainState, Heartbeat
from tests.contracts.orders import claim_new, new_order, sign_new
from tests.contracts.worlds import PostgresWorld, StoreWorld

pytestmark = pytest.mark.asyncio


async def test_a_heartbeat_is_read_as_it_was_written_and_replaces_the_one_before(world: StoreWorld) -> None:
    store, other = await world.open(), await world.open()
    worker = Heartbeat("worker 1", "worker", ChainState("does not answer", 1_234))
    await store.beat(worker)
    await other.beat(Heartbeat("api 1", "api"))
    again = Heartbeat("worker 1", "worker", ChainState(None, 1_300))
    await store.beat(again)
    seen = {it.heartbeat.process_name: it for it in (await other.health()).processes}
    assert {name: it.heartbeat for name, it in seen.items()} == {
        "worker 1": again,
        "api 1": Heartbeat("api 1", "api"),
    }
    assert all(0 <= it.seen_ago_ms < 60_000 for it in seen.values())


async def test_what_waits_and_what_is_in_doubt_is_counted(world: StoreWorld) -> None:
    store = await world.open(grace_ms=0)
    nothing = await store.health()
    assert (nothing.waiting, nothing.oldest_due_ms, nothing.in_doubt, nothing.oldest_in_doubt_ms) == (0, 0, 0, 0)
    for _ in range(3):
        await store.accept(new_order())
    await claim_new(store)
    await sign_new(store)
    await world.pass_ms(20)
    found = await store.health()
    assert (found.waiting, found.in_doubt) == (3, 1)
    assert found.oldest_due_ms >= 20
    assert found.oldest_in_doubt_ms > 0
    assert found.waiting < MAX_COUNTED_WAITING


DISK_FULL = """
create function fill() returns trigger language plpgsql as $$
begin raise exception 'could not extend file' using errcode = 'disk_full'; end $$;
create trigger fill before insert on orders for each row execute function fill()
"""


async def test_orders_that_cannot_be_stored_are_noticed_although_the_heartbeat_can(
    postgres_world: PostgresWorld,
) -> None:
    store = await postgres_world.open()
    await store.accept(new_order())
    assert store.write_trouble is None
    connection = await asyncpg.connect(postgres_world.url)
    await connection.execute(DISK_FULL)
    with pytest.raises(StoreUnavailable):
        await store.accept(new_order())
    await store.beat(Heartbeat("api 1", "api"))
    assert "out of disk" in str(store.write_trouble)
    await connection.execute("drop trigger fill on orders")
    await connection.close()
    await store.accept(new_order())
    assert store.write_trouble is None
