"""Measurements in Prometheus' form."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from limner.inference.engine import Statistics

#: Seconds; from one token of a small model to the prompt of a large one on a slow machine.
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


#: What a page of the cache may be: held by an answer, kept for texts that begin alike, or neither.
STATES = ("used", "cached", "free")


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
            "limner_requests", "Requests answered", ["path", "status", "model"], registry=registry
        )
        self.running = Gauge(
            "limner_answers_running", "Answers being computed", by_model, registry=registry
        )
        self.waiting = Gauge(
            "limner_answers_waiting", "Answers that wait for a row", by_model, registry=registry
        )

        self.pages = Gauge(
            "limner_cache_pages", "Pages of the cache", [*by_model, "state"], registry=registry
        )
        self.reused = Gauge(
            "limner_prompt_tokens_reused",
            "Tokens that were not computed, since another text had begun alike",
            by_model, registry=registry,
        )  # fmt: skip
        self.preempted = Gauge(
            "limner_answers_preempted", "Answers put back to make room", by_model, registry=registry
        )
        self.guessed = Gauge(
            "limner_tokens_guessed", "Tokens guessed ahead", by_model, registry=registry
        )
        self.guessed_right = Gauge(
            "limner_tokens_guessed_right", "Guesses that were right", by_model, registry=registry
        )

    def of(self, model: str) -> ModelMetrics:
        """Those of one model."""
        return ModelMetrics(self, model)

    def of_adapter(self, name: str) -> AnswerMetrics:
        """Those of one adapter, which has a name of its own."""
        return AnswerMetrics(self, name)

    def forget_adapter(self, name: str) -> None:
        """An adapter is gone: do not look any more how many answers it has."""
        self.running.remove(name)

    def forget(self, model: str) -> None:
        """A model is gone: do not look any more how many answers it has."""
        guesses = (self.guessed, self.guessed_right)
        for gauge in (self.running, self.waiting, self.reused, self.preempted, *guesses):
            gauge.remove(model)
        for state in STATES:
            self.pages.remove(model, state)

    def text(self) -> bytes:
        """What /metrics answers."""
        return generate_latest(self.registry)


class AnswerMetrics:
    """The measurements of answers of one model or adapter; an `Observer` of an engine thread."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        self._first, self._between = metrics.first.labels(model), metrics.between.labels(model)
        self._generated = metrics.generated_tokens.labels(model)
        self.prompt_tokens = metrics.prompt_tokens.labels(model)
        self._running = metrics.running.labels(model)

    def first_token(self, seconds: float) -> None:
        """An answer's first token came."""
        self._first.observe(seconds)
        self._generated.inc()

    def next_token(self, seconds: float) -> None:
        """A further token came."""
        self._between.observe(seconds)
        self._generated.inc()

    def watch_running(self, count: Callable[[], int]) -> None:
        """Where to look how many answers are being computed, whenever someone asks."""
        self._running.set_function(count)


class ModelMetrics(AnswerMetrics):
    """The measurements of one model and its engine."""

    def __init__(self, metrics: Metrics, model: str) -> None:
        super().__init__(metrics, model)
        self._reused, self._preempted = (
            metrics.reused.labels(model),
            metrics.preempted.labels(model),
        )
        self._guessed, self._right = (
            metrics.guessed.labels(model),
            metrics.guessed_right.labels(model),
        )
        self._pages = [metrics.pages.labels(model, state) for state in STATES]
        self._waiting = metrics.waiting.labels(model)

    def watch(self, engine: Callable[[], Statistics], waiting: Callable[[], int]) -> None:
        """Where to look how the engine is, whenever someone asks."""
        self.watch_running(lambda: engine().running)
        self._waiting.set_function(waiting)
        self._reused.set_function(lambda: engine().found)
        self._preempted.set_function(lambda: engine().preemptions)
        self._guessed.set_function(lambda: engine().proposed)
        self._right.set_function(lambda: engine().accepted)
        used, cached, free = self._pages
        used.set_function(lambda: engine().used)
        cached.set_function(lambda: engine().cached)
        free.set_function(lambda: engine().pages - engine().used - engine().cached)
