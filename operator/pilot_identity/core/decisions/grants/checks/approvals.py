"""Whether those who must agree have agreed."""

from __future__ import annotations

import datetime as dt

from pilot_identity.core.decisions.grants.approving import Question, Tally, digest_of, tally
from pilot_identity.core.decisions.grants.seen import Request, wait
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.rules import RuleError, holds, variables_of
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.task_grant import ApprovalWait

APPROVALS_CHECK = "approvals"


def question_of(request: Request) -> Question:
    """What people are asked about the request as it is now."""
    digest = digest_of(request.grant, request.pilot, request.stage)
    before = request.grant.status.approval
    since = None
    if before is not None:
        since = before.since if before.digest == digest else request.now
    return Question(request.grant, request.seen.ancestors, request.stage.spec.approvals.groups, digest, since)


def tally_of(request: Request) -> Tally:
    """What people said of the request as it is now."""
    return tally(question_of(request), request.seen.approvals)


def required(request: Request) -> int:
    """How many people must approve.

    Raises:
        RuleError: the stage's `when` gives no answer.
    """
    rule = request.stage.spec.approvals.grant
    if request.grant.spec.emergency or not rule.required:
        return 0
    if rule.when and not holds(rule.when, variables_of(request.grant, request.pilot, request.stage)):
        return 0
    return rule.required


def wait_of(request: Request) -> ApprovalWait | None:
    """What the status says of the approvals; `None` where nobody must approve, or ever had to.

    It is kept while something else is waited for, so that no change of what was approved is missed.
    """
    before = request.grant.status.approval
    try:
        needed = required(request)
    except RuleError:
        return before
    if not needed and before is None:
        return None
    question = question_of(request)
    return ApprovalWait(
        digest=question.digest,
        required=needed,
        expires_at=_expires_at(request),
        approved_by=tally(question, request.seen.approvals).approvers[:needed],
        since=question.since,
    )


def _expires_at(request: Request) -> dt.datetime:
    """Until when the request may wait; where the API server does not tell its age, until now."""
    asked_at = request.grant.metadata.creation_timestamp or request.now
    return asked_at + request.stage.spec.approvals.grant.within


def _not_denied(request: Request) -> Objection | None:
    denial = tally_of(request).denial if request.seen.approvals else None
    if denial is None:
        return None
    said = denial.approval.spec
    return Objection(Reason.APPROVAL_DENIED, f"denied by {said.approver}: {said.reason}")


def _approvals(request: Request) -> Objection | None:
    stage = request.stage
    try:
        needed = required(request)
    except RuleError as error:
        return Objection(
            Reason.RULE_FAILED,
            f"approvals.grant.when of stage {stage.name!r} gave no answer, so no: {error}",
        )
    approvers = tally_of(request).approvers
    is_late = request.now >= _expires_at(request)
    if not needed or (len(approvers) >= needed and not is_late):
        return None
    so_far = f"approved by {', '.join(approvers)}" if approvers else "nobody has approved yet"
    of_groups = f" of {', '.join(stage.spec.approvals.groups)}" if stage.spec.approvals.groups else ""
    return wait(
        Reason.APPROVAL_REQUIRED,
        f"stage {stage.name!r} asks for the approval of {needed} {'people' if needed > 1 else 'person'}"
        f"{of_groups} who did not ask for the grant; {so_far}",
    )


APPROVALS = (
    # Make sure that one person's no is enough.
    Check("not-denied", _not_denied),
    # Make sure that those who must agree have agreed, to exactly this, and are not who asked.
    Check(APPROVALS_CHECK, _approvals),
)
