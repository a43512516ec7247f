"""Telling: a condition that no decision finds is written on its object, and people are told of the change."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import msgspec

from pilot_identity.control.store import Store
from pilot_identity.core.decisions.mismatch import Telling
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.ports import Cluster, Conflict, PortError, Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Teller:
    """Writes conditions beside those that passes write.

    Attributes:
        mark: told which objects must be looked at, because a status was written.
    """

    store: Store
    cluster: Cluster
    recorder: Recorder
    mark: Callable[[Iterable[Key]], None]

    async def tell(self, subject: StagePolicy | PilotIdentity | TaskGrant, telling: Telling) -> bool:
        """Write it; returns whether that went through."""
        status = msgspec.structs.replace(subject.status, conditions=telling.conditions)
        try:
            written = await self.cluster.write_status(subject, encode(subject.status), encode(status))
        except Conflict as error:
            log.debug("%s: is told again: %s", subject.key, error)
            return False
        except PortError as error:
            log.warning("%s: cannot be told: %s: %s", subject.key, telling.notice.note, error)
            return False
        self.mark(self.store.put(written))
        self.recorder.tell(telling.notice, -1)
        return True
