"""A grant that was not issued yet: every check is asked; it is denied, waits or is issued."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.announced import abandon
from pilot_identity.core.decisions.definitions import short
from pilot_identity.core.decisions.given import given
from pilot_identity.core.decisions.grants.approving import tally
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.checks.approvals import (
    APPROVALS_CHECK,
    question_of,
    required,
    tally_of,
    wait_of,
)
from pilot_identity.core.decisions.grants.deciding import Decided, decide, told
from pilot_identity.core.decisions.grants.endings import waits_until
from pilot_identity.core.decisions.grants.issuing import issue
from pilot_identity.core.decisions.grants.lifecycle import Happening, follow
from pilot_identity.core.decisions.grants.observing import looked_at, observed
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW, Request, request_of
from pilot_identity.core.decisions.hindrance import asked_again_at, refused
from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason
from pilot_identity.core.resources.digests import digest_json
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import ApprovalWait, DecisionStatus, TaskGrantStatus
from pilot_identity.core.resources.timestamps import format_timestamp


def consider(case: Case) -> Plan:
    """Ask every check; deny, wait or issue."""
    request = request_of(case.seen, case.moment.now)
    if isinstance(request, Objection):
        return _wait(case, request, None, (case.requested,))
    decided = decide(request)
    objection = decided.objection
    asked = (*looked_at(request), *_agreed(case, request, decided))
    if objection is None and case.seen.refusal:
        return _wait(case, refused(case.grant.secret, case.seen.refusal), wait_of(request), asked)
    if objection is None:
        plan = issue(_told_of(case, wait_of(request)), request, decided)
        return _aloud(case, request, replace(plan, entries=(*asked, *plan.entries)))
    if objection.is_final:
        plan = deny(case, objection, decided.status, observed(request, decided.heard))
        return replace(plan, entries=(*asked, *plan.entries))
    if objection.reason in _PASSING:
        return _wait(case, objection, wait_of(request), asked)
    return _wait(case, objection, wait_of(request), (*asked, _waiting(case, request, decided)))


_PASSING = frozenset({Reason.LIMIT_REACHED, Reason.REVIEW_UNRECORDED})
"""What passes by itself and soon, and may come again: it is no decision that anybody asks about later."""


def _agreed(case: Case, request: Request, decided: Decided) -> tuple[Entry, ...]:
    """The approvals that the decision rests on, and that all are there which were needed."""
    heard = tuple(given(approval, case.moment.now) for approval in decided.heard)
    passed = {check.name for check in decided.status.checks if check.passed}
    needed = required(request) if APPROVALS_CHECK in passed else 0
    if not needed:
        return heard
    question = question_of(request)
    words = tally(question, request.seen.approvals).approvals[:needed]
    data = {
        "digest": question.digest,
        "required": needed,
        "approvals": [encode(word.counted) for word in words],
    }
    # Where the grant still waits, for a limit, these are not what its decision rests on yet.
    said = heard or tuple(given(word.approval, case.moment.now) for word in words)
    return (*said, case.entry(f"approved/{short(question.digest)}", EntryType.GRANT_APPROVED, data))


def _waiting(case: Case, request: Request, decided: Decided) -> Entry:
    """The entry that tells why a grant waits; the same for the same outcome on the same definitions."""
    status = decided.status
    outcome = {
        "reason": status.reason,
        "checks": [check.name for check in status.checks],
        "pilot": status.pilot_digest,
        "policy": status.policy_digest,
        "approvers": list(tally_of(request).approvers),
    }
    data = {"decision": told(status), "observation": observed(request)}
    return case.entry(f"decided/{short(digest_json(outcome))}", EntryType.GRANT_DECIDED, data)


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


def _told_of(case: Case, approval: ApprovalWait | None) -> Case:
    """The same case, whose status says what is asked of people now."""
    status = msgspec.structs.replace(case.grant.status, approval=approval)
    grant = msgspec.structs.replace(case.grant, status=status)
    return replace(case, seen=replace(case.seen, grant=grant))


def _wait(
    case: Case, objection: Objection, approval: ApprovalWait | None, entries: tuple[Entry, ...]
) -> Plan:
    """Say what the grant waits for, and why; it is looked at again when that changes."""
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
    return Plan(
        entries=entries,
        status=lambda _: wanted,
        notices=() if told or is_brief else (notice,),
        recheck_at=recheck,
    )


def deny(case: Case, objection: Objection, decision: DecisionStatus, observation: Any = None) -> Plan:
    """End the grant before it was issued, for good.

    There is an observation where the checks decided, and none where what was found later overtook them.
    """
    status = msgspec.structs.replace(
        case.grant.status, phase=follow(case.grant.status.phase, Happening.DENIED), decision=decision
    )
    findings = (
        Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message),
        Finding(ConditionType.STALLED, status=True, reason=objection.reason, message=objection.message),
    )
    data = {"decision": told(decision)}
    if observation is not None:
        data["observation"] = observation
    entries = [case.entry("denied", EntryType.GRANT_DENIED, data)]
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
