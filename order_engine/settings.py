"""Every environment variable, with its type, unit and limits."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Final, Literal, Self, TypeVar

from dotenv.parser import parse_stream
from pydantic import AfterValidator, Field, SecretStr, ValidationError, field_validator, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from order_engine.api.hosts import parse_host_names, parse_networks, parse_origins, parse_public_url
from order_engine.api.limits import (
    MAX_CONNECTIONS,
    MAX_CONNECTIONS_PER_ADDRESS,
    MAX_FRAMES_PER_WINDOW,
    MAX_KIB_PER_WINDOW,
)
from order_engine.engine_address import AddressError, check_api_key, parse_engine_address
from order_engine.server_urls import (
    PLATFORM_PORT,
    SQLITE_URL,
    PostgresTarget,
    check_database_url,
    check_http_url,
    check_redis_url,
    is_postgres,
    read_postgres_url,
)

DEFAULT_CHAIN_URL: Final = "http://127.0.0.1:8899"
# The URL that HOST and PORT make if they are not set.
DEFAULT_ENGINE_URL: Final = "http://127.0.0.1:3000"
SQLITE_FILE: Final = "order-engine.sqlite3"
LEDGER_FILE: Final = "paper-chain.sqlite3"
# At MOCK_DELAY_SCALE=1.
SLOWEST_PAPER_QUOTE_MS: Final = 250
_ENV_FILE: Final = ".env"
# Docker Compose reads the same file, and has settings of its own.
_NOT_OURS: Final = "compose_"
# The local address of an engine that listens on every address.
_ON_THIS_MACHINE: Final = {"0.0.0.0": "127.0.0.1", "*": "127.0.0.1", "::": "::1"}  # noqa: S104 - it is replaced
_MAX_SHOWN: Final = 60

_Loaded = TypeVar("_Loaded", bound="ClientSettings")


class SettingsError(Exception):
    """Settings are wrong; the message has one sentence for each, ready for the user."""


def _known_engine(url: str) -> str:
    url = url.strip()
    if url:
        parse_engine_address(url)
    return url


def _checked_by(parse: Callable[[str], object]) -> Callable[[str], str]:
    """Return a validator that accepts and keeps each text that `parse` accepts."""

    def check(text: str) -> str:
        parse(text)
        return text

    return check


def _sendable_key(key: SecretStr) -> SecretStr:
    value = key.get_secret_value().strip()
    check_api_key(value)
    return SecretStr(value)


class ClientSettings(BaseSettings):
    """The settings of the commands that talk to an engine, from the environment or from a file `.env`."""

    model_config = SettingsConfigDict(
        env_file=_ENV_FILE,
        env_file_encoding="utf-8",
        extra="ignore",
        env_ignore_empty=True,
        frozen=True,
        hide_input_in_errors=True,
    )

    host: str = Field("127.0.0.1", description="Address that the API listens on; :: is all addresses, IPv4 and IPv6.")
    port: int = Field(3000, ge=0, le=65_535, description="Port that the API listens on; 0 takes a free one.")
    engine_url: Annotated[str, AfterValidator(_known_engine)] = Field(
        "",
        repr=False,
        description="The engine that the command line talks to, such as http://127.0.0.1:3000. Empty: the one at HOST "
        "and PORT.",
    )
    engine_api_key: Annotated[SecretStr, AfterValidator(_sendable_key)] = Field(
        SecretStr(""), description="API key for that engine, if a proxy before it asks for one."
    )

    @model_validator(mode="before")
    @classmethod
    def _only_where_they_count(cls, values: dict[str, Any]) -> dict[str, Any]:
        """Ignore settings that the command line does not use: HOST and PORT, too, if ENGINE_URL is set."""
        if cls is not ClientSettings:
            return values
        unused = ("host", "port") if values.get("engine_url") else ()
        return {name: it for name, it in values.items() if name not in unused and not _is_of_the_platform(name, it)}

    @property
    def engine(self) -> str:
        """The URL of the engine that the command line talks to; raises SettingsError if it is not known."""
        if self.engine_url:
            return self.engine_url
        if self.port == 0:
            raise SettingsError(
                "PORT=0 takes any free port: set ENGINE_URL to the address that the engine says it has."
            )
        host = _ON_THIS_MACHINE.get(self.host, self.host)
        url = f"http://[{host}]:{self.port}" if ":" in host else f"http://{host}:{self.port}"
        try:
            parse_engine_address(url)
        except AddressError:
            raise SettingsError(
                "HOST is not an address that the command line can talk to: set ENGINE_URL to the engine's."
            ) from None
        return url


class Settings(ClientSettings):
    """The settings of one process, from the environment or from a file `.env`."""

    model_config = SettingsConfigDict(extra="forbid")

    database_url: Annotated[str, AfterValidator(check_database_url)] = Field(
        "",
        repr=False,
        description="postgres://user:password@host/database, or sqlite:///path. Empty: SQLite in DATA_DIR.",
    )
    redis_url: Annotated[str, AfterValidator(check_redis_url)] = Field(
        "", repr=False, description="redis://host:6379/0. Empty: no Redis, which only SQLite allows."
    )
    redis_host: str = Field("", description="Instead of REDIS_URL: the host alone.")
    redis_port: int = Field(6379, ge=1, le=65_535, description="The port that goes with REDIS_HOST.")
    redis_key_prefix: str = Field(
        "order-engine", min_length=1, description="First part of every Redis key, so that engines can share a server."
    )
    chain_url: Annotated[str, AfterValidator(check_http_url)] = Field(
        "",
        repr=False,
        description="Address of the chain's RPC; `order-engine chain` listens on it. Empty: the paper chain runs in "
        "this process, which only SQLite allows.",
    )
    data_dir: Path = Field(Path(".order-engine"), description="Directory of the SQLite files, from the current one.")
    tokens_file: Path | None = Field(
        None,
        description="JSON list of more tokens: symbol, mint, decimals, and referencePriceUsd for the paper venues.",
    )
    mock_fail_rate: float = Field(0, ge=0, le=1, description="Fraction of the paper venues' swaps that fail, 0 to 1.")
    mock_delay_scale: float = Field(
        1, ge=0, le=100, description="Factor on the paper delays. 1: quotes about 0.2 s, swaps 2-3 s. 0: none."
    )
    mock_seed: int = Field(1, ge=0, description="Seed of the paper prices, delays and failures.")
    chain_faults: str = Field(
        "",
        description="Rates from 0 to 1 at which the paper chain misbehaves, such as drop=0.1,lag=0.3: drop, late, "
        "duplicate, fork, lag, false_height, lost_reply, timeout, error, rate_limit, or all.",
    )
    default_slippage_bps: int = Field(50, ge=1, le=1000, description="Slippage of an order without its own, in bps.")
    allowed_hosts: Annotated[str, AfterValidator(_checked_by(parse_host_names))] = Field(
        "",
        description="Host names, separated by commas, under which the API answers besides addresses, localhost and "
        "PUBLIC_URL's. A request for another name gets 421.",
    )
    allowed_origins: Annotated[str, AfterValidator(_checked_by(parse_origins))] = Field(
        "",
        description="Web origins, separated by commas, whose pages may call the API besides its own and loopback ones.",
    )
    compat_routes: Literal["on", "off"] = Field(
        "on", description="Routes of the five compatible systems (/api/orders, /enqueue, /jobs, /ws, ...); off: 404."
    )
    public_url: Annotated[str, AfterValidator(_checked_by(parse_public_url))] = Field(
        "",
        description="Address under which clients reach the API through a proxy, such as https://orders.example.com. "
        "Its pages may call the API, and absolute URLs in answers begin with it.",
    )
    trusted_proxies: Annotated[str, AfterValidator(_checked_by(parse_networks))] = Field(
        "",
        description="Addresses or networks of proxies, separated by commas, such as 10.0.0.7,10.1.0.0/16. Their "
        "X-Forwarded-For, -Proto, -Host and Forwarded headers are believed, so each client has a limit of its own.",
    )
    api_max_orders_per_min: int = Field(
        120, ge=0, le=1_000_000, description="Orders a minute that one client address may place; 0 is no limit."
    )
    api_max_quotes_per_min: int = Field(
        600, ge=0, le=1_000_000, description="Quotes a minute that one client address may ask for; 0 is no limit."
    )
    max_connections: int = Field(
        MAX_CONNECTIONS,
        ge=0,
        le=1_000_000,
        description="Connections that one process serves at once; further ones get 503. 0: as many as it may open "
        "files.",
    )
    max_connections_per_address: int = Field(
        MAX_CONNECTIONS_PER_ADDRESS,
        ge=0,
        le=1_000_000,
        description="Connections of one client address at once; further ones get 503. 0 is no limit.",
    )
    websocket_max_frames: int = Field(
        MAX_FRAMES_PER_WINDOW,
        ge=0,
        le=1_000_000,
        description="Frames of any kind that a WebSocket client may send in 10 s; after more it is closed with 1008. "
        "0 is no limit.",
    )
    websocket_max_kib: int = Field(
        MAX_KIB_PER_WINDOW,
        ge=0,
        le=1_000_000,
        description="Maximum KiB from a WebSocket client in 10 s. 0 is no limit.",
    )
    queue_max_per_min: int = Field(
        0, ge=0, le=1_000_000, description="Orders a minute that all workers together start; 0 is no limit."
    )
    worker_concurrency: int = Field(100, ge=1, le=20_000, description="Orders that one worker runs at once.")
    order_max_attempts: int = Field(3, ge=1, le=20, description="Attempts before an order fails.")
    retry_backoff_ms: int = Field(
        1_000, ge=0, le=600_000, description="Pause after the first failed attempt, in ms; doubles each time."
    )
    retry_backoff_max_ms: int = Field(30_000, ge=0, le=3_600_000, description="Maximum of that pause, in ms.")
    retry_jitter_percent: int = Field(20, ge=0, le=100, description="Random change of a pause, in percent up or down.")
    quote_timeout_ms: int = Field(2_000, ge=10, le=60_000, description="Maximum time of a venue for a quote, in ms.")
    lease_seconds: int = Field(15, ge=1, le=600, description="How long a silent worker keeps its orders, in s.")
    sweep_interval_ms: int = Field(
        500, ge=50, le=60_000, description="How often a worker looks for due and abandoned orders, in ms."
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Days that an ended order is kept, with its history and its key; 0 is for ever.",
    )
    max_claims: int = Field(5, ge=4, le=100, description="Claims without an event after which an order is parked.")
    chain_poll_ms: int = Field(200, ge=10, le=60_000, description="Maximum pause between checks of a signature, in ms.")
    chain_resend_ms: int = Field(
        2_000, ge=100, le=60_000, description="Pause between two sends of the same bytes, in ms."
    )
    shutdown_grace_ms: int = Field(
        6_000, ge=0, le=8_000, description="How long orders may finish after SIGTERM before they are released, in ms."
    )
    postgres_password: SecretStr = Field(
        SecretStr(""), description="Password of PostgreSQL in docker-compose.yml; nothing else reads it."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="Lowest level that is logged.")
    log_format: Literal["console", "json"] = Field("console", description="Format of a log line.")

    @model_validator(mode="before")
    @classmethod
    def _without_what_is_not_ours(cls, values: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in values.items() if not _is_of_the_platform(name, value)}

    @field_validator("host")
    @classmethod
    def _listenable(cls, value: str) -> str:
        host = value.strip().removeprefix("[").removesuffix("]")
        if host == "*" or set("/@, ") & set(host):
            raise ValueError("must be one address or host name: 0.0.0.0 is all of IPv4, :: is all of IPv4 and IPv6")
        return host

    @field_validator("log_level", "log_format", "compat_routes", mode="before")
    @classmethod
    def _lower(cls, value: object) -> object:
        return value.lower() if isinstance(value, str) else value

    @field_validator("redis_host")
    @classmethod
    def _bare_host(cls, value: str) -> str:
        if set("/@:") & set(value):
            message = "must be a host name; a URL goes into REDIS_URL"
            raise ValueError(message)
        return value

    def require_services(self) -> None:
        """Raise SettingsError if DATABASE_URL names PostgreSQL and the shared Redis or chain is not set."""
        if self.postgres is not None and self.redis is None:
            raise SettingsError("DATABASE_URL names PostgreSQL, so REDIS_URL (or REDIS_HOST) must be set too.")
        if self.postgres is not None and not self.chain_url:
            raise SettingsError(
                "DATABASE_URL names PostgreSQL, so CHAIN_URL must be set too: workers on several machines need one "
                f"chain. `order-engine chain` is one; it listens where CHAIN_URL says, such as {DEFAULT_CHAIN_URL}."
            )

    @model_validator(mode="after")
    def _quotes_in_time(self) -> Self:
        slowest_ms = self.mock_delay_scale * SLOWEST_PAPER_QUOTE_MS
        if slowest_ms > self.quote_timeout_ms:
            message = (
                f"MOCK_DELAY_SCALE={self.mock_delay_scale:g} makes paper quotes take up to {slowest_ms:g} ms, longer "
                f"than QUOTE_TIMEOUT_MS={self.quote_timeout_ms} waits; lower the one or raise the other."
            )
            raise ValueError(message)
        return self

    @property
    def postgres(self) -> PostgresTarget | None:
        """The address of PostgreSQL for its driver; None: SQLite."""
        return read_postgres_url(self.database_url) if is_postgres(self.database_url) else None

    @property
    def sqlite_path(self) -> Path:
        """The file of the SQLite store: sqlite:///relative or sqlite:////absolute, or in DATA_DIR."""
        if self.database_url.startswith(SQLITE_URL):
            return Path(self.database_url.removeprefix(SQLITE_URL))
        return self.data_dir / SQLITE_FILE

    @property
    def redis(self) -> str | None:
        """The URL of Redis, or None."""
        if self.redis_url:
            return self.redis_url
        return f"redis://{self.redis_host}:{self.redis_port}/0" if self.redis_host else None


def load_settings(**overrides: Any) -> Settings:
    """Read the settings; raises SettingsError with a sentence for each wrong setting."""
    return _load(Settings, overrides)


def load_client_settings() -> ClientSettings:
    """Read the settings for talking to an engine; raises SettingsError like `load_settings`."""
    return _load(ClientSettings, {})


def _load(kind: type[_Loaded], overrides: dict[str, Any]) -> _Loaded:
    _check_env_file(Path(_ENV_FILE))
    try:
        return kind(**overrides)
    except ValidationError as error:
        # Without a cause, because pydantic's own message quotes the value, which may be a secret.
        raise SettingsError("\n".join(_sentence(it) for it in error.errors())) from None


def _check_env_file(path: Path) -> None:
    """Refuse a file that would otherwise cause a traceback, and a line that would be silently ignored."""
    if not path.is_file():
        return
    try:
        with path.open(encoding="utf-8") as file:
            broken = next((it.original.line for it in parse_stream(file) if it.error), None)
    except UnicodeDecodeError as error:
        message = f"{path} cannot be used: it is not UTF-8 text."
        raise SettingsError(message) from error
    except OSError as error:
        message = f"{path} cannot be used: {error.strerror}."
        raise SettingsError(message) from error
    if broken is not None:
        message = f"{path} cannot be used: line {broken} is not NAME=value; a quote that is opened must be closed."
        raise SettingsError(message)


def _is_of_the_platform(name: str, value: object) -> bool:
    """Return whether Docker Compose or a platform uses this name for another purpose.

    For a service that is called redis, Kubernetes sets REDIS_PORT=tcp://10.0.0.1:6379 in every pod.
    """
    is_link = isinstance(value, str) and PLATFORM_PORT.match(value) is not None
    return name.startswith(_NOT_OURS) or (is_link and name in ("port", "redis_port"))


def _sentence(error: object) -> str:
    assert isinstance(error, dict)  # noqa: S101 - pydantic's ErrorDetails is a dict
    if not error["loc"]:
        return str(error["msg"]).removeprefix("Value error, ")
    name = str(error["loc"][0])
    if error["type"] == "extra_forbidden":
        return f"{_where_in_env_file(name)} is not a setting of order-engine; .env.example lists them all."
    allowed = str(error["msg"]).removeprefix("Value error, ")
    field = Settings.model_fields.get(name)
    meaning = f" {name.upper()}: {field.description}" if field else ""
    value = "" if _may_hold_a_secret(name, error["input"]) else f"={error['input']!r}"
    return f"{name.upper()}{value} cannot be used: {allowed[0].lower()}{allowed[1:]}.{meaning}"


def _may_hold_a_secret(name: str, value: object) -> bool:
    """Return whether the value must stay out of terminal and logs: a key or a URL, also in the wrong setting."""
    text = str(value)
    is_odd = not text.isprintable() or len(text) > _MAX_SHOWN or set("@?") & set(text) or "://" in text
    return bool(name.endswith(("_url", "_password", "_key", "_secret", "_token")) or is_odd)


def _where_in_env_file(name: str) -> str:
    """Name a variable of .env, or only its line if it may be the second line of a secret."""
    with Path(_ENV_FILE).open(encoding="utf-8") as file:
        found = {it.key: it.original.line for it in parse_stream(file) if it.key and it.key.lower() == name}
    if name.upper() in found and len(name) <= _MAX_SHOWN:
        return f"{name.upper()} in {_ENV_FILE}"
    return f"Line {max(found.values(), default=1)} of {_ENV_FILE}"
