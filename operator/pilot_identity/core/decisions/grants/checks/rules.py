"""The stage's own rules, in CEL, and the exceptions by which people lift one for a pilot for a while.

An exception lifts a rule for no grant that one of its approvers asked for, or that descends from such a one:
nobody approves for himself (promise 3).
"""

from __future__ import annotations

from functools import partial

from pilot_identity.core.decisions.exceptions import is_awaited, lifting
from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.rules import RuleError, holds, variables_of
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.pilot_identity import ExceptionStatus
from pilot_identity.core.resources.stage_policy import Rule
from pilot_identity.core.resources.timestamps import format_timestamp


def rules(stage: StagePolicy) -> tuple[Check[Request], ...]:
    """Make one check for each of the stage's rules, `rule/<name>`."""
    return tuple(
        Check(f"rule/{rule.name}", partial(_ask, rule), partial(_remark, rule)) for rule in stage.spec.rules
    )


def lifted(request: Request) -> tuple[ExceptionStatus, ...]:
    """The exceptions without which the stage's rules would refuse the request."""
    if not request.pilot.status.exceptions:
        return ()
    found = (_lifting(rule, request) for rule in request.stage.spec.rules if _against(rule, request))
    return tuple(exception for exception in found if exception is not None)


def _ask(rule: Rule, request: Request) -> Objection | None:
    against = _against(rule, request)
    if against is None or not request.pilot.spec.exceptions:
        return against
    exception = lifting(request.pilot, request.stage, rule, request.now)
    if exception is not None:
        return _approved_by_himself(against, exception, request)
    if not is_awaited(request.pilot, request.stage, rule, request.now):
        return against
    return wait(
        Reason.EXCEPTION_AWAITED,
        f"{against.message}; waits until people approve the exception from it that pilot "
        f"{request.pilot.metadata.name!r} asks for: see its status.exceptions",
    )


def _remark(rule: Rule, request: Request) -> str:
    """Say of a yes that the rule itself would have said no."""
    exception = _lifting(rule, request) if request.pilot.status.exceptions else None
    if exception is None or _against(rule, request) is None:
        return ""
    until = format_timestamp(exception.until)
    return f"lifted by an exception until {until}, audit entry {exception.audit_index}"


def _lifting(rule: Rule, request: Request) -> ExceptionStatus | None:
    """The exception that lifts a rule for this very request."""
    exception = lifting(request.pilot, request.stage, rule, request.now)
    return exception if exception is not None and not _own_word(exception, request) else None


def _approved_by_himself(
    against: Objection, exception: ExceptionStatus, request: Request
) -> Objection | None:
    approver = _own_word(exception, request)
    if not approver:
        return None
    return Objection(
        against.reason,
        f"{against.message}; {approver} approved the exception from it, and so has no use of it",
    )


def _own_word(exception: ExceptionStatus, request: Request) -> str:
    """Who asked for the grant, or one above it, and approved the exception; empty where nobody did both."""
    approvers = {one.approver for one in exception.approvals}
    requesters = (one.spec.requested_by for one in (*request.seen.ancestors, request.grant))
    return next((requester for requester in requesters if requester in approvers), "")


def _against(rule: Rule, request: Request) -> Objection | None:
    """What the rule itself has against a request."""
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
