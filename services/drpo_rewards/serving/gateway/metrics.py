"""The gateway's metrics, which Prometheus reads from `GET /metrics`.

The gateway records all of them; a replica reports its batches and its queue in its answers. If several gateways run,
each counts its own calls and adds its name as the label `gateway`. So a sum over this label is right, whichever gateway
each scrape reaches.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from drpo_rewards.errors import RewardsError

if TYPE_CHECKING:
    from drpo_rewards.api.question import ReplicaAnswer
    from drpo_rewards.serving.gateway.admission import Admission

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """The metrics of one gateway replica, in a separate registry."""

    def __init__(self, gateway: str, admission: Admission) -> None:
        self._gateway = gateway
        self._registry = registry = CollectorRegistry()
        prefix, call = "drpo_rewards", ["operation", "transport"]

        def histogram(name: str, text: str, labels: list[str], buckets: tuple[float, ...]) -> Histogram:
            return Histogram(f"{prefix}_{name}", text, labels, buckets=buckets, registry=registry)

        self._requests = Counter(f"{prefix}_requests", "Calls answered, by code.", [*call, "code"], registry=registry)
        self._images = Counter(f"{prefix}_images", "Images of the calls that succeeded.", call, registry=registry)
        self._latency = histogram("request_seconds", "From a call's arrival to its answer.", call, SECONDS)
        self._stages = histogram(
            "stage_seconds",
            "Where the time goes: decode (body, images), reward (a reward's whole answer), score (its batches alone).",
            ["stage", "reward"],
            SECONDS,
        )
        self._errors = Counter(
            f"{prefix}_errors",
            "Failed calls, by stage, reward and code.",
            ["stage", "reward", "code"],
            registry=registry,
        )
        self._in_flight = Gauge(
            f"{prefix}_reward_in_flight", "Calls that a reward has not answered yet.", ["reward"], registry=registry
        )
        self._queue = Gauge(
            f"{prefix}_reward_queue_images",
            "Images that waited in a reward's replica when its last batch began.",
            ["reward"],
            registry=registry,
        )
        self._batch_images = histogram("batch_images", "Images in one call of a reward.", ["reward"], IMAGES)
        self._batch_seconds = histogram("batch_seconds", "Time of one call of a reward.", ["reward"], SECONDS)
        for name, text, read in (
            ("requests_in_flight", "Calls that the gateway works on.", lambda: admission.ongoing),
            ("requests_waiting", "Calls that wait for the gateway.", lambda: admission.waiting),
            ("body_bytes_in_flight", "Bytes of bodies that the gateway holds.", lambda: admission.body_bytes.taken),
            ("pixels_in_flight", "Decoded pixels that the gateway holds.", lambda: admission.pixels.taken),
        ):
            Gauge(f"{prefix}_{name}", text, registry=registry).set_function(read)

    def count_success(
        self, operation: str, transport: str, seconds: float, images: int, timings_ms: dict[str, float]
    ) -> None:
        """Count a call that succeeded. `timings_ms` is that of its response (`decode`, `reward.NAME`, `score.NAME`)."""
        self._requests.labels(operation, transport, "ok").inc()
        self._images.labels(operation, transport).inc(images)
        self._latency.labels(operation, transport).observe(seconds)
        for key, value in timings_ms.items():
            stage, _, reward = key.partition(".")
            if stage != "total":
                self._stages.labels(stage, reward).observe(value / 1e3)

    def count_failure(self, operation: str, transport: str, seconds: float, stage: str, error: RewardsError) -> None:
        """Count a call that failed. `stage` is `admit` (it waited), `decode` (it was read) or `answer`."""
        self._requests.labels(operation, transport, error.code).inc()
        self._latency.labels(operation, transport).observe(seconds)
        self._errors.labels("reward" if error.reward else stage, error.reward or "", error.code).inc()

    @contextmanager
    def count_in_flight(self, reward: str) -> Iterator[None]:
        """Count one call of a reward as in flight while this block runs."""
        in_flight = self._in_flight.labels(reward)
        in_flight.inc()
        try:
            yield
        finally:
            in_flight.dec()

    def count_batches(self, reward: str, answer: ReplicaAnswer) -> None:
        """Count the batches in a replica's answer. Each batch is in one answer only."""
        for batch in answer.batches:
            self._batch_images.labels(reward).observe(batch.images)
            self._batch_seconds.labels(reward).observe(batch.milliseconds / 1e3)
            self._queue.labels(reward).set(batch.waiting)

    def text(self) -> bytes:
        """Return the metrics in Prometheus' text format."""
        return generate_latest(_Labelled(self._registry, {"gateway": self._gateway}))  # type: ignore[arg-type]


class _Labelled(Collector):
    """A registry that adds labels to all of its samples."""

    def __init__(self, registry: CollectorRegistry, labels: dict[str, str]) -> None:
        self._registry = registry
        self._labels = labels

    def collect(self) -> Iterable[Metric]:
        for metric in self._registry.collect():
            metric.samples = [
                Sample(sample.name, sample.labels | self._labels, *sample[2:]) for sample in metric.samples
            ]
            yield metric
