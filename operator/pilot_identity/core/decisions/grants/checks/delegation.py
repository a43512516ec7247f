"""Whether a child grant lies within its ancestors: their access, their audiences, their time."""

from __future__ import annotations

import datetime as dt

from pilot_identity.core.decisions.delegation import MAX_ANCESTORS, may_delegate, outside
from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.durations import format_duration
from pilot_identity.core.resources.timestamps import format_timestamp


def _parent(request: Request) -> TaskGrant:
    if request.seen.parent is None:
        raise ValueError("the chain was found complete before")
    return request.seen.parent


def _pilots(request: Request) -> tuple[PilotIdentity, ...]:
    """The ancestors' pilots; `_chain_complete` has made sure that none is missing."""
    return tuple(pilot for pilot in request.seen.ancestor_pilots if pilot is not None)


def _no_cycle(request: Request) -> Objection | None:
    grant = request.grant
    if grant.spec.parent != grant.metadata.name and grant.key not in {
        ancestor.key for ancestor in request.seen.ancestors
    }:
        return None
    return Objection(
        Reason.DELEGATION_NOT_ALLOWED,
        f"grant {grant.metadata.name!r} is among its own ancestors; name a grant that was issued before it",
    )


def _parent_active(request: Request) -> Objection | None:
    grant, parent = request.grant, request.seen.parent
    name = grant.spec.parent
    if not name:
        return None
    if parent is None:
        if grant.status.parent_uid:
            return Objection(
                Reason.PARENT_ENDED, f"its parent {name!r} is gone; ask for a child of another grant"
            )
        return wait(
            Reason.PARENT_NOT_FOUND,
            f"no TaskGrant {name!r} in namespace {grant.metadata.namespace!r}; apply it, or correct the name "
            "in a new grant",
        )
    return _not_given(parent)


def _not_given(parent: TaskGrant) -> Objection | None:
    """Why a grant that is there has nothing to pass on, or not yet."""
    name, phase = parent.metadata.name, parent.status.phase
    if phase.is_terminal or phase is Phase.CLOSING or parent.metadata.is_deleting:
        state = "being deleted" if parent.metadata.is_deleting else str(phase)
        return Objection(
            Reason.PARENT_ENDED, f"its parent {name!r} is {state}; ask for a child of another grant"
        )
    if phase is not Phase.ACTIVE:
        return wait(Reason.PARENT_NOT_READY, f"its parent {name!r} is {phase}; this one is issued after it")
    ready = find(parent.status.conditions, ConditionType.READY)
    if ready is None or ready.status != "True":
        why = f"{ready.reason}: {ready.message}" if ready is not None else "it was not looked at"
        return wait(Reason.PARENT_NOT_READY, f"its parent {name!r} has lapsed ({why})")
    return None


def _chain_complete(request: Request) -> Objection | None:
    """The rest of the chain must be there to compare with; where it is not, the parent is about to end."""
    if not request.grant.spec.parent:
        return None
    ancestors, pilots = request.seen.ancestors, request.seen.ancestor_pilots
    if len(ancestors) > MAX_ANCESTORS:
        return Objection(
            Reason.DELEGATION_TOO_DEEP,
            f"it would be more than {MAX_ANCESTORS} generations below the first grant; ask for a child of a "
            "grant further up",
        )
    if ancestors[0].spec.parent:
        return wait(
            Reason.PARENT_NOT_READY, f"grant {ancestors[0].spec.parent!r}, further up in its chain, is gone"
        )
    for ancestor, pilot in zip(ancestors, pilots, strict=True):
        if pilot is None:
            return wait(
                Reason.PARENT_NOT_READY,
                f"pilot {ancestor.spec.pilot!r} of grant {ancestor.metadata.name!r}, in its chain, is gone",
            )
    return None


def _same_stage(request: Request) -> Objection | None:
    if not request.grant.spec.parent:
        return None
    parent = _parent(request)
    if parent.status.stage == request.stage.name:
        return None
    return Objection(
        Reason.STAGE_OUTSIDE_PARENT,
        f"its pilot {request.pilot.metadata.name!r} is in stage {request.stage.name!r}, its parent "
        f"{parent.metadata.name!r} in {parent.status.stage!r}; nothing is passed on from stage to stage",
    )


def _allowed(request: Request) -> Objection | None:
    if not request.grant.spec.parent:
        return None
    above, name = _pilots(request)[-1], request.grant.spec.pilot
    if may_delegate(above, name):
        return None
    return Objection(
        Reason.DELEGATION_NOT_ALLOWED,
        f"pilot {above.metadata.name!r} may not delegate to pilot {name!r}; its owners would list it in "
        f"spec.delegation.to, which has: {', '.join(above.spec.delegation.to) or 'none'}",
    )


def _depth(request: Request) -> Objection | None:
    ancestors = request.seen.ancestors
    if not request.grant.spec.parent:
        return None
    for number, (ancestor, pilot) in enumerate(zip(ancestors, _pilots(request), strict=True)):
        below, most = len(ancestors) - number, pilot.spec.delegation.max_depth
        if below > most:
            return Objection(
                Reason.DELEGATION_TOO_DEEP,
                f"it would be {below} generation{'s' if below > 1 else ''} below grant "
                f"{ancestor.metadata.name!r}, whose pilot {pilot.metadata.name!r} allows {most} "
                "(spec.delegation.maxDepth)",
            )
    return None


def _access(request: Request) -> Objection | None:
    if not request.grant.spec.parent:
        return None
    for ancestor, pilot in zip(request.seen.ancestors, _pilots(request), strict=True):
        entry = outside(request.grant, request.pilot, ancestor, pilot)
        if entry is not None:
            return Objection(
                Reason.ACCESS_OUTSIDE_PARENT,
                f"access {entry.name!r} goes beyond what grant {ancestor.metadata.name!r} has; ask for the "
                "same audience or role and data class, and for fewer actions or narrower resources",
            )
    return None


def _ends_in_time(request: Request) -> Objection | None:
    if not request.grant.spec.parent:
        return None
    parent, duration = _parent(request), request.grant.spec.duration
    ends = parent.status.expires_at
    if ends is None:
        raise ValueError("an active grant has an end")
    # As `issuing` counts: from the whole second.
    left = ends - request.now.replace(microsecond=0)
    if duration <= left:
        return None
    return Objection(
        Reason.DURATION_OUTSIDE_PARENT,
        f"its parent {parent.metadata.name!r} ends at {format_timestamp(ends)}, in "
        f"{format_duration(max(left, dt.timedelta()))}; asked for {duration}",
    )


DELEGATION_STANDS = (
    # Make sure that no grant waits for itself.
    Check("not-its-own-ancestor", _no_cycle),
    # Make sure that there is something to pass on, and that it is still given.
    Check("parent-active", _parent_active),
    # Make sure that every ancestor can be compared with.
    Check("chain-complete", _chain_complete),
    # Make sure that stages share nothing.
    Check("stage-of-parent", _same_stage),
    # Make sure that the parent's owners allow it.
    Check("delegation-allowed", _allowed),
    # Make sure that no ancestor's owners allowed less.
    Check("delegation-depth", _depth),
    # Make sure that no access, no audience and no data class is gained on the way.
    Check("access-within-parent", _access),
)
"""What must hold for as long as a child's credentials are renewed."""

DELEGATION = (
    *DELEGATION_STANDS,
    # Make sure that no time is gained on the way; both ends are fixed from then on.
    Check("ends-with-parent", _ends_in_time),
)
"""What must hold when a child is issued."""
