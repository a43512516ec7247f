"""Breaking the glass: without approvals, short, and never without a review afterwards."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.review_dates import deadline_of, how_to_review
from pilot_identity.core.decisions.reviews import MOST_OWED, is_recorded
from pilot_identity.core.resources.conditions import Reason


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
    deadline = deadline_of(request.pilot, request.stage)
    if deadline is None or request.now < deadline.at:
        return None
    return wait(Reason.REVIEW_OVERDUE, f"{deadline.why}: {how_to_review(request.pilot)}")


def _too_many_unreviewed(request: Request) -> Objection | None:
    pilot, grant = request.pilot, request.grant
    owed = pilot.status.review_owed
    if not grant.spec.emergency or owed is None or is_recorded(pilot, grant):
        return None
    if len(owed.grants) < MOST_OWED:
        return None
    names = ", ".join(use.name for use in owed.grants)
    return wait(
        Reason.REVIEW_OVERDUE, f"{MOST_OWED} emergency grants owe a review, {names}: {how_to_review(pilot)}"
    )


def _unrecorded(request: Request) -> Objection | None:
    if not request.grant.spec.emergency or is_recorded(request.pilot, request.grant):
        return None
    return wait(
        Reason.REVIEW_UNRECORDED,
        f"all is in order; waits until the status of {request.pilot.key} says that a review is owed for it",
    )


REVIEWED = (
    # Make sure that somebody looks at the pilot as often as its stage wants, and after an emergency.
    Check("review-not-overdue", _review_overdue),
)

EMERGENCY_STANDS = (
    # Make sure that the stage wants emergencies at all.
    Check("emergency-allowed", _not_allowed),
    # Make sure that what nobody approved is short.
    Check("emergency-short", _too_long),
)

EMERGENCY = (
    *EMERGENCY_STANDS,
    # Make sure that all that nobody approved can be named to whoever reviews it.
    Check("emergencies-reviewed", _too_many_unreviewed),
)

RECORDED = (
    # Make sure that no crash and no deletion loses the review: it is owed before anything is issued.
    Check("review-recorded", _unrecorded),
)
