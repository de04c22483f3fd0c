"""Prometheus metrics of a server."""

from collections.abc import Callable, Mapping

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from alignlab.serving.engines.protocol import Engine

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)


class Metrics:
    """The metrics of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = self.counter("requests", "Requests by path and status.", "method", "path", "status")
        self.tokens = self.counter("tokens", "Tokens by model and kind (prompt, completion).", "model", "kind")
        self.feedback = self.counter("feedback", "Feedback by kind and action (given, withdrawn).", "kind", "action")
        self.wrong_keys = self.counter("wrong_keys", "Wrong keys, by outcome (unknown, unread).", "outcome")
        self.safety = self.counter("safety_blocked", "Texts that the safety filter blocked, by place.", "place")
        self.latency = self.histogram("completion_seconds", "Seconds until a completion was whole.", "model")
        self.first = self.histogram("first_part_seconds", "Seconds until the first part of a stream.", "model")
        self.safety_seconds = self.histogram(
            "safety_seconds", "Seconds that the safety filter took, by place.", "place"
        )
        self.commits = self.histogram("store_commit_seconds", "Seconds of a group's commit.")
        self.switches = self.counter(
            "model_switches", "Models of the registry, by outcome (switched, failed).", "outcome"
        )
        self.exports = self.counter("exports", "Exports of feedback by server and outcome.", "server", "outcome")
        self.committed = self.counter("store_records", "Records that were committed.")

    def counter(self, name: str, text: str, *labels: str) -> Counter:
        """Create a counter."""
        return Counter(f"alignlab_{name}", text, labels, registry=self.registry)

    def histogram(self, name: str, text: str, *labels: str) -> Histogram:
        """Create a histogram of seconds."""
        return Histogram(f"alignlab_{name}", text, labels, buckets=SECONDS, registry=self.registry)

    def watch(self, engines: Mapping[str, Engine]) -> None:
        """Report the load of engines at the time of each scrape."""
        texts = {"waiting": "Requests that wait for a place in the batch.", "active": "Requests in the batch."}
        for field, text in texts.items():
            gauge = Gauge(f"alignlab_queue_{field}", text, ("model",), registry=self.registry)
            for name in engines:
                gauge.labels(name).set_function(reader(engines, name, field))

    def observe_commit(self, seconds: float, size: int) -> None:
        """Record a commit of the store."""
        self.commits.observe(seconds)
        self.committed.inc(size)

    def text(self) -> bytes:
        """Return all metrics in Prometheus' text format."""
        return generate_latest(self.registry)


def reader(engines: Mapping[str, Engine], name: str, field: str) -> Callable[[], float]:
    """Return a function that reads a number of the load of the engine in service."""
    return lambda: float(getattr(engines[name].load(), field))
