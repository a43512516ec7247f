"""The history of a log: what it says was in force, given or asked by some entry, taken in entry by entry.

A decision is held to it (`consistency`). The operator decides on what its store holds, in passes that run
side by side, and the log is told in groups; so an entry may stand behind another that it does not know of.
These orders can happen, and no others:

- *A definition is in the store before it is in the log.* A pass reads the store in the moment that its
  entries name as their time, with no await between, and who tells the log of a definition has it from there.
  So a decision of a later moment knows that definition or a newer one. One of an earlier moment may have
  looked at the one before, and be recorded behind it: it was on its way (`is_unknown_at`). The store of a
  replica that takes the lead is listed anew before it decides: it is no older than what the log was told.
- *What the operator itself says is in the log before it is in the store*: the status is written after the
  entry. Until then a decision may look at the status of before, after a crash until the pass is made again
  (`SETTLED_AFTER`).
- *Entries of one plan* stand together, a definition before what rests on it.

Entries have times of whole milliseconds, decisions of microseconds: of what fell into one millisecond nobody
knows the order. What is kept is bounded: definitions that were replaced long ago are forgotten, and what
grows with the log, its grants, approvals and exceptions, is noted outside memory.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeVar

import msgspec

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.resources import Phase

ON_ITS_WAY = dt.timedelta(minutes=2)
"""From a decision to its entry: a pass makes at most a dozen requests before, of 10 s at most each."""
SETTLED_AFTER = dt.timedelta(hours=1)
"""So long after it started an operator has made each pass again that a crash cut short."""
MILLISECOND = dt.timedelta(milliseconds=1)


class Notes(Protocol):
    """Keeps the newest note of each name; there are as many as a log has objects."""

    def note(self, name: str, note: bytes) -> None:
        """Note something, in the place of what was noted under that name."""
        ...

    def noted(self, name: str) -> bytes | None:
        """Return what was noted last."""
        ...


@dataclass(frozen=True, slots=True)
class Version:
    """A definition as the log was told of it.

    Attributes:
        digest: of the whole spec.
        index: of the entry.
        at: the entry's time.
        by: the version of the program that told it.
    """

    uid: str
    generation: int
    digest: str
    index: int
    at: dt.datetime
    by: str

    def replaces(self, other: Version) -> bool:
        """Whether it came into force in the place of another of that name.

        Of one object that goes by generation: who was on its way may tell of an earlier one later. Of one
        generation one program reads one spec; another version may read more of it, which replaces nothing.
        """
        is_later = self.index > other.index
        if self.uid != other.uid:
            return is_later
        if self.generation != other.generation:
            return self.generation > other.generation
        return is_later and self.by == other.by


@dataclass(slots=True)
class Definitions:
    """The definitions of all that had one name, as far as a decision may still look at them."""

    versions: list[Version] = field(default_factory=list)

    def tell(self, version: Version, clock: dt.datetime) -> None:
        """Take in another; what it replaced long ago is forgotten."""
        self.versions = [
            one for one in self.versions if all(clock < by.at + ON_ITS_WAY for by in self.replacing(one))
        ]
        self.versions.append(version)

    def replacing(self, version: Version) -> list[Version]:
        """The definitions in whose force one is no more."""
        return [one for one in self.versions if one.replaces(version)]

    def find(self, uid: str, generation: int, digest: str) -> Version | None:
        """The definition of that digest, if it was told of that object and generation."""
        told = (uid, generation, digest)
        return next((one for one in self.versions if (one.uid, one.generation, one.digest) == told), None)


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the log says that a pilot is.

    Attributes:
        index, at: the entry's.
        before: the stage that it left, where the entry tells of a move; empty otherwise.
        generation: of the definition by which it moved.
    """

    stage: str
    index: int
    at: dt.datetime
    before: str = ""
    generation: int = 0


@dataclass(slots=True)
class PilotHistory:
    """What the log says of a pilot with one UID.

    Attributes:
        owes: the index and time of the entry that says that a review is owed, until it was made.
        retired: the index and time of the entry that says that all of it is withdrawn.
    """

    placed: Placed | None = None
    owes: tuple[int, dt.datetime] | None = None
    retired: tuple[int, dt.datetime] | None = None


class Issue(msgspec.Struct, frozen=True):
    """An issue that the log announced and did not abandon."""

    index: int
    at: dt.datetime
    credential: str
    stage: str
    expires_at: str


class GrantHistory(msgspec.Struct, frozen=True):
    """What the log says of a grant with one UID.

    Attributes:
        digest: of all that was asked for; empty where the request is not in the log.
        approved: whether it says that all are there who had to agree.
        issue: the last one.
        ended: the index and time of the entry by which it ended for what nobody takes back: it was completed,
            or its time was over.
    """

    subject: str = ""
    digest: str = ""
    created_at: str = ""
    approved: bool = False
    issue: Issue | None = None
    ended: tuple[int, dt.datetime] | None = None


class ApprovalHistory(msgspec.Struct, frozen=True):
    """What the log says of an approval with one UID.

    Attributes:
        digest: of what the person said.
        given: the index of the entry that says that it counts.
        used: the index of the entry that says what it was used for.
    """

    subject: str = ""
    digest: str = ""
    given: int | None = None
    used: int | None = None


class Opening(msgspec.Struct, frozen=True):
    """What the entry says that opened an exception.

    Attributes:
        approvals: whose word it rests on, as a status names it.
    """

    until: str
    approvals: list[dict[str, Any]]


class ExceptionEnd(msgspec.Struct, frozen=True):
    """The last entry that says that an exception is over.

    Attributes:
        generation, policy_generation: of the pilot and of the stage by whose definition it was over; people
            may take that back. Negative where it was over for another cause.
    """

    index: int
    at: dt.datetime
    generation: int = -1
    policy_generation: int = -1

    def was_taken_back(self, generation: int, policy_generation: int) -> bool:
        """Whether a later definition may have brought it back before a status said that it is over."""
        is_by_definition = self.generation >= 0 and self.policy_generation >= 0
        is_later = generation > self.generation or policy_generation > self.policy_generation
        return is_by_definition and is_later


_Note = TypeVar("_Note", GrantHistory, ApprovalHistory)


class History:
    """What a log says up to some entry.

    Attributes:
        first: the index of the first entry that was taken in; `None` before that.
        is_whole: whether the log says itself that it begins there: what it did not tell by now, never was.
        clock: the latest time of an entry of the newest tenure: each replica has a clock of its own.
        started_at: when the newest tenure began.
        version: of the program that leads since then, as far as the log says.
    """

    def __init__(self, notes: Notes) -> None:
        """Begin before the first entry."""
        self.first: int | None = None
        self.is_whole = False
        self.clock: dt.datetime | None = None
        self.started_at: dt.datetime | None = None
        self.version = ""
        self._notes = notes
        self._definitions: defaultdict[str, Definitions] = defaultdict(Definitions)
        self._pilots: defaultdict[str, PilotHistory] = defaultdict(PilotHistory)

    @property
    def is_from_first(self) -> bool:
        """Whether no entry before those that were taken in is missing."""
        return not self.first

    def definitions(self, subject: str) -> Definitions:
        """The definitions of a stage or a pilot."""
        return self._definitions.get(subject, Definitions())

    def pilot(self, uid: str) -> PilotHistory:
        """What is known of a pilot."""
        return self._pilots.get(uid, PilotHistory())

    def grant(self, uid: str) -> GrantHistory:
        """What is known of a grant."""
        return self._noted(GrantHistory, f"grant/{uid}")

    def approval(self, uid: str) -> ApprovalHistory:
        """What is known of an approval."""
        return self._noted(ApprovalHistory, f"approval/{uid}")

    def is_owed(self, uid: str) -> bool:
        """Whether the log said of an emergency grant that its review is owed."""
        return self._notes.noted(f"owed/{uid}") is not None

    def is_review(self, uid: str) -> bool:
        """Whether the log said of an approval that it is a review."""
        return self._notes.noted(f"review/{uid}") is not None

    def opening(self, uid: str, digest: str, index: int) -> Opening | None:
        """What the entry of that index says, if it opened the exception of that digest for a pilot."""
        found = self._notes.noted(f"opened/{uid}/{index}/{digest}")
        return None if found is None else msgspec.json.decode(found, type=Opening)

    def exception_end(self, uid: str, digest: str) -> ExceptionEnd | None:
        """How a pilot's exception of that digest ended last, if it did."""
        found = self._notes.noted(f"ended/{uid}/{digest}")
        return None if found is None else msgspec.json.decode(found, type=ExceptionEnd)

    def is_settled(self, at: dt.datetime, now: dt.datetime) -> bool:
        """Whether by `now` a status says what the log was told at `at`, whatever befell the operator."""
        if self.started_at is not None and self.started_at > at:
            return self.started_at + SETTLED_AFTER <= now
        return at + ON_ITS_WAY <= now

    def take(self, index: int, entry: RecordedEntry, definition: str = "") -> None:
        """Take in the next entry.

        Args:
            index: its own.
            entry: what it says; nothing rests on what is not said in the way of this version.
            definition: the digest of the spec that it has, a person's word too; empty where it has none.
        """
        if self.first is None:
            self.first = index
        if entry.type == EntryType.OPERATOR_STARTED:
            self.clock = self.started_at = entry.time
            self.version = str(entry.data.get("version", ""))
        self.clock = entry.time if self.clock is None else max(self.clock, entry.time)
        match entry.type:
            case EntryType.LOG_STARTED:
                self.is_whole = index == self.first == 0
            case EntryType.STAGE_POLICY_CHANGED | EntryType.PILOT_DEFINED:
                self._define(index, entry, definition)
            case EntryType.APPROVAL_GIVEN | EntryType.APPROVAL_VOID | EntryType.APPROVAL_USED:
                self._say(index, entry, definition)
            case EntryType.EXCEPTION_OPENED | EntryType.EXCEPTION_ENDED:
                self._follow_exception(index, entry)
            case _:
                self._follow_pilot(index, entry)
                self._follow_grant(index, entry, definition)

    def _define(self, index: int, entry: RecordedEntry, definition: str) -> None:
        generation = _number(entry.data.get("generation"))
        told = Version(entry.subject_uid, generation, definition, index, entry.time, self.version)
        self._definitions[entry.subject].tell(told, self.clock or entry.time)

    def _say(self, index: int, entry: RecordedEntry, definition: str) -> None:
        known = self.approval(entry.subject_uid)
        if entry.type == EntryType.APPROVAL_USED:
            said = msgspec.structs.replace(known, used=index)
        else:
            given = index if entry.type == EntryType.APPROVAL_GIVEN else known.given
            said = ApprovalHistory(entry.subject, definition, given, known.used)
        self._note(f"approval/{entry.subject_uid}", said)

    def _follow_pilot(self, index: int, entry: RecordedEntry) -> None:
        uid, data, at = entry.subject_uid, entry.data, entry.time
        match entry.type:
            case EntryType.STAGE_CHANGED:
                before, generation = str(data.get("stageBefore")), _number(data.get("generation"))
                self._pilots[uid].placed = Placed(str(data.get("stage")), index, at, before, generation)
            case (
                EntryType.PILOT_REGISTERED
                | EntryType.PILOT_ADMITTED
                | EntryType.PILOT_RESUMED
                | EntryType.PILOT_RENEWED
            ):
                self._pilots[uid].placed = Placed(str(data.get("stage")), index, at)
            case EntryType.PILOT_RETIRED:
                self._pilots[uid].retired = (index, at)
            case EntryType.REVIEW_OWED:
                self._pilots[uid].owes = (index, at)
                for use in _objects(_object(data.get("owed")).get("grants")):
                    self._notes.note(f"owed/{use.get('uid')}", b"")
            case EntryType.PILOT_REVIEWED:
                self._pilots[uid].owes = None
                self._notes.note(f"review/{_object(data.get('approval')).get('uid')}", b"")

    def _follow_exception(self, index: int, entry: RecordedEntry) -> None:
        uid, data = entry.subject_uid, entry.data
        digest = data.get("digest")
        if entry.type == EntryType.EXCEPTION_OPENED:
            approvals = [dict(one) for one in _objects(data.get("approvals"))]
            self._note(f"opened/{uid}/{index}/{digest}", Opening(str(data.get("until")), approvals))
        else:
            by = _number(data.get("generation")), _number(data.get("policyGeneration"))
            self._note(f"ended/{uid}/{digest}", ExceptionEnd(index, entry.time, *by))

    def _follow_grant(self, index: int, entry: RecordedEntry, definition: str) -> None:
        uid, data = entry.subject_uid, entry.data
        match entry.type:
            case EntryType.GRANT_REQUESTED:
                made_at = str(data.get("createdAt", ""))
                self._change(uid, subject=entry.subject, digest=definition, created_at=made_at)
            case EntryType.GRANT_APPROVED:
                self._change(uid, approved=True)
            case EntryType.GRANT_ISSUED:
                credential = str(_object(data.get("credential")).get("id"))
                issue = Issue(
                    index, entry.time, credential, str(data.get("stage")), str(data.get("expiresAt"))
                )
                self._change(uid, issue=issue)
            case EntryType.CREDENTIAL_ABANDONED:
                issue_before = self.grant(uid).issue
                dropped = _object(data.get("abandoned")).get("id")
                if issue_before is not None and issue_before.credential == dropped:
                    self._change(uid, issue=None)
            case EntryType.GRANT_CLOSED if _object(data.get("closure")).get("outcome") in _FINAL:
                self._change(uid, ended=(index, entry.time))

    def _change(self, uid: str, **changes: Any) -> None:
        self._note(f"grant/{uid}", msgspec.structs.replace(self.grant(uid), **changes))

    def _note(self, name: str, note: msgspec.Struct) -> None:
        self._notes.note(name, msgspec.json.encode(note))

    def _noted(self, kind: type[_Note], name: str) -> _Note:
        found = self._notes.noted(name)
        return kind() if found is None else msgspec.json.decode(found, type=kind)


_FINAL = frozenset({Phase.COMPLETED, Phase.EXPIRED})
"""What nobody takes back. A pilot that was suspended, or a stage that was frozen, may go on before the status
says that the grant ended, where a crash came between."""


def is_unknown_at(told_at: dt.datetime, decided_at: dt.datetime) -> bool:
    """Whether a decision of `decided_at` may not have known what the log was told with time `told_at`.

    Times of entries are cut to milliseconds: within one nobody knows which came first.
    """
    return told_at > decided_at or told_at < decided_at < told_at + MILLISECOND


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _objects(value: Any) -> Iterator[Mapping[str, Any]]:
    yield from map(_object, value if isinstance(value, list) else ())


def _number(value: Any) -> int:
    return value if isinstance(value, int) else -1
