"""The sweep: the store compared with what the API server lists, so that no missed event matters.

A watch that was interrupted lists again but does not say what was deleted meanwhile. So the sweep runs
before the first pass of a leader, whenever a watch is seen to list anew, and every ten minutes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass, field

from pilot_identity.control.reconcile import Reconciler
from pilot_identity.control.store import Store
from pilot_identity.core.resources import KINDS
from pilot_identity.core.resources.metadata import Key
from pilot_identity.ports import AuditLog, Cluster, PortError

log = logging.getLogger(__name__)

RETRY_SECONDS = 1.0
SWEEP_SECONDS = 600.0
"""A watch that is lost and lists nothing tells nobody; this bounds how long that stays unnoticed."""


@dataclass(frozen=True, slots=True)
class Sweeper:
    """Lists everything that is watched and puts the store right."""

    store: Store
    cluster: Cluster
    reconciler: Reconciler
    log: AuditLog
    _wanted: asyncio.Event = field(default_factory=asyncio.Event)

    def ask(self) -> None:
        """Ask for a sweep soon."""
        self._wanted.set()

    async def sweep(self) -> None:
        """Sweep every kind once, then mark every key dirty.

        Raises:
            PortError: a list could not be read to its end.
        """
        for kind in KINDS:
            await self._sweep_kind(kind)
        present = {key: self.store.get(key) for kind in KINDS for key in self.store.keys(kind)}
        self.log.retain({found.metadata.uid for found in present.values() if found is not None})
        self.reconciler.mark(present)

    async def _sweep_kind(self, kind: str) -> None:
        known = {
            key: found.metadata.version for key in self.store.keys(kind) if (found := self.store.get(key))
        }
        listed: set[Key] = set()
        async for resource in self.cluster.list(kind):
            if isinstance(resource, Key):
                listed.add(resource)
                continue
            listed.add(resource.key)
            self.reconciler.mark(self.store.put(resource))
        for key, version in known.items():
            if key not in listed:
                # Held before the list began and not in it: gone. What came later has a newer version.
                self.reconciler.mark(self.store.drop(key, version=version))

    async def sweep_through(self) -> None:
        """Sweep, over again until it succeeds."""
        while True:
            try:
                return await self.sweep()
            except PortError as error:
                log.warning("the sweep starts over: %s", error)
                await asyncio.sleep(RETRY_SECONDS)

    async def run(self) -> None:
        """Sweep whenever asked and every `SWEEP_SECONDS`, for ever."""
        while True:
            try:
                async with asyncio.timeout(SWEEP_SECONDS):
                    await self._wanted.wait()
            except TimeoutError:
                log.debug("a routine sweep")
            self._wanted.clear()
            await self.sweep_through()
