"""The URLs of servers as providers write them, and the names that platforms set: understood, left out or refused."""

from pathlib import Path

import pytest

from order_engine.server_urls import PostgresTarget
from order_engine.settings import SettingsError, load_settings

REDIS = {"REDIS_URL": "redis://cache:6379/0"}
CHAIN = {"CHAIN_URL": "http://chain:8899"}


def test_a_url_may_name_several_hosts_and_a_host_may_be_an_address(load) -> None:
    url = "postgres://u:p@[::1]:5433/orders"
    assert load(DATABASE_URL=url, **REDIS).postgres == PostgresTarget(url, None)


@pytest.mark.parametrize("query", ["", "?target_session_attrs=any", "?target_session_attrs=read-write"])
def test_of_several_hosts_the_one_that_takes_writes_is_wanted(load, query: str) -> None:
    url = "postgres://one:5432,two/orders"
    wanted = PostgresTarget(f"{url}?target_session_attrs=read-write", None)
    assert load(DATABASE_URL=url + query, **REDIS).postgres == wanted


# --- databases -----------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["postgres", "postgresql"])
def test_postgres_needs_redis(load, refusal, scheme: str) -> None:
    url = f"{scheme}://engine:s3cret@host/orders"
    assert refusal(DATABASE_URL=url) == "DATABASE_URL names PostgreSQL, so REDIS_URL (or REDIS_HOST) must be set too."
    assert load(DATABASE_URL=url, **REDIS, **CHAIN).postgres == PostgresTarget(url, None)


@pytest.mark.parametrize(
    ("query", "kept", "schema"),
    [
        ("?schema=public", "", "public"),
        ("?schema=orders&sslmode=require", "?sslmode=require", "orders"),
        ("?connection_limit=5&pool_timeout=10&pgbouncer=false", "", None),
        ("?channel_binding=require&sslmode=require", "?sslmode=require", None),
        ("?connect_timeout=10&socket_timeout=30&sslaccept=accept_invalid_certs&statement_cache_size=0", "", None),
        ("?keepalives=1&keepalives_idle=30&keepalives_interval=5&keepalives_count=3&tcp_user_timeout=1", "", None),
        ("?gssencmode=disable&application_name=mine&client_encoding=UTF8", "", None),
        ("?target_session_attrs=read-write", "?target_session_attrs=read-write", None),
        ("?options=endpoint%3Dep-cool-1", "?options=endpoint%3Dep-cool-1", None),
        ("?options=-c%20statement_timeout%3D5s", "?options=-c+statement_timeout%3D5s", None),
        ("?host=/cloudsql/p:r:i", "?host=%2Fcloudsql%2Fp%3Ar%3Ai", None),
        ("?user=me@server&sslmode=no-verify", "?user=me%40server&sslmode=require", None),
        ("?ssl=true", "?sslmode=require", None),
        ("?ssl=false", "?sslmode=disable", None),
        ("?currentSchema=orders&pool_max_conns=4", "", "orders"),
        ("?search_path=orders", "", "orders"),
        ("?sslmode=require", "?sslmode=require", None),
        ("?schema=", "", None),
        ("", "", None),
    ],
)
def test_the_options_of_providers_and_other_drivers_are_understood_or_left_out(
    load, query: str, kept: str, schema: str | None
) -> None:
    url = "postgres://engine:p%40ss@host:5433/orders"
    assert load(DATABASE_URL=url + query, **REDIS, **CHAIN).postgres == PostgresTarget(url + kept, schema)


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("?pgbouncer=true", "direct address"),
        ("?pgbouncer=1&connection_limit=1", "direct address"),
        ("?sslmode=required", "sslmode must be one of disable, allow, prefer, require, verify-ca, verify-full"),
        ("?sslmode=verify-full", "needs sslrootcert"),
        ("?sslrootcert=/nowhere/root.pem&sslmode=verify-ca", "the file that its sslrootcert names does not exist"),
        ("?sslcert=/nowhere/client.pem", "the file that its sslcert names does not exist"),
        ("?sslnegotiation=direct", "needs sslmode=require"),
        ("?gssencmode=require", "gssencmode must be one of prefer, disable"),
        ("?target_session_attrs=standby", "target_session_attrs must be one of any, read-write, primary"),
        ("?client_encoding=latin1", "client_encoding must be one of"),
        ("?options=-c%20synchronous_commit%3Doff", "must not set synchronous_commit"),
        ("?options=--session-replication-role%3Dreplica", "must not set session-replication-role"),
        ("?replication=database", "does not know its option replication; remove it"),
        ("?hostaddr=10.0.0.1", "does not know its option hostaddr; remove it"),
        ("?work_mem=64MB", "does not know its option work_mem; remove it"),
        ("?sslmod", "does not know its option sslmod; remove it"),
        ("?port=five", "its port must be a number"),
        ("?search_path=one,two", "must be one schema"),
    ],
)
def test_an_option_of_postgres_that_cannot_be_honoured_is_refused_by_name(
    refusal, monkeypatch, tmp_path: Path, query: str, words: str
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    sentence = refusal(DATABASE_URL=f"postgres://engine:s3cret@host/orders{query}", **REDIS, **CHAIN)
    assert sentence.startswith("DATABASE_URL cannot be used: ")
    assert words in sentence
    assert "s3cret" not in sentence


@pytest.mark.parametrize("query", ["?sslaccept=strict", "?sslrootcert=system", "?sslmode=require&sslaccept=strict"])
def test_a_certificate_that_is_to_be_checked_is_checked_against_the_system_s(load, query: str) -> None:
    target = load(DATABASE_URL=f"postgres://host/orders{query}", **REDIS, **CHAIN).postgres
    assert target is not None
    assert "sslmode=verify-full" in target.dsn
    assert "sslrootcert=%2F" in target.dsn


def test_the_certificate_that_prisma_names_is_the_server_s(load, tmp_path: Path) -> None:
    (tmp_path / "ca.pem").write_text("")
    query = f"?sslmode=require&sslcert={tmp_path}/ca.pem&sslaccept=strict"
    target = load(DATABASE_URL=f"postgres://host/orders{query}", **REDIS, **CHAIN).postgres
    assert target is not None
    assert "sslrootcert=" in target.dsn
    assert "sslcert=" not in target.dsn
    assert "sslmode=verify-full" in target.dsn


def test_no_repr_tells_a_password(load) -> None:
    secret = {
        "DATABASE_URL": "postgres://u:s3cret@host/orders",
        "REDIS_URL": "redis://:s3cret@host",
        "CHAIN_URL": "https://rpc.example/s3cret",
        "ENGINE_URL": "https://u:s3cret@engine",
        "ENGINE_API_KEY": "s3cret",
        "POSTGRES_PASSWORD": "s3cret",
    }
    settings = load(**secret)
    assert "s3cret" not in f"{settings!r} {settings} {settings.postgres!r} {settings.postgres}"


@pytest.mark.parametrize("scheme", ["postgresql+asyncpg", "postgresql+psycopg2", "postgres+psycopg"])
def test_the_driver_in_a_scheme_does_not_matter(load, scheme: str) -> None:
    settings = load(DATABASE_URL=f"{scheme}://u:p@host/orders?ssl=require", **REDIS, **CHAIN)
    plain = f"{scheme.partition('+')[0]}://u:p@host/orders?sslmode=require"
    assert settings.postgres == PostgresTarget(plain, None)


@pytest.mark.parametrize("url", ["jdbc:postgresql://host/orders", "file:./dev.db", "mysql+pymysql://host/orders"])
def test_another_database_s_scheme_is_refused(refusal, url: str) -> None:
    assert "must begin with postgres://" in refusal(DATABASE_URL=url)


@pytest.mark.parametrize(
    ("name", "scheme", "password", "character"),
    [
        ("DATABASE_URL", "postgres", "s3@cret", "@"),
        ("DATABASE_URL", "postgres", "s3/cret", "/"),
        ("DATABASE_URL", "postgres", "5432/cret", "/"),
        ("DATABASE_URL", "postgres", "s3#cret", "#"),
        ("DATABASE_URL", "postgres", "5432#cret", "#"),
        ("DATABASE_URL", "postgres", "s3?cret", "?"),
        ("DATABASE_URL", "postgres", "5432?sslmode=cret", "?"),
        ("DATABASE_URL", "postgres", "s3?cret&more=1", "?"),
        ("DATABASE_URL", "postgres", "s3%cret", "%"),
        ("REDIS_URL", "redis", "s3/cret", "/"),
        ("REDIS_URL", "redis", "6379/cret", "/"),
        ("REDIS_URL", "rediss", "s3#cret", "#"),
        ("REDIS_URL", "redis", "s3?cret", "?"),
        ("REDIS_URL", "redis", "6379%cret", "%"),
    ],
)
def test_an_unescaped_character_in_a_password_is_named_and_the_password_is_not(
    refusal, name: str, scheme: str, password: str, character: str
) -> None:
    sentence = refusal(**{name: f"{scheme}://engine:{password}@host:6379/0"})
    assert sentence.startswith(f"{name} cannot be used: an unescaped {character} stands ")
    assert f"write {character} as %{ord(character):02X}" in sentence
    assert "cret" not in sentence


def test_the_client_of_redis_reads_an_at_sign_in_a_password(load) -> None:
    assert load(REDIS_URL="redis://:p@ss@cache:6379/0").redis == "redis://:p@ss@cache:6379/0"


@pytest.mark.parametrize("name", ["DATABASE_URL", "REDIS_URL", "CHAIN_URL", "ENGINE_URL"])
@pytest.mark.parametrize("odd", ["\n", " ", "\t", "\x7f"])
def test_a_url_on_two_lines_is_refused_and_not_quoted(refusal, name: str, odd: str) -> None:
    scheme = {"DATABASE_URL": "postgres", "REDIS_URL": "redis"}.get(name, "http")
    sentence = refusal(**{name: f"{scheme}://u:s3{odd}cret@host:1/0"})
    assert sentence.startswith(f"{name} cannot be used: holds a space, a line feed")
    assert "cret" not in sentence


def test_white_space_around_a_url_is_left_out(load) -> None:
    settings = load(REDIS_URL=" redis://cache\n", CHAIN_URL="http://chain:8899\n", DATABASE_URL="postgres://host/o\n")
    target = settings.postgres
    assert target is not None
    assert (settings.redis, settings.chain_url, target.dsn) == (
        "redis://cache",
        "http://chain:8899",
        "postgres://host/o",
    )


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ENGINE_API_KEY", "s3cret\nkey"),
        ("ENGINE_API_KEY", "s3crét"),
        ("PORT", "postgres://u:s3cret@host/orders"),
        ("PORT", "https://rpc.example/?api-key=s3cret"),
        ("HOST", "https://rpc.example/s3cret"),
        ("LOG_LEVEL", "s3cret\nkey"),
        ("LOG_FORMAT", "s3cret" * 20),
        ("CHAIN_URL", "ftp://rpc.example/s3cret?api-key=s3cret"),
        ("CHAIN_URL", "https://rpc.example:s3cret/"),
        ("ENGINE_URL", "ftp://u:s3cret@engine"),
    ],
)
def test_no_sentence_tells_a_key(refusal, name: str, value: str) -> None:
    sentence = refusal(**{name: value})
    assert sentence.startswith(f"{name} cannot be used: ")
    assert "s3cr" not in sentence.lower()


def test_the_rest_of_a_secret_that_broke_over_two_lines_of_the_file_is_not_told(refusal, tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("ENGINE_API_KEY=s3cret\nczNjcmV0=czNjcmV0\n")
    assert refusal() == "Line 2 of .env is not a setting of order-engine; .env.example lists them all."


@pytest.mark.parametrize("url", ["sqlite:///orders.db?mode=rw", "sqlite:///orders.db#here"])
def test_a_sqlite_url_takes_no_options(refusal, url: str) -> None:
    assert "takes no options" in refusal(DATABASE_URL=url)


@pytest.mark.parametrize(
    ("url", "path"), [("sqlite:///orders.db", "orders.db"), ("sqlite:////var/lib/orders.db", "/var/lib/orders.db")]
)
def test_a_sqlite_url_names_its_file(load, url: str, path: str) -> None:
    settings = load(DATABASE_URL=url)
    assert (settings.sqlite_path, settings.postgres) == (Path(path), None)


@pytest.mark.parametrize("url", ["sqlite://orders.db", "sqlite:orders.db", "SQLITE:///orders.db", "sqlite:///"])
def test_a_sqlite_url_is_obeyed_or_refused_and_never_ignored(load, url: str) -> None:
    try:
        path = load(DATABASE_URL=url).sqlite_path
    except SettingsError:
        return
    assert path == Path("orders.db")


def test_without_a_url_the_files_are_in_the_data_directory(load) -> None:
    assert load(DATA_DIR="/srv/engine").sqlite_path == Path("/srv/engine/order-engine.sqlite3")


def test_postgres_needs_a_chain_of_its_own(load, refusal) -> None:
    url = "postgres://host/orders"
    assert "CHAIN_URL must be set too" in refusal(DATABASE_URL=url, **REDIS)
    assert "order-engine chain" in refusal(DATABASE_URL=url, **REDIS)
    assert load(DATABASE_URL=url, **REDIS, **CHAIN).chain_url == "http://chain:8899"


# --- redis ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("environment", "url"),
    [
        ({"REDIS_HOST": "cache"}, "redis://cache:6379/0"),
        ({"REDIS_HOST": "cache", "REDIS_PORT": "6380"}, "redis://cache:6380/0"),
        ({"REDIS_PORT": "6380"}, None),
        ({"REDIS_URL": "rediss://:pw@cache:6379/2"}, "rediss://:pw@cache:6379/2"),
        ({"REDIS_URL": "valkey://cache"}, "redis://cache"),
        ({"REDIS_URL": "redis://one", "REDIS_HOST": "two"}, "redis://one"),
    ],
)
def test_redis_is_named_by_url_or_by_host_and_port(load, environment: dict[str, str], url: str | None) -> None:
    assert load(**environment).redis == url


@pytest.mark.parametrize(
    ("url", "kept"),
    [
        ("valkeys://cache", "rediss://cache"),
        ("redis://cache?family=0", "redis://cache"),
        ("redis://cache?db=2&client_name=engine", "redis://cache?db=2&client_name=engine"),
        ("rediss://cache/0?ssl_cert_reqs=CERT_NONE", "rediss://cache/0?ssl_cert_reqs=none"),
        ("rediss://cache/0?ssl_check_hostname=false", "rediss://cache/0?ssl_check_hostname=false"),
    ],
)
def test_the_options_of_redis_that_break_nothing_are_taken(load, url: str, kept: str) -> None:
    assert load(REDIS_URL=url).redis == kept


@pytest.mark.parametrize(
    "option",
    [
        "decode_responses=true", "protocol=3", "socket_timeout=60", "socket_connect_timeout=60", "retry_on_timeout=1",
        "retry_on_error=x", "retry=3", "health_check_interval=1", "max_connections=1", "encoding=latin1", "timeout=1",
        "single_connection_client=1", "connection_class=x", "command_packer=x", "lib_name=x", "legacy_responses=0",
        "foo=1", "foo",
    ],
)  # fmt: skip
def test_an_option_that_would_break_the_bus_is_refused_by_name(refusal, option: str) -> None:
    name = option.partition("=")[0]
    sentence = refusal(REDIS_URL=f"redis://:s3cret@cache/0?{option}")
    assert sentence.startswith(f"REDIS_URL cannot be used: order-engine does not know its option {name}; remove it.")
    assert "s3cret" not in sentence


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("redis://cache/orders", "number of a database"),
        ("redis://cache/1/2", "number of a database"),
        ("redis://cache?db=one", "number of a database"),
        ("redis://cache?ssl_cert_reqs=none", "needs rediss://"),
        ("rediss://cache?ssl_cert_reqs=maybe", "none, optional or required"),
        ("rediss://cache?ssl_ca_certs=/nowhere/ca.pem", "ssl_ca_certs names does not exist"),
        ("redis+sentinel://one,two/0", "must begin with redis://"),
    ],
)
def test_a_redis_url_that_the_client_would_misread_is_refused(refusal, url: str, words: str) -> None:
    assert words in refusal(REDIS_URL=url)


@pytest.mark.parametrize("name", ["REDIS_PORT", "PORT"])
@pytest.mark.parametrize("value", ["tcp://10.0.0.1:6379", "udp://10.0.0.1:53", "tcp://[fd00::1]:6379"])
def test_the_port_of_a_service_that_a_platform_writes_is_ignored(load, name: str, value: str) -> None:
    settings = load(**{name: value}, REDIS_HOST="cache")
    assert (settings.port, settings.redis) == (3000, "redis://cache:6379/0")


def test_what_kubernetes_says_of_its_services_is_ignored(load) -> None:
    names = {
        f"{service}_{suffix}": value
        for service in ("REDIS", "CHAIN", "DATABASE", "POSTGRES", "ORDER_ENGINE", "ENGINE", "LOG")
        for suffix, value in {
            "PORT": "tcp://10.0.0.1:6379",
            "SERVICE_HOST": "10.0.0.1",
            "SERVICE_PORT": "6379",
            "PORT_6379_TCP": "tcp://10.0.0.1:6379",
            "PORT_6379_TCP_ADDR": "10.0.0.1",
        }.items()
    }
    assert load(**names) == load_settings()
    assert (load().redis, load().postgres, load().port) == (None, None, 3000)


@pytest.mark.parametrize("host", ["*", "http://0.0.0.0", "127.0.0.1,::1", "10.0.0.0/8"])
def test_a_host_is_one_address_or_name(refusal, host: str) -> None:
    assert "0.0.0.0 is all of IPv4, :: is all of IPv4 and IPv6" in refusal(HOST=host)


def test_a_host_may_stand_in_brackets(load) -> None:
    assert load(HOST="[::]").host == "::"


def test_a_redis_host_is_enough_for_postgres(load) -> None:
    assert load(DATABASE_URL="postgres://host/orders", REDIS_HOST="cache", **CHAIN).redis == "redis://cache:6379/0"
