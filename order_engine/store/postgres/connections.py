"""Sessions of one PostgreSQL database: opened when they are needed, kept for reuse, replaced when they are lost."""

import asyncio
import contextlib
import random
from collections.abc import Mapping, Sequence
from typing import Any, Final, Self
from urllib.parse import urlsplit, urlunsplit

import asyncpg

from order_engine.store.postgres.errors import (
    LOST,
    MOVED_ON,
    ends_all_sessions,
    ends_session,
    is_passing,
    is_repeatable,
    told_by_server,
    unavailable,
)

_MAX_SESSIONS: Final = 4
# A frozen server neither answers nor refuses. So these limit a caller's wait to about 5 s: for a free or new session,
# for the statement, and for its cancellation.
_ACQUIRE_TIMEOUT_S: Final = 2.0
_COMMAND_TIMEOUT_S: Final = 3.0
_CLOSE_TIMEOUT_S: Final = 1.5

# A statement that is prepared while the tables are small would get a plan that reads whole tables, and keep it when
# they have grown. Every statement here finds its rows by an index. A disabled plan gets a huge cost, which would
# trigger JIT compilation (about 100 ms); so JIT is off.
_PLANNER: Final = {
    "enable_seqscan": "off",
    "enable_hashjoin": "off",
    "enable_mergejoin": "off",
    "jit": "off",
    # Otherwise PostgreSQL plans most statements again at each call: 100 to 170 µs for an accept or a claim.
    "plan_cache_mode": "force_generic_plan",
}

# Keeps a firewall or load balancer from dropping a session that is idle for days.
_KEEPALIVE: Final = {"tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10"}

# A statement that met a conflict is tried again after these pauses, each plus a random time of up to its own length, so
# that two statements do not conflict again. Together they are shorter than the time limit of a statement.
_PAUSES_S: Final = (0.01, 0.05, 0.2, 0.5)


class Sessions:
    """A few sessions for one process. Each statement is a transaction, so none leaves a transaction open."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]", *, has_choice: bool = False) -> None:
        """The pool opens, bounds and ends sessions; see `open`. `has_choice`: there is more than one server."""
        self._pool = pool
        self._has_choice = has_choice
        # Acquiring and releasing a session costs more time than a small statement, so a session stays here for the next
        # statement unless it failed or another caller waits for the pool.
        self._at_hand: list[Any] = []
        # Sessions of an earlier generation are connected to a server that is no longer used.
        self._generation = 0
        self._waiting = 0

    @classmethod
    async def open(cls, dsn: str, settings: Mapping[str, str]) -> Self:
        """Prepare to connect, with these settings of the server; raises one of LOST."""
        options: dict[str, Any] = {
            "connect": connect,
            "timeout": _ACQUIRE_TIMEOUT_S,
            "command_timeout": _COMMAND_TIMEOUT_S,
            "server_settings": {**settings, **_PLANNER, **_KEEPALIVE},
            "reset": _keep_session,
        }
        pool = await asyncpg.create_pool(dsn, min_size=0, max_size=_MAX_SESSIONS, **options)
        return cls(pool, has_choice=len(_each_server(dsn)) > 1)

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Run one statement and return its rows.

        If the server says that nothing was done, the statement runs again: after a pause if that was a
        conflict, and once on a new session if this one or its server is not the right one any more.

        Raises StoreUnavailable if the server does not answer (the statement may have been executed), and PostgresError
        if it refused.
        """
        loop = asyncio.get_running_loop()
        end_s = loop.time() + _COMMAND_TIMEOUT_S
        pauses = iter(_PAUSES_S)
        is_on_new_session = False
        try:
            while True:
                try:
                    return await self._fetch_once(statement, values)
                except (asyncpg.InternalClientError, asyncpg.PostgresError) as caught:
                    error = told_by_server(caught)
                    if is_passing(error):
                        if (pause_s := next(pauses, None)) is None or loop.time() > end_s:
                            raise
                        await asyncio.sleep(pause_s * (1 + random.random()))  # noqa: S311 - chance, not secrecy
                    elif is_on_new_session or not is_repeatable(error):
                        raise
                    else:
                        is_on_new_session = True
        except (*LOST, *MOVED_ON) as error:
            raise unavailable(told_by_server(error)) from error

    async def _fetch_once(self, statement: str, values: Sequence[Any]) -> list[asyncpg.Record]:
        session = await self._take()
        generation = self._generation
        is_well = False
        try:
            rows: list[asyncpg.Record] = await session.fetch(statement, *values)
            is_well = True
        except (asyncpg.InternalClientError, asyncpg.PostgresError) as error:
            is_well = not ends_session(error)
            if ends_all_sessions(told_by_server(error)):
                await self._leave_server(generation)
            if not is_well:
                # Also when the driver lost its place because the server died in the middle of an answer.
                _end(session)
            raise
        finally:
            if is_well and not self._waiting and generation == self._generation:
                self._at_hand.append(session)
            else:
                # Waits until the server has heard a statement's cancellation, as long as acquiring may take. If that
                # fails, the pool has ended the session; the result of the statement stays the same.
                with contextlib.suppress(*LOST):
                    await self._pool.release(session)
        return rows

    async def _leave_server(self, generation: int) -> None:
        """End every session of this generation, the ones in use as soon as their statements end."""
        if generation != self._generation:
            return
        self._generation += 1
        await self._pool.expire_connections()
        while self._at_hand:
            session = self._at_hand.pop()
            _end(session)
            with contextlib.suppress(*LOST):
                await self._pool.release(session)

    async def close(self) -> None:
        """Disconnect."""
        self._waiting += 1  # The pool itself, for all that are still in use.
        while self._at_hand:
            await self._pool.release(self._at_hand.pop())
        try:
            await asyncio.wait_for(self._pool.close(), _CLOSE_TIMEOUT_S)
        except TimeoutError:
            self._pool.terminate()

    async def _take(self) -> Any:
        while self._at_hand:
            session = self._at_hand.pop()
            if not _is_lost(session):
                if not (self._has_choice and _is_read_only(session)):
                    return session
                # Reads must also go to the server that takes writes, because a standby may be behind.
                _end(session)
            await self._pool.release(session)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S)
        finally:
            self._waiting -= 1


async def connect(dsn: str, *, timeout: float, **options: Any) -> "asyncpg.Connection[asyncpg.Record]":
    """Connect to the first suitable server of the URL; raises one of LOST, that of the last server.

    Each server gets an equal share of the time, so that one that drops packets leaves time for the others.
    """
    one_by_one = _each_server(dsn)
    for number, server in enumerate(one_by_one, 1):
        try:
            return await asyncpg.connect(server, timeout=timeout / len(one_by_one), **options)
        except LOST:
            if number == len(one_by_one):
                raise
    raise AssertionError  # There is at least one server.


def _each_server(dsn: str) -> list[str]:
    parts = urlsplit(dsn)
    user, at, hosts = parts.netloc.rpartition("@")
    return [urlunsplit(parts._replace(netloc=f"{user}{at}{host}")) for host in hosts.split(",")]


def _end(session: Any) -> None:
    with contextlib.suppress(
        asyncpg.InterfaceError
    ):  # The pool has taken it back, as it does with a session that ended.
        session.terminate()


def _is_lost(session: Any) -> bool:
    try:
        return bool(session.is_closed())
    except asyncpg.InterfaceError:
        return True  # The pool has taken it back, as it does with a session that ended.


def _is_read_only(session: Any) -> bool:
    """Return whether the server has said since that it takes no writes: it reports these two by itself."""
    reported = session.get_settings()
    names = ("default_transaction_read_only", "in_hot_standby")
    return any(getattr(reported, name, "off") == "on" for name in names)


async def _keep_session(_connection: Any) -> None:
    """Spare the round trip that resets a session: nothing here changes one."""
