"""The stage's own rules, in CEL."""

from __future__ import annotations

from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.resources.conditions import Reason


def _rules(request: Request) -> Objection | None:
    if not request.stage.spec.rules:
        return None
    return Objection(
        Reason.RULES_UNSUPPORTED,
        f"stage {request.stage.name!r} has CEL rules, which this version cannot evaluate; it refuses "
        "rather than guess",
    )


RULES = (
    # Make sure that the stage's own rules are not passed over.
    Check("stage-rules", _rules),
)
