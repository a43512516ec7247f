"""When each pilot was last used, in its status: coarse, because a write of it tells nothing else.

A grant's status has its use to the second. A pilot's says only in which ten minutes one of its grants was
used last, so that a pilot in use all day costs six writes an hour. It is written right after the grants'
statuses from which it follows; what does not go through is written with the next ones.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging

import msgspec

from pilot_identity.control.store import Store
from pilot_identity.core.resources import PilotIdentity
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.ports import Cluster, Conflict, PortError

log = logging.getLogger(__name__)

STEP = dt.timedelta(minutes=10)
"""`status.lastUsed` is a multiple of it, from midnight UTC."""
WRITERS = 4
"""Writes of a status side by side."""


class PilotUse:
    """Takes when pilots were used, and tells it; what waits is one time for each pilot."""

    def __init__(self, store: Store, cluster: Cluster) -> None:
        self._store = store
        self._cluster = cluster
        self._used: dict[Key, dt.datetime] = {}

    def __bool__(self) -> bool:
        """Whether something waits to be told."""
        return bool(self._used)

    def note(self, pilot: Key, at: dt.datetime) -> None:
        """One of a pilot's grants was used."""
        self._used[pilot] = max(step_of(at), self._used.get(pilot, step_of(at)))

    async def tell(self) -> None:
        """Write the statuses that do not say it yet."""
        used, self._used = self._used, {}
        slots = asyncio.Semaphore(WRITERS)

        async def write(pilot: PilotIdentity, at: dt.datetime) -> None:
            async with slots:
                await self._write(pilot, at)

        async with asyncio.TaskGroup() as tasks:
            for key, at in used.items():
                pilot = self._store.pilot(key)
                if pilot is not None and _is_news(pilot, at):
                    tasks.create_task(write(pilot, at))

    async def _write(self, pilot: PilotIdentity, at: dt.datetime) -> None:
        before = pilot.status
        after = msgspec.structs.replace(before, last_used=at)
        try:
            written = await self._cluster.write_status(pilot, encode(before), encode(after))
        except PortError as error:
            if not isinstance(error, Conflict):
                log.warning("%s: its last use is not in its status yet: %s", pilot.key, error)
            self.note(pilot.key, at)
            return
        self._store.put(written)  # nobody's decision rests on it


def step_of(at: dt.datetime) -> dt.datetime:
    """The last moment up to `at` that `status.lastUsed` can be.

    >>> step_of(dt.datetime(2026, 6, 1, 12, 19, 59, 5, tzinfo=dt.UTC)).isoformat()
    '2026-06-01T12:10:00+00:00'
    """
    return at - (at - dt.datetime.min.replace(tzinfo=dt.UTC)) % STEP


def _is_news(pilot: PilotIdentity, at: dt.datetime) -> bool:
    """Whether the status does not say it, and it was this pilot: another one of its name may be gone."""
    made_at = pilot.metadata.creation_timestamp
    known = pilot.status.last_used
    return (made_at is None or at + STEP > made_at) and (known is None or at > known)
