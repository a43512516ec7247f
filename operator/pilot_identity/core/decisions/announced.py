"""What to do with a credential that the log announced and the status does not know.

The operator announces a credential in the log, writes its Secret, then the status. Killed in between, it
finds on its return an announcement that the status does not confirm. It cannot read Secrets; but it can
ask the API server, with a dry-run replacement that names the credential it would replace, whether the
Secret holds exactly that credential (the admission policy compares). So nothing is issued twice: what was
released is adopted, what was not is abandoned in the log before another is announced.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from enum import Enum
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.resources.metadata import View
from pilot_identity.core.resources.parsing import encode

RELEASE_WITHIN = dt.timedelta(seconds=2)
"""A credential is released so soon after its entry's time, or never."""
ABANDON_AFTER = 2 * RELEASE_WITHIN
"""What was not released by then never will be: a leader that was displaced, or woke late, has given it up.

Only this makes "abandoned" true while another process may still believe that it leads (a Lease cannot).
"""


class Holding(Enum):
    """What a Secret of a known name holds."""

    ANNOUNCED = "the announced credential"
    PREVIOUS = "the credential that the status knows"
    FOREIGN = "something that is not this object's"
    NOTHING = "no such Secret"


class Announcement(msgspec.Struct, frozen=True, rename="camel"):
    """The part of an issuing entry's data by which a credential is found again."""

    id: str
    issuance: int


@dataclass(frozen=True, slots=True)
class Announced:
    """A credential that the log announced and the status does not know.

    Attributes:
        entry: the announcing entry, and its index.
        holding: what stands in the Secret now, and that Secret's UID where it is this object's.
    """

    entry: RecordedEntry
    index: int
    announcement: Announcement
    holding: Holding
    secret_uid: str = ""

    @property
    def was_released(self) -> bool:
        """Whether the workload may have it."""
        return self.holding is Holding.ANNOUNCED

    @property
    def settled_at(self) -> dt.datetime:
        """From when on what is not released counts as abandoned."""
        return self.entry.time + ABANDON_AFTER

    def may_be_released(self, now: dt.datetime) -> bool:
        """Whether the process that announced it may be about to release it still."""
        return self.holding in {Holding.NOTHING, Holding.PREVIOUS} and now < self.settled_at


def announcement_of(entry: RecordedEntry) -> Announcement | None:
    """Return what `entry` announces, or `None` where it announces no credential."""
    credential = entry.data.get("credential")
    return msgspec.convert(credential, Announcement) if isinstance(credential, dict) else None


def stage_announced(entry: RecordedEntry, beyond: int) -> str:
    """The stage of a pilot's announced credential that its status may not know; empty where it does.

    `beyond` is the number of the last credential that the status knows.
    """
    announcement = announcement_of(entry)
    is_unknown = announcement is not None and announcement.issuance > beyond
    return str(entry.data.get("stage", "")) if is_unknown else ""


def abandon(announced: Announced, moment: Moment) -> Entry:
    """The entry that says that the announced credential was not found in its place."""
    return Entry(
        id=f"{announced.entry.subject_uid}/abandoned/{announced.announcement.issuance}",
        type=EntryType.CREDENTIAL_ABANDONED,
        subject=announced.entry.subject,
        subject_uid=announced.entry.subject_uid,
        time=moment.now,
        data={
            "abandoned": {"id": announced.announcement.id, "issuance": announced.announcement.issuance},
            "announcedBy": announced.index,
            "notAfter": announced.entry.data.get("credential", {}).get("notAfter"),
            "secretHolds": announced.holding.value,
        },
    )


def announced_data(credential: View, public_key_sha256: str) -> dict[str, Any]:
    """What an entry tells of a credential: all that the status will, but what only applying it tells."""
    data: dict[str, Any] = {**encode(credential), "publicKeySHA256": public_key_sha256}
    for later in ("auditIndex", "secretUID"):
        data.pop(later, None)
    return data


def adopted(announced: Announced) -> dict[str, Any]:
    """The credential's status, read back from its announcement."""
    recorded = announced.entry.data["credential"]
    return {**recorded, "auditIndex": announced.index, "secretUID": announced.secret_uid}
