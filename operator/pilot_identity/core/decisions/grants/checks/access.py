"""Whether what is asked for lies within the pilot's access and the stage."""

from __future__ import annotations

from pilot_identity.core.decisions.credentials import audiences, granted_access
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.patterns import actions_cover, resources_cover


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


ACCESS = (
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
)

DURATION = (
    # Make sure that the task ends in time.
    Check("duration-within-stage", _duration),
)
