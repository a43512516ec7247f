"""What the log's writer remembers of objects that exist: each step's index, and what was announced.

A step is recorded once, so the id of every step of a living object is known for as long as it lives. What
would grow without end is kept otherwise:

- Credentials are numbered, and their numbers only rise: of an object the newest is known. Whoever comes with
  an older number is told the newest's index, which is not the entry that they wanted.
- A report of activity that its sender named is known until the grant is closed; after that none is taken, and
  it is known as long as drawn names are. It is known by its name's digest, and so many can be named and no
  more: a report without a name is always taken.
- Names that are drawn at random (reports without a name, what the API server saw) are only ever repeated
  by the process that drew them, right after a write failed: the newest of them are known.
"""

from __future__ import annotations

import re
from collections import OrderedDict
from collections.abc import Iterator, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field

from pilot_identity.core.audit.digested import DIGEST_BYTES, Digested, digest_of
from pilot_identity.core.audit.recollection import Recollection, unpack

RECENT = 16_384
"""Drawn names that are known; far more than what is tried again after a write that failed."""
LAST_STEPS = 2
"""Of a subject that is gone: its end and the tombstone. What is owed to the log is tried until it is in."""
FEW = 4
"""Subjects that are looked up in what is deferred, each by reading through it, before all is taken in."""
NAMED_OF_ONE = 65_536
"""Reports that one grant's agents may name: 3 MB."""
NAMED = 1_048_576
"""Reports that all of them may name: 40 MB."""
_CREDENTIAL = re.compile(r"credential/([0-9]{1,18})")
_NAMED_REPORT = re.compile(r"activity/[^/]+/[^/]+")
_DIGESTED = re.compile(rf"activity/~([0-9a-f]{{{2 * DIGEST_BYTES}}})")
"""A named report as it is kept; no sender's name has a tilde."""
_CLOSED = "closed"
_DRAWN = ("activity/", "access/")


@dataclass(slots=True)
class Announced:
    """An announcement; without its entry where that is compacted and was not asked for."""

    index: int
    issuance: int
    encoded: bytes | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What is kept of the entry with this index."""

    index: int
    row: Recollection


@dataclass(slots=True)
class _Subject:
    """One object. What is kept of its entries is by the step's name, which the id ends with."""

    steps: dict[str, int] = field(default_factory=dict)
    reports: Digested = field(default_factory=Digested)
    credential: tuple[int, int] | None = None
    announced: Announced | None = None
    is_closed: bool = False


class Remembered:
    """Knows of each entry that can come again where it stands."""

    def __init__(self) -> None:
        self._subjects: dict[str, _Subject] = {}
        self._recent: OrderedDict[str, int] = OrderedDict()
        self._deferred: list[_Bundle | Sequence[Kept]] = []
        self._looked_up: set[str] = set()
        self._named = 0

    def clear(self) -> None:
        """Forget all."""
        self._subjects.clear()
        self._recent.clear()
        self._deferred.clear()
        self._looked_up.clear()
        self._named = 0

    def take_in(self, index: int, row: Recollection, encoded: bytes | None = None) -> None:
        """Remember an entry; `encoded` where it is at hand."""
        subject = self._subjects.setdefault(row.subject_uid, _Subject())
        step = _step(row.subject_uid, row.id)
        numbered, named = _CREDENTIAL.fullmatch(step), _named(step)
        if numbered is not None:
            known = int(numbered[1]), index
            subject.credential = max(subject.credential or known, known)
        elif named is not None and not subject.is_closed:
            self._named -= len(subject.reports)
            subject.reports.add(named, index)
            self._named += len(subject.reports)
        elif named is not None:
            self._know_for_a_while(_report_id(row.subject_uid, named), index)
        elif step.startswith(_DRAWN):
            self._know_for_a_while(row.id, index)
        else:
            subject.steps[step] = index
            if step == _CLOSED:
                # A report may be in the same group, and be sent again because its answer was lost.
                subject.is_closed = True
                for report, at in reversed(subject.reports.newest(RECENT)):
                    self._know_for_a_while(_report_id(row.subject_uid, report), at)
                self._forget_reports(subject)
        if row.issuance is not None and (subject.announced is None or subject.announced.index < index):
            subject.announced = Announced(index, row.issuance, encoded)

    def defer(self, first: int, rows: Sequence[Recollection] | str) -> None:
        """Remember entries from `first` on, as packed or not, once somebody asks."""
        self._deferred.append(_Bundle(first, rows))
        self._looked_up.clear()

    def defer_kept(self, kept: Sequence[Kept]) -> None:
        """Remember these, once somebody asks."""
        self._deferred.append(kept)
        self._looked_up.clear()

    def index_of(self, subject_uid: str, entry_id: str) -> int | None:
        """Where the entry of this id stands; `None` where it is not known to be recorded.

        Of a credential that is not the newest of its subject, it is the newest's index.
        """
        self._look_up(subject_uid)
        subject, step = self._subjects.get(subject_uid), _step(subject_uid, entry_id)
        named = _named(step)
        if named is not None:
            known = subject.reports.find(named) if subject is not None else None
            return known if known is not None else self._recent.get(_report_id(subject_uid, named))
        if subject is None:
            return self._recent.get(entry_id)
        numbered = _CREDENTIAL.fullmatch(step)
        if numbered is not None:
            newest = subject.credential
            return newest[1] if newest is not None and int(numbered[1]) <= newest[0] else None
        return subject.steps[step] if step in subject.steps else self._recent.get(entry_id)

    def has_room(self, subject_uid: str, entry_id: str) -> bool:
        """Whether the entry of this id may be added: a named report that is new only while there is room."""
        if _named(_step(subject_uid, entry_id)) is None or self.index_of(subject_uid, entry_id) is not None:
            return True
        subject = self._subjects.get(subject_uid)
        return self._named < NAMED and (subject is None or len(subject.reports) < NAMED_OF_ONE)

    def steps_of(self, subject_uid: str) -> dict[str, int]:
        """Where each step of a subject stands; of its credentials the newest alone."""
        self._recall()
        subject = self._subjects.get(subject_uid)
        if subject is None:
            return {}
        newest = subject.credential
        return subject.steps | ({f"credential/{newest[0]}": newest[1]} if newest is not None else {})

    def announced(self, subject_uid: str) -> Announced | None:
        """What was announced last for a subject, if it is not settled."""
        self._recall()
        subject = self._subjects.get(subject_uid)
        return subject.announced if subject is not None else None

    def settle(self, subject_uid: str, index: int) -> None:
        """Forget what was announced up to that entry."""
        subject = self._subjects.get(subject_uid)
        if subject is not None and subject.announced is not None and subject.announced.index <= index:
            subject.announced = None

    def retain(self, subject_uids: AbstractSet[str]) -> None:
        """Forget all other subjects; what was told of them last may be on its way again for a while."""
        self._recall(subject_uids)
        for uid in self._subjects.keys() - subject_uids:
            subject = self._subjects.pop(uid)
            self._forget_reports(subject)
            for step in sorted(subject.steps, key=subject.steps.__getitem__)[-LAST_STEPS:]:
                self._know_for_a_while(_id(uid, step), subject.steps[step])

    def kept(self, before: int) -> Iterator[Kept]:
        """All that is known of the entries before an index, so that another process can take it in again."""
        self._recall()
        for uid, subject in self._subjects.items():
            known = dict(subject.steps)
            if subject.credential is not None:
                known[f"credential/{subject.credential[0]}"] = subject.credential[1]
            told = subject.announced
            for step, index in known.items():
                if index < before:
                    issuance = told.issuance if told is not None and told.index == index else None
                    yield Kept(index, Recollection(_id(uid, step), uid, issuance))
            for report, index in subject.reports.items():
                if index < before:
                    yield Kept(index, Recollection(_report_id(uid, report), uid))

    def _forget_reports(self, subject: _Subject) -> None:
        self._named -= len(subject.reports)
        subject.reports = Digested()

    def _know_for_a_while(self, entry_id: str, index: int) -> None:
        """Know an id until many others came after it."""
        self._recent[entry_id] = index
        if len(self._recent) > RECENT:
            self._recent.popitem(last=False)

    def __len__(self) -> int:
        """How many entries are known."""
        self._recall()
        each = (
            len(one.steps) + len(one.reports) + (one.credential is not None)
            for one in self._subjects.values()
        )
        return len(self._recent) + sum(each)

    def _look_up(self, subject_uid: str) -> None:
        """Take in what is deferred of one subject, and leave the rest: that is all who ever were in the log.

        A start asks for its own process before it knows who is living, and forgets all others then.
        """
        if not self._deferred or subject_uid in self._looked_up:
            return
        if len(self._looked_up) == FEW:
            self._recall()
            return
        self._looked_up.add(subject_uid)
        for one in self._deferred:
            for kept in one:
                if kept.row.subject_uid == subject_uid:
                    self.take_in(kept.index, kept.row)

    def _recall(self, subject_uids: AbstractSet[str] | None = None) -> None:
        """Take in what was deferred, once: of these subjects, as soon as they are known, else of all."""
        deferred, self._deferred = self._deferred, []
        self._looked_up.clear()
        for one in deferred:
            for kept in one:
                if subject_uids is None or kept.row.subject_uid in subject_uids:
                    self.take_in(kept.index, kept.row)


@dataclass(frozen=True, slots=True)
class _Bundle:
    """What is kept of the entries from `first` on, as packed or not."""

    first: int
    rows: Sequence[Recollection] | str

    def __iter__(self) -> Iterator[Kept]:
        """Unpack it, each time anew."""
        unpacked = (unpack(self.rows) or ()) if isinstance(self.rows, str) else self.rows
        for index, row in enumerate(unpacked, start=self.first):
            yield Kept(index, row)


def _step(subject_uid: str, entry_id: str) -> str:
    """The step that an id names; with a leading slash where the id does not begin with the subject's UID."""
    prefix = f"{subject_uid}/"
    return entry_id.removeprefix(prefix) if entry_id.startswith(prefix) else f"/{entry_id}"


def _named(step: str) -> int | None:
    """By what a report is known that its sender named; `None` of all else."""
    kept = _DIGESTED.fullmatch(step)
    if kept is not None:
        return int(kept[1], 16)
    return digest_of(step) if _NAMED_REPORT.fullmatch(step) else None


def _report_id(subject_uid: str, digest: int) -> str:
    """The id of a named report as it is kept; `_named` reads it back."""
    return f"{subject_uid}/activity/~{digest:0{2 * DIGEST_BYTES}x}"


def _id(subject_uid: str, step: str) -> str:
    """The inverse of `_step`."""
    return step[1:] if step.startswith("/") else f"{subject_uid}/{step}"
