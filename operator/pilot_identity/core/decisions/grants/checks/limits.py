"""How much and how fast a pilot may have."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason


def _active_limit(request: Request) -> Objection | None:
    most = request.stage.spec.limits.active_grants
    if request.seen.active_grants < most:
        return None
    return wait(
        Reason.LIMIT_REACHED,
        f"pilot {request.pilot.metadata.name!r} has {request.seen.active_grants} active grants, stage "
        f"{request.stage.name!r} allows {most}; this one is issued when another ends",
    )


def _rate_limit(request: Request) -> Objection | None:
    most = request.stage.spec.limits.requests_per_minute
    if request.seen.issued_lately < most:
        return None
    return wait(
        Reason.LIMIT_REACHED,
        f"pilot {request.pilot.metadata.name!r} was issued {request.seen.issued_lately} grants within a "
        f"minute, stage {request.stage.name!r} allows {most}; this one is issued when the minute is over",
    )


LIMITS = (
    # Make sure that one pilot cannot have more at a time than its stage allows.
    Check("active-grants-limit", _active_limit),
    # Make sure that one pilot cannot ask faster than its stage allows.
    Check("request-rate-limit", _rate_limit),
)
