"""The URLs of PostgreSQL and Redis as providers write them: each option is understood, dropped or refused.

No sentence quotes a URL or a value in it, because both may hold a password.
"""

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit, urlunsplit

import msgspec

SQLITE_URL: Final = "sqlite:///"
_MAX_PORT: Final = 65_535

_POSTGRES_SCHEME: Final = re.compile(r"postgres(?:ql)?(?:\+[a-z0-9_]+)?", re.ASCII)
# The address of a service as Kubernetes and Docker write it into a PORT variable of each process.
PLATFORM_PORT: Final = re.compile(r"(?:tcp|udp|sctp)://", re.ASCII)

_BAD_PERCENT: Final = re.compile(r"%(?![0-9A-Fa-f]{2})")
_UNPRINTABLE: Final = re.compile(r"[\x00-\x20\x7f]")
_NAME: Final = re.compile(r"[A-Za-z][A-Za-z0-9_.-]{0,63}", re.ASCII)

_SSL_MODES: Final = ("disable", "allow", "prefer", "require", "verify-ca", "verify-full")
# Other drivers' words for them.
_MORE_SSL_MODES: Final = {"no-verify": "require", "true": "require", "1": "require", "false": "disable", "0": "disable"}
_YES: Final = ("true", "1", "yes", "on")

# asyncpg understands these as libpq does.
_POSTGRES_FILES: Final = ("sslcert", "sslkey", "sslrootcert", "sslcrl", "passfile")
_POSTGRES_KNOWN: Final = frozenset({
    "host", "port", "dbname", "database", "user", "password", "service", "krbsrvname", "gsslib", "sslmode",
    "sslpassword", "sslnegotiation", "ssl_min_protocol_version", "ssl_max_protocol_version", "target_session_attrs",
    "options", *_POSTGRES_FILES,
})  # fmt: skip
# The search path, as Prisma, JDBC and asyncpg call it.
_SCHEMA_NAMES: Final = ("schema", "currentSchema", "search_path")
# Known and left out: the engine has its own pool, time limits, keepalives, statements and session names.
# asyncpg has no channel binding, so `channel_binding=require` (Neon) is left out; `sslmode` still holds.
_POSTGRES_DROPPED: Final = frozenset({
    # libpq
    "connect_timeout", "keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count",
    "tcp_user_timeout", "application_name", "fallback_application_name", "channel_binding", "gssencmode",
    "gssdelegation", "load_balance_hosts", "sslcompression", "sslsni", "client_encoding", "min_protocol_version",
    "max_protocol_version",
    # limits of a session that the engine has itself
    "statement_timeout", "lock_timeout", "idle_in_transaction_session_timeout",
    "timezone", "TimeZone",
    # Prisma
    "connection_limit", "pool_timeout", "socket_timeout", "statement_cache_size", "max_connection_lifetime",
    "max_idle_connection_lifetime", "single_use_connections", "sslaccept", "pgbouncer",
    # node-postgres, Supabase, Vercel
    "ssl", "uselibpqcompat", "supa", "workaround", "connection_timeout", "idle_timeout", "max",
    # pgx, lib/pq
    "pool_max_conns", "pool_min_conns", "pool_max_conn_lifetime", "pool_max_conn_idle_time", "pool_mode",
    "pool_health_check_period", "pool_max_conn_lifetime_jitter", "default_query_exec_mode",
    "statement_cache_capacity", "description_cache_capacity", "binary_parameters",
    # JDBC, ActiveRecord, SQLAlchemy, Django
    "connectTimeout", "socketTimeout", "loginTimeout", "tcpKeepAlive", "ApplicationName", "prepareThreshold",
    "reWriteBatchedInserts", "pool", "pool_size", "max_overflow", "timeout", "encoding", "checkout_timeout",
    "reaping_frequency", "prepared_statements", "prepared_statement_cache_size", "async_fallback", "command_timeout",
    "conn_max_age", "conn_health_checks",
})  # fmt: skip
# The first value is the default. The engine writes, so a standby is not allowed.
_POSTGRES_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "target_session_attrs": ("any", "read-write", "primary"),
    "sslnegotiation": ("postgres", "direct"),
    "gsslib": ("gssapi", "sspi"),
    "ssl_min_protocol_version": ("TLSv1.2", "TLSv1.3", "TLSv1.1", "TLSv1"),
    "ssl_max_protocol_version": ("TLSv1.3", "TLSv1.2"),
    "client_encoding": ("UTF8", "utf8", "UTF-8", "utf-8", "auto", "unicode"),
    "gssencmode": ("prefer", "disable"),
    "sslaccept": ("accept_invalid_certs", "strict"),
}
# `options=-c NAME=value`: with these the server could lose committed orders or skip checks.
_FORBIDDEN_OPTIONS: Final = re.compile(
    r"synchronous[_-]commit|session[_-]replication[_-]role|(default[_-])?transaction[_-](read[_-]only|isolation)"
    r"|client[_-]encoding|fsync",
    re.IGNORECASE,
)

_REDIS_KNOWN: Final = frozenset({"db", "username", "password", "client_name"})
_REDIS_TLS: Final = frozenset({
    "ssl_cert_reqs", "ssl_ca_certs", "ssl_ca_path", "ssl_ca_data", "ssl_certfile", "ssl_keyfile", "ssl_password",
    "ssl_check_hostname", "ssl_ciphers",
})  # fmt: skip
_REDIS_FILES: Final = ("ssl_ca_certs", "ssl_ca_path", "ssl_certfile", "ssl_keyfile")
# asyncio looks up addresses of both families and keeps connections alive by itself.
_REDIS_DROPPED: Final = frozenset({"family", "socket_keepalive", "keepAlive"})
_REDIS_CERT_REQS: Final = {
    "none": "none", "optional": "optional", "required": "required",
    "cert_none": "none", "cert_optional": "optional", "cert_required": "required",
}  # fmt: skip


class PostgresTarget(msgspec.Struct, frozen=True):
    """Where PostgreSQL is, as its driver wants it. `schema` is the search path, or None."""

    dsn: str
    schema: str | None

    def __repr__(self) -> str:
        """Leave the password out of logs and tracebacks."""
        return f"PostgresTarget(schema={self.schema!r})"


def is_postgres(url: str) -> bool:
    """Return whether the URL names a PostgreSQL, in any driver's spelling."""
    return _POSTGRES_SCHEME.fullmatch(url.partition("://")[0]) is not None


def check_database_url(url: str) -> str:
    """Return the URL of a database without white space around it; raises ValueError."""
    url = url.strip()
    if is_postgres(url):
        read_postgres_url(url)
    elif url.startswith(SQLITE_URL) and url != SQLITE_URL:
        if set("?#") & set(url):
            raise ValueError("an sqlite:/// URL takes no options; it is a path and nothing else")
    elif url:
        _split(url)
        raise ValueError("must begin with postgres:// or postgresql://, or be sqlite:/// and a path")
    return url


def read_postgres_url(url: str) -> PostgresTarget:
    """Return the target for the driver; raises ValueError with the second half of an error sentence."""
    parts = _split(url)
    if parts.netloc.count("@") > 1:
        raise ValueError(_unescaped("@"))
    given = _options(parts, {*_POSTGRES_KNOWN, *_SCHEMA_NAMES, *_POSTGRES_DROPPED})
    _check_ports(parts)
    _check_postgres(given)
    if "sslaccept" in given and "sslkey" not in given and (roots := given.pop("sslcert", "")):
        # Prisma's sslcert is the certificate of the server, libpq's is that of the client.
        given.setdefault("sslrootcert", roots)
    options = {name: value for name, value in given.items() if name in _POSTGRES_KNOWN} | _tls_of(given)
    hosts = options.get("host") or parts.netloc.rpartition("@")[2]
    if "," in hosts:
        # Only one of several servers takes writes, and after a switchover it is another one.
        wanted = options.get("target_session_attrs", "any")
        options["target_session_attrs"] = "read-write" if wanted == "any" else wanted
    dsn = urlunsplit(parts._replace(scheme=parts.scheme.partition("+")[0], query=urlencode(options)))
    schema = next((given[name] for name in _SCHEMA_NAMES if name in given), None)
    return PostgresTarget(dsn, schema)


def check_redis_url(url: str) -> str:
    """Return the URL as the Redis client wants it; raises ValueError with the second half of an error sentence."""
    url = url.strip()
    if not url:
        return url
    parts = _split(url)
    scheme = {"valkey": "redis", "valkeys": "rediss"}.get(parts.scheme, parts.scheme)
    if scheme not in ("redis", "rediss"):
        raise ValueError("must begin with redis:// or rediss://")
    given = _options(parts, _REDIS_KNOWN | _REDIS_TLS | _REDIS_DROPPED)
    _check_ports(parts)
    for name in _REDIS_TLS & given.keys():
        if scheme != "rediss":
            raise ValueError(f"its option {name} is for TLS, which needs rediss://")
    database = given.get("db") or parts.path.removeprefix("/").removesuffix("/")
    if database and not (database.isascii() and database.isdecimal()):
        raise ValueError("its path must be the number of a database, such as /0")
    if (wanted := given.get("ssl_cert_reqs")) is not None:
        if wanted.lower() not in _REDIS_CERT_REQS:
            raise ValueError("its ssl_cert_reqs must be none, optional or required")
        given["ssl_cert_reqs"] = _REDIS_CERT_REQS[wanted.lower()]
    _check_files(given, _REDIS_FILES)
    query = urlencode({name: value for name, value in given.items() if name not in _REDIS_DROPPED})
    return urlunsplit(parts._replace(scheme=scheme, query=query))


def check_http_url(url: str) -> str:
    """Return an http:// or https:// URL without white space around it; raises ValueError."""
    url = url.strip()
    if not url:
        return url
    parts = _split(url, is_http=True)
    if parts.scheme not in ("http", "https"):
        raise ValueError("must begin with http:// or https:// and name a host")
    _check_ports(parts)
    if not parts.hostname:
        raise ValueError("must begin with http:// or https:// and name a host")
    return url


def _split(url: str, *, is_http: bool = False) -> SplitResult:
    """Split the URL; refuses characters that no URL can hold, and unescaped ones in a password."""
    if _UNPRINTABLE.search(url):
        # The library would remove line feeds, and so join separate texts.
        raise ValueError("holds a space, a line feed or another character that no URL can hold; write a space as %20")
    try:
        parts = urlsplit(url)
    except ValueError:
        # urlsplit's own words quote the URL, and with it a password.
        raise ValueError("is not a URL; in a password, write [ as %5B and ] as %5D") from None
    if is_http:
        return parts
    if "#" in url:
        raise ValueError(_unescaped("#"))
    if "@" in parts.path:
        raise ValueError(_unescaped("/"))
    if any("@" in piece.partition("=")[0] for piece in parts.query.split("&")) or (
        "@" in parts.query and not parts.path and "@" not in parts.netloc
    ):
        raise ValueError(_unescaped("?"))
    if _BAD_PERCENT.search(url):
        raise ValueError(_unescaped("%"))
    return parts


def _unescaped(character: str) -> str:
    return (
        f"an unescaped {character} stands where a user or a password should; "
        f"in a user or a password, write {character} as %{ord(character):02X}"
    )


def _check_ports(parts: SplitResult) -> None:
    """Refuse a port that is not a number; a PostgreSQL URL may name several hosts."""
    for host in parts.netloc.rpartition("@")[2].split(","):
        port = host.rpartition("]")[2].partition(":")[2]
        if port and not (port.isascii() and port.isdecimal() and int(port) <= _MAX_PORT):
            raise ValueError(f"its port must be a number from 0 to {_MAX_PORT}")


def _options(parts: SplitResult, known: frozenset[str] | set[str]) -> dict[str, str]:
    """Return the options that have a value; refuses one that is not known."""
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    for name in given:
        if name not in known:
            shown = name if _NAME.fullmatch(name) else "with a name that is not a word"
            raise ValueError(f"order-engine does not know its option {shown}; remove it")
    return {name: value for name, value in given.items() if value}


def _check_postgres(given: Mapping[str, str]) -> None:
    if given.get("pgbouncer", "false").lower() in _YES:
        raise ValueError(
            "order-engine keeps sessions of its own, with prepared statements and locks, which a pooler that hands "
            "out transactions does not have (pgbouncer=true); name the database's direct address, or a pooler that "
            "hands out sessions, without pgbouncer=true"
        )
    for name, allowed in _POSTGRES_VALUES.items():
        if given.get(name, allowed[0]) not in allowed:
            raise ValueError(f"its {name} must be one of {', '.join(allowed)}")
    if not all(it.isascii() and it.isdecimal() for it in given.get("port", "0").split(",")):
        raise ValueError(f"its port must be a number from 0 to {_MAX_PORT}")
    if (found := _FORBIDDEN_OPTIONS.search(given.get("options", ""))) is not None:
        raise ValueError(f"its options must not set {found[0]}, because the engine relies on the default")
    if "," in given.get("search_path", ""):
        raise ValueError("its search_path must be one schema")


def _tls_of(given: Mapping[str, str]) -> dict[str, str]:
    """Return how the connection is encrypted, in asyncpg's words."""
    mode = given.get("sslmode") or given.get("ssl")
    chosen = {}
    if mode is not None:
        mode = _MORE_SSL_MODES.get(mode.lower(), mode.lower())
        if mode not in _SSL_MODES:
            raise ValueError(f"its sslmode must be one of {', '.join(_SSL_MODES)}")
        chosen["sslmode"] = mode
    roots = given.get("sslrootcert")
    if given.get("sslaccept") == "strict" and mode != "disable":
        # Prisma's word for a certificate that is checked.
        chosen["sslmode"] = "verify-full"
        roots = roots or "system"
    if roots == "system":
        system = ssl.get_default_verify_paths().cafile
        if system is None:
            raise ValueError("this machine has no file of trusted certificates; name one with sslrootcert")
        chosen |= {"sslmode": "verify-full", "sslrootcert": system}
    if given.get("sslnegotiation") == "direct" and chosen.get("sslmode") not in _SSL_MODES[3:]:
        raise ValueError("its sslnegotiation=direct needs sslmode=require, verify-ca or verify-full")
    _check_files({**given, **chosen}, _POSTGRES_FILES)
    if (
        chosen.get("sslmode") in _SSL_MODES[4:]
        and not roots
        and not Path("~/.postgresql/root.crt").expanduser().exists()
    ):
        raise ValueError(
            f"its sslmode={chosen['sslmode']} needs sslrootcert: the file of the server's root certificate, or system"
        )
    return chosen


def _check_files(given: Mapping[str, str], names: tuple[str, ...]) -> None:
    for name in names:
        if name in given and not Path(given[name]).exists():
            raise ValueError(f"the file that its {name} names does not exist")
