"""Metrics: the operator's own figures, read when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

Readings = Mapping[str, tuple[str, Callable[[], float]]]
"""A metric's name to its help text and how to read it; a name that ends in `_total` is a counter."""


class _Readings(Collector):
    def __init__(self, readings: Readings) -> None:
        self._readings = readings

    def collect(self) -> Iterator[Metric]:
        for name, (text, read) in self._readings.items():
            if name.endswith("_total"):
                yield CounterMetricFamily(name, text, value=read())
            else:
                yield GaugeMetricFamily(name, text, value=read())


def collect(readings: Readings) -> CollectorRegistry:
    """Make a registry of the process's figures and of `readings`."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    GCCollector(registry=registry)
    registry.register(_Readings(readings))
    return registry
