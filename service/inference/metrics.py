"""What /metrics tells Prometheus. One registry an app, so that two apps can share a process."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
_BATCH = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """Counters of one app."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._requests = Counter(
            "clipdex_requests",
            "Requests answered",
            ("method", "path", "status"),
            registry=self.registry,
        )
        self._latency = Histogram(
            "clipdex_request_seconds",
            "Seconds from the first byte of a request to the last of its answer",
            ("path",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._batch = Histogram(
            "clipdex_batch_images",
            "Images that the encoder took at once",
            buckets=_BATCH,
            registry=self.registry,
        )
        self._encode = Histogram(
            "clipdex_encode_seconds",
            "Seconds the encoder took, by what it encoded",
            ("kind",),
            buckets=_SECONDS,
            registry=self.registry,
        )
        self._waiting = Gauge(
            "clipdex_waiting_images",
            "Images admitted that the encoder hasn't taken yet",
            registry=self.registry,
        )
        self._restarts = Counter(
            "clipdex_encoder_restarts",
            "Times that the encoder had to be loaded again",
            registry=self.registry,
        )

    def request(self, method: str, path: str, status: int, seconds: float) -> None:
        """Count one answered request; `path` is the route's, not the client's."""
        self._requests.labels(method, path, str(status)).inc()
        self._latency.labels(path).observe(seconds)

    def images_encoded(self, count: int, seconds: float) -> None:
        """Count one batch."""
        self._batch.observe(count)
        self._encode.labels("images").observe(seconds)

    def texts_encoded(self, seconds: float) -> None:
        """Count one turn of the text tower."""
        self._encode.labels("texts").observe(seconds)

    def waiting(self, count: int) -> None:
        """Set how many images wait."""
        self._waiting.set(count)

    def restarted(self) -> None:
        """Count one restart of the encoder."""
        self._restarts.inc()

    def exposition(self) -> bytes:
        """The text that Prometheus reads."""
        return generate_latest(self.registry)
