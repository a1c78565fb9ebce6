"""Opens the databases."""

import contextlib
import secrets
import time
from collections.abc import AsyncIterator
from typing import Final

import asyncpg
import uuid_utils

from order_engine import observe
from order_engine.clock import SystemClock
from order_engine.domain.errors import WrongSchema
from order_engine.domain.order import OrderId
from order_engine.engine.callers import Callers
from order_engine.engine.pauses import Pauses
from order_engine.file_lock import lock_file, make_private
from order_engine.ports.access import AccessStore
from order_engine.ports.clock import Clock
from order_engine.ports.store import Announce
from order_engine.service import Repeated, lasting
from order_engine.settings import Settings, SettingsError
from order_engine.store.postgres.store import PostgresStore
from order_engine.store.sqlite.store import SqliteStore

# A sweep takes a new order only after 1 s: until then the ready queue should deliver it.
ANNOUNCE_GRACE_MS: Final = 1_000


async def migrate(settings: Settings) -> str:
    """Bring the database's schema up to date; returns the database's name, for example `PostgreSQL`."""
    async with contextlib.AsyncExitStack() as stack:
        await open_store(stack, settings, SystemClock(), lambda _events: None, "order-engine migrate")
    return store_name(settings)


@contextlib.asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[tuple[AccessStore, Callers]]:
    """Open keys, pauses and the audit log alone, beside a running engine."""
    clock = SystemClock()
    async with contextlib.AsyncExitStack() as stack:
        if settings.postgres is None:
            make_private(settings.sqlite_path)
        name = "order-engine operator"
        store = await _open_database(stack, settings, clock, lambda _events: None, name)
        access = store.access()
        yield access, _build_callers(access, clock)


async def open_callers(
    stack: contextlib.AsyncExitStack, store: PostgresStore | SqliteStore, clock: Clock
) -> tuple[AccessStore, Callers, Pauses]:
    """Return the keys and pauses, which are read again and again for as long as the stack is open."""
    access = store.access()
    callers, pauses = _build_callers(access, clock), Pauses(access)
    await callers.refresh()
    await pauses.look()
    await stack.enter_async_context(lasting(Repeated("look at API keys", callers.refresh)))
    await stack.enter_async_context(lasting(Repeated("look at pauses", pauses.look)))
    return access, callers, pauses


def _build_callers(access: AccessStore, clock: Clock) -> Callers:
    return Callers(access, clock, time.monotonic, new_order_id, secrets.token_bytes)


async def open_store(
    stack: contextlib.AsyncExitStack, settings: Settings, clock: Clock, announce: Announce, process_name: str
) -> PostgresStore | SqliteStore:
    """Connect to the database and migrate it; a SQLite file is locked for this process first."""
    if settings.postgres is None:
        lock_file(stack, settings.sqlite_path)
    store = await _open_database(stack, settings, clock, announce, process_name)
    if isinstance(store, SqliteStore):
        # No other process has the file, so every lease in it belongs to an earlier run of this engine.
        observe.leases_taken_back(await store.take_back_leases())
    return store


async def _open_database(
    stack: contextlib.AsyncExitStack, settings: Settings, clock: Clock, announce: Announce, process_name: str
) -> PostgresStore | SqliteStore:
    store: PostgresStore | SqliteStore
    if settings.postgres is not None:
        target = settings.postgres
        try:
            store = await PostgresStore.open(target.dsn, target.schema, announce, ANNOUNCE_GRACE_MS, process_name)
        except WrongSchema as error:
            raise SettingsError(f"DATABASE_URL cannot be used: {error}.") from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise SettingsError(
                f"The role in DATABASE_URL may do too little: PostgreSQL says {error}. As the owner of the database, "
                "run `order-engine migrate`, and grant the role the rights that docs/operation.md lists."
            ) from error
        except asyncpg.PostgresError as error:
            # The server answered with an error: for example, it does not know an option of the URL.
            raise SettingsError(f"DATABASE_URL cannot be used: PostgreSQL says {error}.") from error
    else:
        path = settings.sqlite_path
        try:
            store = await SqliteStore.open(path, clock, announce, ANNOUNCE_GRACE_MS)
        except WrongSchema as error:
            raise SettingsError(f"{path} cannot be used: {error}.") from error
    stack.push_async_callback(store.close)
    return store


def store_name(settings: Settings) -> str:
    """Return the name of the database for the log."""
    return "PostgreSQL" if settings.postgres else f"SQLite {settings.sqlite_path.absolute()}"


def new_order_id() -> OrderId:
    """Return a UUIDv7: unique, and sorted by time."""
    return OrderId(str(uuid_utils.uuid7()))
