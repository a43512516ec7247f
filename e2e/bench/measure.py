"""Measure: what the API server counted, and what the operator's process used."""

from __future__ import annotations

import math
import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

WRITES = frozenset({"POST", "PUT", "PATCH", "DELETE"})
_REQUEST = re.compile(r"^apiserver_request_total\{(?P<labels>[^}]*)\} (?P<value>\S+)$", re.MULTILINE)
_PEAK = re.compile(r"^VmHWM:\s+(\d+) kB$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="([^"]*)"')


@dataclass(frozen=True, order=True)
class Request:
    """One kind of request: verb, resource and subresource."""

    verb: str
    resource: str
    subresource: str

    def __str__(self) -> str:
        """As in the table."""
        return f"{self.verb} {self.resource}" + (f"/{self.subresource}" if self.subresource else "")


def requests(metrics: str) -> Counter[Request]:
    """Read how often the API server answered each kind of request, dry runs and refusals apart."""
    counted: Counter[Request] = Counter()
    for match in _REQUEST.finditer(metrics):
        labels = dict(_LABEL.findall(match["labels"]))
        if labels.get("dry_run") or not labels.get("code", "").startswith("2"):
            continue
        request = Request(labels["verb"], labels["resource"], labels.get("subresource", ""))
        counted[request] += int(float(match["value"]))
    return counted


def writes(counted: Counter[Request]) -> Counter[Request]:
    """Only what changes something stored."""
    return Counter({request: count for request, count in counted.items() if request.verb in WRITES and count})


def cpu_seconds(pid: int) -> float:
    """User and system time that a process used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """A process's resident memory, in MB of 1,000,000 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak_rss_mb(pid: int) -> float:
    """The most resident memory that a process had so far, in MB of 1,000,000 bytes."""
    told = _PEAK.search(Path(f"/proc/{pid}/status").read_text())
    if told is None:
        raise ValueError(f"process {pid} has ended")
    return int(told[1]) * 1024 / 1e6


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which `share` of all values lie (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


def milliseconds(values: Sequence[float]) -> dict[str, float]:
    """The median and the 99th percentile of seconds, in milliseconds."""
    return {name: round(percentile(values, share) * 1000, 1) for name, share in (("p50", 0.5), ("p99", 0.99))}
