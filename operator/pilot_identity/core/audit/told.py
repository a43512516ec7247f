"""What the log says of each object: what was announced for it, what took that back, and how it ended.

The entries are taken in their order and summed up for each subject, so that what is there can be held against
what the log says is there. A subject is its UID: a namesake made later is another one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import GrantCredentialStatus

Place = tuple[str, str]
"""Namespace and name."""
_KEPT = 2
"""Announcements of a subject: a renewal, and what stands until it is released."""


@dataclass(frozen=True, slots=True)
class Step:
    """What one entry says of its subject."""

    index: int
    type: str
    time: dt.datetime
    data: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Announcement:
    """A credential that an entry announced.

    Attributes:
        said: the credential as the entry says it, without what no status has.
        credential: the same, read; a pilot's has neither tokens nor Kubernetes access.
    """

    index: int
    time: dt.datetime
    said: Mapping[str, Any]
    credential: GrantCredentialStatus

    @classmethod
    def of(cls, index: int, entry: RecordedEntry) -> Announcement:
        """Read it off its entry.

        Raises:
            KeyError, msgspec.ValidationError: the entry announces nothing that this version can read.
        """
        said = {name: value for name, value in entry.data["credential"].items() if name != "publicKeySHA256"}
        told = {**said, "secretUID": "", "auditIndex": index}
        return cls(index, entry.time, said, msgspec.convert(told, GrantCredentialStatus))

    @property
    def lapses_at(self) -> dt.datetime:
        """Until when anything of it would be believed."""
        one = self.credential
        ends = [one.not_after, *(token.not_after for token in one.tokens if token.not_after is not None)]
        if one.kubernetes is not None:
            ends.append(one.kubernetes.not_after)
        return max(ends)


@dataclass(slots=True)
class Told:
    """All that matters of what the log says of one grant or pilot.

    Attributes:
        announced: the newest credentials that were not abandoned, the last one last.
        decision: what allowed or denied a grant.
        withdrawn: what took a pilot's identity back, until it got another.
        end: what closed or denied a grant, or retired a pilot.
        proven: what showed the end of a grant's access later than its end.
        digest: of what was asked for, or of what is material in a pilot.
        stage: the one that a pilot is in.
    """

    key: Key
    uid: str
    announced: list[Announcement] = field(default_factory=list)
    decision: Step | None = None
    issued: Step | None = None
    withdrawn: Step | None = None
    end: Step | None = None
    proven: Step | None = None
    digest: str = ""
    stage: str = ""

    @property
    def current(self) -> Announcement | None:
        """What is out by the log's word, or may be about to be; `None` where nothing is."""
        is_out = self.announced and self.end is None and self.withdrawn is None
        return self.announced[-1] if is_out else None

    @property
    def taken_back(self) -> Step | None:
        """What took back all that was out."""
        return self.end if self.end is not None else self.withdrawn


class Record:
    """The log summed up.

    Attributes:
        subjects: by UID.
        credentials: the subject of each credential that was ever announced, and its entry's index.
        abandoned: credentials that were announced and never released, and the entries that say so.
        accounts, bindings: whose a ServiceAccount or RoleBinding is, by its place.
        unread: entries that announce or end something in a way that this version cannot read.
        pending: subjects of which not everything is known; nothing can be said of what is theirs.
        pending_accounts: the names of their ServiceAccounts, with which the names of their bindings begin.
    """

    def __init__(self) -> None:
        self.subjects: dict[str, Told] = {}
        self.credentials: dict[str, tuple[str, int]] = {}
        self.abandoned: dict[str, int] = {}
        self.accounts: dict[Place, str] = {}
        self.bindings: dict[Place, str] = {}
        self.unread: list[int] = []
        self.pending: Collection[str] = frozenset()
        self.pending_accounts: Collection[str] = frozenset()

    def take(self, index: int, entry: RecordedEntry) -> None:
        """Take the entry of this index; those of one subject in their order."""
        take = _TAKES.get(entry.type)
        if take is None:
            return
        told = self.subjects.get(entry.subject_uid)
        if told is None:
            told = self.subjects[entry.subject_uid] = Told(Key.parse(entry.subject), entry.subject_uid)
        try:
            take(self, told, index, entry)
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
            self.unread.append(index)

    def forget(self, uids: Iterable[str]) -> None:
        """Forget subjects."""
        gone = {uid for uid in uids if self.subjects.pop(uid, None) is not None}
        if not gone:
            return
        self.credentials = {one: of for one, of in self.credentials.items() if of[0] not in gone}
        self.abandoned = {one: at for one, at in self.abandoned.items() if one in self.credentials}
        for places in (self.accounts, self.bindings):
            for place in [place for place, uid in places.items() if uid in gone]:
                del places[place]

    def announce(self, told: Told, index: int, entry: RecordedEntry) -> None:
        """Note a credential."""
        announcement = Announcement.of(index, entry)
        one = announcement.credential
        told.announced = [*told.announced, announcement][-_KEPT:]
        told.withdrawn = None
        self.credentials[one.id] = told.uid, index
        if one.kubernetes is not None:
            self.accounts[told.key.namespace, one.kubernetes.service_account_name] = told.uid
            for binding in one.kubernetes.bindings:
                self.bindings[binding.namespace, binding.name] = told.uid


def needed(steps: Mapping[str, int]) -> frozenset[int]:
    """The entries among a subject's steps that say what is out now.

    Its newest credential, what became of it, and its end; of a pilot also what came after that credential.

    >>> sorted(needed({"requested": 3, "credential/2": 9, "abandoned/1": 5, "abandoned/2": 10, "closed": 12}))
    [9, 10, 12]
    """
    newest = next((name for name in steps if name.startswith(_CREDENTIAL)), "")
    number, at = newest.removeprefix(_CREDENTIAL), steps.get(newest, -1)
    wanted = {newest, f"abandoned/{number}", *_ENDS}
    wanted.update(name for name in steps if name.startswith(_TURNS) and steps[name] > at)
    return frozenset(steps[name] for name in wanted if name in steps)


_CREDENTIAL = "credential/"
_ENDS = ("denied", "closed", "proven", "retired")
_TURNS = ("suspended/", "unreadable/", "stage/", "changed/")


def _issued(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    record.announce(told, index, entry)
    told.decision = _step(index, entry, entry.data["decision"])
    told.issued = _step(index, entry, {name: entry.data[name] for name in ("stage", "expiresAt")})
    told.digest = entry.data["grantDigest"]


def _renewed(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    record.announce(told, index, entry)


def _identified(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    record.announce(told, index, entry)
    told.digest, told.stage = entry.data["pilotDigest"], entry.data["stage"]


def _abandoned(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    credential_id = entry.data["abandoned"]["id"]
    record.abandoned[credential_id] = index
    left = [one for one in told.announced if one.credential.id != credential_id]
    indices = {one.index for one in told.announced} - {one.index for one in left}
    told.announced = left
    if told.decision is not None and told.decision.index in indices:
        # What was decided with it never came to be; the next announcement, or the denial, decides again.
        told.decision = told.issued = None


def _denied(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.decision = _step(index, entry, entry.data["decision"])
    told.end = _step(index, entry, {})
    told.digest = entry.data["grantDigest"]


def _closed(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.end = _step(index, entry, entry.data["closure"])


def _proven(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.proven = _step(index, entry, entry.data["closure"])


def _changed(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:  # noqa: ARG001 - a table's row
    told.digest = entry.data["pilotDigest"]


def _moved(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.withdrawn = _step(index, entry, {})
    told.stage = entry.data["stage"]


def _suspended(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.withdrawn = _step(index, entry, {})


def _retired(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.end = _step(index, entry, {})


def _step(index: int, entry: RecordedEntry, data: Mapping[str, Any]) -> Step:
    return Step(index, entry.type, entry.time, data)


_TAKES: Mapping[str, Callable[[Record, Told, int, RecordedEntry], None]] = MappingProxyType(
    {
        EntryType.GRANT_ISSUED: _issued,
        EntryType.GRANT_RENEWED: _renewed,
        EntryType.GRANT_DENIED: _denied,
        EntryType.GRANT_CLOSED: _closed,
        EntryType.GRANT_PROVEN: _proven,
        EntryType.CREDENTIAL_ABANDONED: _abandoned,
        EntryType.PILOT_REGISTERED: _identified,
        EntryType.PILOT_ADMITTED: _identified,
        EntryType.PILOT_RESUMED: _identified,
        EntryType.PILOT_RENEWED: _identified,
        EntryType.PILOT_CHANGED: _changed,
        EntryType.STAGE_CHANGED: _moved,
        EntryType.PILOT_SUSPENDED: _suspended,
        EntryType.PILOT_RETIRED: _retired,
    }
)
"""What each kind of entry says of what is out; all other kinds say nothing of it."""
