"""What is checked of a grant before anything is issued for it."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.decisions.announced import Announced
from pilot_identity.core.decisions.credentials import audiences, granted_access
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.patterns import actions_cover, resources_cover


@dataclass(frozen=True, slots=True)
class GrantSeen:
    """All that is known of a grant.

    Attributes:
        stage: the policy of the pilot's effective stage.
        ca_not_after: when that stage's CA expires; `None` while it has none.
        active_grants: how many other grants of the pilot are active.
        issued_lately: how many other grants of the pilot were issued within the last minute.
        oldest_issue: when the first of those was issued.
        announced: a credential that the log announced and the status does not know.
    """

    grant: TaskGrant
    pilot: PilotIdentity | None
    stage: StagePolicy | None
    ca_not_after: dt.datetime | None = None
    active_grants: int = 0
    issued_lately: int = 0
    oldest_issue: dt.datetime | None = None
    announced: Announced | None = None


@dataclass(frozen=True, slots=True)
class Request:
    """A grant whose pilot and stage are there: what most checks look at."""

    grant: TaskGrant
    pilot: PilotIdentity
    stage: StagePolicy
    ca_not_after: dt.datetime
    seen: GrantSeen


def _wait(reason: Reason, message: str) -> Objection:
    return Objection(reason, message, is_final=False)


def request_of(seen: GrantSeen) -> Request | Objection:
    """Put the request together, or say what it waits for: manifests arrive in any order."""
    grant, pilot = seen.grant, seen.pilot
    if pilot is None or pilot.metadata.is_deleting:
        return _wait(
            Reason.PILOT_NOT_FOUND,
            f"no PilotIdentity {grant.spec.pilot!r} in namespace {grant.metadata.namespace!r}; "
            "apply it, or correct the name in a new grant",
        )
    if seen.stage is None or seen.ca_not_after is None:
        return _pilot_not_ready(pilot)
    return Request(grant, pilot, seen.stage, seen.ca_not_after, seen)


def _pilot_not_ready(pilot: PilotIdentity) -> Objection:
    ready = find(pilot.status.conditions, ConditionType.READY)
    why = f"{ready.reason}: {ready.message}" if ready is not None else "it has no identity yet"
    return _wait(Reason.PILOT_NOT_READY, f"pilot {pilot.metadata.name!r} is not ready ({why})")


def _suspended(request: Request) -> Objection | None:
    if not request.pilot.spec.suspend:
        return None
    return Objection(
        Reason.PILOT_SUSPENDED,
        f"pilot {request.pilot.metadata.name!r} is suspended; ask again once it is not",
    )


def _not_ready(request: Request) -> Objection | None:
    """The pilot's spec must be the one that was accepted: a refused edit widens nothing."""
    pilot = request.pilot
    ready = find(pilot.status.conditions, ConditionType.READY)
    is_current = pilot.status.observed_generation == pilot.metadata.generation
    if ready is not None and ready.status == "True" and is_current:
        return None
    return _pilot_not_ready(pilot)


def _stage_frozen(request: Request) -> Objection | None:
    if not request.stage.spec.freeze:
        return None
    return Objection(
        Reason.STAGE_FROZEN,
        f"stage {request.stage.name!r} is frozen; ask again once its spec.freeze is false",
    )


def _unsupported(request: Request) -> Objection | None:
    spec = request.grant.spec
    if spec.parent:
        return Objection(
            Reason.DELEGATION_UNSUPPORTED,
            "this version issues no child grants; leave spec.parent out and ask for the pilot itself",
        )
    if spec.certificate_request:
        return Objection(
            Reason.CERTIFICATE_REQUEST_UNSUPPORTED,
            "this version signs no certificate requests; leave spec.certificateRequest out",
        )
    if spec.emergency:
        return Objection(
            Reason.EMERGENCY_UNSUPPORTED, "this version has no emergency path; leave spec.emergency out"
        )
    return None


def _access_known(request: Request) -> Objection | None:
    known = [entry.name for entry in request.pilot.spec.access]
    for asked in request.grant.spec.access:
        if asked.name not in known:
            return Objection(
                Reason.ACCESS_UNKNOWN,
                f"pilot {request.pilot.metadata.name!r} has no access {asked.name!r}; "
                f"it has: {', '.join(known) or 'none'}",
            )
    return None


def _tools_only(request: Request) -> Objection | None:
    for asked, entry in granted_access(request.grant, request.pilot):
        if entry.tool is None:
            return Objection(
                Reason.KUBERNETES_ACCESS_UNSUPPORTED,
                f"access {asked.name!r} is Kubernetes access, which this version does not issue",
            )
    return None


def _actions(request: Request) -> Objection | None:
    for asked, entry in granted_access(request.grant, request.pilot):
        if entry.tool and not actions_cover(entry.tool.actions, asked.actions):
            return Objection(
                Reason.ACTION_OUTSIDE_PILOT,
                f"access {asked.name!r} allows the actions {', '.join(entry.tool.actions)}; "
                f"asked for {', '.join(asked.actions)}",
            )
    return None


def _resources(request: Request) -> Objection | None:
    for asked, entry in granted_access(request.grant, request.pilot):
        if entry.tool and not resources_cover(entry.tool.resources, asked.resources):
            return Objection(
                Reason.RESOURCE_OUTSIDE_PILOT,
                f"access {asked.name!r} allows the resources {', '.join(entry.tool.resources)}; "
                f"asked for {', '.join(asked.resources)}",
            )
    return None


def _audience(request: Request) -> Objection | None:
    named = audiences(request.grant, request.pilot)
    for wanted in request.grant.spec.audience:
        if wanted not in named:
            return Objection(
                Reason.AUDIENCE_OUTSIDE_PILOT,
                f"no access that the grant names has audience {wanted!r}; spec.audience can only narrow",
            )
    return None


def _data_class(request: Request) -> Objection | None:
    for asked, entry in granted_access(request.grant, request.pilot):
        if entry.data_class not in request.stage.spec.data_classes:
            return Objection(
                Reason.DATA_CLASS_OUTSIDE_STAGE,
                f"access {asked.name!r} has data class {entry.data_class!r}, which stage "
                f"{request.stage.name!r} does not allow",
            )
    return None


def _duration(request: Request) -> Objection | None:
    most = request.stage.spec.credentials.max_task_duration
    if request.grant.spec.duration <= most:
        return None
    return Objection(
        Reason.DURATION_TOO_LONG,
        f"stage {request.stage.name!r} allows a task {most}; asked for {request.grant.spec.duration}",
    )


def _rules(request: Request) -> Objection | None:
    if not request.stage.spec.rules:
        return None
    return Objection(
        Reason.RULES_UNSUPPORTED,
        f"stage {request.stage.name!r} has CEL rules, which this version cannot evaluate; it refuses "
        "rather than guess",
    )


def _approvals(request: Request) -> Objection | None:
    needed = request.stage.spec.approvals.grant.required
    if not needed:
        return None
    return _wait(
        Reason.APPROVAL_REQUIRED,
        f"stage {request.stage.name!r} asks for {needed} approval{'s' if needed > 1 else ''} of each grant; "
        "this version does not count approvals yet, so nothing is issued",
    )


def _active_limit(request: Request) -> Objection | None:
    most = request.stage.spec.limits.active_grants
    if request.seen.active_grants < most:
        return None
    return _wait(
        Reason.LIMIT_REACHED,
        f"pilot {request.pilot.metadata.name!r} has {request.seen.active_grants} active grants, stage "
        f"{request.stage.name!r} allows {most}; this one is issued when another ends",
    )


def _rate_limit(request: Request) -> Objection | None:
    most = request.stage.spec.limits.requests_per_minute
    if request.seen.issued_lately < most:
        return None
    return _wait(
        Reason.LIMIT_REACHED,
        f"pilot {request.pilot.metadata.name!r} was issued {request.seen.issued_lately} grants within a "
        f"minute, stage {request.stage.name!r} allows {most}; this one is issued when the minute is over",
    )


CHECKS = (
    # Make sure that nothing starts in a stage that was stopped.
    Check("stage-not-frozen", _stage_frozen),
    # Make sure that the owner's word counts at once.
    Check("pilot-not-suspended", _suspended),
    # Make sure that the pilot's definition, as it stands now, was accepted.
    Check("pilot-ready", _not_ready),
    # Make sure that nothing is asked for that would be silently left out.
    Check("nothing-unsupported", _unsupported),
    # Make sure that each entry asked for is one of the pilot's.
    Check("access-known", _access_known),
    # Make sure that a Kubernetes entry is not answered with a token that the API server ignores.
    Check("tools-only", _tools_only),
    # Make sure that no action goes beyond the pilot's.
    Check("actions-within-pilot", _actions),
    # Make sure that no resource goes beyond the pilot's.
    Check("resources-within-pilot", _resources),
    # Make sure that a token is only good where the pilot may go.
    Check("audience-within-pilot", _audience),
    # Make sure that the data is of the stage's classes.
    Check("data-classes-of-stage", _data_class),
    # Make sure that the task ends in time.
    Check("duration-within-stage", _duration),
    # Make sure that the stage's own rules are not passed over.
    Check("stage-rules", _rules),
    # Make sure that those who must agree have agreed.
    Check("approvals", _approvals),
    # Make sure that one pilot cannot have more at a time than its stage allows.
    Check("active-grants-limit", _active_limit),
    # Make sure that one pilot cannot ask faster than its stage allows.
    Check("request-rate-limit", _rate_limit),
)

_ONLY_AT_THE_START = {
    "duration-within-stage",
    "approvals",
    "active-grants-limit",
    "request-rate-limit",
}
RENEWAL_CHECKS = tuple(check for check in CHECKS if check.name not in _ONLY_AT_THE_START)
"""What must still hold when a running task's credentials are renewed."""
