"""Sessions of one PostgreSQL database: opened when they are needed, kept at hand, replaced when they are lost."""

import asyncio
import contextlib
from collections.abc import Mapping
from typing import Any, Final, Self

import asyncpg

from order_engine.domain.errors import StoreUnavailable

_MOST_SESSIONS: Final = 4
# A server that is frozen answers nothing and refuses nothing: together these bound what a caller
# waits to about five seconds. A session's turn, or a new one; the statement; its cancellation.
_ACQUIRE_TIMEOUT_S: Final = 2.0
_COMMAND_TIMEOUT_S: Final = 3.0
_CLOSE_TIMEOUT_S: Final = 1.5

# The plan of a statement that is prepared while the tables are small would join by reading them
# whole, and keep doing so when they have grown. Every statement here finds its rows by an index.
# Forbidden plans count as dear ones, which PostgreSQL would spend a tenth of a second to compile.
_PLANNER: Final = {"enable_seqscan": "off", "enable_hashjoin": "off", "enable_mergejoin": "off", "jit": "off"}

# A session that is at hand for days must not be forgotten by a firewall or a balancer in between.
_KEEPALIVE: Final = {"tcp_keepalives_idle": "60", "tcp_keepalives_interval": "10"}

# What says that the server did not answer, rather than that the statement was wrong.
LOST: Final = (
    OSError,
    TimeoutError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.OperatorInterventionError,
    asyncpg.ReadOnlySQLTransactionError,
)


class Sessions:
    """A few sessions for one process. A statement is a transaction: none leaves anything open behind it."""

    def __init__(self, pool: "asyncpg.Pool[asyncpg.Record]") -> None:
        """The pool opens, bounds and ends sessions; see `open`."""
        self._pool = pool
        # To lend a session and take it back costs the pool more than a small statement costs us, so
        # a session that did well stays here for the next one, unless somebody waits for the pool.
        self._at_hand: list[Any] = []
        self._waiting = 0

    @classmethod
    async def open(cls, dsn: str, settings: Mapping[str, str]) -> Self:
        """Prepare to connect, with these settings of the server; raises one of LOST."""
        pool = await asyncpg.create_pool(
            dsn,
            min_size=0,
            max_size=_MOST_SESSIONS,
            timeout=_ACQUIRE_TIMEOUT_S,
            command_timeout=_COMMAND_TIMEOUT_S,
            server_settings={**settings, **_PLANNER, **_KEEPALIVE},
            reset=_keep_session,
        )
        return cls(pool)

    async def fetch(self, statement: str, *values: Any) -> list[asyncpg.Record]:
        """Run one statement and return its rows.

        Raises StoreUnavailable when the server does not answer, whatever became of the statement,
        and PostgresError when it refused.
        """
        try:
            session = await self._take()
            is_well = False
            try:
                rows: list[asyncpg.Record] = await session.fetch(statement, *values)
                is_well = True
            except asyncpg.InternalClientError:
                # The server died in the middle of an answer, and the driver lost its place.
                session.terminate()
                raise
            except asyncpg.PostgresError as error:
                is_well = not isinstance(error, LOST)
                raise
            finally:
                if is_well and not self._waiting:
                    self._at_hand.append(session)
                else:
                    # Waits until a statement's cancellation is heard, as long as acquiring may take. If
                    # that fails, the pool has ended the session; what became of the statement stays as it is.
                    with contextlib.suppress(*LOST):
                        await self._pool.release(session)
        except LOST as error:
            raise unavailable(error) from error
        return rows

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
                return session
            await self._pool.release(session)
        self._waiting += 1
        try:
            return await self._pool.acquire(timeout=_ACQUIRE_TIMEOUT_S)
        finally:
            self._waiting -= 1


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return what the store's callers are told."""
    return StoreUnavailable(f"PostgreSQL does not answer: {str(error) or type(error).__name__}")


def _is_lost(session: Any) -> bool:
    try:
        return bool(session.is_closed())
    except asyncpg.InterfaceError:
        return True  # The pool has taken it back, as it does with a session that ended.


async def _keep_session(_connection: Any) -> None:
    """Spare the round trip that resets a session: nothing here changes one."""
