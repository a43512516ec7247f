"""An Approval's own life: given, then counted, void or refused, and never used twice.

Whether a grant or a pilot goes on is decided there (`grants.approving`, `reviews`); here the Approval is told
what became of it. It follows its subject's status, so that a restart changes nothing: what a decision names
was used.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

import msgspec

from pilot_identity.core.audit.entries import Entry
from pilot_identity.core.decisions.exceptions import AGAIN, EXCEPTION, ExceptionQuestion, judge_exception
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.given import given, used, void
from pilot_identity.core.decisions.grants.approving import DENY, Question, judge
from pilot_identity.core.decisions.plan import Notice, Owner, Plan
from pilot_identity.core.decisions.reviews import ReviewQuestion, judge_review
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find, settle
from pilot_identity.core.resources.pilot_identity import ExceptionStatus

SEEN_WITHIN = dt.timedelta(seconds=5)
"""How long after an approval was made its subject may not have been seen yet."""


@dataclass(frozen=True, slots=True)
class ApprovalSeen:
    """All that is known of an Approval.

    Attributes:
        subject: what it names, if it is there and has the UID that it names.
        stage: the effective stage of the pilot, or of a grant's pilot.
        ancestors: the grants that a grant descends from.
    """

    approval: Approval
    subject: TaskGrant | PilotIdentity | StagePolicy | None
    stage: StagePolicy | None = None
    ancestors: tuple[TaskGrant, ...] = ()


@dataclass(frozen=True, slots=True)
class _Told:
    """What an Approval is told.

    Attributes:
        used_by: what it was counted for; empty where it was not.
        was_heard: whether it has a say as things are, so that the log has it.
        index: of the entry with the decision for which it was counted; `None` where that is not known.
        is_early: whether what it is about may not have been seen yet, so that it is asked again soon.
    """

    reason: Reason
    message: str
    used_by: str = ""
    was_heard: bool = False
    index: int | None = None
    is_early: bool = False


def decide_approval(seen: ApprovalSeen, moment: Moment) -> Plan:
    """Decide what an Approval is told."""
    approval = seen.approval
    if approval.metadata.is_deleting or approval.status.used:
        return Plan()
    told = _tell(seen, moment.now)
    is_dead = told.reason in {Reason.VOID, Reason.REFUSED}
    is_counted = told.reason is Reason.COUNTED
    findings = [Finding(ConditionType.READY, status=is_counted, reason=told.reason, message=told.message)]
    if is_dead:
        findings.append(Finding(ConditionType.STALLED, status=True, reason=told.reason, message=told.message))
    generation = approval.metadata.generation
    wanted = msgspec.structs.replace(
        approval.status,
        observed_generation=generation,
        used=is_counted,
        used_by=told.used_by,
        conditions=settle(approval.status.conditions, findings, generation=generation, now=moment.now),
    )
    made_at = approval.metadata.creation_timestamp
    recheck_at = made_at + SEEN_WITHIN if made_at is not None and told.is_early else None
    if wanted == approval.status:
        return Plan(recheck_at=recheck_at)
    entries: list[Entry] = []
    if told.was_heard:
        entries.append(given(approval, moment.now))
    if is_counted:
        entries.append(used(approval, told.used_by, told.index, moment.now))
    notices: tuple[Notice, ...] = ()
    before = find(approval.status.conditions, ConditionType.READY)
    if is_dead and (before is None or before.reason != told.reason):
        entries.append(void(approval, told.reason, told.message, moment.nonce, moment.now))
        owner = Owner(approval.key, approval.metadata.uid)
        notices = (Notice(owner, "Warning", told.reason, "Count", told.message),)
    return Plan(entries=tuple(entries), status=lambda _: wanted, notices=notices, recheck_at=recheck_at)


def _tell(seen: ApprovalSeen, now: dt.datetime) -> _Told:
    match seen.subject:
        case TaskGrant():
            return _tell_of_grant(seen, seen.subject)
        case PilotIdentity() if seen.approval.spec.purpose == "Review":
            return _tell_of_review(seen.approval, seen.subject, seen.stage)
        case PilotIdentity() if seen.approval.spec.purpose == EXCEPTION:
            return _tell_of_exception(seen.approval, seen.subject, seen.stage, now)
        case StagePolicy() if seen.approval.spec.purpose == EXCEPTION:
            message = "an exception is a pilot's: make a new Approval with its PilotIdentity as subject"
            return _Told(Reason.REFUSED, message)
        case None:
            return _tell_of_nothing(seen.approval, now)
        case _:
            purpose = seen.approval.spec.purpose
            return _Told(Reason.WAITING, f"this version counts no approvals of purpose {purpose} yet")


def _tell_of_nothing(approval: Approval, now: dt.datetime) -> _Told:
    """Each kind has a watch of its own: the approval of a new grant may be seen before the grant."""
    subject = approval.spec.subject
    message = f"there is no {subject.kind} {subject.name!r} with UID {subject.uid} here"
    return _early_or_void(approval, message, now)


def _early_or_void(approval: Approval, message: str, now: dt.datetime) -> _Told:
    made_at = approval.metadata.creation_timestamp
    is_young = made_at is not None and now < made_at + SEEN_WITHIN
    return _Told(Reason.WAITING if is_young else Reason.VOID, message, is_early=is_young)


def _tell_of_grant(seen: ApprovalSeen, grant: TaskGrant) -> _Told:
    status, uid = grant.status, seen.approval.metadata.uid
    decision = status.decision
    if decision is not None and uid in {counted.uid for counted in decision.approvals}:
        verb = "issued" if decision.allowed else "denied"
        message = f"{grant.key} was {verb} on it"
        return _Told(Reason.COUNTED, message, str(grant.key), was_heard=True, index=decision.audit_index)
    if decision is not None or status.phase.is_terminal:
        ends = "" if status.phase.is_terminal else "; to end it set its spec.revoke"
        return _Told(Reason.VOID, f"{grant.key} is {status.phase} and was decided without it{ends}")
    return _tell_of_waiting(seen, grant)


def _tell_of_waiting(seen: ApprovalSeen, grant: TaskGrant) -> _Told:
    wait, stage, approval = grant.status.approval, seen.stage, seen.approval
    question = Question(
        grant,
        seen.ancestors,
        groups=stage.spec.approvals.groups if stage is not None else (),
        digest=wait.digest if wait is not None else approval.spec.digest,
        since=wait.since if wait is not None else None,
    )
    word = judge(question, approval)
    if word.objection is not None:
        return _Told(word.objection.reason, word.objection.message)
    if stage is None or (wait is None and word.approves):
        return _Told(Reason.WAITING, f"{grant.key} asks nobody yet: see its Ready condition")
    if word.denies or wait is None:
        return _Told(Reason.WAITING, f"it denies {grant.key}, which is about to end", was_heard=True)
    so_far = f"{len(wait.approved_by)} of {wait.required} people have approved"
    return _Told(Reason.WAITING, f"it counts; {so_far} {grant.key}", was_heard=True)


def _tell_of_review(approval: Approval, pilot: PilotIdentity, stage: StagePolicy | None) -> _Told:
    reviewed = pilot.status.reviewed
    if reviewed is not None and reviewed.uid == approval.metadata.uid:
        message = f"{pilot.key} was reviewed by it"
        return _Told(Reason.COUNTED, message, str(pilot.key), was_heard=True)
    if stage is None:
        return _Told(Reason.WAITING, f"{pilot.key} is in no stage yet; see its Ready condition")
    question = ReviewQuestion.of(pilot, stage)
    if question is None:
        return _Told(Reason.VOID, f"{pilot.key} owes no review, and stage {stage.name!r} wants none")
    verdict = judge_review(question, approval)
    if verdict is None:
        return _Told(Reason.WAITING, f"it counts as the review of {pilot.key}", was_heard=True)
    return _Told(verdict.reason, verdict.message)


def _tell_of_exception(
    approval: Approval, pilot: PilotIdentity, stage: StagePolicy | None, now: dt.datetime
) -> _Told:
    """It names one of the pilot's exceptions by the digest; the pilot's own watch may bring that later."""
    uid, digest = approval.metadata.uid, approval.spec.digest
    for known in pilot.status.exceptions:
        what = f"the exception of {pilot.key} from rule {known.rule!r}"
        if known.audit_index is not None and uid in {one.uid for one in known.approvals}:
            said = f"{what} was opened on it"
            return _Told(Reason.COUNTED, said, str(pilot.key), was_heard=True, index=known.audit_index)
        if known.denied_by is not None and known.denied_by.uid == uid:
            return _Told(Reason.COUNTED, f"{what} ended on it", str(pilot.key), was_heard=True)
    named = next((one for one in pilot.status.exceptions if one.digest == digest), None)
    if named is None or stage is None:
        message = f"no exception that {pilot.key} asks for has its digest; {AGAIN}"
        return _early_or_void(approval, message, now)
    return _tell_of_open_exception(approval, pilot, stage, named)


def _tell_of_open_exception(
    approval: Approval, pilot: PilotIdentity, stage: StagePolicy, known: ExceptionStatus
) -> _Told:
    what = f"the exception of {pilot.key} from rule {known.rule!r}"
    question = ExceptionQuestion.of(pilot, stage, known)
    if question is None:
        return _Told(Reason.VOID, f"{what} is over, or about to be asked for anew: {known.message}")
    against = judge_exception(question, approval)
    if against is not None:
        return _Told(against.reason, against.message)
    if approval.spec.decision == DENY:
        return _Told(Reason.WAITING, f"it denies {what}, which is about to end", was_heard=True)
    if known.audit_index is not None:
        return _Told(Reason.VOID, f"{what} is in force without it")
    so_far = f"{len(known.approvals)} of {known.required} people have approved"
    return _Told(Reason.WAITING, f"it counts; {so_far} {what}", was_heard=True)
