"""A tenure: the time in which one replica leads, told to the log at both ends.

So the log says which version decided what, and whether it went on its own: a start that no stop precedes
means that the one before was cut off, or lost its Lease and may not write any more.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.audit.entries import Entry, EntryType


@dataclass(frozen=True, slots=True)
class Tenure:
    """One replica's time as the leader.

    Attributes:
        id: random; no other tenure has it.
        identity: the replica's name, as it holds the Lease.
        version: this program's.
        python: the interpreter's.
    """

    id: str
    namespace: str
    identity: str
    version: str
    python: str

    def started(self, now: dt.datetime) -> Entry:
        """The entry for its beginning."""
        data = {"identity": self.identity, "version": self.version, "python": self.python}
        return self._entry("started", EntryType.OPERATOR_STARTED, now, data)

    def stopped(self, why: str, now: dt.datetime) -> Entry:
        """The entry for an end that it had the time to tell."""
        data = {"identity": self.identity, "version": self.version, "why": why}
        return self._entry("stopped", EntryType.OPERATOR_STOPPED, now, data)

    def _entry(self, step: str, kind: EntryType, now: dt.datetime, data: dict[str, str]) -> Entry:
        uid = f"operator/{self.id}"
        return Entry(f"{uid}/{step}", kind, f"Namespace {self.namespace}", uid, now, data)
