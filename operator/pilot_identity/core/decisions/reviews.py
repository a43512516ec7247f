"""Reviews: asked for by the stage's calendar and by emergency grants, made by somebody else's word.

An emergency grant asks nobody beforehand, so somebody must look afterwards. That a review is owed stands in
the pilot's status before the grant is issued: a crash, or the grant's deletion, cannot lose it. One review
answers both.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.given import given
from pilot_identity.core.decisions.grants.approving import APPROVE, is_in, is_person
from pilot_identity.core.decisions.objection import Check, Objection, ask_all
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.plan import Notice, Owner, Plan
from pilot_identity.core.decisions.review_dates import ReviewDeadline, deadline_of, due_at, how_to_review
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import (
    Condition,
    ConditionType,
    Finding,
    Reason,
    find,
    settle,
)
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import CountedReview, EmergencyUse, OwedReview
from pilot_identity.core.resources.timestamps import format_timestamp

REVIEW = "Review"
AGAIN = "look at the pilot again and name its status.digest in a new Approval"
MOST_OWED = 16
"""Emergency grants that one review may be owed for; `maxItems` in the CRD. More are held until it is made."""


@dataclass(frozen=True, slots=True)
class ReviewQuestion:
    """What a review must be about, and of which groups its author.

    Attributes:
        owed: what emergency grants owe, if they do.
    """

    pilot: PilotIdentity
    owed: OwedReview | None
    groups: tuple[str, ...]
    digest: str

    @classmethod
    def of(cls, pilot: PilotIdentity, stage: StagePolicy | None) -> ReviewQuestion | None:
        """The review of the pilot as it is now; `None` where nobody wants one."""
        owed = pilot.status.review_owed
        if stage is None or (owed is None and due_at(pilot.status, stage) is None):
            return None
        return cls(pilot, owed, stage.spec.approvals.groups, pilot_digest(pilot))


def wants_review_recorded(grant: TaskGrant) -> bool:
    """Whether all that an emergency grant still waits for is that its review is recorded."""
    ready = find(grant.status.conditions, ConditionType.READY)
    return (
        grant.spec.emergency
        and not grant.status.phase.is_terminal
        and not grant.metadata.is_deleting
        and ready is not None
        and ready.reason == Reason.REVIEW_UNRECORDED
    )


def is_recorded(pilot: PilotIdentity, grant: TaskGrant) -> bool:
    """Whether the pilot's status says that a review is owed for the grant."""
    owed = pilot.status.review_owed
    return owed is not None and any(use.uid == grant.metadata.uid for use in owed.grants)


def owe(
    pilot: PilotIdentity, stage: StagePolicy, grants: Iterable[TaskGrant], now: dt.datetime
) -> OwedReview | None:
    """The review that is owed with the emergency grants that wait for that; `None` where nothing is new."""
    rules, before = stage.spec.emergency, pilot.status.review_owed
    if rules is None:
        return None
    kept = before.grants if before is not None else ()
    fresh = [grant for grant in grants if wants_review_recorded(grant) and not is_recorded(pilot, grant)]
    uses = [
        EmergencyUse(grant.metadata.name, grant.metadata.uid, grant.spec.requested_by) for grant in fresh
    ][: MOST_OWED - len(kept)]
    if not uses:
        return None
    due_at = now + rules.review_within
    return OwedReview((*kept, *uses), now, min(before.due_at, due_at) if before is not None else due_at)


def judge_review(question: ReviewQuestion, approval: Approval) -> Objection | None:
    """Say what is against an approval of purpose Review; `None` where it is a review that counts."""
    return ask_all(CHECKS, Reviewed(question, approval))[-1].objection


@dataclass(frozen=True, slots=True)
class Reviewed:
    """An approval beside the review that is wanted."""

    question: ReviewQuestion
    approval: Approval


def _another_name(review: Reviewed) -> Objection | None:
    key, subject = review.question.pilot.key, review.approval.spec.subject
    if (subject.kind, review.approval.metadata.namespace, subject.name) == key:
        return None
    return Objection(Reason.REFUSED, f"UID {subject.uid} is {key}; name it so, in its namespace")


def _no_person(review: Reviewed) -> Objection | None:
    approver = review.approval.spec.approver
    if is_person(approver):
        return None
    return Objection(Reason.REFUSED, f"{approver or 'nobody'} is no person; ask a person to review")


def _own_emergency(review: Reviewed) -> Objection | None:
    owed = review.question.owed
    if owed is None or review.approval.spec.approver not in {use.requested_by for use in owed.grants}:
        return None
    return Objection(Reason.REFUSED, "you asked for an emergency grant yourself; ask somebody else to review")


def _outside_groups(review: Reviewed) -> Objection | None:
    groups = review.question.groups
    if is_in(review.approval, groups):
        return None
    message = f"the stage lets only these groups review: {', '.join(groups)}; you are in none of them"
    return Objection(Reason.REFUSED, message)


def _denies(review: Reviewed) -> Objection | None:
    if review.approval.spec.decision == APPROVE:
        return None
    return Objection(
        Reason.REFUSED,
        "a review says Approve or is not there: to stop the pilot now set its spec.suspend, or leave it "
        "without review until it is held",
    )


def _spent(review: Reviewed) -> Objection | None:
    last, metadata = review.question.pilot.status.reviewed, review.approval.metadata
    was_counted = review.approval.status.used or (last is not None and last.uid == metadata.uid)
    if not metadata.is_deleting and not was_counted:
        return None
    return Objection(Reason.VOID, "it is being deleted, or was used before; each counts once")


def _another_digest(review: Reviewed) -> Objection | None:
    if review.approval.spec.digest == review.question.digest:
        return None
    return Objection(Reason.VOID, f"its digest is not that of the pilot as it is now; {AGAIN}")


def _older(review: Reviewed) -> Objection | None:
    made_at, owed = review.approval.metadata.creation_timestamp, review.question.owed
    last = review.question.pilot.status.reviewed
    if made_at is None or (owed is not None and made_at < owed.since):
        return Objection(
            Reason.VOID, f"it is older than the last emergency grant, or of the same second; {AGAIN}"
        )
    if last is not None and made_at < last.at:
        return Objection(Reason.VOID, f"it is older than the last review, or of the same second; {AGAIN}")
    return None


CHECKS = (
    # Make sure that RBAC was asked about this pilot: it goes by name and namespace, we by UID.
    Check("names-the-pilot", _another_name),
    # Make sure that there is somebody to ask afterwards.
    Check("is-a-person", _no_person),
    # Make sure that nobody reviews what he did himself.
    Check("asked-for-none", _own_emergency),
    # Make sure that the stage wants to hear this person.
    Check("of-the-stages-groups", _outside_groups),
    # Make sure that a no is not taken for a yes.
    Check("says-approve", _denies),
    # Make sure that each counts once.
    Check("not-used", _spent),
    # Make sure that the pilot was looked at as it is.
    Check("same-digest", _another_digest),
    # Make sure that somebody looked after the emergency, and the last review, not before.
    Check("newer-than-the-last", _older),
)


def paid(
    pilot: PilotIdentity, stage: StagePolicy | None, approvals: Iterable[Approval], now: dt.datetime
) -> tuple[Approval, CountedReview] | None:
    """The approval that is the review which is wanted, if there is one; of several the oldest."""
    question = ReviewQuestion.of(pilot, stage)
    if question is None:
        return None
    good = [one for one in approvals if one.spec.purpose == REVIEW and judge_review(question, one) is None]
    if not good:
        return None
    chosen = min(good, key=lambda one: (one.metadata.creation_timestamp or now, one.metadata.uid))
    metadata = chosen.metadata
    return chosen, CountedReview(metadata.name, metadata.uid, chosen.spec.approver, now)


def decide_review(seen: PilotSeen, moment: Moment) -> Plan | None:
    """Take a review, note that one is owed or overdue; `None` where there is nothing to do.

    Each is one write of its own; the next pass goes on with everything else.
    """
    pilot = seen.pilot
    stage = seen.stages.get(pilot.status.stage)
    made = paid(pilot, stage, seen.reviews, moment.now)
    if made is not None:
        return _take(pilot, stage, *made, moment)
    owed = owe(pilot, stage, seen.emergencies, moment.now) if stage is not None else None
    if owed is not None:
        return _note(pilot, owed, moment)
    return _keep_dates(pilot, stage, moment)


def _keep_dates(pilot: PilotIdentity, stage: StagePolicy | None, moment: Moment) -> Plan | None:
    """Say until when somebody must look at the pilot, and that nobody did."""
    if stage is None:
        return None
    deadline = deadline_of(pilot, stage)
    is_late = deadline is not None and moment.now >= deadline.at
    conditions = _overdue(pilot, deadline if is_late else None, moment)
    wanted = msgspec.structs.replace(
        pilot.status, review_due=due_at(pilot.status, stage), conditions=conditions
    )
    if wanted == pilot.status:
        return None
    was_told = find(pilot.status.conditions, ConditionType.REVIEW_OVERDUE) is not None
    if deadline is None or not is_late or was_told:
        return Plan(status=lambda _: wanted, recheck_at=moment.now)
    data = {"overdueSince": format_timestamp(deadline.at), "why": deadline.why}
    step = f"review-overdue/{format_timestamp(deadline.at)}"
    entry = _entry(pilot, step, EntryType.REVIEW_OVERDUE, data, moment)
    return _plan(
        pilot,
        (entry,),
        Reason.REVIEW_OVERDUE,
        deadline.why,
        moment,
        review_due=wanted.review_due,
        conditions=conditions,
    )


def _overdue(pilot: PilotIdentity, deadline: ReviewDeadline | None, moment: Moment) -> tuple[Condition, ...]:
    """The pilot's conditions, with ReviewOverdue or without it."""
    before = pilot.status.conditions
    others = tuple(one for one in before if one.type != ConditionType.REVIEW_OVERDUE)
    if deadline is None:
        return others
    finding = Finding(
        ConditionType.REVIEW_OVERDUE,
        status=True,
        reason=Reason.REVIEW_OVERDUE,
        message=f"{deadline.why}: {how_to_review(pilot)}",
    )
    told = [one for one in before if one.type == ConditionType.REVIEW_OVERDUE]
    return (*others, *settle(told, (finding,), generation=pilot.metadata.generation, now=moment.now))


def _take(
    pilot: PilotIdentity,
    stage: StagePolicy | None,
    approval: Approval,
    review: CountedReview,
    moment: Moment,
) -> Plan:
    owed = pilot.status.review_owed
    data = {
        "approval": encode(review),
        **({"owed": encode(owed)} if owed is not None else {}),
        "reason": approval.spec.reason,
        "ticket": approval.spec.ticket,
    }
    entries = (
        given(approval, moment.now),
        _entry(pilot, f"reviewed/{review.uid}", EntryType.PILOT_REVIEWED, data, moment),
    )
    note = f"reviewed by {review.approver}: {approval.spec.reason}"
    status = msgspec.structs.replace(pilot.status, review_owed=None, reviewed=review)
    return _plan(
        pilot,
        entries,
        Reason.REVIEWED,
        note,
        moment,
        review_owed=None,
        reviewed=review,
        review_due=due_at(status, stage) if stage is not None else None,
        conditions=_overdue(pilot, None, moment),
    )


def _note(pilot: PilotIdentity, owed: OwedReview, moment: Moment) -> Plan:
    kind = EntryType.REVIEW_OWED
    entry = _entry(pilot, f"review-owed/{owed.grants[-1].uid}", kind, {"owed": encode(owed)}, moment)
    names = ", ".join(use.name for use in owed.grants)
    note = f"to be reviewed by {format_timestamp(owed.due_at)} because of emergency grants {names}"
    return _plan(pilot, (entry,), Reason.REVIEW_OWED, note, moment, review_owed=owed)


def _plan(
    pilot: PilotIdentity,
    entries: tuple[Entry, ...],
    reason: Reason,
    note: str,
    moment: Moment,
    **status: object,
) -> Plan:
    wanted = msgspec.structs.replace(pilot.status, **status)
    owner = Owner(pilot.key, pilot.metadata.uid)
    kind: Literal["Normal", "Warning"] = "Normal" if reason is Reason.REVIEWED else "Warning"
    return Plan(
        entries=entries,
        status=lambda _: wanted,
        notices=(Notice(owner, kind, reason, "Review", note),),
        recheck_at=moment.now,
    )


def _entry(
    pilot: PilotIdentity, step: str, kind: EntryType, data: Mapping[str, object], moment: Moment
) -> Entry:
    uid = pilot.metadata.uid
    told = {"pilotDigest": pilot_digest(pilot), **data}
    return Entry(f"{uid}/{step}", kind, str(pilot.key), uid, moment.now, told)
