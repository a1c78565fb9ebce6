"""The settings, from environment variables."""

import os
from dataclasses import dataclass


@dataclass(frozen=True)
class Settings:
    """All settings; the venues' delays are multiplied by `delay_scale`, 0 means none."""

    database_url: str
    redis_url: str
    queue_name: str
    concurrency: int
    delay_scale: float
    database_connections: int


def read_settings() -> Settings:
    """Return the settings of this process."""
    value = os.environ.get
    return Settings(
        # The scheme tells SQLAlchemy which driver to use.
        database_url=os.environ["DATABASE_URL"].replace("postgresql:", "postgresql+asyncpg:", 1),
        redis_url=os.environ["REDIS_URL"],
        queue_name=value("REDIS_KEY_PREFIX", "") + "orders",
        concurrency=int(value("WORKER_CONCURRENCY", "10")),
        delay_scale=float(value("DELAY_SCALE", "0")),
        database_connections=int(value("DATABASE_CONNECTIONS", "20")),
    )
