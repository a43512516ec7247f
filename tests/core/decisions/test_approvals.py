"""Whose word counts on a grant, for what, for how long, and what the Approval is told."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given as for_all
from hypothesis import strategies as st

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.approvals import SEEN_WITHIN, ApprovalSeen, decide_approval
from pilot_identity.core.decisions.grants.approving import Question, digest_of, judge, tally
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.approval import ApprovalStatus
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import (
    CA_END,
    NOW,
    approval,
    deleting,
    grant,
    moment,
    ready_pilot,
    stage,
    tool,
)

ASKS = stage(approvals={"grant": {"required": 1}})
ASKS_TWO = stage(approvals={"grant": {"required": 2}})
DIGEST = digest_of(grant(), ready_pilot(), ASKS)
LATER = NOW + dt.timedelta(minutes=1)


def question(**fields: Any) -> Question:
    """What is asked of the smallest grant, but for what the case changes."""
    asked = {"grant": grant(), "ancestors": (), "groups": (), "digest": DIGEST, "since": None, **fields}
    return Question(**asked)


def yes(name: str = "yes", of: TaskGrant | None = None, **fields: Any) -> Approval:
    """Bob's approval of exactly that."""
    return approval(name, of=of or grant(), **{"digest": DIGEST, **fields})


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan gives a grant, in the precision of its JSON."""
    if plan.prove is not None:
        plan = plan.prove.conclude(())
    assert plan.status is not None
    status = grant(status=encode(plan.status(Outcome(9, "uid-of-secret")))).status
    assert isinstance(status, TaskGrantStatus)
    return status


def told(plan: Plan) -> ApprovalStatus:
    """The status that a plan gives an approval."""
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, ApprovalStatus)
    return status


def seen(
    asked: TaskGrant | None = None,
    *approvals: Approval,
    pilot: PilotIdentity | None = None,
    policy: StagePolicy = ASKS,
    **facts: Any,
) -> GrantSeen:
    """A grant in a stage that asks for one approval."""
    known = {"ca_not_after": CA_END, "approvals": approvals, **facts}
    return GrantSeen(asked or grant(), pilot or ready_pilot(), policy, **known)


def waiting(*approvals: Approval, policy: StagePolicy = ASKS, **facts: Any) -> TaskGrant:
    """A grant that was looked at with these approvals, and waits."""
    return grant(
        status=encode(status_of(decide_grant(seen(None, *approvals, policy=policy, **facts), moment())))
    )


REFUSED: Mapping[str, tuple[Question, Approval, str]] = {
    "the requester": (question(), yes(approver="ana"), "you asked for this grant yourself"),
    "who asked for the parent": (
        question(ancestors=(grant("root", requestedBy="bob"), grant("parent", requestedBy="eve"))),
        yes(),
        "you asked for grant 'root', from which it descends",
    ),
    "a service account": (question(), yes(approver="system:serviceaccount:team-a:robot"), "is no person"),
    "a node": (question(), yes(approver="system:node:n1"), "is no person"),
    "nobody": (question(), yes(approver=""), "nobody is no person"),
    "anybody where nobody is known to have asked": (
        question(grant=grant(requestedBy="")),
        yes(of=grant(requestedBy="")),
        "does not say who asked",
    ),
    "someone outside the stage's groups": (
        question(groups=("risk", "board")),
        yes(approverGroups=["system:authenticated", "dev"]),
        "only these groups approve: risk, board",
    ),
    "someone with no groups": (question(groups=("risk",)), yes(approverGroups=[]), "only these groups"),
    "another name than the UID's": (
        question(),
        yes(of=grant("other", meta={"uid": "uid-of-task-1"})),
        "name it so",
    ),
    "another namespace": (question(), yes(meta={"namespace": "team-b"}), "name it so, in its namespace"),
    "another purpose": (question(), yes(purpose="Review"), "purpose Review is not for a TaskGrant"),
}
"""Who has no say, neither for yes nor for no."""


@pytest.mark.parametrize("decision", ["Approve", "Deny"])
@pytest.mark.parametrize("asked, said, why", REFUSED.values(), ids=REFUSED)
def test_who_has_no_say(asked: Question, said: Approval, why: str, decision: str) -> None:
    """It counts for nothing, and the person is told why."""
    said = msgspec.structs.replace(said, spec=msgspec.structs.replace(said.spec, decision=decision))
    word = judge(asked, said)
    assert word.objection is not None
    assert (word.objection.reason, word.approves, word.denies) == ("Refused", False, False)
    assert why in word.objection.message


VOID: Mapping[str, tuple[Question, Approval, str]] = {
    "another digest": (question(), yes(digest="sha256:" + "1" * 64), "its digest is not the grant's"),
    "older than the grant": (
        question(),
        yes(meta={"creationTimestamp": "2026-06-01T10:59:59Z"}),
        "older than the grant",
    ),
    "of no known time": (question(), yes(meta={"creationTimestamp": None}), "older than the grant"),
    "older than the last change": (question(since=LATER), yes(), "changed since"),
    "of the second of the last change": (
        question(since=NOW),
        yes(meta={"creationTimestamp": "2026-06-01T12:00:00Z"}),
        "or in that second",
    ),
    "used": (question(), yes(status={"used": True}), "each counts once"),
    "being deleted": (question(), yes(meta=deleting()), "being deleted"),
}


@pytest.mark.parametrize("asked, said, why", VOID.values(), ids=VOID)
def test_what_is_no_yes_to_exactly_this(asked: Question, said: Approval, why: str) -> None:
    """It counts for nothing, and the person is told what to do instead."""
    word = judge(asked, said)
    assert word.objection is not None
    assert (word.objection.reason, word.approves) == ("Void", False)
    assert why in word.objection.message


def test_a_no_need_not_be_to_exactly_this() -> None:
    """Whoever says no to what it was says no to what it has become."""
    said = yes(decision="Deny", digest="sha256:" + "1" * 64)
    assert judge(question(since=LATER), said).denies


def test_one_of_the_stages_groups_is_enough() -> None:
    """The API server says which groups."""
    assert judge(question(groups=("risk", "board")), yes(approverGroups=["x", "board"])).approves


def test_one_person_counts_once() -> None:
    """The oldest approval of each; who said no is not asked again."""
    bobs = [
        yes("b2", meta={"creationTimestamp": "2026-06-01T12:00:05Z"}),
        yes("b1"),
        yes("c", approver="cleo"),
    ]
    counted = tally(question(), bobs)
    assert [(word.counted.name, word.counted.approver) for word in counted.approvals] == [
        ("b1", "bob"),
        ("c", "cleo"),
    ]
    assert counted.denial is None


PEOPLE = st.sampled_from(["ana", "bob", "cleo", "eve", "", "system:serviceaccount:team-a:x"])
SAID = st.builds(
    lambda number, approver, decision, digest, late, used: yes(
        f"a{number}",
        approver=approver,
        decision=decision,
        digest=digest,
        meta={"creationTimestamp": f"2026-06-01T12:00:{late:02}Z"},
        status={"used": used},
    ),
    st.integers(0, 99),
    PEOPLE,
    st.sampled_from(["Approve", "Approve", "Approve", "Deny"]),
    st.sampled_from([DIGEST, DIGEST, "sha256:" + "1" * 64]),
    st.integers(0, 59),
    st.booleans(),
)


@for_all(st.lists(SAID, max_size=8, unique_by=lambda one: one.metadata.uid), st.integers(1, 3))
def test_nothing_is_issued_but_on_enough_peoples_word(said: list[Approval], required: int) -> None:
    """Promise 3, whatever is said by whom, in whatever order."""
    policy = stage(approvals={"grant": {"required": required}})
    digest = digest_of(grant(), ready_pilot(), policy)
    said = [
        msgspec.structs.replace(
            one,
            spec=msgspec.structs.replace(one.spec, digest=one.spec.digest.replace(DIGEST, digest)),
        )
        for one in said
    ]
    plan = decide_grant(seen(None, *said, policy=policy), moment(LATER))
    fit = [one for one in said if one.spec.approver in {"bob", "cleo", "eve"} and not one.status.used]
    nays = {one.spec.approver for one in fit if one.spec.decision == "Deny"}
    ayes = {one.spec.approver for one in fit if one.spec.decision == "Approve" and one.spec.digest == digest}
    assert (plan.release is not None) == (not nays and len(ayes) >= required)
    status = status_of(plan)
    expected = Phase.DENIED if nays else Phase.ACTIVE if plan.release else Phase.AWAITING_APPROVAL
    assert status.phase is expected


def test_a_grant_says_what_it_asks_people() -> None:
    """Digest, how many, who so far, until when; it is looked at again then."""
    plan = decide_grant(
        seen(None, yes(digest=digest_of(grant(), ready_pilot(), ASKS_TWO)), policy=ASKS_TWO), moment()
    )
    wait = status_of(plan).approval
    assert wait is not None
    assert (wait.digest, wait.required) == (digest_of(grant(), ready_pilot(), ASKS_TWO), 2)
    assert (wait.approved_by, wait.since) == (("bob",), None)
    asked_at = grant().metadata.creation_timestamp
    assert asked_at is not None
    assert wait.expires_at == asked_at + dt.timedelta(hours=24) == plan.recheck_at
    *_, asked, why = plan.entries
    assert (asked.type, why.type) == (EntryType.GRANT_REQUESTED, EntryType.GRANT_DECIDED)
    assert why.data["decision"]["reason"] == "ApprovalRequired"


def test_why_it_waits_is_told_again_only_when_that_changes() -> None:
    """One more word is another outcome; the same pass once more, or an hour later, is not."""
    first, again = (
        decide_grant(seen(None, policy=ASKS_TWO), moment(now)).entries[-1].id
        for now in (NOW, NOW + dt.timedelta(hours=1))
    )
    word = yes(digest=digest_of(grant(), ready_pilot(), ASKS_TWO))
    after = decide_grant(seen(None, word, policy=ASKS_TWO), moment()).entries[-1].id
    assert first == again != after
    assert decide_grant(seen(waiting(policy=ASKS_TWO), policy=ASKS_TWO), moment(LATER)).entries == ()


def test_who_agreed_is_told_as_soon_as_all_have_though_a_limit_is_reached() -> None:
    """A limit is no decision that anybody asks about later; the approvals are there all the same."""
    plan = decide_grant(seen(waiting(), yes(), active_grants=1000), moment())
    assert plan.release is None
    given, approved = plan.entries[-2:]
    assert (given.type, approved.type) == (EntryType.APPROVAL_GIVEN, EntryType.GRANT_APPROVED)
    assert [one["approver"] for one in approved.data["approvals"]] == ["bob"]
    assert approved.data["digest"] == DIGEST
    issued = decide_grant(seen(waiting(), yes()), moment(LATER))
    assert approved.id in {entry.id for entry in issued.entries}


def test_what_is_issued_names_who_approved_and_the_log_heard_them_first() -> None:
    """In one group: the word, then what rests on it."""
    plan = decide_grant(seen(waiting(), yes()), moment())
    assert plan.release is not None
    *_, asked, given, approved = plan.entries
    assert asked.type is EntryType.GRANT_REQUESTED
    assert (given.id, given.data["approver"]) == ("uid-of-yes/given", "bob")
    assert approved.type is EntryType.GRANT_APPROVED
    status = status_of(plan)
    assert status.decision is not None
    assert [encode(one) for one in status.decision.approvals] == [
        {"name": "yes", "uid": "uid-of-yes", "approver": "bob"}
    ]
    announced = plan.release.announce("ab", None).data["decision"]["approvals"]
    assert list(announced) == [{"name": "yes", "uid": "uid-of-yes", "approver": "bob"}]


CHANGES: Mapping[str, Callable[[GrantSeen], GrantSeen]] = {
    "the pilot may reach more": lambda case: replace(
        case, pilot=ready_pilot(access=[tool("tickets", resources=["projects/**"])])
    ),
    "the pilot has another owner": lambda case: replace(
        case, pilot=ready_pilot(owners={"business": "mia", "technical": "tom"})
    ),
    "the stage allows more": lambda case: replace(
        case, stage=stage(approvals={"grant": {"required": 1}}, limits={"activeGrants": 7})
    ),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_no_approval_outlives_a_material_change(change: Callable[[GrantSeen], GrantSeen]) -> None:
    """Neither the change, nor the way back; a new word of a later second counts again."""
    asked = waiting()
    changed = decide_grant(change(seen(asked, yes())), moment(LATER))
    assert changed.release is None
    asked = grant(status=encode(status_of(changed)))
    assert asked.status.approval is not None
    assert (asked.status.approval.since, asked.status.approval.approved_by) == (LATER, ())
    back_at = LATER + dt.timedelta(minutes=1)
    back = decide_grant(seen(asked, yes()), moment(back_at))
    assert back.release is None
    asked = grant(status=encode(status_of(back)))
    assert asked.status.approval is not None
    assert (asked.status.approval.digest, asked.status.approval.since) == (DIGEST, back_at)
    again = yes("again", meta={"creationTimestamp": "2026-06-01T12:02:01Z"})
    assert decide_grant(seen(asked, yes(), again), moment(back_at)).release is not None


def test_rewording_a_purpose_voids_nothing() -> None:
    """Only what is material counts."""
    reworded = ready_pilot(purpose="sorts invoices, quickly")
    assert decide_grant(seen(waiting(), yes(), pilot=reworded), moment(LATER)).release is not None


def test_freezing_and_thawing_voids_nothing_but_denies_what_waits() -> None:
    """Frozen is final for what was asked then."""
    frozen = stage(approvals={"grant": {"required": 1}}, freeze=True)
    assert status_of(decide_grant(seen(waiting(), yes(), policy=frozen), moment())).phase is Phase.DENIED


def test_a_change_is_noticed_while_something_else_is_waited_for() -> None:
    """A pilot that was refused in between was not the one that was approved."""
    refused = ready_pilot(
        meta={"generation": 2},
        status={"observedGeneration": 1},
        owners={"business": "mia", "technical": "tom"},
    )
    plan = decide_grant(seen(waiting(), yes(), pilot=refused), moment(LATER))
    status = status_of(plan)
    assert status.phase is Phase.AWAITING_APPROVAL
    assert status.approval is not None
    assert status.approval.since == LATER


def test_too_late_is_too_late() -> None:
    """What is approved past its time is not issued, but expires; also where nobody had looked before."""
    past = NOW + dt.timedelta(hours=23, minutes=30)
    late = yes(meta={"creationTimestamp": "2026-06-02T11:20:00Z"})
    status = status_of(decide_grant(seen(waiting(), late), moment(past)))
    assert status.closure is not None
    assert (status.phase, status.closure.reason) == (Phase.EXPIRED, "ApprovalTimedOut")
    assert "when it had 0 of 1 approvals" in status.closure.message
    first_look = decide_grant(seen(None, late), moment(past))
    assert first_look.release is None
    assert status_of(first_look).phase is Phase.EXPIRED


@pytest.mark.parametrize("is_there", [False, True], ids=["no pilot", "its limit is reached"])
def test_nobody_waits_for_ever_for_anything_else(is_there: bool) -> None:
    """A grant that waits for something else than people expires too, and goes with its retention."""
    case = seen(policy=stage(approvals={"grant": {"within": "2h"}}), active_grants=5000)
    until = NOW + dt.timedelta(hours=1)
    if not is_there:
        case, until = replace(case, pilot=None, stage=None), NOW + dt.timedelta(hours=23)
    waits = decide_grant(case, moment())
    assert waits.recheck_at == until
    told = replace(case, grant=grant(status=encode(status_of(waits))))
    before = decide_grant(told, moment(until - dt.timedelta(seconds=1)))
    assert before.prove is None
    ended = decide_grant(told, moment(until))
    assert ended.recheck_at is None
    status = status_of(ended)
    assert status.closure is not None
    assert (status.phase, status.closure.reason) == (Phase.EXPIRED, "WaitedTooLong")
    assert ("LimitReached" if is_there else "PilotNotFound") in status.closure.message


def test_a_no_ends_what_waits_for_a_limit_too() -> None:
    """Even where the stage asks nobody."""
    full = stage(limits={"activeGrants": 1})
    said = yes(decision="Deny", reason="not today")
    status = status_of(decide_grant(seen(None, said, policy=full, active_grants=1), moment()))
    assert status.decision is not None
    assert (status.phase, status.decision.message) == (Phase.DENIED, "denied by bob: not today")
    assert [one.uid for one in status.decision.approvals] == ["uid-of-yes"]


@pytest.mark.parametrize(
    "when, phase",
    [
        ("grant.spec.duration == '15m'", Phase.AWAITING_APPROVAL),
        ("grant.spec.duration == '1m'", Phase.ACTIVE),
    ],
)
def test_the_stage_says_when(when: str, phase: Phase) -> None:
    """Where its `when` is false, nobody is asked."""
    policy = stage(approvals={"grant": {"required": 1, "when": when}})
    assert status_of(decide_grant(seen(policy=policy), moment())).phase is phase


class TestTold:
    """What the Approval is told."""

    CASES: ClassVar[Mapping[str, tuple[Approval, TaskGrant | None, str, str]]] = {
        "enough with others": (
            yes(digest=digest_of(grant(), ready_pilot(), ASKS_TWO)),
            waiting(yes(digest=digest_of(grant(), ready_pilot(), ASKS_TWO)), policy=ASKS_TWO),
            "Waiting",
            "it counts; 1 of 2 people have approved",
        ),
        "nobody asks yet": (yes(), grant(), "Waiting", "asks nobody yet"),
        "a no": (yes(decision="Deny"), waiting(), "Waiting", "it denies TaskGrant team-a/task-1"),
        "its own": (yes(approver="ana"), waiting(), "Refused", "you asked for this grant yourself"),
        "another digest": (
            yes(digest="sha256:" + "1" * 64),
            waiting(),
            "Void",
            "its digest is not the grant's",
        ),
        "it was issued on it": (
            yes(),
            grant(status=encode(status_of(decide_grant(seen(waiting(), yes()), moment())))),
            "Counted",
            "TaskGrant team-a/task-1 was issued on it",
        ),
        "it was denied on it": (
            yes(decision="Deny"),
            grant(status=encode(status_of(decide_grant(seen(waiting(), yes(decision="Deny")), moment())))),
            "Counted",
            "was denied on it",
        ),
        "it came too late": (
            yes("late"),
            grant(status=encode(status_of(decide_grant(seen(waiting(), yes()), moment())))),
            "Void",
            "is Active and was decided without it; to end it set its spec.revoke",
        ),
        "what it names is gone": (
            yes(),
            None,
            "Void",
            "there is no TaskGrant 'task-1' with UID uid-of-task-1",
        ),
    }

    @pytest.mark.parametrize("said, subject, reason, says", CASES.values(), ids=CASES)
    def test_it_is_told(self, said: Approval, subject: TaskGrant | None, reason: str, says: str) -> None:
        """Ready says what became of it; dead ones are Stalled, told and recorded; then all is quiet."""
        case = ApprovalSeen(said, subject, ASKS)
        plan = decide_approval(case, moment(LATER))
        status = told(plan)
        ready = status.conditions[0]
        assert (ready.reason, ready.status) == (reason, "True" if reason == "Counted" else "False")
        assert says in ready.message
        is_dead = reason in {"Void", "Refused"}
        assert (len(status.conditions) == 2, len(plan.notices) == 1) == (is_dead, is_dead)
        assert (status.used, bool(status.used_by)) == (reason == "Counted", reason == "Counted")
        kinds = [entry.type.name for entry in plan.entries]
        heard = reason in {"Counted", "Waiting"} and says != "asks nobody yet"
        used = ["APPROVAL_USED"] if reason == "Counted" else []
        assert kinds == (["APPROVAL_VOID"] if is_dead else ["APPROVAL_GIVEN", *used] if heard else [])
        same = msgspec.structs.replace(said, status=status)
        assert decide_approval(replace(case, approval=same), moment(LATER)).status is None

    def test_what_is_not_seen_yet_is_waited_for(self) -> None:
        """The watch of approvals may be ahead of the grants'."""
        plan = decide_approval(ApprovalSeen(yes(), None), moment())
        assert told(plan).conditions[0].reason == "Waiting"
        made_at = yes().metadata.creation_timestamp
        assert made_at is not None
        assert plan.recheck_at == made_at + SEEN_WITHIN
        assert told(decide_approval(ApprovalSeen(yes(), None), moment(LATER))).conditions[0].reason == "Void"

    def test_used_is_final(self) -> None:
        """Its grant may be gone: what was counted stays counted."""
        used = yes(status={"used": True, "usedBy": "TaskGrant team-a/task-1"})
        assert decide_approval(ApprovalSeen(used, None), moment(LATER)) == Plan()

    def test_other_purposes_wait(self) -> None:
        """This version counts no promotions."""
        said = approval(of=ready_pilot(), purpose="Promotion")
        status = told(decide_approval(ApprovalSeen(said, ready_pilot()), moment()))
        assert status.conditions[0].message == "this version counts no approvals of purpose Promotion yet"
