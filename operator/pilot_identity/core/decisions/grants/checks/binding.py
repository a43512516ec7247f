"""Whether the decision that a running task rests on is still what people agreed to."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.checks.approvals import required
from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.rules import RuleError
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.digests import pilot_digest, policy_digest


def _still_approved(request: Request) -> Objection | None:
    decision, stage = request.grant.status.decision, request.stage
    if decision is None:
        return None
    changed = [
        what
        for what, then, now in (
            (f"pilot {request.pilot.metadata.name!r}", decision.pilot_digest, pilot_digest(request.pilot)),
            (f"stage {stage.name!r}", decision.policy_digest, policy_digest(stage)),
        )
        if then != now
    ]
    if not changed:
        return None
    try:
        needed = required(request)
    except RuleError as error:
        return Objection(
            Reason.RULE_FAILED, f"approvals.grant.when of stage {stage.name!r} gave no answer: {error}"
        )
    is_emergency = request.grant.spec.emergency
    if not needed and not decision.approvals and not is_emergency:
        return None
    if decision.approvals:
        agreed = "was approved"
    elif is_emergency:
        agreed = "was issued without approvals, in an emergency"
    else:
        agreed = "was issued without the approval that is asked for now"
    return Objection(
        Reason.DECISION_OUTDATED,
        f"{' and '.join(changed)} changed materially since the grant {agreed}; ask for a new grant",
    )


BINDING = (
    # Make sure that nobody's approval is stretched to what he did not see.
    Check("decision-still-approved", _still_approved),
)
