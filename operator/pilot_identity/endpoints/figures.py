"""Metrics: the operator's own figures, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Reading = float | Mapping[str, float]
"""A figure, or one for each kind of thing."""
Readings = Mapping[str, tuple[str, Callable[[], Reading]]]
"""A metric's name to its help text and how to read it; a name that ends in `_total` is a counter.

Only gauges can have kinds; each is told with the label `kind`.
"""


class _Readings(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for name, (text, read) in self._readings.items():
            reading = read()
            if not isinstance(reading, float):
                family = GaugeMetricFamily(name, text, labels=("kind",))
                for kind, value in reading.items():
                    family.add_metric((kind,), value)
                yield family
            elif name.endswith("_total"):
                yield CounterMetricFamily(name, text, value=reading)
            else:
                yield GaugeMetricFamily(name, text, value=reading)


def collect(readings: Readings) -> CollectorRegistry:
    """Make a registry of the process's figures and of `readings`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Readings(readings))
    return registry
