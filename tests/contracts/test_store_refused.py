"""The error says why PostgreSQL cannot be used, and no error contains a password."""

import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import asyncpg
import pytest
import pytest_asyncio

from order_engine.domain.errors import StoreUnavailable
from order_engine.store.postgres.errors import unavailable
from order_engine.store.postgres.store import PostgresStore
from tests.contracts.waiting import until
from tests.contracts.worlds import MortalPostgres

pytestmark = pytest.mark.asyncio

RULES = """
host all secretive 127.0.0.1/32 scram-sha-256
host all unwanted 127.0.0.1/32 reject
hostssl all encrypted 127.0.0.1/32 trust
host all encrypted 127.0.0.1/32 reject
"""


class Rules:
    """A server's pg_hba.conf: which roles may connect, how and from where."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._before = file.read_text()

    def begin_with(self, more: str) -> None:
        self._file.write_text(more + self._before)


@pytest_asyncio.fixture
async def roles(mortal_postgres: MortalPostgres) -> AsyncIterator[str]:
    """The host, port and database of a server that accepts some roles and refuses others."""
    administrator = mortal_postgres.server.as_administrator(mortal_postgres.url)
    connection = await asyncpg.connect(administrator)
    hba = Rules(Path(await connection.fetchval("show hba_file")))
    count = "select count(*) from pg_hba_file_rules where user_name && '{secretive}'"
    try:
        for role in ("secretive", "unwanted", "encrypted", "crowded"):
            await connection.execute(f"create role {role} login")
        await connection.execute("alter role secretive password 'right'")
        await connection.execute("alter role crowded connection limit 0")
        hba.begin_with(RULES)
        await connection.execute("select pg_reload_conf()")
        await until(lambda: connection.fetchval(count))
        parts = urlsplit(mortal_postgres.url)
        yield parts.netloc.rpartition("@")[2] + parts.path
    finally:
        hba.begin_with("")
        await connection.execute("select pg_reload_conf()")
        for role in ("secretive", "unwanted", "encrypted", "crowded"):
            await connection.execute(f"drop owned by {role}; drop role {role}")
        await connection.close()


@pytest.mark.parametrize(
    ("user", "options", "sentence"),
    [
        ("secretive:wr0ng", "", 'PostgreSQL refuses the password: password authentication failed for user "secretive"'),
        ("secretive", "", "PostgreSQL refuses the password: "),
        ("unwanted", "", "PostgreSQL does not let this client in: pg_hba.conf rejects connection"),
        ("nobody", "", 'PostgreSQL does not let this client in: role "nobody" does not exist'),
        ("crowded", "", 'PostgreSQL has too many connections: too many connections for role "crowded"'),
        ("postgres", "?sslmode=require", "PostgreSQL refuses TLS: "),
        ("encrypted", "", "PostgreSQL does not let this client in: "),
    ],
)
async def test_a_server_that_lets_us_not_in_says_why(roles: str, user: str, options: str, sentence: str) -> None:
    with pytest.raises(StoreUnavailable) as caught:
        await PostgresStore.open(f"postgresql://{user}@{roles}{options}", None, lambda _: None, 0)
    assert str(caught.value).startswith(sentence)
    assert "wr0ng" not in str(caught.value)


async def test_a_database_that_does_not_exist_is_named(mortal_postgres: MortalPostgres) -> None:
    url = mortal_postgres.url.rpartition("/")[0] + "/nowhere"
    with pytest.raises(StoreUnavailable) as caught:
        await PostgresStore.open(url, None, lambda _: None, 0)
    assert str(caught.value) == (
        'PostgreSQL does not have this database: database "nowhere" does not exist; create it, or correct DATABASE_URL'
    )


async def test_a_port_at_which_nobody_listens_does_not_answer(mortal_postgres: MortalPostgres) -> None:
    mortal_postgres.kill()
    with pytest.raises(StoreUnavailable, match=r"PostgreSQL does not answer: .*Connect call failed"):
        await PostgresStore.open(mortal_postgres.url, None, lambda _: None, 0)


@pytest.mark.parametrize(
    ("error", "sentence"),
    [
        (
            asyncpg.ProtocolViolationError("unsupported startup parameter: enable_seqscan"),
            (
                "PostgreSQL does not answer: unsupported startup parameter: enable_seqscan; "
                "this is a pooler: name the database's direct address in DATABASE_URL"
            ),
        ),
        (asyncpg.CannotConnectNowError("the database system is starting up"), "PostgreSQL is not ready: "),
        (asyncpg.DiskFullError("No space left on device"), "PostgreSQL is out of disk, memory or another resource: "),
        (asyncpg.DeadlockDetectedError("deadlock detected"), "PostgreSQL is busy: deadlock detected"),
        (asyncpg.InsufficientPrivilegeError("permission denied"), "PostgreSQL does not let this role do it any more: "),
        (ssl.SSLCertVerificationError(1, "self-signed certificate"), "TLS with PostgreSQL fails: "),
        (TimeoutError(), "PostgreSQL does not answer: TimeoutError"),
    ],
)
async def test_each_cause_has_its_sentence(error: Exception, sentence: str) -> None:
    assert str(unavailable(error)).startswith(sentence)
