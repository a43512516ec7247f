"""When a pilot must be reviewed: by its stage's calendar, and after an emergency.

Both are dates that follow from statuses and the stage's policy. So a restart changes none, and a policy that
is made stricter counts for the pilots that are there already.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.resources import PilotIdentity, StagePolicy
from pilot_identity.core.resources.durations import format_duration
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from pilot_identity.core.resources.timestamps import format_timestamp

NO_GRACE = dt.timedelta(0)
LONG_AGO = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
"""Since when a pilot of which nothing is known is taken to be there, so that its review is overdue."""


@dataclass(frozen=True, slots=True)
class ReviewDeadline:
    """From when on a pilot gets nothing until somebody has reviewed it, and why."""

    at: dt.datetime
    why: str


def last_looked_at(status: PilotIdentityStatus) -> dt.datetime:
    """When a person last looked at the pilot: reviewed it, or let it into its stage."""
    reviewed_at = status.reviewed.at if status.reviewed is not None else None
    return max((at for at in (reviewed_at, status.stage_since) if at is not None), default=LONG_AGO)


def due_at(status: PilotIdentityStatus, stage: StagePolicy) -> dt.datetime | None:
    """By when the stage wants the pilot reviewed again; `None` where it wants no such reviews."""
    rules = stage.spec.review
    if rules is None or rules.every is None:
        return None
    return last_looked_at(status) + rules.every


def deadline_of(pilot: PilotIdentity, stage: StagePolicy | None) -> ReviewDeadline | None:
    """The first of the dates by which somebody must have reviewed the pilot."""
    found: list[ReviewDeadline] = []
    owed = pilot.status.review_owed
    if owed is not None:
        names = ", ".join(use.name for use in owed.grants)
        due = format_timestamp(owed.due_at)
        found.append(ReviewDeadline(owed.due_at, f"the review of emergency grants {names} was due at {due}"))
    due_by_stage = due_at(pilot.status, stage) if stage is not None else None
    if stage is not None and due_by_stage is not None and stage.spec.review is not None:
        rules = stage.spec.review
        grace = rules.grace or NO_GRACE
        every = format_duration(rules.every) if rules.every is not None else ""
        late = f", at most {format_duration(grace)} late" if grace else ""
        why = (
            f"stage {stage.name!r} wants a review every {every}{late}; this pilot's was due at "
            f"{format_timestamp(due_by_stage)}"
        )
        found.append(ReviewDeadline(due_by_stage + grace, why))
    return min(found, key=lambda deadline: deadline.at, default=None)


def how_to_review(pilot: PilotIdentity) -> str:
    """Say what ends the waiting."""
    return (
        f"somebody who asked for no such grant runs `kubectl pilot review {pilot.metadata.name} "
        f"-n {pilot.metadata.namespace}`, or makes an Approval with purpose Review of {pilot.key}, digest "
        f"{pilot.status.digest}"
    )
