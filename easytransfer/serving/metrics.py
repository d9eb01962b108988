"""Figures for Prometheus, under the names TensorFlow Serving gives to the same things."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Gauge, Histogram, ProcessCollector, generate_latest
from prometheus_client import disable_created_metrics as disable_creation_times

PATH = "/monitoring/prometheus/metrics"
_MICROSECONDS = tuple(float(f"{digit}e{power}") for power in range(2, 8) for digit in (1, 2, 5))
_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """Counts and times of one server.

    Args:
        waiting: Returns the rows that wait now.
    """

    def __init__(self, waiting: Callable[[], int]) -> None:
        disable_creation_times()
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        prefix = ":tensorflow:serving:"
        # A gauge by type, since a counter's name would get the suffix `_total`, which dashboards do not look for.
        self._requests = Gauge(
            f"{prefix}request_count", "Requests by model and outcome.", ("model_name", "status"), registry=self.registry
        )
        self._latency = Histogram(
            f"{prefix}request_latency", "Microseconds from request to answer.", ("model_name", "API", "entrypoint"),
            buckets=_MICROSECONDS, registry=self.registry,
        )  # fmt: skip
        self._runtime = Histogram(
            f"{prefix}runtime_latency", "Microseconds of computing one batch.", ("model_name",),
            buckets=_MICROSECONDS, registry=self.registry,
        )  # fmt: skip
        self._rows = Histogram(
            "easytransfer_serving_batch_rows", "Rows computed together.", ("model_name",),
            buckets=_ROWS, registry=self.registry,
        )  # fmt: skip
        self._filling = Gauge(
            "easytransfer_serving_filling_rows", "Rows computed only to fill a batch up.", ("model_name",),
            registry=self.registry,
        )  # fmt: skip
        queue = Gauge("easytransfer_serving_queue_rows", "Rows that wait to be computed.", registry=self.registry)
        queue.set_function(waiting)

    def request(self, model: str, api: str, entry: str, status: str, seconds: float) -> None:
        """Counts one answered or refused request."""
        self._requests.labels(model, status).inc()
        self._latency.labels(model, api, entry).observe(seconds * 1e6)

    def batch(self, model: str, rows: int, size: int, seconds: float) -> None:
        """Counts one computed batch of `rows` rows, filled up to `size`."""
        self._runtime.labels(model).observe(seconds * 1e6)
        self._rows.labels(model).observe(rows)
        self._filling.labels(model).inc(size - rows)

    def text(self) -> bytes:
        """Returns all figures in Prometheus' text form."""
        return generate_latest(self.registry)
