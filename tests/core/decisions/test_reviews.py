"""Emergency grants: what they need, what they owe, and who can pay it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.approvals import ApprovalSeen, decide_approval
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.pilots import decide_pilot
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.decisions.reviews import MOST_OWED
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.approval import ApprovalStatus
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import CA_END, NOW, approval, deleting, grant, moment, ready_pilot, stage

STAGE = stage(approvals={"grant": {"required": 2}}, emergency={"maxDuration": "20m", "reviewWithin": "2h"})
LATER = NOW + dt.timedelta(minutes=1)


def alarm(name: str = "alarm", **fields: Any) -> TaskGrant:
    """Eve's emergency."""
    return grant(name, requestedBy="eve", emergency=True, **fields)


def of_grant(asked: TaskGrant, pilot: PilotIdentity, now: dt.datetime = NOW) -> Plan:
    """What is planned for a grant."""
    return decide_grant(GrantSeen(asked, pilot, STAGE, ca_not_after=CA_END), moment(now))


def of_pilot(pilot: PilotIdentity, now: dt.datetime = NOW, **seen: Any) -> Plan:
    """What is planned for a pilot."""
    return decide_pilot(PilotSeen(pilot, {"sandbox": STAGE}, **seen), moment(now))


def grant_status(plan: Plan) -> TaskGrantStatus:
    """The status that a plan gives a grant."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def pilot_status(plan: Plan) -> PilotIdentityStatus:
    """The status that a plan gives a pilot."""
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, PilotIdentityStatus)
    return status


def unrecorded(name: str = "alarm") -> TaskGrant:
    """An emergency that was looked at, and waits for its review to be recorded."""
    return alarm(name, status=encode(grant_status(of_grant(alarm(name), ready_pilot()))))


def owing(*grants: TaskGrant, now: dt.datetime = NOW) -> PilotIdentity:
    """A pilot whose status says that it owes a review for these grants."""
    status = pilot_status(of_pilot(ready_pilot(), now, emergencies=grants))
    return ready_pilot(status={**encode(status), "digest": pilot_digest(ready_pilot())})


def review(**fields: Any) -> Approval:
    """Rita's review of the pilot as it is, a minute after the emergency."""
    meta = fields.pop("meta", {"creationTimestamp": "2026-06-01T12:01:00Z"})
    said = {"approver": "rita", "digest": pilot_digest(ready_pilot()), **fields}
    return approval("review", of=said.pop("of", ready_pilot()), meta=meta, **said)


def test_the_glass_is_broken_in_three_steps() -> None:
    """All in order but unrecorded; then the pilot says that it owes a review; then it is issued, aloud."""
    waits = of_grant(alarm(), ready_pilot())
    assert (waits.release, waits.notices) == (None, ())
    assert waits.entries[-1].type is EntryType.GRANT_REQUESTED
    assert grant_status(waits).conditions[0].reason == "ReviewUnrecorded"

    noted = of_pilot(ready_pilot(), emergencies=(unrecorded(),))
    owed = pilot_status(noted).review_owed
    assert owed is not None
    assert [encode(use) for use in owed.grants] == [
        {"name": "alarm", "uid": "uid-of-alarm", "requestedBy": "eve"}
    ]
    assert (owed.since, owed.due_at) == (NOW, NOW + dt.timedelta(hours=2))
    assert [entry.type.name for entry in noted.entries] == ["REVIEW_OWED"]
    assert noted.recheck_at == NOW

    plan = of_grant(unrecorded(), owing(unrecorded()))
    assert plan.release is not None
    assert grant_status(plan).phase is Phase.ACTIVE
    assert plan.entries[-1].type is EntryType.GRANT_EMERGENCY
    assert plan.entries[-1].data["requestedBy"] == "eve"
    (loud, _) = plan.notices
    assert (loud.type, loud.reason) == ("Warning", "EmergencyIssued")
    assert "eve broke the glass" in loud.note


def test_what_is_recorded_is_recorded_once() -> None:
    """The next pass has nothing of it to do; a second emergency joins the first one's review."""
    pilot = owing(unrecorded())
    again = of_pilot(pilot, LATER, emergencies=(unrecorded(),))
    assert not any(entry.type.name == "REVIEW_OWED" for entry in again.entries)
    joined = pilot_status(
        of_pilot(pilot, LATER, emergencies=(unrecorded(), unrecorded("second")))
    ).review_owed
    assert joined is not None
    assert [use.name for use in joined.grants] == ["alarm", "second"]
    assert (joined.since, joined.due_at) == (LATER, NOW + dt.timedelta(hours=2))


@pytest.mark.parametrize(
    "waits",
    [
        alarm(),
        alarm(status={"phase": "Denied"}),
        alarm(meta=deleting(), status=encode(unrecorded().status)),
        grant(status=encode(unrecorded().status)),
    ],
    ids=["not looked at", "denied", "being deleted", "no emergency"],
)
def test_nothing_is_owed_for_what_is_not_about_to_be_issued(waits: TaskGrant) -> None:
    """A request that is refused burdens nobody."""
    plan = of_pilot(ready_pilot(), emergencies=(waits,))
    assert not any(entry.type.name == "REVIEW_OWED" for entry in plan.entries)


def test_so_many_may_owe_one_review() -> None:
    """Of more emergencies than its list holds the rest is held until somebody looks."""
    names = [f"alarm-{number}" for number in range(MOST_OWED + 1)]
    pilot = owing(*(unrecorded(name) for name in names))
    owed = pilot.status.review_owed
    assert owed is not None
    assert len(owed.grants) == MOST_OWED
    plan = of_grant(unrecorded(names[-1]), pilot)
    assert plan.release is None
    assert grant_status(plan).conditions[0].reason == "ReviewOverdue"
    assert of_grant(unrecorded(names[0]), pilot).release is not None


@pytest.mark.parametrize("asked", [grant(), alarm()], ids=["ordinary", "urgent"])
def test_an_overdue_review_holds_everything(asked: TaskGrant) -> None:
    """It is no denial: once the review is there they go on."""
    plan = of_grant(asked, owing(unrecorded()), NOW + dt.timedelta(hours=2))
    status = grant_status(plan)
    assert (plan.release, status.phase) == (None, Phase.PENDING)
    assert status.conditions[0].reason == "ReviewOverdue"
    assert pilot_digest(ready_pilot()) in status.conditions[0].message


def test_a_review_pays() -> None:
    """The pilot owes nothing, the log has who and why, and the Approval is used."""
    pilot = owing(unrecorded())
    plan = of_pilot(pilot, LATER, reviews=(review(reason="was real"),))
    status = pilot_status(plan)
    assert status.review_owed is None
    assert encode(status.reviewed) == {
        "name": "review",
        "uid": "uid-of-review",
        "approver": "rita",
        "at": encode(LATER),
    }
    assert [entry.type.name for entry in plan.entries] == ["APPROVAL_GIVEN", "PILOT_REVIEWED"]
    assert plan.entries[1].data["reason"] == "was real"
    paid = msgspec.structs.replace(pilot, status=status)
    told = approval_status(decide_approval(ApprovalSeen(review(), paid, STAGE), moment(LATER)))
    assert (told.used, told.used_by) == (True, "PilotIdentity team-a/triage")
    waits = approval_status(decide_approval(ApprovalSeen(review(), pilot, STAGE), moment(LATER)))
    assert (waits.used, waits.conditions[0].reason) == (False, "Waiting")


def approval_status(plan: Plan) -> ApprovalStatus:
    """The status that a plan gives an approval."""
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, ApprovalStatus)
    return status


NO_REVIEWS: Mapping[str, tuple[Approval, str, str]] = {
    "by who broke the glass": (
        review(approver="eve"),
        "Refused",
        "you asked for an emergency grant yourself",
    ),
    "by a service account": (review(approver="system:serviceaccount:a:b"), "Refused", "is no person"),
    "by nobody": (review(approver=""), "Refused", "nobody is no person"),
    "that says no": (review(decision="Deny"), "Refused", "set its spec.suspend"),
    "of another name": (
        review(of=ready_pilot("other", meta={"uid": "uid-of-triage"})),
        "Refused",
        "UID uid-of-triage is PilotIdentity team-a/triage",
    ),
    "of the pilot as it was": (review(digest="sha256:" + "1" * 64), "Void", "its digest is not that"),
    "from before": (review(meta={"creationTimestamp": "2026-06-01T12:00:00Z"}), "Void", "of the same second"),
    "that was used": (review(status={"used": True}), "Void", "each counts once"),
    "that is being deleted": (
        review(meta={"creationTimestamp": "2026-06-01T12:01:00Z", **deleting()}),
        "Void",
        "is being deleted",
    ),
}


@pytest.mark.parametrize("said, reason, why", NO_REVIEWS.values(), ids=NO_REVIEWS)
def test_what_is_no_review(said: Approval, reason: str, why: str) -> None:
    """The pilot goes on owing it; where the Approval can still be told, it is told why."""
    pilot = owing(unrecorded())
    plan = of_pilot(pilot, LATER, reviews=(said,))
    assert not any(entry.type.name == "PILOT_REVIEWED" for entry in plan.entries)
    if said.status.used or said.metadata.is_deleting:
        return
    ready = approval_status(decide_approval(ApprovalSeen(said, pilot, STAGE), moment(LATER))).conditions[0]
    assert ready.reason == reason
    assert why in ready.message


def test_only_the_stages_groups_review() -> None:
    """As they approve."""
    strict = stage(approvals={"groups": ["risk"]}, emergency={})
    pilot = owing(unrecorded())
    told = approval_status(decide_approval(ApprovalSeen(review(), pilot, strict), moment(LATER)))
    assert told.conditions[0].reason == "Refused"
    seen = PilotSeen(pilot, {"sandbox": strict}, reviews=(review(approverGroups=["risk"]),))
    assert pilot_status(decide_pilot(seen, moment(LATER))).review_owed is None


def test_a_review_that_nobody_owes_is_void() -> None:
    """And cannot be kept for later."""
    told = approval_status(decide_approval(ApprovalSeen(review(), ready_pilot(), STAGE), moment(LATER)))
    assert (told.used, told.conditions[0].reason) == (False, "Void")
