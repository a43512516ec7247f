"""Reviews by the stage's calendar: when they are due, what waits for them, and what they end."""

from __future__ import annotations

import datetime as dt
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
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.approval import ApprovalStatus
from pilot_identity.core.resources.conditions import Condition, ConditionType, find
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from pilot_identity.core.resources.timestamps import format_timestamp
from tests.core.builders import (
    CA_END,
    NOW,
    active_grant,
    approval,
    credential_status,
    grant,
    moment,
    pilot,
    ready_pilot,
    stage,
)

DAY = dt.timedelta(days=1)
MONTHLY = {"every": "720h", "grace": "168h"}
EVERY, GRACE = 30 * DAY, 7 * DAY
STAGE = stage(review=MONTHLY)
ENTERED = NOW - DAY
"""When a `ready_pilot` entered its stage."""
DUE = ENTERED + EVERY
LATE = DUE + GRACE


def there(now: dt.datetime = NOW, **status: Any) -> PilotIdentity:
    """A pilot whose status says all that there is to say, with an SVID that is renewed long after `now`."""
    renew = {"renewAt": format_timestamp(now + 100 * DAY), "notAfter": format_timestamp(now + 200 * DAY)}
    digest = pilot_digest(ready_pilot())
    told = {"credential": credential_status(**renew), "digest": digest, "reviewDue": encode(DUE), **status}
    return ready_pilot(status=told)


def of_pilot(known: PilotIdentity, now: dt.datetime, policy: StagePolicy = STAGE, **seen: Any) -> Plan:
    """What is planned for a pilot."""
    facts = {"ca_not_after": {"sandbox": NOW + 900 * DAY}, "bundle_sequences": {"sandbox": 1}, **seen}
    return decide_pilot(PilotSeen(known, {"sandbox": policy}, **facts), moment(now))


def of_grant(asked: TaskGrant, known: PilotIdentity, now: dt.datetime, policy: StagePolicy = STAGE) -> Plan:
    """What is planned for a grant."""
    return decide_grant(GrantSeen(asked, known, policy, ca_not_after=CA_END), moment(now))


def new(now: dt.datetime) -> TaskGrant:
    """A grant that was asked for just now."""
    return grant(meta={"creationTimestamp": format_timestamp(now)})


def pilot_status(plan: Plan) -> PilotIdentityStatus:
    """The status that a plan gives a pilot."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, PilotIdentityStatus)
    return status


def grant_status(plan: Plan) -> TaskGrantStatus:
    """The status that a plan gives a grant."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def overdue(status: PilotIdentityStatus) -> Condition | None:
    """The pilot's condition ReviewOverdue."""
    return find(status.conditions, ConditionType.REVIEW_OVERDUE)


def review(at: dt.datetime, name: str = "review", **fields: Any) -> Approval:
    """Rita's review of the pilot as it is."""
    made = {"creationTimestamp": format_timestamp(at.replace(microsecond=0))}
    said = {"approver": "rita", "digest": pilot_digest(ready_pilot()), **fields}
    return approval(name, of=ready_pilot(), meta=made, **said)


def told(
    said: Approval, known: PilotIdentity, now: dt.datetime, policy: StagePolicy = STAGE
) -> ApprovalStatus:
    """What an approval is told."""
    plan = decide_approval(ApprovalSeen(said, known, policy), moment(now))
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, ApprovalStatus)
    return status


def test_a_new_pilot_is_told_when_its_review_is_due() -> None:
    """It counts from its entry into the stage; no later pass has to come for it."""
    plan = of_pilot(pilot(), NOW)
    assert plan.release is not None
    assert pilot_status(plan).review_due == NOW + EVERY


def test_a_pilot_is_looked_at_when_its_review_is_overdue() -> None:
    """By a deadline, whatever else it waits for."""
    assert of_pilot(there(), NOW).recheck_at == LATE
    assert of_pilot(there(), NOW, stage(review={"every": "720h"})).recheck_at == DUE
    soon = there(credential=credential_status())
    assert of_pilot(soon, NOW).recheck_at == NOW + dt.timedelta(minutes=1), "its SVID comes first"


def test_a_stage_without_reviews_asks_for_none() -> None:
    """Neither a date nor a hold, however long nobody looked; one that was told before goes."""
    plan = of_pilot(there(reviewDue=None), LATE + 100 * DAY, stage())
    assert not [entry for entry in plan.entries if "review" in entry.type]
    assert of_grant(new(LATE), there(reviewDue=None), LATE, stage()).release is not None
    assert pilot_status(of_pilot(there(), NOW, stage())).review_due is None


def test_what_is_overdue_is_told_once() -> None:
    """Entry, Warning and condition when it is seen; then nothing until something changes."""
    plan = of_pilot(there(), LATE)
    assert [entry.type.name for entry in plan.entries] == ["REVIEW_OVERDUE"]
    (notice,) = plan.notices
    assert (notice.type, notice.reason) == ("Warning", "ReviewOverdue")
    status = pilot_status(plan)
    condition = overdue(status)
    assert condition is not None
    assert (condition.status, condition.reason) == ("True", "ReviewOverdue")
    assert "kubectl pilot review triage -n team-a" in condition.message
    assert find(status.conditions, ConditionType.READY) is not None
    kept = of_pilot(msgspec.structs.replace(there(), status=status), LATE + DAY)
    assert overdue(pilot_status(kept)) == condition
    again = of_pilot(msgspec.structs.replace(there(), status=pilot_status(kept)), LATE + 2 * DAY)
    for later in (kept, again):
        assert {entry.type for entry in later.entries} <= {EntryType.PILOT_DEFINED}
        assert later.notices == ()
    assert again.status is None


def test_overdue_is_overdue_whatever_else_is_the_matter() -> None:
    """A suspended pilot keeps the condition, and so does one that is refused for something else."""
    late = msgspec.structs.replace(there(), status=pilot_status(of_pilot(there(), LATE)))
    spec = msgspec.structs.replace(late.spec, suspend=True)
    suspended = msgspec.structs.replace(late, spec=spec)
    assert overdue(pilot_status(of_pilot(suspended, LATE))) is not None


@pytest.mark.parametrize(
    "now, is_held",
    [(DUE - DAY, False), (LATE - dt.timedelta(milliseconds=1), False), (LATE, True), (LATE + DAY, True)],
    ids=["early", "in the last moment of grace", "as it ends", "later"],
)
def test_a_pilot_that_nobody_looked_at_gets_no_new_grants(now: dt.datetime, is_held: bool) -> None:
    """It is no denial, and it says who has to do what; the pilot's own status need not say so yet."""
    plan = of_grant(new(now), there(), now)
    assert (plan.release is None) is is_held
    if is_held:
        status = grant_status(plan)
        assert (status.phase, status.conditions[0].reason) == (Phase.PENDING, "ReviewOverdue")
        message = status.conditions[0].message
        for part in ("every 720h", "at most 168h late", "purpose Review", pilot_digest(ready_pilot())):
            assert part in message, part


def test_a_running_grant_goes_on_but_is_not_renewed() -> None:
    """Its credentials lapse by themselves; once somebody looked it is renewed again."""
    ends = LATE + dt.timedelta(hours=1)
    renew_at = LATE + dt.timedelta(minutes=5)
    credential = credential_status(renewAt=format_timestamp(renew_at), notAfter=format_timestamp(ends))
    running = active_grant(status={"expiresAt": format_timestamp(ends), "credential": credential})
    early = of_grant(running, there(), LATE + dt.timedelta(minutes=1))
    assert (early.status, early.withdraw, early.recheck_at) == (
        None,
        (),
        renew_at.replace(microsecond=250_000),
    )
    lapsed = of_grant(running, there(), renew_at)
    assert (lapsed.release, lapsed.withdraw) == (None, ())
    status = grant_status(lapsed)
    assert (status.phase, status.conditions[0].reason) == (Phase.ACTIVE, "ReviewOverdue")
    looked = there(reviewed={"name": "r", "uid": "u", "approver": "rita", "at": encode(LATE)})
    on = of_grant(msgspec.structs.replace(running, status=status), looked, renew_at)
    assert on.release is not None


def test_a_review_begins_the_time_anew() -> None:
    """Entries of who and why; the condition goes, the date moves, the Approval is used."""
    late = msgspec.structs.replace(there(), status=pilot_status(of_pilot(there(), LATE)))
    now = LATE + DAY
    said = review(now, reason="still what it is for")
    assert told(said, late, now).conditions[0].reason == "Waiting"
    plan = of_pilot(late, now, reviews=(said,))
    assert [entry.type.name for entry in plan.entries] == ["APPROVAL_GIVEN", "PILOT_REVIEWED"]
    assert plan.entries[1].data["reason"] == "still what it is for"
    assert "owed" not in plan.entries[1].data
    status = pilot_status(plan)
    assert (overdue(status), status.review_due) == (None, now + EVERY)
    reviewed = msgspec.structs.replace(late, status=status)
    assert told(said, reviewed, now).used
    assert of_grant(new(now), reviewed, now).release is not None
    assert of_pilot(reviewed, now, reviews=(said,)).recheck_at == now + EVERY + GRACE


def test_a_review_may_come_early_and_counts_once() -> None:
    """What was said before the last review that counted, or is that one, is no other review."""
    now = NOW + DAY
    first, second = review(NOW), review(NOW, "second", approver="bob")
    status = pilot_status(of_pilot(there(), now, reviews=(first, second)))
    assert status.reviewed is not None
    assert status.reviewed.name == "review"
    reviewed = msgspec.structs.replace(there(), status=status)
    again = of_pilot(reviewed, now, reviews=(first, second))
    assert {entry.type for entry in again.entries} <= {EntryType.PILOT_DEFINED}
    void = told(second, reviewed, now).conditions[0]
    assert (void.reason, "older than the last review" in void.message) == ("Void", True)
    third = review(now + dt.timedelta(seconds=1), "third")
    assert of_pilot(reviewed, now + DAY, reviews=(first, second, third)).entries


def test_the_review_of_an_emergency_is_one_of_the_calendar() -> None:
    """One look answers both; who broke the glass cannot make it."""
    owed = {
        "grants": [{"name": "alarm", "uid": "uid-of-alarm", "requestedBy": "eve"}],
        "since": encode(LATE),
        "dueAt": encode(LATE + dt.timedelta(hours=1)),
    }
    owing = there(reviewOwed=owed)
    now = LATE + DAY
    assert told(review(now, approver="eve"), owing, now).conditions[0].reason == "Refused"
    status = pilot_status(of_pilot(owing, now, reviews=(review(now),)))
    assert (status.review_owed, status.review_due) == (None, now + EVERY)


def test_without_its_stage_nobody_is_heard() -> None:
    """Whom to hear is the stage's word: while it is not there, a review waits."""
    said = review(NOW + DAY)
    plan = decide_approval(ApprovalSeen(said, there(), None), moment(NOW + DAY))
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, ApprovalStatus)
    assert status.conditions[0].reason == "Waiting"
    unplaced = PilotSeen(there(), {}, reviews=(said,))
    assert not [
        entry for entry in decide_pilot(unplaced, moment(NOW + DAY)).entries if "review" in entry.type
    ]


def test_a_stricter_stage_counts_at_once() -> None:
    """The date follows the policy; what was in time before may be overdue now."""
    strict = stage(review={"every": "12h"})
    assert of_grant(grant(), there(), NOW, strict).release is None
    assert [entry.type.name for entry in of_pilot(there(), NOW, strict).entries] == ["REVIEW_OVERDUE"]
    late = msgspec.structs.replace(there(), status=pilot_status(of_pilot(there(), NOW, strict)))
    milder = pilot_status(of_pilot(late, NOW))
    assert (overdue(milder), milder.review_due) == (None, DUE)


def test_a_new_stage_has_let_the_pilot_in() -> None:
    """An old review and a later entry: what is later counts, since people let a pilot in."""
    looked = {"name": "r", "uid": "u", "approver": "rita", "at": encode(NOW - 300 * DAY)}
    assert of_grant(grant(), there(reviewed=looked), NOW).release is not None
    unknown = there(stageSince=None)
    assert of_grant(grant(), unknown, NOW).release is None, "nothing is known: as if nobody ever looked"
