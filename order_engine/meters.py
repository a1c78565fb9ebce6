"""The measurements of a process, which Prometheus reads. The root of the process makes them and passes them in."""

from collections.abc import Iterable, Iterator
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"
_NAMESPACE: Final = "order_engine"
_SECONDS: Final = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES: Final = (1, 2, 5, 10, 20, 50, 100, 200, 500, 1_000)


class Meters:
    """Histograms and counters with labels. Each label has few values, all of them the engine's own."""

    def __init__(self) -> None:
        """Everything begins at zero."""
        self.registry = CollectorRegistry()
        self._accepted = self._counter("orders_accepted", "Orders that this process accepted.")
        self._ended = self._counter("orders_ended", "Orders that ended in this process.", "status", "reason")
        self._stages = self._histogram("stage_seconds", "How long orders were in a status.", _SECONDS, "status")
        self._refused = self._counter("requests_refused", "Requests that were refused.", "code")
        self._quotes = self._histogram("venue_quote_seconds", "How long a venue took for a quote.", _SECONDS, "venue")
        self._quote_errors = self._counter("venue_errors", "Quotes that a venue did not give.", "venue", "reason")
        self._calls = self._histogram("chain_request_seconds", "How long the chain took.", _SECONDS, "method")
        self._call_errors = self._counter("chain_errors", "Requests that the chain did not answer.", "method")
        self._batches = self._histogram("batch_orders", "Orders in one call to the store.", _SIZES, "call")

    def accepted(self) -> None:
        """Count an order that was accepted."""
        self._accepted.inc()

    def ended(self, status: str, reason: str | None) -> None:
        """Count an order that ended."""
        self._ended.labels(status, reason or "").inc()

    def left_status(self, status: str, after_ms: int) -> None:
        """Measure how long an order was in a status that it has left."""
        self._stages.labels(status).observe(after_ms / 1000)

    def refused(self, code: str) -> None:
        """Count a request that was refused."""
        self._refused.labels(code).inc()

    def quoted(self, venue: str, seconds: float, reason: str | None) -> None:
        """Measure a venue's answer; `reason` says why it gave no quote."""
        self._quotes.labels(venue).observe(seconds)
        if reason is not None:
            self._quote_errors.labels(venue, reason).inc()

    def called(self, method: str, seconds: float, *, is_lost: bool) -> None:
        """Measure a request to the chain; `is_lost`: there was no answer."""
        self._calls.labels(method).observe(seconds)
        if is_lost:
            self._call_errors.labels(method).inc()

    def batched(self, call: str, size: int) -> None:
        """Measure the size of a call to the store."""
        self._batches.labels(call).observe(size)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(name, text, labels, namespace=_NAMESPACE, registry=self.registry)

    def _histogram(self, name: str, text: str, buckets: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(name, text, labels, namespace=_NAMESPACE, registry=self.registry, buckets=buckets)


class Gauge:
    """One number as it is now, with its help text; None if it is not known."""

    def __init__(self, name: str, text: str, value: float | None) -> None:
        """`name` ends with the unit."""
        self.name = name
        self.text = text
        self.value = value


def expose(meters: Meters, gauges: Iterable[Gauge]) -> bytes:
    """Return all measurements in Prometheus' text format."""
    now = CollectorRegistry()
    now.register(_Gauges([it for it in gauges if it.value is not None]))
    shown: bytes = generate_latest(meters.registry) + generate_latest(now)
    return shown


class _Gauges:
    def __init__(self, gauges: list[Gauge]) -> None:
        self._gauges = gauges

    def collect(self) -> Iterator[Metric]:
        for it in self._gauges:
            yield GaugeMetricFamily(f"{_NAMESPACE}_{it.name}", it.text, value=it.value)
