"""The composition root: the only place that names concrete adapters."""

from order_engine.paper.market import REFERENCE_PRICES_USD
from order_engine.wiring.engine import (
    Engine,
    build_api,
    build_health,
    build_worker,
    build_worker_metrics,
    edge_policy,
    open_engine,
    open_reconciliation,
)
from order_engine.wiring.paper import chain_faults, open_chain_app
from order_engine.wiring.stores import ANNOUNCE_GRACE_MS, migrate, new_order_id, open_access

__all__ = (
    "ANNOUNCE_GRACE_MS",
    "REFERENCE_PRICES_USD",
    "Engine",
    "build_api",
    "build_health",
    "build_worker",
    "build_worker_metrics",
    "chain_faults",
    "edge_policy",
    "migrate",
    "new_order_id",
    "open_access",
    "open_chain_app",
    "open_engine",
    "open_reconciliation",
)
