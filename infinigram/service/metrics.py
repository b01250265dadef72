"""Prometheus metrics of the service: requests, their time by route and index, requests in flight, refusals."""

import os
from typing import Any

_SECONDS = (0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 2.5, 10.0, 30.0)


class Metrics:
    """The figures of one process, or of all workers if PROMETHEUS_MULTIPROC_DIR names their shared folder."""

    def __init__(self) -> None:
        import prometheus_client as prometheus

        self._prometheus = prometheus
        registry = prometheus.CollectorRegistry()
        self._registry = registry
        labels = ("route", "index")
        self._requests = prometheus.Counter("limbeck_ngram_requests", "requests answered", (*labels, "status"), registry=registry)
        self._seconds = prometheus.Histogram(
            "limbeck_ngram_seconds", "seconds from a request's headers to its answer", labels, buckets=_SECONDS, registry=registry
        )
        self._rejected = prometheus.Counter("limbeck_ngram_rejected", "requests refused", ("status",), registry=registry)
        self.in_flight: Any = prometheus.Gauge(
            "limbeck_ngram_in_flight", "requests being answered", registry=registry, multiprocess_mode="livesum"
        )
        self._children: dict[tuple[str, str, int], tuple[Any, Any]] = {}

    def request(self, route: str, index: str, status: int, seconds: float) -> None:
        """Count one request."""
        children = self._children.get((route, index, status))
        if children is None:
            children = (self._requests.labels(route, index, str(status)), self._seconds.labels(route, index))
            self._children[(route, index, status)] = children
        children[0].inc()
        children[1].observe(seconds)

    def rejected(self, status: int) -> None:
        """Count one refusal."""
        self._rejected.labels(str(status)).inc()

    def text(self) -> tuple[bytes, str]:
        """All metrics in Prometheus text format, and the media type."""
        registry = self._registry
        if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
            from prometheus_client import multiprocess

            registry = self._prometheus.CollectorRegistry()
            multiprocess.MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
        return self._prometheus.generate_latest(registry), self._prometheus.CONTENT_TYPE_LATEST
