"""Keys, tickets, pauses and the audit log: both stores keep the contract of AccessStore."""

import asyncio
import hashlib
import secrets
from uuid import uuid4

import msgspec
import pytest
import pytest_asyncio

from order_engine.domain.access import ApiKey, Caller, Scope
from order_engine.domain.errors import Paused
from order_engine.domain.order import EpochMs
from order_engine.ports.access import AccessStore, Actor
from order_engine.ports.store import OrderFilter
from tests.contracts.orders import ACCOUNT, BUILT, LONG_MS, ROUTED, SingleStore, claim_new, new_order
from tests.contracts.raw import Refused, open_raw
from tests.contracts.worlds import PostgresWorld, SqliteWorld, StoreWorld

pytestmark = pytest.mark.asyncio

ADMIN = Actor(str(uuid4()), "127.0.0.1")
OPERATOR = Actor(None, "command line")


def new_key(**changes: object) -> tuple[ApiKey, bytes]:
    key = ApiKey(str(uuid4()), "desk", frozenset({Scope.READ, Scope.TRADE}), "a label", EpochMs(1_700_000_000_000))
    return msgspec.structs.replace(key, **changes), hashlib.sha256(secrets.token_bytes(32)).digest()


@pytest_asyncio.fixture
async def store(world: StoreWorld) -> SingleStore:
    return await world.open()


@pytest.fixture
def access(store: SingleStore) -> AccessStore:
    return store.access()


# --- keys ---


async def test_a_key_is_found_by_its_digest_alone(access: AccessStore) -> None:
    assert not await access.has_keys()
    key, digest = new_key()
    await access.create_key(key, digest, ADMIN)
    assert await access.has_keys()
    assert await access.find_key(digest) == key
    assert await access.find_key(hashlib.sha256(b"another").digest()) is None
    other, _ = new_key(scopes=frozenset({Scope.ADMIN}), expires_at_ms=EpochMs(1_700_000_000_001))
    await access.create_key(other, secrets.token_bytes(32), OPERATOR)
    assert sorted(it.key_id for it in await access.list_keys()) == sorted([key.key_id, other.key_id])


async def test_a_key_is_revoked_once_and_stays_in_the_list(access: AccessStore) -> None:
    key, digest = new_key()
    await access.create_key(key, digest, ADMIN)
    revoked = await access.revoke_key(key.key_id, ADMIN)
    assert revoked is not None
    assert revoked.revoked_at_ms is not None
    assert await access.revoke_key(key.key_id, ADMIN) == revoked == await access.find_key(digest)
    assert await access.revoke_key(str(uuid4()), ADMIN) is None
    assert await access.has_keys()
    assert [entry.action for entry in await access.audit(None, 10)] == ["key.revoke", "key.create"]


async def test_dead_keys_are_the_revoked_and_the_expired(access: AccessStore) -> None:
    living, revoked, expired = new_key(), new_key(), new_key(expires_at_ms=EpochMs(1))
    for key, digest in (living, revoked, expired):
        await access.create_key(key, digest, OPERATOR)
    await access.revoke_key(revoked[0].key_id, OPERATOR)
    wanted = [it[0].key_id for it in (living, revoked, expired)]
    assert await access.dead_keys([*wanted, str(uuid4())]) == {revoked[0].key_id, expired[0].key_id}
    assert await access.dead_keys([]) == set()


async def test_the_last_use_of_a_key_never_goes_back(access: AccessStore) -> None:
    key, digest = new_key()
    await access.create_key(key, digest, OPERATOR)
    for at_ms in (20, 10, 30):
        await access.note_used({key.key_id: EpochMs(at_ms), str(uuid4()): EpochMs(1)})
    found = await access.find_key(digest)
    assert found is not None
    assert found.last_used_at_ms == 30


@pytest.mark.parametrize(
    "change",
    [
        "update api_keys set scopes = 'admin'",
        "update api_keys set account = 'other'",
        "update api_keys set revoked_at_ms = null where revoked_at_ms is not null",
        "delete from api_keys",
        "update audit set action = 'nothing'",
        "delete from audit",
    ],
)
async def test_the_database_refuses_to_change_a_key_or_the_audit_log(
    world: PostgresWorld | SqliteWorld, access: AccessStore, change: str
) -> None:
    key, digest = new_key()
    await access.create_key(key, digest, OPERATOR)
    await access.revoke_key(key.key_id, OPERATOR)
    before = await access.list_keys(), await access.audit(None, 10)
    raw = await open_raw(world.url if isinstance(world, PostgresWorld) else world.path)
    with pytest.raises(Refused):
        await raw.run(change)
    await raw.close()
    assert (await access.list_keys(), await access.audit(None, 10)) == before


# --- tickets ---


async def test_a_ticket_is_redeemed_once(access: AccessStore) -> None:
    key, digest = new_key()
    await access.create_key(key, digest, OPERATOR)
    for caller in (key.caller, Caller("desk", frozenset({Scope.READ}))):
        ticket = secrets.token_bytes(32)
        await access.add_ticket(ticket, caller, LONG_MS)
        redeemed = await asyncio.gather(*(access.redeem_ticket(ticket) for _ in range(5)))
        assert [it for it in redeemed if it is not None] == [caller]
    assert await access.redeem_ticket(secrets.token_bytes(32)) is None


async def test_an_old_ticket_and_one_of_a_revoked_key_are_worth_nothing(world: StoreWorld, access: AccessStore) -> None:
    key, digest = new_key()
    await access.create_key(key, digest, OPERATOR)
    old, orphan = secrets.token_bytes(32), secrets.token_bytes(32)
    await access.add_ticket(old, key.caller, 20)
    await world.pass_ms(25)
    assert await access.redeem_ticket(old) is None
    await access.add_ticket(orphan, key.caller, LONG_MS)
    await access.revoke_key(key.key_id, OPERATOR)
    assert await access.redeem_ticket(orphan) is None


# --- pauses ---


@pytest.mark.parametrize("account", [ACCOUNT, None])
async def test_while_a_pause_is_on_nothing_is_accepted(
    store: SingleStore, access: AccessStore, account: str | None
) -> None:
    known = new_order("known")
    await store.accept(known)
    await access.pause("other", "not ours", OPERATOR)
    await access.pause(account, "wrong prices", OPERATOR)
    with pytest.raises(Paused):
        await store.accept(new_order())
    assert (await store.accept(msgspec.structs.replace(new_order(), idempotency=known.idempotency))).is_replay
    assert sorted(it.reason for it in await access.pauses()) == ["not ours", "wrong prices"]
    assert await access.resume(account, OPERATOR)
    assert not await access.resume(account, OPERATOR)
    assert not (await store.accept(new_order())).is_replay
    assert [entry.action for entry in await access.audit(None, 3)] == ["resume", "pause", "pause"]


async def test_while_a_pause_is_on_nothing_is_signed_and_what_is_signed_is_proven(
    store: SingleStore, access: AccessStore
) -> None:
    signed, unsigned = await claim_new(store), await claim_new(store)
    for life in (signed, unsigned):
        await store.record(life.write(ROUTED))
        await store.record(life.write(BUILT))
    await store.record(signed.sign())
    await access.pause(ACCOUNT, "", OPERATOR)
    with pytest.raises(Paused):
        await store.record(unsigned.sign())
    assert await store.attempts(unsigned.order.order_id) == []
    order_ids = [it.order.order_id for it in (signed, unsigned)]
    await store.release("worker", {it.order.order_id: it.fence or 0 for it in (signed, unsigned)})
    assert [it.order.order_id for it in await store.claim_due("worker", 10, LONG_MS)] == order_ids[:1]
    assert await store.claim("worker", order_ids, LONG_MS) == []
    await access.resume(ACCOUNT, OPERATOR)
    assert [it.order.order_id for it in await store.claim_due("worker", 10, LONG_MS)] == order_ids[1:]


async def test_after_the_answer_of_a_pause_no_order_is_accepted(world: StoreWorld) -> None:
    stores = [await world.open() for _ in range(3)]
    access = stores[0].access()
    begun = asyncio.Event()
    accepted: list[float] = []
    loop = asyncio.get_running_loop()

    async def place(store: SingleStore) -> None:
        while True:
            try:
                await store.accept(new_order())
            except Paused:
                return
            accepted.append(loop.time())
            begun.set()

    placing = [asyncio.create_task(place(store)) for store in stores for _ in range(10)]
    await begun.wait()
    await access.pause(None, "stop", OPERATOR)
    count = len(await stores[1].find(OrderFilter(ACCOUNT), 100_000))
    await asyncio.gather(*placing)
    assert len(await stores[1].find(OrderFilter(ACCOUNT), 100_000)) == count


# --- the audit log ---


async def test_the_audit_log_is_read_in_pages_newest_first(access: AccessStore) -> None:
    for number in range(5):
        await access.note_audit("limits.change", f"account {number}", msgspec.Raw(b'{"is":"kept"}'), ADMIN)
    first = await access.audit(None, 2)
    rest = await access.audit(first[-1].number, 10)
    assert [entry.subject for entry in [*first, *rest]] == [f"account {it}" for it in (4, 3, 2, 1, 0)]
    assert first[0].actor == ADMIN
    assert bytes(first[0].details) == b'{"is":"kept"}'
