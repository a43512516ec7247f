"""Whether the pilot and its stage may get anything at all."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request, pilot_not_ready
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import ConditionType, Reason, find

SERVICE_ACCOUNT = "system:serviceaccount:"
"""How the user name of every ServiceAccount begins; its namespace and name follow."""


def _stage_frozen(request: Request) -> Objection | None:
    if not request.stage.spec.freeze:
        return None
    return Objection(
        Reason.STAGE_FROZEN,
        f"stage {request.stage.name!r} is frozen; ask again once its spec.freeze is false",
    )


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
    return pilot_not_ready(pilot)


def _requester_not_workload(request: Request) -> Objection | None:
    """The accounts are the operator's word: a refused edit of a pilot names no other one."""
    requester, namespace = request.grant.spec.requested_by, request.grant.metadata.namespace
    if not requester.startswith(SERVICE_ACCOUNT):
        return None
    pilots = (request.pilot, request.seen.parent_pilot)
    accounts = {pilot.status.service_account_name for pilot in pilots if pilot is not None} - {""}
    if requester in {f"{SERVICE_ACCOUNT}{namespace}:{account}" for account in accounts}:
        return None
    return Objection(
        Reason.REQUESTER_NOT_WORKLOAD,
        f"{requester} is not the workload of pilot {request.pilot.metadata.name!r} or of a parent grant's; "
        f"ask as {SERVICE_ACCOUNT}{namespace}:{request.pilot.status.service_account_name}, or as a person",
    )


STANDING = (
    # Make sure that nothing starts in a stage that was stopped.
    Check("stage-not-frozen", _stage_frozen),
    # Make sure that the owner's word counts at once.
    Check("pilot-not-suspended", _suspended),
    # Make sure that the pilot's definition, as it stands now, was accepted.
    Check("pilot-ready", _not_ready),
    # Make sure that a ServiceAccount asks only for the pilot whose workload it is, or below a grant.
    Check("requester-is-workload", _requester_not_workload),
)
