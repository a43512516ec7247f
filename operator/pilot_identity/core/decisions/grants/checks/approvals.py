"""Whether those who must agree have agreed."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason


def _approvals(request: Request) -> Objection | None:
    needed = request.stage.spec.approvals.grant.required
    if not needed:
        return None
    return wait(
        Reason.APPROVAL_REQUIRED,
        f"stage {request.stage.name!r} asks for {needed} approval{'s' if needed > 1 else ''} of each grant; "
        "this version does not count approvals yet, so nothing is issued",
    )


APPROVALS = (
    # Make sure that those who must agree have agreed.
    Check("approvals", _approvals),
)
