"""The settings of a worker."""

from pydantic import BaseModel, Field


class WorkerSettings(BaseModel):
    """Workers."""

    worker_concurrency: int = Field(100, ge=1, le=20_000, description="Orders that one worker runs at once.")
    queue_max_per_min: int = Field(
        0, ge=0, le=1_000_000, description="Orders a minute that all workers together start; 0 is no limit."
    )
    quote_timeout_ms: int = Field(2_000, ge=10, le=60_000, description="Maximum time of a venue for a quote, in ms.")
    order_max_attempts: int = Field(3, ge=1, le=20, description="Attempts before an order fails.")
    retry_backoff_ms: int = Field(
        1_000, ge=0, le=600_000, description="Pause after the first failed attempt, in ms; doubles each time."
    )
    retry_backoff_max_ms: int = Field(30_000, ge=0, le=3_600_000, description="Maximum of that pause, in ms.")
    retry_jitter_percent: int = Field(20, ge=0, le=100, description="Random change of a pause, in percent up or down.")
    lease_seconds: int = Field(15, ge=1, le=600, description="How long a silent worker keeps its orders, in s.")
    sweep_interval_ms: int = Field(
        500, ge=50, le=60_000, description="How often a worker looks for due and abandoned orders, in ms."
    )
    max_claims: int = Field(5, ge=4, le=100, description="Claims without an event after which an order is parked.")
    chain_poll_ms: int = Field(200, ge=10, le=60_000, description="Maximum pause between checks of a signature, in ms.")
    chain_resend_ms: int = Field(
        2_000, ge=100, le=60_000, description="Pause between two sends of the same bytes, in ms."
    )
    retention_days: int = Field(
        0,
        ge=0,
        le=10_000,
        description="Days that an ended order is kept, with its history and its key; 0 is for ever.",
    )
    metrics_port: int = Field(
        0, ge=0, le=65_535, description="Port on 127.0.0.1 where a worker without an API serves /metrics; 0: nowhere."
    )
    shutdown_grace_ms: int = Field(
        6_000, ge=0, le=8_000, description="How long orders may finish after SIGTERM before they are released, in ms."
    )
