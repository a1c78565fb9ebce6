"""The settings of the servers and files that every process of an engine uses."""

from pathlib import Path
from typing import Annotated, Final

from pydantic import AfterValidator, BaseModel, Field, SecretStr, field_validator

from order_engine.server_urls import (
    SQLITE_URL,
    PostgresTarget,
    check_database_url,
    check_http_url,
    check_redis_url,
    is_postgres,
    read_postgres_url,
)
from order_engine.settings.errors import SettingsError

DEFAULT_CHAIN_URL: Final = "http://127.0.0.1:8899"
SQLITE_FILE: Final = "order-engine.sqlite3"
LEDGER_FILE: Final = "paper-chain.sqlite3"


class ServerSettings(BaseModel):
    """Servers and files."""

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
    postgres_password: SecretStr = Field(
        SecretStr(""), description="Password of PostgreSQL in docker-compose.yml; nothing else reads it."
    )

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
