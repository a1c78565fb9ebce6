"""A client for a running engine's HTTP API; the command line uses it."""

from order_engine.client.engine import TERMINAL, EngineClient, new_idempotency_key
from order_engine.client.errors import (
    EngineClientError,
    EngineRefusedError,
    EngineUnreachableError,
    OrderUnknownError,
    UnusableAddressError,
)

__all__ = (
    "TERMINAL",
    "EngineClient",
    "EngineClientError",
    "EngineRefusedError",
    "EngineUnreachableError",
    "OrderUnknownError",
    "UnusableAddressError",
    "new_idempotency_key",
)
