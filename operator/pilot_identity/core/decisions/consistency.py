"""Consistency: whether a decision of the log agrees with the rest of the log, and with what it gave.

An observation is the operator's own word. Made again from it, a decision shows that the checks were asked
rightly. That what they looked at was so, the entries before it show: each thing must be the one that the log
had told of and that was in force; `history` says which orders are possible. Whoever adds something that a
decision looks at adds its check here.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.definitions import request_facts
from pilot_identity.core.decisions.grants.checks.rules import lifted
from pilot_identity.core.decisions.grants.deciding import Decided
from pilot_identity.core.decisions.grants.observing import Looked, Observation, misnamed
from pilot_identity.core.decisions.grants.reissuing import misgiven
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.history import ON_ITS_WAY, History, Version, is_unknown_at
from pilot_identity.core.resources import Phase, PilotIdentity, Resource, TaskGrant
from pilot_identity.core.resources.digests import grant_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import DecisionStatus
from pilot_identity.core.resources.timestamps import format_timestamp

LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)


@dataclass(frozen=True, slots=True)
class Told:
    """A decision as its entry tells it, behind the entries before it."""

    entry: RecordedEntry
    then: DecisionStatus
    history: History


@dataclass(frozen=True, slots=True)
class Remade:
    """The same, made again from what was looked at."""

    told: Told
    observation: Observation
    request: Request
    now: Decided

    @property
    def entry(self) -> RecordedEntry:
        """The entry of the decision."""
        return self.told.entry

    @property
    def then(self) -> DecisionStatus:
        """What was decided then."""
        return self.told.then

    @property
    def history(self) -> History:
        """What the log says up to the entry."""
        return self.told.history

    @property
    def pilots(self) -> Iterator[tuple[str, Looked, PilotIdentity]]:
        """Every pilot that was looked at, the grant's first, with its place in the observation."""
        yield "pilot", self.observation.pilot, self.request.pilot
        above = zip(self.observation.ancestor_pilots, self.request.seen.ancestor_pilots, strict=True)
        for looked, pilot in above:
            if looked is not None and pilot is not None:
                yield "ancestorPilots", looked, pilot

    @property
    def grants(self) -> Iterator[tuple[str, Looked, TaskGrant]]:
        """The grant and its ancestors."""
        yield "grant", self.observation.grant, self.request.grant
        for looked, grant in zip(self.observation.ancestors, self.request.seen.ancestors, strict=True):
            yield "ancestors", looked, grant


Mismatches: TypeAlias = Iterator[str]


def contradictions_of(told: Told) -> Mismatches:
    """What an entry says that cannot be, whatever was looked at."""
    for check in (_kind, _time):
        yield from check(told)


def mismatches_of(remade: Remade) -> Mismatches:
    """What does not agree with a decision that was made again; each names the field of the entry."""
    for check in CHECKS:
        yield from check(remade)


# Of the entry alone.


def _kind(told: Told) -> Mismatches:
    if told.then.allowed is (told.entry.type == EntryType.GRANT_ISSUED):
        return
    outcome = "allowed" if told.then.allowed else f"not allowed: {told.then.reason}"
    yield f"type: the entry is {told.entry.type}, its decision is {outcome}"


def _time(told: Told) -> Mismatches:
    entry, decided_at, clock = told.entry, told.then.decided_at, told.history.clock
    if decided_at is not None and format_timestamp(decided_at) != format_timestamp(entry.time):
        yield f"time: the entry says {entry.time}, it was decided at {decided_at}"
    if clock is not None and entry.time + ON_ITS_WAY < clock:
        yield f"time: the entry says {entry.time}, the log was told of {clock} before it"


# Of what it is about.


def _about(remade: Remade) -> Mismatches:
    entry, grant, then, now = remade.entry, remade.request.grant, remade.then, remade.now.status
    fields = (
        ("subject", entry.subject, str(grant.key)),
        ("subjectuid", entry.subject_uid, grant.metadata.uid),
        ("grantDigest", entry.data.get("grantDigest"), grant_digest(grant)),
        ("decision.policyDigest", then.policy_digest, now.policy_digest),
        ("decision.pilotDigest", then.pilot_digest, now.pilot_digest),
    )
    for field, said, looked_at in fields:
        if said != looked_at:
            yield f"{field}: the entry says {said}, looked at was {looked_at}"


def _facts(remade: Remade) -> Mismatches:
    facts: Mapping[str, Any] = encode(request_facts(remade.request.grant, remade.request.seen.parent))
    for field in ("pilot", "requestedBy", "task", "parent"):
        said, looked_at = remade.entry.data.get(field), facts.get(field)
        if said != looked_at:
            yield f"{field}: the entry says {said}, looked at was {looked_at}"


def _final(remade: Remade) -> Mismatches:
    objection = remade.now.objection
    if objection is None or remade.entry.type == EntryType.GRANT_ISSUED:
        return
    kind = EntryType.GRANT_DENIED if objection.is_final else EntryType.GRANT_DECIDED
    if remade.entry.type != kind:
        yield f"type: the entry is {remade.entry.type}, {objection.reason} makes it {kind}"


def _specs(remade: Remade) -> Mismatches:
    yield from misnamed(remade.observation)


# Of what was in force.


def _policy(remade: Remade) -> Mismatches:
    yield from _in_force(remade, "stage", remade.observation.stage, remade.request.stage)


def _pilots(remade: Remade) -> Mismatches:
    for field, looked, pilot in remade.pilots:
        yield from _in_force(remade, field, looked, pilot)


def _in_force(remade: Remade, field: str, looked: Looked, found: Resource) -> Mismatches:
    """Make sure that a definition was told of this object, and that no later one was in force."""
    told, metadata = remade.history.definitions(str(found.key)), found.metadata
    known = told.find(metadata.uid, metadata.generation, looked.definition)
    version = known or Version(
        metadata.uid, metadata.generation, looked.definition, -1, LONG_AGO, remade.history.version
    )
    by = next((one for one in told.replacing(version) if not _is_unknown(remade, one.at)), None)
    said = f"observation.{field}: looked at was {_version(found, version)}"
    if by is not None:
        yield f"{said}; entry {by.index} had put {_version(found, by)} in its place"
    elif known is None and remade.history.is_from_first:
        yield f"{said}; no entry before says that {found.key} has that definition"


def _version(found: Resource, version: Version) -> str:
    return f"generation {version.generation} of {found.key} (UID {version.uid}), {version.digest}"


def _is_unknown(remade: Remade, told_at: dt.datetime) -> bool:
    return is_unknown_at(told_at, remade.request.now)


# Of what the operator had said.


def _stage(remade: Remade) -> Mismatches:
    """The policy must be that of the pilot's stage, and of what was allowed that of which the log told."""
    pilot, stage, history = remade.request.pilot, remade.request.stage.name, remade.history
    if pilot.status.stage != stage:
        yield f"observation.stage: looked at was {stage!r}, the pilot's status said {pilot.status.stage!r}"
    placed = history.pilot(pilot.metadata.uid).placed
    if placed is None or placed.stage == pilot.status.stage or not remade.then.allowed:
        return
    # A crash came between the entry of a move and the status, and somebody took the move back meanwhile.
    was_taken_back = pilot.metadata.generation > placed.generation
    is_under_way = was_taken_back or not history.is_settled(placed.at, remade.request.now)
    if pilot.status.stage != placed.before or not is_under_way:
        yield (
            f"observation.pilot: its status said stage {pilot.status.stage!r}, "
            f"entry {placed.index} says {placed.stage!r}"
        )


def _retired(remade: Remade) -> Mismatches:
    retired = remade.history.pilot(remade.request.pilot.metadata.uid).retired
    if retired is not None and not _is_unknown(remade, retired[1]):
        yield f"observation.pilot: entry {retired[0]} says that it was retired"


def _reviews(remade: Remade) -> Mismatches:
    history, grant, pilot = remade.history, remade.request.grant, remade.request.pilot
    reviewed, owes = pilot.status.reviewed, history.pilot(pilot.metadata.uid).owes
    if not remade.then.allowed:
        return
    if history.is_whole and grant.spec.emergency and not history.is_owed(grant.metadata.uid):
        yield "observation.pilot: no entry before says that a review is owed for this emergency grant"
    if history.is_whole and reviewed is not None and not history.is_review(reviewed.uid):
        yield f"observation.pilot: no entry before says that approval {reviewed.name!r} reviewed it"
    is_told = pilot.status.review_owed is not None
    if owes is not None and not is_told and history.is_settled(owes[1], remade.request.now):
        yield f"observation.pilot: entry {owes[0]} says that it owes a review, its status said nothing of it"


def _exceptions(remade: Remade) -> Mismatches:
    """What lifted a rule must have been opened for this pilot, on the word that is named, and not be over."""
    history, pilot, stage = remade.history, remade.request.pilot.metadata, remade.request.stage.metadata
    for known in lifted(remade.request):
        said = f"observation.pilot: what lifted rule {known.rule!r} was exception {known.digest}"
        index = known.audit_index if known.audit_index is not None else -1
        opening = history.opening(pilot.uid, known.digest, index)
        if opening is None:
            if index < 0 or history.first is None or index >= history.first:
                yield f"{said}; it was not opened by entry {known.audit_index}"
            continue
        looked_at = (format_timestamp(known.until), list(encode(known.approvals)))
        if looked_at != (opening.until, opening.approvals):
            yield f"{said} until {looked_at[0]} by {looked_at[1]}; entry {index} opened another"
        for word in known.approvals:
            if history.approval(word.uid).given is None and history.is_from_first:
                yield f"{said}; no entry before says that {word.name!r} was given"
        end = history.exception_end(pilot.uid, known.digest)
        if end is None or end.index < index or not history.is_settled(end.at, remade.request.now):
            continue
        if not end.was_taken_back(pilot.generation, stage.generation):
            yield f"{said}; entry {end.index} says that it ended"


# Of grants.


def _requests(remade: Remade) -> Mismatches:
    for field, looked, grant in remade.grants:
        told = remade.history.grant(grant.metadata.uid)
        if not told.digest:
            if remade.history.is_from_first:
                yield f"observation.{field}: no entry before has the request of UID {grant.metadata.uid}"
            continue
        if (told.subject, told.digest) != (str(grant.key), looked.definition):
            yield (
                f"observation.{field}: looked at was {grant.key}, {looked.definition}; "
                f"with UID {grant.metadata.uid} was asked {told.subject}, {told.digest}"
            )
        made_at = grant.metadata.creation_timestamp
        if told.created_at and made_at is not None and told.created_at != encode(made_at):
            yield f"observation.{field}: made at {encode(made_at)}, its request says {told.created_at}"


def _issued_before(remade: Remade) -> Mismatches:
    issue = remade.history.grant(remade.request.grant.metadata.uid).issue
    if issue is not None and not _is_unknown(remade, issue.at):
        yield f"type: entry {issue.index} had issued it, and what that announced was not abandoned"


def _ancestors(remade: Remade) -> Mismatches:
    for field, _, grant in remade.grants:
        status, uid = grant.status, grant.metadata.uid
        if field != "ancestors" or status.phase is not Phase.ACTIVE or not remade.then.allowed:
            continue
        told = remade.history.grant(uid)
        said = f"observation.{field}: {grant.key} was {status.phase}"
        if told.issue is None and remade.history.is_whole:
            yield f"{said}; no entry before issued it"
        elif told.issue is not None:
            issued = (told.issue.stage, told.issue.expires_at)
            looked_at = (status.stage, encode(status.expires_at))
            if issued != looked_at:
                yield f"{said} in {' until '.join(map(str, looked_at))}; issued was {' until '.join(issued)}"
        if told.ended is not None and not _is_unknown(remade, told.ended[1]):
            yield f"{said}; entry {told.ended[0]} says that it ended"


# Of people.


def _words(remade: Remade) -> Mismatches:
    """What was said must be of this grant, and as the log has it where it has it."""
    uid = remade.request.grant.metadata.uid
    for looked, approval in zip(remade.observation.approvals, remade.request.seen.approvals, strict=True):
        name, told = approval.metadata.name, remade.history.approval(approval.metadata.uid)
        if approval.spec.subject.uid != uid:
            yield f"observation.approvals: {name!r} is of UID {approval.spec.subject.uid}, not of {uid}"
        if told.digest and (told.subject, told.digest) != (str(approval.key), looked.definition):
            yield (
                f"observation.approvals: looked at was {approval.key}, {looked.definition}; "
                f"the log has {told.subject}, {told.digest}"
            )


def _counted(remade: Remade) -> Mismatches:
    """What it rests on must have been given, and have been used for nothing before."""
    history = remade.history
    for word in remade.now.heard:
        name, told = word.metadata.name, history.approval(word.metadata.uid)
        if told.given is None and history.is_from_first:
            yield f"decision.approvals: no entry before says that {name!r} was given"
        if told.used is not None:
            yield f"decision.approvals: entry {told.used} says that {name!r} was used before"
    is_agreed = history.grant(remade.request.grant.metadata.uid).approved
    if remade.now.status.allowed and remade.now.heard and not is_agreed and history.is_from_first:
        yield "decision.approvals: no entry before says that all have agreed who had to"


def _given(remade: Remade) -> Mismatches:
    if remade.entry.type == EntryType.GRANT_ISSUED and remade.now.status.allowed:
        yield from misgiven(remade.request, remade.entry)


CHECKS: tuple[Callable[[Remade], Mismatches], ...] = (
    # Make sure that it is the decision on what the entry names, and no other.
    _about,
    _facts,
    # Make sure that what was denied for good is told so, and what waits is not.
    _final,
    # Make sure that no spec was put in the place of another.
    _specs,
    # Make sure that the rules and the pilots were those of the moment.
    _policy,
    _pilots,
    # Make sure that the pilot was where its evidence had brought it, and owed nobody a look.
    _stage,
    _retired,
    _reviews,
    # Make sure that people lifted what was lifted.
    _exceptions,
    # Make sure that this was asked, and given no more than once.
    _requests,
    _issued_before,
    # Make sure that it was passed on by who had it.
    _ancestors,
    # Make sure that people said what they are said to have said (promise 3).
    _words,
    _counted,
    # Make sure that no more was given than was decided.
    _given,
)
