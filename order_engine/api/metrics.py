"""Measurements for Prometheus."""

from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from order_engine.api.context import context_of
from order_engine.counters import Counters
from order_engine.domain.errors import StoreUnavailable
from order_engine.engine.health import HealthMonitor
from order_engine.meters import CONTENT_TYPE, Gauge, expose

_TEXTS = (
    ("fenced_writes", "Writes that were refused because another worker owned the order."),
    ("lost_announcements", "Ids and events that Redis did not get."),
    ("unproven_messages", "Messages on Redis that this engine did not send."),
    ("parked", "Orders that were parked."),
    ("crashed", "Orders whose work ended in an unexpected error."),
    ("chain_outages", "Times that the chain did not answer for several seconds."),
    ("chain_lies", "Times that the chain returned impossible numbers for several seconds."),
    ("deleted", "Ended orders that were deleted."),
    ("failed_sends", "Sends that the chain refused or did not answer."),
)


async def get_metrics(request: Request[Any]) -> Response:
    """Show the measurements of this process, and the queue as the database has it."""
    context = context_of(request)
    watchers = Gauge("stream_watchers", "Open account streams.", context.account_streams.watchers)
    return await _answer(context.counters, context.health, watchers)


def build_metrics_app(counters: Counters, health: HealthMonitor) -> ASGIApp:
    """Return an application with the measurements alone, for a process that serves nothing else."""

    async def endpoint(_request: Request[Any]) -> Response:
        return await _answer(counters, health)

    return Starlette(routes=[Route("/metrics", endpoint)])


async def _answer(counters: Counters, health: HealthMonitor, *more: Gauge) -> Response:
    gauges = [Gauge(f"{name}_total", text, getattr(counters, name)) for name, text in _TEXTS]
    try:
        found = await health.store_health()
    except StoreUnavailable:
        found = None
    gauges.append(Gauge("store_up", "Whether the database answers.", found is not None))
    if found is not None:
        gauges += [
            Gauge("queue_orders", "Orders that wait for a worker, counted up to a limit.", found.waiting),
            Gauge("queue_oldest_seconds", "How long the oldest of them is due.", found.oldest_due_ms / 1000),
            Gauge("in_doubt_attempts", "Attempts without a proven outcome.", found.in_doubt),
            Gauge("in_doubt_oldest_seconds", "Age of the oldest of them.", found.oldest_in_doubt_ms / 1000),
        ]
    return Response(expose(counters.meters, [*gauges, *more]), media_type=CONTENT_TYPE)
