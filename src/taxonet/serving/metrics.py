"""What Prometheus reads: requests, stages, batches, queues, errors by kind, workers, reloads and drift."""

from collections.abc import Iterator
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Histogram
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest

from taxonet._version import __version__
from taxonet.serving.deployment import Deployment

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
BATCHES = (1, 2, 4, 8, 16, 32, 64)
STAGES = ("wait", "decode", "network")


class Metrics:
    """The counters of one server, in a registry of its own."""

    content_type = CONTENT_TYPE_LATEST

    def __init__(self, deployment: Deployment) -> None:
        registry = self._registry = CollectorRegistry()
        self.requests = Counter(
            "taxonet_requests", "Requests answered, by route and status.", ("route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "taxonet_request_seconds", "From the head to the answer.", ("route",), buckets=SECONDS, registry=registry
        )
        self.stage_seconds = Histogram(
            "taxonet_stage_seconds",
            "Of one picture: waiting, decoding, network.",
            ("model", "stage"),
            buckets=SECONDS,
            registry=registry,
        )
        self.batch_size = Histogram(
            "taxonet_batch_size", "Pictures that shared a batch.", ("model",), buckets=BATCHES, registry=registry
        )
        self.pictures = Counter("taxonet_pictures", "Pictures answered.", ("model",), registry=registry)
        self.errors = Counter(
            "taxonet_errors",
            "Not answered: picture, request, queue, time, model.",
            ("kind",),
            registry=registry,
        )
        registry.register(_State(deployment))

    def picture(self, model: str, head: dict[str, Any]) -> None:
        """Note a picture's way through a worker."""
        for stage, seconds in zip(STAGES, head["timing"], strict=True):
            self.stage_seconds.labels(model, stage).observe(seconds)
        self.batch_size.labels(model).observe(head["batch"])
        self.pictures.labels(model).inc()

    def text(self) -> bytes:
        """All of it in Prometheus's form."""
        return generate_latest(self._registry)


class _State:
    """What is read when it is asked for."""

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment

    def collect(self) -> Iterator[Metric]:
        """The gauges of the moment."""
        deployment = self.deployment
        waiting = GaugeMetricFamily("taxonet_queue_depth", "Pictures that wait for a worker.", labels=["model"])
        drift = GaugeMetricFamily(
            "taxonet_input_drift",
            "Distance of the latest pictures' mean from the training pictures', in their standard deviations.",
            labels=["model", "feature"],
        )
        for name, model in deployment.served.items():
            waiting.add_metric([name], deployment.pool.waiting(model.key))
            for feature, distance in model.drift.distances().items():
                drift.add_metric([name, feature], distance)
        yield waiting
        yield drift
        yield GaugeMetricFamily("taxonet_at_work", "Pictures that workers have.", deployment.pool.at_work())
        yield GaugeMetricFamily("taxonet_workers_ready", "Workers that answer.", deployment.pool.workers_ready)
        yield CounterMetricFamily("taxonet_worker_deaths", "Workers that ended.", deployment.pool.deaths)
        yield CounterMetricFamily("taxonet_reloads", "Changed models that were opened.", deployment.reloads)
        yield CounterMetricFamily("taxonet_reload_failures", "Changed models that could not be.", deployment.failures)
        info = GaugeMetricFamily("taxonet_info", "The version of Taxonet.", labels=["version"])
        info.add_metric([__version__], 1)
        yield info
