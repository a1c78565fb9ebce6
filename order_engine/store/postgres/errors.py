"""The meaning of PostgreSQL's errors for a session, for a statement, and in words.

Three questions: is the database unavailable to us (LOST, MOVED_ON)? Is the session useless now (`ends_session`,
`ends_all_sessions`)? Was nothing done, so that the statement may run again (`is_repeatable`)?
"""

import ssl
from typing import Final

import asyncpg

from order_engine.domain.errors import StoreUnavailable

# The server did not answer or is not able to; the statement is not at fault.
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
    asyncpg.PostgresSystemError,
    asyncpg.InternalServerError,
    asyncpg.SerializationError,
    asyncpg.StatementCompletionUnknownError,
    asyncpg.DeadlockDetectedError,
    asyncpg.ObjectNotInPrerequisiteStateError,
    asyncpg.SnapshotTooOldError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.OutdatedSchemaCacheError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)
# The schema was complete when the store was opened. If a part is missing or forbidden now, this session is connected to
# another server or to a replaced database.
MOVED_ON: Final = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.UndefinedObjectError,
    asyncpg.InvalidSchemaNameError,
    asyncpg.InsufficientPrivilegeError,
)

# Nothing was done, and it passes by itself: conflicts with others, and a statement that was cancelled.
_PASSING: Final = (
    asyncpg.SerializationError,
    asyncpg.DeadlockDetectedError,
    asyncpg.LockNotAvailableError,
    asyncpg.QueryCanceledError,
    asyncpg.SnapshotTooOldError,
)
# The server takes no writes; 55000 is the code of statements that a standby cannot execute.
_READ_ONLY: Final = (asyncpg.ReadOnlySQLTransactionError, asyncpg.ObjectNotInPrerequisiteStateError)
# Only this session is useless now, and nothing was done: PostgreSQL ends a statement before its commit
# or not at all, so an error that names the shutdown (57P01) says that there was no commit. A broken connection (08xxx)
# or a crash (57P02) does not say that, so such a statement is not repeated.
_STALE_SESSION: Final = (
    asyncpg.AdminShutdownError,
    asyncpg.IdleSessionTimeoutError,
    asyncpg.InvalidTransactionStateError,
    asyncpg.InvalidCachedStatementError,
    asyncpg.InvalidSQLStatementNameError,
    asyncpg.DuplicatePreparedStatementError,
)


def told_by_server(error: BaseException) -> BaseException:
    """Return the server's last words if the connection ended with some, as when it is shut down."""
    is_wrapped = isinstance(error, asyncpg.ConnectionDoesNotExistError)
    return error.__cause__ if is_wrapped and isinstance(error.__cause__, asyncpg.PostgresError) else error


def ends_session(error: BaseException) -> bool:
    """Return whether the session that this came from must not be used again."""
    return isinstance(error, (*LOST, *MOVED_ON)) and not isinstance(error, _PASSING)


def ends_all_sessions(error: BaseException) -> bool:
    """Return whether every session has ended, like this one, or leads to a server that is no longer the right one."""
    is_read_only = isinstance(error, _READ_ONLY) and not isinstance(error, _PASSING)
    has_left = isinstance(error, (*MOVED_ON, asyncpg.AdminShutdownError, asyncpg.DatabaseDroppedError))
    return is_read_only or has_left or _was_not_sent(error)


def is_passing(error: BaseException) -> bool:
    """Return whether the same session may run the statement again after a pause."""
    return isinstance(error, _PASSING)


def is_repeatable(error: BaseException) -> bool:
    """Return whether the server said that nothing was done, so that the statement may run once more."""
    return isinstance(error, (*_PASSING, *_READ_ONLY, *_STALE_SESSION)) or _was_not_sent(error)


def _was_not_sent(error: BaseException) -> bool:
    """Return whether the driver refused to send, because the server had just ended the idle session."""
    return isinstance(error, asyncpg.InternalClientError) and str(error).startswith("cannot switch to state")


def unavailable(error: BaseException) -> StoreUnavailable:
    """Return the error for the store's callers: the cause, and the remedy if the owner must act."""
    words = " ".join(str(error).split()) or type(error).__name__
    return StoreUnavailable(f"{_what_happened(error, words)}: {words}{_what_to_do(error, words)}")


def _what_happened(error: BaseException, words: str) -> str:
    return next((said for kinds, said in _SAID if isinstance(error, kinds)), None) or (
        "PostgreSQL refuses TLS" if "rejected SSL upgrade" in words else "PostgreSQL does not answer"
    )


_SAID: Final[tuple[tuple[type[BaseException] | tuple[type[BaseException], ...], str], ...]] = (
    (asyncpg.InvalidPasswordError, "PostgreSQL refuses the password"),
    (asyncpg.InvalidAuthorizationSpecificationError, "PostgreSQL does not let this client in"),
    (asyncpg.InvalidCatalogNameError, "PostgreSQL does not have this database"),
    (asyncpg.TooManyConnectionsError, "PostgreSQL has too many connections"),
    (asyncpg.CannotConnectNowError, "PostgreSQL is not ready"),
    (asyncpg.InsufficientResourcesError, "PostgreSQL is out of disk, memory or another resource"),
    (asyncpg.TargetServerAttributeNotMatched, "No server that DATABASE_URL names takes writes"),
    (asyncpg.ClientConfigurationError, "DATABASE_URL cannot be used"),
    (_PASSING, "PostgreSQL is busy"),
    (_READ_ONLY, "PostgreSQL takes no writes"),
    (asyncpg.InsufficientPrivilegeError, "PostgreSQL does not let this role do it any more"),
    (MOVED_ON, "PostgreSQL serves another database than the one that was opened"),
    (ssl.SSLError, "TLS with PostgreSQL fails"),
)


def _what_to_do(error: BaseException, words: str) -> str:
    if isinstance(error, asyncpg.InvalidPasswordError):
        return "; correct the user and the password in DATABASE_URL"
    if isinstance(error, asyncpg.InvalidCatalogNameError):
        return "; create it, or correct DATABASE_URL"
    if "no encryption" in words:
        return "; perhaps it wants TLS: add sslmode=require to DATABASE_URL"
    if "rejected SSL upgrade" in words:
        return "; remove sslmode from DATABASE_URL, or turn on TLS there"
    if "unsupported startup parameter" in words:
        return "; this is a pooler: name the database's direct address in DATABASE_URL"
    return ""
