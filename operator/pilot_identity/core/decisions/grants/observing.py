"""Observations: all that the checks of a grant look at, as an entry tells it and as it is put together again.

A definition (a spec) is named by its digest, since the log has it (`decisions.definitions`). The rest is what
no other entry has: the facts of the moment, and of each object the few fields of metadata and status that
some check reads. Whoever adds a check that reads more adds that here: `tests/core/decisions/conftest.py`
replays every decision that any test there makes.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any, TypeVar

import msgspec

from pilot_identity.core.audit.entries import Entry, evidence
from pilot_identity.core.decisions.definitions import asked, defined, definition_digest, requested
from pilot_identity.core.decisions.grants.seen import GrantSeen, Request
from pilot_identity.core.decisions.hindrance import Hindrance, Obstacle
from pilot_identity.core.resources import Approval, PilotIdentity, Resource, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import Condition, ConditionType, Reason, find
from pilot_identity.core.resources.digests import digest_json
from pilot_identity.core.resources.metadata import Metadata, View
from pilot_identity.core.resources.parsing import KINDS, encode, parse_as
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from pilot_identity.core.resources.task_grant import Binding, TaskGrantStatus

Definitions = Callable[[str], Any]
"""Finds a definition, plain JSON values, by its digest; raises where it is not known."""

_Kept = TypeVar("_Kept", TaskGrant, PilotIdentity, StagePolicy, Approval)


class Looked(View, frozen=True):
    """One object as a decision looked at it: of metadata and status only what some check reads.

    Attributes:
        definition: the digest of its spec, of a grant's without how it ends.
        spec: the spec itself, of an approval that the log may not have.
    """

    definition: str
    metadata: dict[str, Any]
    status: Mapping[str, Any] = msgspec.field(default_factory=dict)
    spec: dict[str, Any] | None = None


class Obstructed(View, frozen=True):
    """A binding that cannot be made; `obstacle` is the name of an `Obstacle`."""

    binding: Binding
    obstacle: str


class Observation(View, frozen=True):
    """What the checks of one grant looked at; `DecisionStatus.decided_at` has the time.

    Attributes:
        ancestors: the parent last.
        ancestor_pilots: of each ancestor; `None` where it was missing.
    """

    grant: Looked
    pilot: Looked
    stage: Looked
    ca_not_after: dt.datetime
    active_grants: int = 0
    issued_lately: int = 0
    ancestors: tuple[Looked, ...] = ()
    ancestor_pilots: tuple[Looked | None, ...] = ()
    approvals: tuple[Looked, ...] = ()
    hindrances: tuple[Obstructed, ...] = ()


def observed(request: Request, heard: Collection[Approval] = ()) -> Any:
    """What an entry tells of what the checks looked at; its digest and size where that is too much.

    `heard` are the approvals that an entry of the same group tells in full.
    """
    seen = request.seen
    return evidence(
        encode(
            Observation(
                grant=_grant(request.grant),
                pilot=_pilot(request.pilot),
                stage=Looked(definition_digest(request.stage.spec), _metadata(request.stage)),
                ca_not_after=request.ca_not_after,
                active_grants=seen.active_grants,
                issued_lately=seen.issued_lately,
                ancestors=tuple(map(_grant, seen.ancestors)),
                ancestor_pilots=tuple(
                    _pilot(pilot) if pilot is not None else None for pilot in seen.ancestor_pilots
                ),
                approvals=tuple(
                    _approval(one, is_told=one in heard or _is_dead(one)) for one in seen.approvals
                ),
                hindrances=tuple(Obstructed(one.binding, one.obstacle.name) for one in seen.hindrances),
            )
        )
    )


def looked_at(request: Request) -> tuple[Entry, ...]:
    """The entries that have the definitions which an observation of the request names.

    The policy's is missing: a stage is ready only when the log has it (`decisions.stages`).
    """
    seen, now = request.seen, request.now
    pilots = (*(pilot for pilot in seen.ancestor_pilots if pilot is not None), request.pilot)
    above = (None, *seen.ancestors)
    entries = (
        *(defined(pilot, now) for pilot in pilots),
        *(requested(grant, parent, now) for grant, parent in zip(seen.ancestors, above, strict=False)),
        requested(request.grant, seen.parent, now),
    )
    return tuple({entry.id: entry for entry in entries}.values())


def request_from(observation: Observation, now: dt.datetime, find_definition: Definitions) -> Request:
    """Put a request together again.

    Raises:
        ResourceError: what was observed does not fit this version's views.
    """

    def look(kind: type[_Kept], looked: Looked) -> _Kept:
        return _look(kind, looked, find_definition)

    grant, pilot = look(TaskGrant, observation.grant), look(PilotIdentity, observation.pilot)
    stage = look(StagePolicy, observation.stage)
    seen = GrantSeen(
        grant=grant,
        pilot=pilot,
        stage=stage,
        ca_not_after=observation.ca_not_after,
        active_grants=observation.active_grants,
        issued_lately=observation.issued_lately,
        ancestors=tuple(look(TaskGrant, one) for one in observation.ancestors),
        ancestor_pilots=tuple(
            look(PilotIdentity, one) if one is not None else None for one in observation.ancestor_pilots
        ),
        approvals=tuple(look(Approval, one) for one in observation.approvals),
        hindrances=tuple(Hindrance(one.binding, Obstacle[one.obstacle]) for one in observation.hindrances),
    )
    return Request(grant, pilot, stage, observation.ca_not_after, seen, now)


def misnamed(observation: Observation) -> Iterator[str]:
    """The fields whose spec stands beside them and is not the one that `definition` names."""
    fields = (
        ("grant", (observation.grant,)),
        ("pilot", (observation.pilot,)),
        ("stage", (observation.stage,)),
        ("ancestors", observation.ancestors),
        ("ancestorPilots", observation.ancestor_pilots),
        ("approvals", observation.approvals),
    )
    for field, objects in fields:
        for one in objects:
            if one is not None and one.spec is not None and digest_json(one.spec) != one.definition:
                yield f"observation.{field}: the spec of {one.metadata.get('name')!r} is not {one.definition}"


def _look(kind: type[_Kept], looked: Looked, find_definition: Definitions) -> _Kept:
    spec = looked.spec if looked.spec is not None else find_definition(looked.definition)
    body = {"metadata": looked.metadata, "spec": spec, "status": looked.status}
    found = parse_as(body, KINDS[kind.__name__])
    if not isinstance(found, kind):
        raise TypeError(f"{kind.__name__} is parsed as one")
    return found


def _metadata(found: Resource) -> dict[str, Any]:
    """What checks read of metadata: names, and when it was made, and whether it goes."""
    metadata = found.metadata
    kept: dict[str, Any] = encode(
        Metadata(
            metadata.name,
            metadata.uid,
            metadata.namespace,
            generation=metadata.generation,
            creation_timestamp=metadata.creation_timestamp,
            deletion_timestamp=metadata.deletion_timestamp,
        )
    )
    return kept


def _grant(grant: TaskGrant) -> Looked:
    status = grant.status
    kept = TaskGrantStatus(
        phase=status.phase,
        approval=status.approval,
        stage=status.stage,
        expires_at=status.expires_at,
        parent_uid=status.parent_uid,
        conditions=_ready(status.conditions),
    )
    return Looked(definition_digest(asked(grant)), _metadata(grant), encode(kept))


def _pilot(pilot: PilotIdentity) -> Looked:
    status = pilot.status
    kept = PilotIdentityStatus(
        observed_generation=status.observed_generation,
        stage=status.stage,
        stage_since=status.stage_since,
        service_account_name=status.service_account_name,
        digest=status.digest,
        review_owed=status.review_owed,
        reviewed=status.reviewed,
        exceptions=tuple(
            msgspec.structs.replace(one, message="", rule_text=None) for one in status.exceptions
        ),
        conditions=_ready(status.conditions),
    )
    return Looked(definition_digest(pilot.spec), _metadata(pilot), encode(kept))


def _approval(approval: Approval, *, is_told: bool) -> Looked:
    status = {"used": True} if approval.status.used else {}
    spec = None if is_told else encode(approval.spec)
    return Looked(definition_digest(approval.spec), _metadata(approval), status, spec)


def _is_dead(approval: Approval) -> bool:
    """Whether its status says that it counts for nothing: then an entry had it in full before."""
    ready = find(approval.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason in {Reason.VOID, Reason.REFUSED}


def _ready(conditions: tuple[Condition, ...]) -> tuple[Condition, ...]:
    ready = find(conditions, ConditionType.READY)
    return () if ready is None else (Condition(ready.type, ready.status, ready.reason, ready.message),)
