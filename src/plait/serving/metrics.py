"""What a service counts and measures, as Prometheus reads it."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30)
ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """The metrics of one service, in a registry of their own: a process may run several services."""

    def __init__(self) -> None:
        self._registry = registry = CollectorRegistry()
        self.requests = Counter(
            "plait_requests", "Requests that were answered or refused", ["route", "status"], registry=registry
        )
        self.seconds = Histogram(
            "plait_request_seconds",
            "Seconds from the arrival of a request to its answer",
            ["route"],
            buckets=SECONDS,
            registry=registry,
        )
        self.busy = Gauge("plait_requests_in_flight", "Requests being read or answered", registry=registry)
        self.queue = Gauge("plait_queue_rows", "Rows that wait for the model", registry=registry)
        self.batches = Histogram(
            "plait_batch_rows", "Rows that the model answered together", buckets=ROWS, registry=registry
        )
        self.model_seconds = Histogram(
            "plait_batch_seconds",
            "Seconds that the model took for a batch",
            buckets=SECONDS,
            registry=registry,
        )
        self.bad_cells = Counter(
            "plait_bad_cells", "Cells that could not be read", ["column"], registry=registry
        )
        self.restarts = Counter(
            "plait_worker_restarts", "Decoding processes that died or were stopped", registry=registry
        )

    def text(self) -> bytes:
        """Return all metrics in the text format of Prometheus."""
        return generate_latest(self._registry)
