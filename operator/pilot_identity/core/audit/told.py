"""What the log says of each object: what was announced for it, what took that back, and how it ended.

The entries are taken in their order and summed up for each subject, so that what is there can be held against
what the log says is there. A subject is its UID: a namesake made later is another one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterable, Mapping
from types import MappingProxyType
from typing import Any

import msgspec

from pilot_identity.core.audit.announcement import Announcement, Kept, Place, Said
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.live import account_of
from pilot_identity.core.resources.metadata import Key, once
from pilot_identity.core.resources.task_grant import Binding

_KEPT = 2
"""Announcements of a subject: a renewal, and what stands until it is released."""


class Step(Kept, frozen=True):
    """One entry about its subject.

    Attributes:
        outcome: how a grant ended, by the entry that closed it.
        is_proven: whether that entry says that the end is shown.
    """

    index: int
    type: str
    time: dt.datetime
    outcome: str = ""
    is_proven: bool = False


class Decision(Kept, frozen=True):
    """What allowed or denied a grant.

    Attributes:
        said: the decision as the entry says it.
        stage, expires_at: of a grant that was issued; empty where it was denied.
    """

    index: int
    said: Said
    stage: str = ""
    expires_at: str = ""


class Told(msgspec.Struct, gc=False):
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
    announced: tuple[Announcement, ...] = ()
    decision: Decision | None = None
    withdrawn: Step | None = None
    end: Step | None = None
    proven: Step | None = None
    digest: str = ""
    stage: str = ""

    @property
    def newest(self) -> Announcement | None:
        """The credential that was announced last; `None` where there is none."""
        return self.announced[-1] if self.announced else None

    @property
    def current(self) -> Announcement | None:
        """What is out by the log's word, or may be about to be; `None` where nothing is."""
        return self.newest if self.end is None and self.withdrawn is None else None

    @property
    def taken_back(self) -> Step | None:
        """What took back all that was out."""
        return self.end if self.end is not None else self.withdrawn

    def announcement(self, credential_id: str) -> Announcement | None:
        """The announcement of a credential, where it is one of the newest."""
        return next((one for one in self.announced if one.id == credential_id), None)


class Record:
    """The log summed up.

    Attributes:
        subjects: by UID.
        credentials: whose each credential is that was ever announced.
        abandoned: credentials that were announced and never released, and the entries that say so.
        accounts: whose a ServiceAccount is, by its name, which no two grants share.
        unbound: RoleBindings that were announced with a credential that was abandoned.
        unread: entries that announce or end something in a way that this version cannot read.
        pending: subjects of which not everything is known; nothing can be said of what is theirs.
        pending_accounts: the names of their ServiceAccounts, with which the names of their bindings begin.
    """

    def __init__(self, *, of_secrets: bool = True) -> None:
        """Begin with nothing; without `of_secrets` no credential is kept once another took its place.

        Whoever may list no Secrets needs none, and a pilot's identity is renewed for years.
        """
        self._of_secrets = of_secrets
        self.subjects: dict[str, Told] = {}
        self.credentials: dict[str, Told] = {}
        self.abandoned: dict[str, int] = {}
        self.accounts: dict[str, Told] = {}
        self.unbound: dict[Place, Told] = {}
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
            key = Key.parse(entry.subject)
            key = Key(once(key.kind), once(key.namespace), key.name)
            told = self.subjects[entry.subject_uid] = Told(key, entry.subject_uid)
        try:
            take(self, told, index, entry)
        except (KeyError, TypeError, AttributeError, msgspec.ValidationError):
            self.unread.append(index)

    def forget(self, uids: Iterable[str]) -> None:
        """Forget subjects."""
        gone = {uid for uid in uids if self.subjects.pop(uid, None) is not None}
        if not gone:
            return
        self.credentials = {one: of for one, of in self.credentials.items() if of.uid not in gone}
        self.abandoned = {one: at for one, at in self.abandoned.items() if one in self.credentials}
        self.accounts = {one: of for one, of in self.accounts.items() if of.uid not in gone}
        self.unbound = {one: of for one, of in self.unbound.items() if of.uid not in gone}

    def account(self, place: Place) -> Told | None:
        """Whose account was announced at a place; `None` where none was."""
        told = self.accounts.get(place[1])
        return told if told is not None and told.key.namespace == place[0] else None

    def binding(self, place: Place) -> tuple[Told | None, Announcement | None, Binding | None]:
        """Whose binding was announced at a place, by which credential that was not abandoned, and what."""
        told = self.accounts.get(account_of(place[1]))
        for one in reversed(told.announced if told is not None else ()):
            binding = one.access.binding(place) if one.access is not None else None
            if binding is not None:
                return told, one, binding
        return self.unbound.get(place), None, None

    def confirm(self, uid: str, credential_id: str) -> None:
        """Note that a credential was released, so that what stood before it will not stand again."""
        told = self.subjects.get(uid)
        if told is not None and told.newest is not None and told.newest.id == credential_id:
            told.announced = told.announced[-1:]

    def announce(self, told: Told, index: int, entry: RecordedEntry) -> None:
        """Note a credential."""
        before = told.newest.access if told.newest is not None else None
        # A Secret is mostly named like its grant, and the account stays.
        one = Announcement.of(index, entry).sharing(told.key.name, before)
        told.announced = (*told.announced, one)[-_KEPT:]
        told.withdrawn = None
        if self._of_secrets:
            self.credentials[one.id] = told
        if one.access is not None:
            self.accounts[one.access.account] = told

    def abandon(self, told: Told, one: Announcement) -> None:
        """Note that a credential was never released."""
        told.announced = tuple(each for each in told.announced if each is not one)
        for binding in one.access.bindings if one.access is not None else ():
            self.unbound[binding.namespace, binding.name] = told
        if told.decision is not None and told.decision.index == one.index:
            # What was decided with it never came to be; the next announcement, or the denial, decides again.
            told.decision = None


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
    data = entry.data
    told.decision = Decision(index, Said.of(data["decision"]), once(data["stage"]), once(data["expiresAt"]))
    told.digest = data["grantDigest"]


def _renewed(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    record.announce(told, index, entry)


def _identified(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    record.announce(told, index, entry)
    told.digest, told.stage = entry.data["pilotDigest"], entry.data["stage"]


def _abandoned(record: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    credential_id = entry.data["abandoned"]["id"]
    if credential_id in record.credentials:
        record.abandoned[credential_id] = index
    one = told.announcement(credential_id)
    if one is not None:
        record.abandon(told, one)


def _denied(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.decision = Decision(index, Said.of(entry.data["decision"]))
    told.end = _step(index, entry)
    told.digest = entry.data["grantDigest"]


def _closed(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.end = _step(index, entry, entry.data["closure"])


def _proven(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.proven = _step(index, entry, entry.data["closure"])


def _changed(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:  # noqa: ARG001 - a table's row
    told.digest = entry.data["pilotDigest"]


def _moved(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.withdrawn = _step(index, entry)
    told.stage = entry.data["stage"]


def _suspended(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.withdrawn = _step(index, entry)


def _retired(_: Record, told: Told, index: int, entry: RecordedEntry) -> None:
    told.end = _step(index, entry)


def _step(index: int, entry: RecordedEntry, closure: Mapping[str, Any] = MappingProxyType({})) -> Step:
    outcome = once(str(closure.get("outcome", "")))
    return Step(index, once(entry.type), entry.time, outcome, "provenAt" in closure)


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
