"""A grant that was not issued yet: every check is asked; it is denied, waits or is issued."""

from __future__ import annotations

import msgspec

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.announced import abandon
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.checks.table import CHECKS
from pilot_identity.core.decisions.grants.issuing import decided, issue
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW, request_of
from pilot_identity.core.decisions.objection import Answer, Objection, ask_all
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut
from pilot_identity.core.resources.digests import pilot_digest, policy_digest
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus, TaskGrantStatus


def consider(case: Case) -> Plan:
    """Ask every check; deny, wait or issue."""
    request = request_of(case.seen)
    if isinstance(request, Objection):
        return _wait(case, request)
    answers = ask_all(CHECKS, request)
    objection = answers[-1].objection
    decision = DecisionStatus(
        allowed=objection is None,
        reason=objection.reason if objection else "",
        message=cut(objection.message) if objection else "",
        checks=tuple(map(_result, answers)),
        policy_digest=policy_digest(request.stage),
        pilot_digest=pilot_digest(request.pilot),
        decided_at=case.moment.now,
    )
    if objection is None:
        return issue(case, request, decision)
    if objection.is_final:
        return deny(case, objection, decision)
    return _wait(case, objection)


def _result(answer: Answer) -> CheckResult:
    objection = answer.objection
    return CheckResult(
        answer.name, passed=objection is None, message=cut(objection.message) if objection else ""
    )


def _wait(case: Case, objection: Objection) -> Plan:
    """Say what the grant waits for; it is looked at again when that changes."""
    status = case.grant.status
    if objection.reason is Reason.APPROVAL_REQUIRED and status.phase is Phase.PENDING:
        status = msgspec.structs.replace(status, phase=follow(status.phase, Happening.NEEDS_APPROVAL))
    finding = Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message)
    wanted = case.settled(status, finding)
    recheck = None
    if objection.reason is Reason.LIMIT_REACHED and case.seen.oldest_issue is not None:
        recheck = case.seen.oldest_issue + RATE_WINDOW
    told = any(before.reason == objection.reason for before in status.conditions)
    if wanted == case.grant.status or (told and objection.reason is Reason.LIMIT_REACHED):
        return Plan(recheck_at=recheck)
    notice = case.notice(objection.reason, "Wait", objection.message, warning=True)
    return Plan(status=lambda _: wanted, notices=() if told else (notice,), recheck_at=recheck)


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
    )
