"""Measurements of several processes, side by side."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector


class _Collected(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self.families = families

    def collect(self) -> Iterator[Metric]:
        """What was collected."""
        yield from self.families


def merged(texts: Iterable[tuple[str, str]]) -> bytes:
    """Measurements in Prometheus' form, each with the name of the replica that it came from."""
    families: dict[str, Metric] = {}
    for replica, text in texts:
        for family in text_string_to_metric_families(text):
            told = Metric(family.name, family.documentation, family.type)
            kept = families.setdefault(family.name, told)
            for sample in family.samples:
                labels = sample.labels | {"replica": replica}
                kept.add_sample(sample.name, labels, sample.value)
    registry = CollectorRegistry()
    registry.register(_Collected(families.values()))
    return generate_latest(registry)
