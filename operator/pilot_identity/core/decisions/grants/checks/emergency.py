"""Breaking the glass: without approvals, short, and never without a review afterwards."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.reviews import MOST_OWED, is_recorded
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.timestamps import format_timestamp


def _not_allowed(request: Request) -> Objection | None:
    if not request.grant.spec.emergency or request.stage.spec.emergency is not None:
        return None
    return Objection(
        Reason.EMERGENCY_NOT_ALLOWED,
        f"stage {request.stage.name!r} has no emergency grants; leave spec.emergency out",
    )


def _too_long(request: Request) -> Objection | None:
    rules, asked = request.stage.spec.emergency, request.grant.spec.duration
    if not request.grant.spec.emergency or rules is None or asked <= rules.max_duration:
        return None
    return Objection(
        Reason.DURATION_TOO_LONG,
        f"stage {request.stage.name!r} allows an emergency grant {rules.max_duration}; asked for {asked}",
    )


def _review_overdue(request: Request) -> Objection | None:
    pilot = request.pilot
    owed = pilot.status.review_owed
    if owed is None:
        return None
    names = ", ".join(use.name for use in owed.grants)
    how = (
        f"somebody who asked for none of them makes an Approval with purpose Review of {pilot.key}, digest "
        f"{pilot.status.digest}"
    )
    if request.now >= owed.due_at:
        return wait(
            Reason.REVIEW_OVERDUE,
            f"the review of emergency grants {names} was due at {format_timestamp(owed.due_at)}: {how}",
        )
    if (
        request.grant.spec.emergency
        and len(owed.grants) >= MOST_OWED
        and not is_recorded(pilot, request.grant)
    ):
        return wait(Reason.REVIEW_OVERDUE, f"{MOST_OWED} emergency grants owe a review, {names}: {how}")
    return None


def _unrecorded(request: Request) -> Objection | None:
    if not request.grant.spec.emergency or is_recorded(request.pilot, request.grant):
        return None
    return wait(
        Reason.REVIEW_UNRECORDED,
        f"all is in order; waits until the status of {request.pilot.key} says that a review is owed for it",
    )


REVIEWED = (
    # Make sure that whoever breaks the glass is looked at afterwards, or the pilot stands still.
    Check("review-not-overdue", _review_overdue),
)

EMERGENCY = (
    # Make sure that the stage wants emergencies at all.
    Check("emergency-allowed", _not_allowed),
    # Make sure that what nobody approved is short.
    Check("emergency-short", _too_long),
)

RECORDED = (
    # Make sure that no crash and no deletion loses the review: it is owed before anything is issued.
    Check("review-recorded", _unrecorded),
)
