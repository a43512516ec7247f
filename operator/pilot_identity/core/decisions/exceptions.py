"""Exceptions: which of a stage's rules are lifted for a pilot, and whose word lifts them.

`spec.exceptions` asks for one; it lifts nothing until people of the stage's approver groups approved it.
Their word is bound to a digest of all that they weigh: the exception, the rule's own text, what the pilot may
reach, how the stage wants exceptions approved, and since when it is asked for. So whatever of that changes,
even if it is changed back, asks anew; and what was said before counts for nothing.

`lifting` answers for one rule from the pilot, the stage and the time alone. It believes no state that the
digest does not bear out, so that a change counts before anybody has looked at the pilot again. How an
exception comes to be in force, and ends, is in `exceptions_kept`.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass

from pilot_identity.core.decisions.grants.approving import APPROVE, DENY, is_in, is_person
from pilot_identity.core.decisions.objection import Check, Objection, ask_all
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy
from pilot_identity.core.resources.approval import CountedApproval
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.digests import digest_json, reach_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import ExceptionState, ExceptionStatus, PilotException
from pilot_identity.core.resources.stage_policy import Rule

EXCEPTION = "Exception"
AGAIN = "look at the pilot again and name the digest in its status.exceptions in a new Approval"


def exception_digest(
    pilot: PilotIdentity, stage: StagePolicy, exception: PilotException, since: dt.datetime
) -> str:
    """Digest exactly what is approved: this exception, of this pilot, from the rule as it reads now.

    `since` is when it was first looked at as it is now.
    """
    rule = rule_of(stage, exception.rule)
    approvals = stage.spec.approvals
    return digest_json(
        {
            "pilotUID": pilot.metadata.uid,
            "reach": reach_digest(pilot),
            "stage": stage.name,
            "rule": encode(rule) if rule is not None else None,
            "exception": encode(exception),
            "approvals": {"exception": encode(approvals.exception), "groups": list(approvals.groups)},
            "since": encode(since),
        }
    )


def rule_of(stage: StagePolicy, name: str) -> Rule | None:
    """The stage's rule of that name."""
    return next((rule for rule in stage.spec.rules if rule.name == name), None)


def declared_of(pilot: PilotIdentity, rule: str) -> PilotException | None:
    """What the pilot's team asks for; the API takes one exception from each rule."""
    return next((one for one in pilot.spec.exceptions if one.rule == rule), None)


def known_of(pilot: PilotIdentity, rule: str) -> ExceptionStatus | None:
    """What the pilot's status says of it."""
    return next((one for one in pilot.status.exceptions if one.rule == rule), None)


def end_of(exception: PilotException) -> dt.datetime:
    """When it ends: its `until`, rounded down to the whole second that certificates can say."""
    return exception.until.astimezone(dt.UTC).replace(microsecond=0)


def required_by(stage: StagePolicy) -> int:
    """How many people must approve; never none, whatever a policy says."""
    return max(1, stage.spec.approvals.exception.required)


def lifting(pilot: PilotIdentity, stage: StagePolicy, rule: Rule, now: dt.datetime) -> ExceptionStatus | None:
    """The exception that lifts a rule for a pilot now; `None` where it holds."""
    known = _current(pilot, stage, rule, now)
    return known if known is not None and known.state is ExceptionState.IN_FORCE else None


def is_awaited(pilot: PilotIdentity, stage: StagePolicy, rule: Rule, now: dt.datetime) -> bool:
    """Whether people are asked, or about to be, to lift a rule for a pilot."""
    declared, known = declared_of(pilot, rule.name), known_of(pilot, rule.name)
    if declared is None or now >= end_of(declared):
        return False
    if known is None or known.digest != exception_digest(pilot, stage, declared, known.since):
        return True
    return known.state is ExceptionState.WAITING


def _current(
    pilot: PilotIdentity, stage: StagePolicy, rule: Rule, now: dt.datetime
) -> ExceptionStatus | None:
    """What the status says of an exception, where it says it of this very one and its time is not over."""
    declared, known = declared_of(pilot, rule.name), known_of(pilot, rule.name)
    if declared is None or known is None or now >= end_of(declared):
        return None
    return known if known.digest == exception_digest(pilot, stage, declared, known.since) else None


@dataclass(frozen=True, slots=True)
class ExceptionQuestion:
    """What people are asked about one exception, and of which groups they must be."""

    pilot: PilotIdentity
    declared: PilotException
    known: ExceptionStatus
    groups: tuple[str, ...]

    @classmethod
    def of(cls, pilot: PilotIdentity, stage: StagePolicy, known: ExceptionStatus) -> ExceptionQuestion | None:
        """The question as it stands; `None` where the exception is over, or not that one any more."""
        declared = declared_of(pilot, known.rule)
        if declared is None or not known.is_open:
            return None
        if known.digest != exception_digest(pilot, stage, declared, known.since):
            return None
        return cls(pilot, declared, known, stage.spec.approvals.groups)


@dataclass(frozen=True, slots=True)
class Verdicts:
    """What was said of an exception.

    Attributes:
        approvals: the oldest that counts of each person.
        denial: the oldest word that ends it, if there is one.
    """

    approvals: tuple[Approval, ...]
    denial: Approval | None


def verdicts(question: ExceptionQuestion, approvals: Iterable[Approval]) -> Verdicts:
    """Count what was said of exactly this."""
    of_this = [
        one
        for one in approvals
        if one.spec.purpose == EXCEPTION
        and one.spec.digest == question.known.digest
        and judge_exception(question, one) is None
    ]
    approving: dict[str, Approval] = {}
    for one in sorted(of_this, key=_age):
        if one.spec.decision == APPROVE:
            approving.setdefault(one.spec.approver, one)
    denial = min((one for one in of_this if one.spec.decision == DENY), key=_age, default=None)
    return Verdicts(tuple(approving.values()), denial)


def counted(approval: Approval) -> CountedApproval:
    """An approval as the status names it."""
    return CountedApproval(approval.metadata.name, approval.metadata.uid, approval.spec.approver)


def judge_exception(question: ExceptionQuestion, approval: Approval) -> Objection | None:
    """Say what is against a word on an exception; `None` where it counts, for or against it."""
    return ask_all(CHECKS, Heard(question, approval))[-1].objection


@dataclass(frozen=True, slots=True)
class Heard:
    """An approval beside the exception that it is about."""

    question: ExceptionQuestion
    approval: Approval


def _another_name(heard: Heard) -> Objection | None:
    key, subject = heard.question.pilot.key, heard.approval.spec.subject
    if (subject.kind, heard.approval.metadata.namespace, subject.name) == key:
        return None
    return Objection(Reason.REFUSED, f"UID {subject.uid} is {key}; name it so, in its namespace")


def _no_person(heard: Heard) -> Objection | None:
    approver = heard.approval.spec.approver
    if is_person(approver):
        return None
    return Objection(Reason.REFUSED, f"{approver or 'nobody'} is no person; ask a person to approve")


def _own_wish(heard: Heard) -> Objection | None:
    if heard.approval.spec.approver != heard.question.declared.requested_by:
        return None
    return Objection(Reason.REFUSED, "you asked for this exception yourself; ask somebody else to approve it")


def _own_pilot(heard: Heard) -> Objection | None:
    if heard.approval.spec.approver not in heard.question.pilot.spec.owners.people:
        return None
    return Objection(Reason.REFUSED, "you own the pilot that it is for; ask somebody else to approve it")


def _outside_groups(heard: Heard) -> Objection | None:
    groups = heard.question.groups
    if is_in(heard.approval, groups):
        return None
    message = f"the stage lets only these groups approve: {', '.join(groups)}; you are in none of them"
    return Objection(Reason.REFUSED, message)


def _going(heard: Heard) -> Objection | None:
    return Objection(Reason.VOID, "it is being deleted") if heard.approval.metadata.is_deleting else None


def _used(heard: Heard) -> Objection | None:
    if not heard.approval.status.used:
        return None
    return Objection(Reason.VOID, "it was used before, and each counts once")


def _another_digest(heard: Heard) -> Objection | None:
    if heard.approval.spec.digest == heard.question.known.digest:
        return None
    return Objection(Reason.VOID, f"its digest is not the exception's as it is now; {AGAIN}")


CHECKS = (
    # Make sure that RBAC was asked about this pilot: it goes by name and namespace, we by UID.
    Check("names-the-pilot", _another_name),
    # Make sure that there is somebody to ask afterwards.
    Check("is-a-person", _no_person),
    # Make sure that nobody approves for himself (promise 3).
    Check("not-the-requester", _own_wish),
    # Make sure that nobody lets himself off: a rule is the stage's word to those who own the pilot.
    Check("not-an-owner", _own_pilot),
    # Make sure that the stage wants to hear this person.
    Check("of-the-stages-groups", _outside_groups),
    # Make sure that what somebody takes back is taken back.
    Check("not-deleted", _going),
    # Make sure that each counts once (promise 3).
    Check("not-used", _used),
    # Make sure that nothing else is put in the place of what was approved (promise 3).
    Check("same-digest", _another_digest),
)


def _age(approval: Approval) -> tuple[dt.datetime, str]:
    made_at = approval.metadata.creation_timestamp
    return made_at or dt.datetime.min.replace(tzinfo=dt.UTC), approval.metadata.uid
