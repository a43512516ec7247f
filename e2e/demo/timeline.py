"""The timeline: what watches saw happen, in the order in which etcd took it."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from types import TracebackType
from typing import Self

from e2e.controlplane.access import Cluster
from e2e.demo.screen import StoryError

WAIT_SECONDS = 15.0
_LINE = r'{.type} {.object.metadata.name} {.object.metadata.resourceVersion}{"\n"}'


@dataclass(frozen=True, slots=True)
class Sighting:
    """One change as a watch told it.

    Attributes:
        revision: etcd's own; of two changes the smaller came first, whatever kinds they are of.
        at: when it was told, in seconds of the wall clock.
    """

    kind: str
    change: str
    name: str
    revision: int
    at: float


class Watch:
    """`kubectl get --watch` of one kind in one namespace, noted down as it speaks."""

    def __init__(self, cluster: Cluster, namespace: str, kind: str) -> None:
        self._kind = kind
        self._seen: list[Sighting] = []
        self._changed = threading.Condition()
        self._process = subprocess.Popen(
            [
                cluster.program("kubectl"),
                *("--namespace", namespace, "get", kind, "--watch", "--output-watch-events"),
                *("-o", f"jsonpath={_LINE}"),
            ],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=cluster.environment(),
        )
        self._reader = threading.Thread(target=self._read, daemon=True)

    def __enter__(self) -> Self:
        """Return once it watches: what exists already is told first."""
        self._reader.start()
        self.wait_for(lambda _: True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Stop watching."""
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def sightings(self, is_meant: Callable[[Sighting], bool]) -> list[Sighting]:
        """What was seen so far."""
        with self._changed:
            return [sighting for sighting in self._seen if is_meant(sighting)]

    def wait_for(self, is_meant: Callable[[Sighting], bool]) -> Sighting:
        """Wait until something is seen; returns it.

        Raises:
            StoryError: it was not seen in time.
        """
        with self._changed:
            if not self._changed.wait_for(lambda: any(map(is_meant, self._seen)), WAIT_SECONDS):
                raise StoryError(f"A watch of {self._kind} saw nothing of it within {WAIT_SECONDS:.0f} s")
        return self.sightings(is_meant)[0]

    def _read(self) -> None:
        for line in self._process.stdout or ():
            change, name, revision = line.split()
            with self._changed:
                self._seen.append(Sighting(self._kind, change, name, int(revision), time.time()))
                self._changed.notify_all()


def in_order(sightings: Iterable[Sighting]) -> list[Sighting]:
    """Sort by etcd's revision: the watches are processes of their own, whose clocks of arrival differ."""
    return sorted(sightings, key=lambda sighting: sighting.revision)
