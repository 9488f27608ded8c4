"""Measurements in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

#: Seconds; from one token of a small model to the prompt of a large one on a slow machine.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The measurements of one server."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        by_model, registry = ["model"], self.registry
        self.first = Histogram(
            "limner_time_to_first_token_seconds",
            "From a request's arrival in the queue to its first token",
            by_model, buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self.between = Histogram(
            "limner_time_between_tokens_seconds",
            "From one token of an answer to its next",
            by_model, buckets=BUCKETS, registry=registry,
        )  # fmt: skip
        self.prompt_tokens = Counter(
            "limner_prompt_tokens", "Tokens read", by_model, registry=registry
        )
        self.generated_tokens = Counter(
            "limner_generated_tokens", "Tokens written", by_model, registry=registry
        )
        self.requests = Counter(
            "limner_requests", "Requests answered", ["path", "status"], registry=registry
        )
        self.running = Gauge(
            "limner_answers_running", "Answers being computed", by_model, registry=registry
        )
        self.waiting = Gauge(
            "limner_answers_waiting", "Answers that wait for a row", by_model, registry=registry
        )

    def of(self, model: str) -> ModelMetrics:
        """Those of one model."""
        return ModelMetrics(self, model)

    def text(self) -> bytes:
        """What /metrics answers."""
        return generate_latest(self.registry)


class ModelMetrics:
    """The measurements of one model; an `Observer` of its engine thread."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._first, self._between = metrics.first.labels(model), metrics.between.labels(model)
        self._generated = metrics.generated_tokens.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self._running, self._waiting = metrics.running.labels(model), metrics.waiting.labels(model)

    def first_token(self, seconds: float) -> None:
        """An answer's first token came."""
        self._first.observe(seconds)
        self._generated.inc()

    def next_token(self, seconds: float) -> None:
        """A further token came."""
        self._between.observe(seconds)
        self._generated.inc()

    def watch(self, running: Callable[[], int], waiting: Callable[[], int]) -> None:
        """Where to look how many answers there are, whenever someone asks."""
        self._running.set_function(running)
        self._waiting.set_function(waiting)
