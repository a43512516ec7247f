"""A grant that was not issued yet: every check is asked; it is denied, waits or is issued."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.announced import abandon
from pilot_identity.core.decisions.given import given
from pilot_identity.core.decisions.grants.approving import Word
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.checks.approvals import required, tally_of, wait_of
from pilot_identity.core.decisions.grants.checks.table import checks_of
from pilot_identity.core.decisions.grants.endings import waits_until
from pilot_identity.core.decisions.grants.issuing import decided, issue
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW, Request, request_of
from pilot_identity.core.decisions.hindrance import asked_again_at, refused
from pilot_identity.core.decisions.objection import Answer, Objection, ask_all
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut
from pilot_identity.core.resources.digests import pilot_digest, policy_digest
from pilot_identity.core.resources.task_grant import (
    ApprovalWait,
    CheckResult,
    DecisionStatus,
    TaskGrantStatus,
)
from pilot_identity.core.resources.timestamps import format_timestamp


def consider(case: Case) -> Plan:
    """Ask every check; deny, wait or issue."""
    request = request_of(case.seen, case.moment.now)
    if isinstance(request, Objection):
        return _wait(case, request)
    answers = ask_all(checks_of(request.stage), request)
    objection = answers[-1].objection
    words = _words(request, objection)
    decision = DecisionStatus(
        allowed=objection is None,
        reason=objection.reason if objection else "",
        message=cut(objection.message) if objection else "",
        checks=tuple(map(_result, answers)),
        approvals=tuple(word.counted for word in words),
        owners=request.pilot.spec.owners.people,
        policy_digest=policy_digest(request.stage),
        pilot_digest=pilot_digest(request.pilot),
        decided_at=case.moment.now,
    )
    heard = tuple(given(word.approval, case.moment.now) for word in words)
    if objection is None and case.seen.refusal:
        return _wait(case, refused(case.grant.secret, case.seen.refusal), wait_of(request))
    if objection is None:
        plan = issue(_told_of(case, wait_of(request)), request, decision)
        return _aloud(case, request, replace(plan, entries=(*heard, *plan.entries)))
    if objection.is_final:
        plan = deny(case, objection, decision)
        return replace(plan, entries=(*heard, *plan.entries))
    return _wait(case, objection, wait_of(request))


def _aloud(case: Case, request: Request, plan: Plan) -> Plan:
    """Say of an emergency grant, in the log and to people, that nobody approved it, and who must look."""
    owed = request.pilot.status.review_owed
    if not request.grant.spec.emergency or owed is None:
        return plan
    data = {"stage": request.stage.name, "reviewDueAt": format_timestamp(owed.due_at)}
    note = (
        f"{request.grant.spec.requested_by} broke the glass: issued without approvals; pilot "
        f"{request.pilot.metadata.name!r} must be reviewed by {format_timestamp(owed.due_at)}"
    )
    notice = case.notice(Reason.EMERGENCY_ISSUED, "BreakGlass", note, warning=True)
    entry = case.entry("emergency", EntryType.GRANT_EMERGENCY, data)
    return replace(plan, entries=(*plan.entries, entry), notices=(notice, *plan.notices))


def _words(request: Request, objection: Objection | None) -> tuple[Word, ...]:
    """The approvals, or the denial, on which the decision rests."""
    if not request.seen.approvals:
        return ()
    said = tally_of(request)
    if objection is None:
        return said.approvals[: required(request)]
    if objection.reason is Reason.APPROVAL_DENIED and said.denial is not None:
        return (said.denial,)
    return ()


def _told_of(case: Case, approval: ApprovalWait | None) -> Case:
    """The same case, whose status says what is asked of people now."""
    status = msgspec.structs.replace(case.grant.status, approval=approval)
    grant = msgspec.structs.replace(case.grant, status=status)
    return replace(case, seen=replace(case.seen, grant=grant))


def _result(answer: Answer) -> CheckResult:
    objection = answer.objection
    return CheckResult(
        answer.name, passed=objection is None, message=cut(objection.message) if objection else ""
    )


def _wait(case: Case, objection: Objection, approval: ApprovalWait | None = None) -> Plan:
    """Say what the grant waits for; it is looked at again when that changes."""
    status = case.grant.status
    if approval is not None:
        status = msgspec.structs.replace(status, approval=approval)
    if objection.reason is Reason.APPROVAL_REQUIRED and status.phase is Phase.PENDING:
        status = msgspec.structs.replace(status, phase=follow(status.phase, Happening.NEEDS_APPROVAL))
    finding = Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message)
    wanted = case.settled(status, finding)
    recheck = status.approval.expires_at if status.approval is not None else waits_until(case.seen)
    if objection.reason is Reason.LIMIT_REACHED and case.seen.oldest_issue is not None:
        free_at = case.seen.oldest_issue + RATE_WINDOW
        recheck = min(recheck or free_at, free_at)
    if objection.reason is Reason.SECRET_REFUSED:
        again_at = asked_again_at(status.conditions, case.moment.now)
        recheck = min(recheck or again_at, again_at)
    told = any(before.reason == objection.reason for before in status.conditions)
    same_approval = wanted.approval == case.grant.status.approval
    if wanted == case.grant.status or (told and same_approval and objection.reason is Reason.LIMIT_REACHED):
        return Plan(recheck_at=recheck)
    is_brief = objection.reason is Reason.REVIEW_UNRECORDED
    notice = case.notice(objection.reason, "Wait", objection.message, warning=True)
    return Plan(status=lambda _: wanted, notices=() if told or is_brief else (notice,), recheck_at=recheck)


def deny(case: Case, objection: Objection, decision: DecisionStatus) -> Plan:
    """End the grant before it was issued, for good."""
    status = msgspec.structs.replace(
        case.grant.status, phase=follow(case.grant.status.phase, Happening.DENIED), decision=decision
    )
    findings = (
        Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message),
        Finding(ConditionType.STALLED, status=True, reason=objection.reason, message=objection.message),
    )
    entries = [case.entry("denied", EntryType.GRANT_DENIED, {"decision": decided(decision)})]
    if case.seen.announced is not None:
        entries.insert(0, abandon(case.seen.announced, case.moment))

    def new_status(outcome: Outcome) -> TaskGrantStatus:
        recorded = msgspec.structs.replace(decision, audit_index=outcome.index)
        return msgspec.structs.replace(case.settled(status, *findings), decision=recorded)

    return Plan(
        entries=tuple(entries),
        status=new_status,
        notices=(case.notice(objection.reason, "Deny", objection.message, warning=True),),
        recheck_at=case.moment.now + case.seen.retention,
    )
