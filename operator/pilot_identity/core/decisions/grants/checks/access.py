"""Whether what is asked for lies within the pilot's access and the stage."""

from __future__ import annotations

from pilot_identity.core.decisions.credentials import audiences, granted_access
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.hindrance import Obstacle
from pilot_identity.core.decisions.kubernetes_access import account_name, is_as_bound
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.patterns import actions_cover, resources_cover


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


def _bindable(request: Request) -> Objection | None:
    for hindrance in request.seen.hindrances:
        binding = hindrance.binding
        if hindrance.obstacle is Obstacle.NAME_TAKEN:
            return Objection(
                Reason.KUBERNETES_NAME_TAKEN,
                f"something that is not this grant's has the name {binding.name!r} or "
                f"{account_name(request.grant)!r}; it is never overwritten: remove it, then ask again",
            )
        return Objection(
            Reason.ROLE_NOT_BINDABLE,
            f"{binding.role_ref.kind} {binding.role_ref.name!r} cannot be bound in namespace "
            f"{binding.namespace!r}: {_REMEDIES[hindrance.obstacle]}, then ask again",
        )
    return None


_REMEDIES = {
    Obstacle.NOT_BINDABLE: "the operator may bind only what an admin allows it; have it added to the chart's "
    "value kubernetesAccess.roles",
    Obstacle.ROLE_MISSING: "there is no such role; make it, and have it added to the chart's value "
    "kubernetesAccess.roles",
    Obstacle.NAMESPACE_MISSING: "there is no such namespace; make it",
}


def _as_bound(request: Request) -> Objection | None:
    if is_as_bound(request.seen, request.pilot):
        return None
    return Objection(
        Reason.ACCESS_CHANGED,
        f"the Kubernetes access of pilot {request.pilot.metadata.name!r} changed since it was bound for this "
        "grant; ask again for what it is now",
    )


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
    # Make sure that each entry asked for is one of the pilot's.
    Check("access-known", _access_known),
    # Make sure that no access is promised that the API server would not let the operator give.
    Check("roles-bindable", _bindable),
    # Make sure that a renewal does not carry on with a role that the pilot no longer has.
    Check("roles-as-bound", _as_bound),
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
