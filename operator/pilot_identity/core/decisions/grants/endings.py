"""Endings: what ends a grant, whether or not it was issued."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import dataclass

from pilot_identity.core.decisions.grants.lifecycle import Happening
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.stage_policy import GrantApprovals
from pilot_identity.core.resources.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a grant ends.

    Attributes:
        asked_at: when its end was due or asked for, as far as that is known.
    """

    happening: Happening
    reason: Reason
    message: str
    asked_at: dt.datetime


def _deleted(seen: GrantSeen, _: dt.datetime) -> Ending | None:
    metadata = seen.grant.metadata
    if metadata.deletion_timestamp is None or not metadata.is_held:
        return None
    message = "the grant was deleted"
    return Ending(Happening.REVOKED, Reason.GRANT_DELETED, message, metadata.deletion_timestamp)


def _revoked(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    revoke = seen.grant.spec.revoke
    if revoke is None:
        return None
    if not revoke.reason:
        message = f"counts as revoked, since its spec cannot be read: {seen.grant.metadata.unreadable}"
        return Ending(Happening.REVOKED, Reason.SPEC_UNREADABLE, message, now)
    by = f" by {revoke.by}" if revoke.by else ""
    return Ending(Happening.REVOKED, Reason.REVOKED, f"revoked{by}: {revoke.reason}", now)


def _pilot_deleted(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    pilot = seen.pilot
    if seen.grant.status.phase is Phase.ACTIVE and (pilot is None or pilot.metadata.is_deleting):
        since = pilot.metadata.deletion_timestamp if pilot is not None else None
        message = f"pilot {seen.grant.spec.pilot!r} was deleted"
        return Ending(Happening.REVOKED, Reason.PILOT_DELETED, message, since or now)
    return None


def _pilot_suspended(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    if seen.grant.status.phase is Phase.ACTIVE and seen.pilot is not None and seen.pilot.spec.suspend:
        why = ": its spec cannot be read" if seen.pilot.metadata.unreadable else ""
        message = f"pilot {seen.grant.spec.pilot!r} was suspended{why}"
        return Ending(Happening.REVOKED, Reason.PILOT_SUSPENDED, message, now)
    return None


def left(grant: TaskGrant, pilot: PilotIdentity) -> tuple[str, ...]:
    """Who owned the pilot when the grant was decided, and does not any more."""
    owners = grant.status.decision.owners if grant.status.decision is not None else ()
    return tuple(owner for owner in owners if owner not in pilot.spec.owners.people)


def _owner_left(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    if seen.grant.status.phase is not Phase.ACTIVE or seen.pilot is None:
        return None
    gone = left(seen.grant, seen.pilot)
    if not gone:
        return None
    message = f"{gone[0]!r}, who answered for it when it was decided, does not own pilot "
    return Ending(Happening.REVOKED, Reason.OWNER_LEFT, message + repr(seen.grant.spec.pilot), now)


def _stage_changed(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    status, pilot = seen.grant.status, seen.pilot
    if status.phase is Phase.ACTIVE and pilot is not None and pilot.status.stage != status.stage:
        message = (
            f"pilot {seen.grant.spec.pilot!r} moved from stage {status.stage!r} to {pilot.status.stage!r}"
        )
        return Ending(Happening.REVOKED, Reason.STAGE_CHANGED, message, now)
    return None


def _stage_frozen(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    if seen.grant.status.phase is Phase.ACTIVE and seen.stage is not None and seen.stage.spec.freeze:
        why = ": its spec cannot be read" if seen.stage.metadata.unreadable else ""
        message = f"stage {seen.stage.name!r} was frozen{why}"
        return Ending(Happening.REVOKED, Reason.STAGE_FROZEN, message, now)
    return None


def _parent_ended(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    """The parent's own end is over, and recorded: so the log tells a tree's end from the top down."""
    grant, parent = seen.grant, seen.parent
    name = grant.spec.parent
    if not name or grant.status.phase is not Phase.ACTIVE:
        return None
    if parent is None:
        return Ending(Happening.REVOKED, Reason.PARENT_ENDED, f"its parent {name!r} is gone", now)
    is_let_go = parent.metadata.is_deleting and not parent.metadata.is_held
    if parent.status.phase is Phase.ACTIVE and not is_let_go:
        return None
    closure = parent.status.closure
    since = closure.requested_at if closure is not None else parent.metadata.deletion_timestamp
    state = closure.outcome if closure is not None else "deleted" if is_let_go else parent.status.phase
    return Ending(Happening.REVOKED, Reason.PARENT_ENDED, f"its parent {name!r} is {state}", since or now)


def is_parent_ending(seen: GrantSeen, now: dt.datetime) -> bool:
    """Whether the parent, or one further up, is about to end, though that is not recorded yet."""
    above = seen.of_parent()
    return above is not None and is_ending(above, now)


def is_ending(seen: GrantSeen, now: dt.datetime) -> bool:
    """Whether the grant's access is to be cut now, by its own end or by one above it that is to come."""
    return ending_of(seen, now) is not None or is_parent_ending(seen, now)


def _completed(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    if not seen.grant.spec.completed:
        return None
    return Ending(Happening.COMPLETED, Reason.TASK_COMPLETED, "the task was completed", now)


def _time_up(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    expires_at = seen.grant.status.expires_at
    if expires_at is None or now < expires_at:
        return None
    return Ending(
        Happening.TIME_UP, Reason.TIME_UP, f"its time was up at {format_timestamp(expires_at)}", expires_at
    )


def _approval_timed_out(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    status = seen.grant.status
    wait = status.approval
    if not _waits_for_approval(seen) or wait is None or now < wait.expires_at:
        return None
    so_far = f"{len(wait.approved_by)} of {wait.required} approvals"
    message = f"it was not issued by {format_timestamp(wait.expires_at)}, when it had {so_far}; ask again"
    return Ending(Happening.TIME_UP, Reason.APPROVAL_TIMED_OUT, message, wait.expires_at)


def _waits_for_approval(seen: GrantSeen) -> bool:
    status = seen.grant.status
    wait = status.approval
    return status.phase is Phase.AWAITING_APPROVAL and wait is not None and bool(wait.required)


def waits_until(seen: GrantSeen) -> dt.datetime | None:
    """Until when a grant that is not issued waits for anything but approvals.

    The stage's bound for approvals serves for all that a request may wait for; where there is no stage yet,
    the API's default does. `None` where the API server does not tell the request's age.
    """
    asked_at = seen.grant.metadata.creation_timestamp
    rules = seen.stage.spec.approvals.grant if seen.stage is not None else GrantApprovals()
    return asked_at + rules.within if asked_at is not None else None


def _waited_too_long(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    status = seen.grant.status
    if status.phase not in {Phase.PENDING, Phase.AWAITING_APPROVAL} or _waits_for_approval(seen):
        return None
    until = waits_until(seen)
    if until is None or now < until:
        return None
    ready = find(status.conditions, ConditionType.READY)
    why = f" ({ready.reason}: {ready.message})" if ready is not None else ""
    message = f"it was not issued by {format_timestamp(until)}{why}; ask again"
    return Ending(Happening.TIME_UP, Reason.WAITED_TOO_LONG, message, until)


ENDINGS: tuple[Callable[[GrantSeen, dt.datetime], Ending | None], ...] = (
    # Make sure that someone's word is told as the cause, even where the time is up too.
    _revoked,
    _deleted,
    # Make sure that what ends the pilot ends its tasks.
    _pilot_deleted,
    _pilot_suspended,
    # Make sure that nobody's task goes on under people who never answered for it.
    _owner_left,
    _stage_changed,
    _stage_frozen,
    # Make sure that what was passed on ends with what it was taken from.
    _parent_ended,
    # Make sure that a task that is done keeps nothing.
    _completed,
    # Make sure that nothing outlives its time.
    _time_up,
    # Make sure that nobody waits for ever, and that what is approved is issued soon or never.
    _approval_timed_out,
    _waited_too_long,
)


def ending_of(seen: GrantSeen, now: dt.datetime) -> Ending | None:
    """Return the first cause by which the grant ends now, if there is one."""
    return next((ending for ask in ENDINGS if (ending := ask(seen, now)) is not None), None)
