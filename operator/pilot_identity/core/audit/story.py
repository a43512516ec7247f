"""The story of a task: every entry about a grant and about what was delegated from it, as a tree.

A grant is told from its namesakes by its UID: a name is used again, a UID never. What leads from an entry to
its grant is in the entry: its subject's UID, an approval's `subject`, a child's `parent`, the grants for
which a review is `owed`; the name or UID of an account that the operator did not know any more, which the
grant's own entries announced. A child may be told of before its parent is, so what cannot be placed yet is
held.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import reduce
from types import MappingProxyType
from typing import Any

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.particulars import count, mapping, mappings, moment, text
from pilot_identity.core.audit.uses import ACCOUNT, Line, Uses, uses_of, uses_of_account
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.timestamps import format_timestamp

_GRANT, _APPROVAL = "TaskGrant", "Approval"
_REVIEWS = frozenset({EntryType.REVIEW_OWED, EntryType.PILOT_REVIEWED})
"""About a pilot, because of emergency grants that they name."""


class Section(StrEnum):
    """A chapter of a story. The docstring below each is the question that it answers."""

    REQUEST = "request"
    """Who asked, for what?"""
    DECISION = "decision"
    """Why was it allowed, or not?"""
    APPROVALS = "approvals"
    """Which people had a say?"""
    CREDENTIALS = "credentials"
    """What was issued, and renewed?"""
    KUBERNETES = "kubernetes access"
    """As which account, by which roles?"""
    ACCESS = "seen by the API server"
    """What was asked of the API server, by its own word?"""
    ACTIVITY = "activity"
    """What do agents and tools say that they did?"""
    END = "end"
    """When and why did it end?"""
    PROOF = "proof"
    """What shows that nothing of it gives access any more?"""
    OTHER = "other entries"
    """What else does the log say of it?"""


SECTIONS: Mapping[str, tuple[Section, ...]] = MappingProxyType(
    {
        EntryType.GRANT_REQUESTED: (Section.REQUEST,),
        EntryType.GRANT_DECIDED: (Section.DECISION,),
        EntryType.GRANT_APPROVED: (Section.APPROVALS,),
        EntryType.GRANT_ISSUED: (Section.DECISION, Section.CREDENTIALS, Section.KUBERNETES),
        EntryType.GRANT_DENIED: (Section.DECISION,),
        EntryType.GRANT_EMERGENCY: (Section.APPROVALS,),
        EntryType.GRANT_RENEWED: (Section.CREDENTIALS, Section.KUBERNETES),
        EntryType.CREDENTIAL_ABANDONED: (Section.CREDENTIALS,),
        EntryType.APPROVAL_GIVEN: (Section.APPROVALS,),
        EntryType.APPROVAL_USED: (Section.APPROVALS,),
        EntryType.APPROVAL_VOID: (Section.APPROVALS,),
        EntryType.REVIEW_OWED: (Section.APPROVALS,),
        EntryType.PILOT_REVIEWED: (Section.APPROVALS,),
        EntryType.ACCESS_SEEN: (Section.ACCESS,),
        EntryType.ACTIVITY_RECORDED: (Section.ACTIVITY,),
        EntryType.GRANT_CLOSED: (Section.END, Section.PROOF),
        EntryType.GRANT_PROVEN: (Section.PROOF,),
        EntryType.GRANT_UNPROVEN: (Section.PROOF,),
    }
)
"""Where each type of entry belongs; a type that is not here is told under `OTHER`."""


class Standing(StrEnum):
    """How far a task has come, as far as the log says. The docstring below each is its meaning."""

    WAITING = "waiting"
    """Nothing was issued yet."""
    DENIED = "denied"
    """Nothing will be."""
    OPEN = "open"
    """Its credentials are out."""
    UNPROVEN = "unproven"
    """It ended, and it is not shown that nothing of it gives access any more."""
    ENDED = "ended"
    """It ended, and that is shown."""


@dataclass(frozen=True, slots=True)
class Story:
    """One grant, and the grants that were delegated from it.

    Attributes:
        lines: the entries about it, in the order of the log.
        children: the nearest descendants, in the order in which the log first tells of them.
    """

    key: Key
    uid: str
    lines: tuple[Line, ...]
    children: tuple[Story, ...]

    def section(self, section: Section) -> tuple[Line, ...]:
        """The entries that belong into a chapter; who asked is told by the first that says so."""
        if section is Section.REQUEST:
            told = self.of(EntryType.GRANT_REQUESTED) or self.lines
            return next(((line,) for line in told if "requestedBy" in line.entry.data), ())
        lines = (line for line in self.lines if section in SECTIONS.get(line.type, (Section.OTHER,)))
        if section is Section.KUBERNETES:
            return tuple(line for line in lines if mapping(line.entry.data, "credential", "kubernetes"))
        return tuple(lines)

    def of(self, *types: EntryType) -> tuple[Line, ...]:
        """The entries of some types."""
        return tuple(line for line in self.lines if line.type in types)

    @property
    def closure(self) -> Mapping[str, Any]:
        """How it ended, as the newest entry tells it; empty while it has not."""
        ends = self.of(EntryType.GRANT_CLOSED, EntryType.GRANT_PROVEN, EntryType.GRANT_UNPROVEN)
        return mapping(ends[-1].entry.data, "closure") if ends else {}

    @property
    def standing(self) -> Standing:
        """How far it has come."""
        if self.of(EntryType.GRANT_DENIED):
            return Standing.DENIED
        if closure := self.closure:
            return Standing.ENDED if text(closure, "provenAt") else Standing.UNPROVEN
        return Standing.OPEN if self.of(EntryType.GRANT_ISSUED) else Standing.WAITING

    @property
    def parent(self) -> Mapping[str, Any]:
        """Name and UID of the grant that it was delegated from; empty where it was not."""
        found = (mapping(line.entry.data, "parent") for line in reversed(self.lines))
        return next(filter(None, found), {})

    @property
    def own(self) -> Uses:
        """How much the grant itself was used."""
        tokens = frozenset(
            text(line.entry.data, "credential", "kubernetes", "credentialID").removeprefix("JTI=")
            for line in self.section(Section.KUBERNETES)
        )
        ended_at = moment(self.closure, "withdrawnAt")
        told = (
            uses_of_account(line, tokens, ended_at) if line.is_of_an_account else uses_of(line)
            for line in self.lines
        )
        return reduce(Uses.__add__, told, Uses())

    @property
    def chained(self) -> Uses:
        """How much all that was delegated from it was used."""
        return reduce(Uses.__add__, (child.own + child.chained for child in self.children), Uses())


class Family:
    """Takes every entry of a log in its order and keeps those that are about grants of one name.

    Attributes:
        last: the newest entry of the log: the story is told as of then.
        heard: whether the log has any word of the API server's on what was asked of it.
    """

    def __init__(self, name: str, namespace: str = "") -> None:
        """Look for `name` in `namespace`, or in any where that is empty."""
        self._name = name
        self._namespace = namespace
        self._kept: dict[str, list[Line]] = {}
        self._keys: dict[str, Key] = {}
        self._parents: dict[str, str] = {}
        self._others: set[str] = set()
        self._accounts: dict[str, str] = {}
        self._held: dict[str, list[Line]] = defaultdict(list)
        self._held_children: dict[str, dict[str, None]] = defaultdict(dict)
        self.last: Line | None = None
        self.heard = False

    def take(self, index: int, entry: RecordedEntry) -> None:
        """Take the next entry."""
        line = self.last = Line(index, entry)
        self.heard = self.heard or entry.type == EntryType.ACCESS_SEEN
        key = Key.parse(entry.subject)
        if key.kind == _GRANT and entry.subject_uid:
            self._take_grant(line, key)
        elif key.kind == _APPROVAL:
            self._file(line, _approved(entry))
        elif key.kind == ACCOUNT:
            self._file(line, self._accounts.get(entry.subject) or self._accounts.get(entry.subject_uid, ""))
        elif entry.type in _REVIEWS:
            for grant in mappings(entry.data, "owed", "grants"):
                self._file(line, text(grant, "uid"))

    def namesakes(self) -> tuple[Story, ...]:
        """Every grant of the name, in the order in which the log first tells of them."""
        children_of: dict[str, list[str]] = defaultdict(list)
        for uid in self._kept:
            if uid in self._parents:
                children_of[self._parents[uid]].append(uid)
        return tuple(self._told(uid, children_of) for uid in self._kept if self._is_named(self._keys[uid]))

    @property
    def size(self) -> int:
        """How many entries are kept, those among them that are not placed yet."""
        return sum(map(len, (*self._kept.values(), *self._held.values())))

    def _is_named(self, key: Key) -> bool:
        return key.name == self._name and (not self._namespace or key.namespace == self._namespace)

    def _take_grant(self, line: Line, key: Key) -> None:
        uid, data = line.entry.subject_uid, line.entry.data
        if uid in self._others:
            return
        self._keys.setdefault(uid, key)
        if parent := text(data, "parent", "uid"):
            self._parents.setdefault(uid, parent)
        self._file(line, uid)
        if uid not in self._kept:
            self._place(uid, is_child="parent" in data)
        access = mapping(data, "credential", "kubernetes")
        if access and uid not in self._others:
            self._accounts[str(Key(ACCOUNT, key.namespace, text(access, "serviceAccountName")))] = uid
            if account_uid := text(access, "serviceAccountUID"):
                self._accounts[account_uid] = uid

    def _place(self, uid: str, *, is_child: bool) -> None:
        parent = self._parents.get(uid)
        if self._is_named(self._keys[uid]) or parent in self._kept:
            self._keep(uid)
        elif parent in self._others or (parent is None and not is_child):
            self._dismiss(uid)
        elif parent is not None:
            self._held_children[parent][uid] = None
        # Else its parent was not found when this was written: a later entry names it.

    def _file(self, line: Line, uid: str) -> None:
        """Put a line to its grant's, or aside while it is not known whose family that is."""
        if uid in self._kept:
            self._kept[uid].append(line)
        elif uid and uid not in self._others:
            self._held[uid].append(line)

    def _keep(self, uid: str) -> None:
        """Take a grant into the family, and those that wait to hear of it."""
        self._kept[uid] = self._held.pop(uid, [])
        for child in self._held_children.pop(uid, {}):
            if child not in self._kept:
                self._keep(child)

    def _dismiss(self, uid: str) -> None:
        """Forget a grant of another family, and those that wait to hear of it."""
        self._others.add(uid)
        self._held.pop(uid, None)
        self._keys.pop(uid, None)
        self._parents.pop(uid, None)
        for child in self._held_children.pop(uid, {}):
            if child not in self._kept:
                self._dismiss(child)

    def _told(
        self, uid: str, children_of: Mapping[str, Sequence[str]], above: frozenset[str] = frozenset()
    ) -> Story:
        # `above`: no operator writes a cycle, but a log is read as it stands.
        seen = above | {uid}
        children = (child for child in children_of.get(uid, ()) if child not in seen)
        return Story(
            self._keys[uid],
            uid,
            tuple(self._kept[uid]),
            tuple(self._told(child, children_of, seen) for child in children),
        )


def open_points(story: Story, as_of: dt.datetime, *, heard: bool = True) -> Iterator[str]:
    """Tell what the log leaves open about a grant, a sentence each.

    Args:
        story: the grant's; its children have points of their own.
        as_of: when the log's newest entry was decided.
        heard: see `Family.heard`.
    """
    yield from _open_decision(story)
    yield from _open_end(story, as_of)
    if story.of(EntryType.GRANT_EMERGENCY) and not story.of(EntryType.PILOT_REVIEWED):
        yield "it was an emergency, and nobody has reviewed the pilot since"
    if story.of(EntryType.ACTIVITY_RECORDED):
        yield "its activity is what agents and tools say themselves; nothing here confirms it"
    if story.section(Section.KUBERNETES) and not story.of(EntryType.ACCESS_SEEN):
        yield (
            "no request to the API server was seen: none was made, or none was told"
            if heard
            else "the log has no word of the API server's at all, so what was asked of it is not known"
        )
    own = story.own
    strange = sum(count(line.entry.data, "requests") for line in story.lines if line.is_of_an_account)
    if strange:
        yield f"requests by its account when the operator knew no such grant: {strange}"
    if own.by_others:
        yield f"requests that others made as its account: {own.by_others}"
    if own.unknown_tokens:
        yield f"requests with tokens that are not known to be the grant's: {own.unknown_tokens}"
    if own.allowed_after_end:
        about = f", {own.about_end} of them about when it was" if own.about_end else ""
        yield f"requests still allowed after its access was withdrawn: {own.allowed_after_end}{about}"


def _open_decision(story: Story) -> Iterator[str]:
    if story.standing is Standing.WAITING:
        decided = story.of(EntryType.GRANT_DECIDED)
        waits = text(decided[-1].entry.data, "decision", "message") if decided else ""
        yield f"nothing was issued yet: {waits}" if waits else "not decided yet"
    elif not story.section(Section.DECISION) and not story.closure:
        yield "the log does not tell its decision"
    elif story.closure and not story.of(EntryType.GRANT_ISSUED):
        yield "it ended before anything was issued"


def _open_end(story: Story, as_of: dt.datetime) -> Iterator[str]:
    closure = story.closure
    if story.standing is Standing.OPEN:
        expires_at = moment(story.of(EntryType.GRANT_ISSUED)[-1].entry.data, "expiresAt")
        if expires_at is not None and expires_at < as_of:
            yield "not ended yet, though its time is over: its end is not in the log"
        else:
            yield "not ended yet"
    for proof in _unproven(closure):
        message = text(proof, "message")
        yield f"not proven: {text(proof, 'name')}" + (f" ({message})" if message else "")
    tombstones = story.of(EntryType.GRANT_UNPROVEN)
    if tombstones and tombstones[-1].entry.data.get("letGo") is True:
        yield "its object was let go before its end was proven"
    residual = moment(closure, "residualUntil")
    if residual is not None and residual > as_of:
        until = format_timestamp(residual)
        yield f"a verifier that asks nobody may accept a copy of its credential until {until}"


def _approved(entry: RecordedEntry) -> str:
    """The UID of the grant that an approval is about, or was used for; empty where that is no grant."""
    data = entry.data
    if text(data, "subject", "kind") == _GRANT:
        return text(data, "subject", "uid")
    return text(data, "usedByUID") if Key.parse(text(data, "usedBy")).kind == _GRANT else ""


def _unproven(closure: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    if not text(closure, "provenAt"):
        yield from (proof for proof in mappings(closure, "proofs") if proof.get("proven") is not True)
