"""Contradictions: what a grant's or pilot's own object says, held against the log.

A status is the operator's word, and it is believed. Whoever could write one past the admission policies, or
edit the storage, could have an ended grant look alive, or a live one look ended; the log says which it is.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator, Mapping
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.audit.told import Step, Told
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.digests import grant_digest
from pilot_identity.core.resources.metadata import View
from pilot_identity.core.resources.parsing import encode

SETTLED_WITHIN = dt.timedelta(minutes=1)
"""So long the log may be a step ahead of what is there; usually it is some milliseconds."""

Contradiction = tuple[int, str]
"""The entry that says otherwise, -1 where there is none, and both sides in a sentence."""

_LATER = frozenset({"auditIndex", "secretUID", "certificate"})
"""Of a credential: what a status has and its announcement could not know."""
_TRIMMED = frozenset({"superseded"})
"""What a status may leave out, so that it can be stored."""


def grant_contradictions(grant: TaskGrant, told: Told | None, now: dt.datetime) -> Iterator[Contradiction]:
    """What a grant says that the log does not; `told` is `None` where the log never heard of it."""
    status = grant.status
    if status.phase in {Phase.PENDING, Phase.AWAITING_APPROVAL}:
        yield from _unheard(status.phase, told, now)
        return
    if told is None:
        yield -1, f"is {status.phase} by its status; no entry is about it (UID {grant.metadata.uid})"
        return
    if told.digest and not grant.metadata.unreadable and grant_digest(grant) != told.digest:
        index = told.decision.index if told.decision is not None else -1
        yield index, f"asks for something else than what was decided upon ({told.digest})"
    yield from _decision(grant, told)
    yield from _credential(status.credential, told, now, is_live=status.phase is Phase.ACTIVE)
    if status.phase is Phase.ACTIVE:
        yield from _active(grant, told, now)
    else:
        yield from _ended(grant, told)


def pilot_contradictions(
    pilot: PilotIdentity, told: Told | None, now: dt.datetime
) -> Iterator[Contradiction]:
    """What a pilot says that the log does not."""
    status = pilot.status
    if status.credential is None:
        current = told.current if told is not None else None
        if current is not None and _is_past(current.time, now) and not pilot.metadata.is_deleting:
            yield current.index, f"has no identity by its status; entry {current.index} announced one"
        return
    if told is None:
        yield -1, f"has an identity by its status; no entry is about it (UID {pilot.metadata.uid})"
        return
    yield from _credential(status.credential, told, now, is_live=True)
    back = told.taken_back
    if back is not None and _is_past(back.time, now):
        yield back.index, f"has an identity by its status; entry {back.index} took it back"
    newest = told.newest
    if newest is None or not _is_past(newest.time, now):
        return
    for name, says, said in (("stage", status.stage, told.stage), ("digest", status.digest, told.digest)):
        if says != said:
            yield newest.index, f"its status has {name} {says!r}; the log says {said!r}"


def _unheard(phase: Phase, told: Told | None, now: dt.datetime) -> Iterator[Contradiction]:
    """A grant that says that nothing was decided yet."""
    if told is None:
        return
    newest = told.newest
    index, at = (told.end.index, told.end.time) if told.end is not None else (-1, now)
    if told.end is None and newest is not None:
        index, at = newest.index, newest.time
    if index >= 0 and _is_past(at, now):
        yield index, f"is {phase} by its status; entry {index} tells that it was decided"


def _decision(grant: TaskGrant, told: Told) -> Iterator[Contradiction]:
    says, said = grant.status.decision, told.decision
    if says is None and said is None:
        return
    if says is None or said is None:
        index = said.index if said is not None else -1
        yield index, "has a decision in the log only" if says is None else "has a decision in its status only"
        return
    yield from _same_index("decision", says.audit_index, said.index)
    # The same denial may be made twice, if the operator ended between its entry and its status.
    later = {"auditIndex"} if says.allowed else {"auditIndex", "decidedAt"}
    names = said.said.differences(_plain(says), later)
    if names:
        yield said.index, f"its decision is not the recorded one in {', '.join(names)}"


def _credential(
    says: CredentialStatus | None, told: Told, now: dt.datetime, *, is_live: bool
) -> Iterator[Contradiction]:
    """What the status says is out is what was announced last."""
    newest = told.newest
    if says is None:
        if is_live:
            yield newest.index if newest is not None else -1, "is issued by its status, with no credential"
        return
    said = told.announcement(says.id)
    if said is None or newest is None:
        yield (
            newest.index if newest is not None else -1,
            f"its credential {says.id} is none that is announced",
        )
        return
    if is_live and said is not newest and _is_past(newest.time, now):
        yield newest.index, f"entry {newest.index} announced a credential that its status does not know"
    yield from _same_index("credential", says.audit_index, said.index)
    names = said.said.differences(_plain(says), _LATER | _TRIMMED)
    if names:
        yield said.index, f"its credential is not the announced one in {', '.join(names)}"


def _active(grant: TaskGrant, told: Told, now: dt.datetime) -> Iterator[Contradiction]:
    status = grant.status
    if told.end is not None and _is_past(told.end.time, now):
        yield told.end.index, f"is Active by its status; entry {told.end.index} ended it"
    issued = told.decision
    if issued is None or not issued.expires_at:
        return
    expires_at = encode(status.expires_at)
    for name, says, said in (
        ("expiresAt", expires_at, issued.expires_at),
        ("stage", status.stage, issued.stage),
    ):
        if says != said:
            yield issued.index, f"its status has {name} {says}; the log says {said}"


def _ended(grant: TaskGrant, told: Told) -> Iterator[Contradiction]:
    status, end = grant.status, told.end
    if end is None:
        yield -1, f"is {status.phase} by its status; no entry ends it"
        return
    is_denied = end.type == EntryType.GRANT_DENIED
    if is_denied or status.phase is Phase.DENIED:
        if is_denied != (status.phase is Phase.DENIED):
            yield end.index, f"is {status.phase} by its status; entry {end.index} says {_outcome(end)}"
        return
    closure = status.closure
    if closure is None:
        yield end.index, f"is {status.phase} by its status, which does not say how it ended"
        return
    outcome = _outcome(end)
    if outcome != closure.outcome or status.phase.value not in {Phase.CLOSING.value, closure.outcome}:
        yield (
            end.index,
            f"is {status.phase} ({closure.outcome}) by its status; entry {end.index} says {outcome}",
        )
    yield from _same_index("closure", closure.audit_index, end.index)
    is_shown = told.proven is not None or end.is_proven
    if not is_shown and (closure.proven_at is not None or status.phase.is_terminal):
        yield end.index, "is shown to have ended by its status; by the log that is not shown"


def _outcome(end: Step) -> str:
    return Phase.DENIED if end.type == EntryType.GRANT_DENIED else end.outcome


def _same_index(what: str, says: int, said: int) -> Iterator[Contradiction]:
    if says != said:
        yield said, f"its status names entry {says} for its {what}; that is entry {said}"


def _plain(view: View) -> Mapping[str, Any]:
    """A view as JSON would have it."""
    plain: Mapping[str, Any] = msgspec.json.decode(msgspec.json.encode(encode(view)))
    return plain


def _is_past(moment: dt.datetime, now: dt.datetime) -> bool:
    """Whether a step is so long ago that everything should say it."""
    return moment + SETTLED_WITHIN <= now
