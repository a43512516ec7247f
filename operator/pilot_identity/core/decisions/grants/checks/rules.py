"""The stage's own rules, in CEL.

A pilot's `spec.exceptions` lift none of them: that would need an Approval with purpose Exception, which this
version does not count. So they are on record and change nothing.
"""

from __future__ import annotations

from functools import partial

from pilot_identity.core.decisions.grants.seen import Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.rules import RuleError, holds, variables_of
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.stage_policy import Rule


def rules(stage: StagePolicy) -> tuple[Check[Request], ...]:
    """Make one check for each of the stage's rules, `rule/<name>`."""
    return tuple(Check(f"rule/{rule.name}", partial(_ask, rule)) for rule in stage.spec.rules)


def _ask(rule: Rule, request: Request) -> Objection | None:
    try:
        if holds(rule.expression, variables_of(request.grant, request.pilot, request.stage)):
            return None
    except RuleError as error:
        return Objection(
            Reason.RULE_FAILED,
            f"rule {rule.name!r} of stage {request.stage.name!r} gave no answer, so no: {error}",
        )
    return Objection(
        Reason.RULE_REFUSED,
        f"rule {rule.name!r} of stage {request.stage.name!r}: {rule.message or rule.expression}",
    )
