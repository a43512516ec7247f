"""Exceptions: what lifts a rule, what does not, when it is over, and what the log has of it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.approvals import SEEN_WITHIN, ApprovalSeen, decide_approval
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.pilots import decide_pilot
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.approval import ApprovalStatus
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.pilot_identity import (
    ExceptionState,
    ExceptionStatus,
    PilotIdentityStatus,
)
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from pilot_identity.core.resources.timestamps import format_timestamp
from tests.core.builders import (
    CA_END,
    NOW,
    active_grant,
    approval,
    credential_status,
    deleting,
    grant,
    moment,
    ready_pilot,
    stage,
    tool,
)

HOUR = dt.timedelta(hours=1)
RULE = {
    "name": "short",
    "expression": "duration(grant.spec.duration) <= duration('10m')",
    "message": "be brief",
}
OTHER = {"name": "other", "expression": "true"}
GROUPS = ["risk"]
STAGE = stage(rules=[RULE, OTHER], approvals={"groups": GROUPS})
UNTIL = (NOW + HOUR).replace(microsecond=0)
WISH = {"rule": "short", "reason": "month end", "until": format_timestamp(UNTIL), "requestedBy": "tessa"}
INDEX = 41
"""Of the last entry that a plan commits."""


def there(*wishes: Mapping[str, Any], now: dt.datetime = NOW, **fields: Any) -> PilotIdentity:
    """A pilot that asks for exceptions, with an SVID that is renewed long after `now`."""
    renew = {
        "renewAt": format_timestamp(now + 1000 * HOUR),
        "notAfter": format_timestamp(now + 2000 * HOUR),
    }
    asks = [dict(wish) for wish in wishes or (WISH,)]
    known = ready_pilot(
        exceptions=asks,
        status={"credential": credential_status(**renew), **fields.pop("status", {})},
        **fields,
    )
    return msgspec.structs.replace(
        known, status=msgspec.structs.replace(known.status, digest=pilot_digest(known))
    )


def look(
    pilot: PilotIdentity, now: dt.datetime, *approvals: Approval, policy: StagePolicy = STAGE
) -> tuple[PilotIdentity, list[Plan]]:
    """Look at a pilot until there is nothing more to be done; returns it, and what was done."""
    plans: list[Plan] = []
    for number in range(20):
        seen = PilotSeen(
            pilot,
            {"sandbox": policy},
            ca_not_after={"sandbox": CA_END + 9000 * HOUR},
            bundle_sequences={"sandbox": 1},
            reviews=approvals,
        )
        plan = decide_pilot(seen, moment(now, number))
        if plan.status is None:
            return pilot, [*plans, plan]
        plans.append(plan)
        status = plan.status(Outcome(INDEX, "uid-of-secret"))
        assert isinstance(status, PilotIdentityStatus)
        pilot = msgspec.structs.replace(pilot, status=status)
    raise AssertionError("it never comes to rest")


def told(plans: list[Plan]) -> list[Entry]:
    """What the log is told of exceptions."""
    return [entry for plan in plans for entry in plan.entries if "exception" in entry.type]


def only(pilot: PilotIdentity) -> ExceptionStatus:
    """What the status says of the one exception."""
    (known,) = pilot.status.exceptions
    return known


def word(
    pilot: PilotIdentity, who: str = "rita", at: dt.datetime = NOW, *, meta: Any = None, **spec: Any
) -> Approval:
    """Somebody's word on the pilot's first exception, as it asks for it."""
    made = {"creationTimestamp": format_timestamp(at.replace(microsecond=0)), **(meta or {})}
    said = {
        "purpose": "Exception",
        "approver": who,
        "approverGroups": GROUPS,
        "digest": pilot.status.exceptions[0].digest,
        **spec,
    }
    return approval(f"word-{who}-{said.get('decision', '')}", of=pilot, meta=made, **said)


def opened(*wishes: Mapping[str, Any], policy: StagePolicy = STAGE, **fields: Any) -> PilotIdentity:
    """A pilot whose first exception rita approved."""
    asked, _ = look(there(*wishes, **fields), NOW, policy=policy)
    pilot, _ = look(asked, NOW, word(asked), policy=policy)
    assert pilot.status.exceptions[0].state is ExceptionState.IN_FORCE
    return pilot


def of_grant(
    pilot: PilotIdentity, now: dt.datetime = NOW, policy: StagePolicy = STAGE, asked: TaskGrant | None = None
) -> TaskGrantStatus:
    """What becomes of a grant that the rule refuses."""
    wanted = asked or grant(meta={"creationTimestamp": format_timestamp(now)})
    plan = decide_grant(GrantSeen(wanted, pilot, policy, ca_not_after=CA_END), moment(now))
    assert plan.status is not None
    status = plan.status(Outcome(INDEX, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def is_lifted(pilot: PilotIdentity, now: dt.datetime = NOW, policy: StagePolicy = STAGE) -> bool:
    """Whether a grant that the rule refuses is issued."""
    return of_grant(pilot, now, policy).credential is not None


def tells(said: Approval, pilot: PilotIdentity, now: dt.datetime = NOW) -> tuple[str, str, Plan]:
    """What an approval is told: reason, message, and the plan."""
    plan = decide_approval(ApprovalSeen(said, pilot, STAGE), moment(now))
    assert plan.status is not None
    status = plan.status(Outcome(INDEX))
    assert isinstance(status, ApprovalStatus)
    return status.conditions[0].reason, status.conditions[0].message, plan


# What it takes.


def test_an_exception_that_nobody_approved_lifts_nothing_and_its_grants_wait() -> None:
    """Whoever asks reads what is waited for; without an exception the rule refuses for good."""
    pilot, plans = look(there(), NOW)
    known = only(pilot)
    assert (known.state, known.required, known.until) == (ExceptionState.WAITING, 1, UNTIL)
    assert known.message == "waits for approvals: 0 of 1"
    assert known.rule_text is not None
    assert known.rule_text.expression == RULE["expression"]
    assert told(plans) == []
    assert [notice.reason for plan in plans for notice in plan.notices] == ["ExceptionAsked"]
    for seen in (there(), pilot):
        status = of_grant(seen)
        assert (status.phase, status.conditions[0].reason) == ("Pending", "ExceptionAwaited")
        assert "be brief; waits until people approve the exception" in status.conditions[0].message
    refused = of_grant(ready_pilot())
    assert (refused.phase, refused.conditions[0].reason) == ("Denied", "RuleRefused")


def test_an_approved_exception_lifts_its_rule_until_it_ends() -> None:
    """The entry comes first; the decision says by what it passed; the grant ends with the exception."""
    asked, _ = look(there(), NOW)
    pilot, plans = look(asked, NOW, word(asked))
    known = only(pilot)
    assert (known.state, known.audit_index) == (ExceptionState.IN_FORCE, INDEX)
    (plan,) = [plan for plan in plans if told([plan])]
    assert [entry.type for entry in plan.entries] == [
        EntryType.PILOT_DEFINED,
        EntryType.APPROVAL_GIVEN,
        EntryType.EXCEPTION_OPENED,
    ]
    data = plan.entries[-1].data
    assert (data["requestedBy"], data["reason"], data["ruleText"]) == ("tessa", "month end", RULE)
    assert [one["approver"] for one in data["approvals"]] == ["rita"]
    assert (data["digest"], data["until"]) == (known.digest, format_timestamp(UNTIL))
    long = grant(duration="59m30s", meta={"creationTimestamp": format_timestamp(NOW)})
    late = UNTIL - dt.timedelta(minutes=20)
    assert of_grant(pilot, asked=long).expires_at == NOW.replace(microsecond=0) + dt.timedelta(seconds=3570)
    status = of_grant(
        pilot, late, asked=grant(duration="59m", meta={"creationTimestamp": format_timestamp(late)})
    )
    assert status.expires_at == UNTIL
    assert status.decision is not None
    (check,) = [check for check in status.decision.checks if check.name == "rule/short"]
    assert (check.passed, check.message) == (
        True,
        f"lifted by an exception until {format_timestamp(UNTIL)}, audit entry {INDEX}",
    )


def test_a_rule_that_holds_needs_no_exception() -> None:
    """Neither its end nor its remark touches a grant that the rule lets through."""
    short = grant(duration="10m", meta={"creationTimestamp": format_timestamp(NOW)})
    soon = {**WISH, "until": format_timestamp(NOW + dt.timedelta(minutes=2))}
    status = of_grant(opened(soon), asked=short)
    assert status.expires_at == NOW.replace(microsecond=0) + dt.timedelta(minutes=10)
    assert status.decision is not None
    assert not any(check.message for check in status.decision.checks)


def test_an_exception_lifts_no_other_rule() -> None:
    """Each rule is lifted by its own, and only by that."""
    both = stage(
        rules=[RULE, {**OTHER, "expression": "false", "message": "never"}], approvals={"groups": GROUPS}
    )
    status = of_grant(opened(policy=both), policy=both)
    assert (status.phase, status.conditions[0].message) == (
        "Denied",
        "rule 'other' of stage 'sandbox': never",
    )


def test_a_rule_without_an_answer_is_lifted_too() -> None:
    """It refuses as well, and people were shown its text."""
    asks = stage(rules=[{**RULE, "expression": "grant.spec.parent == 'x'"}], approvals={"groups": GROUPS})
    assert of_grant(ready_pilot(), policy=asks).conditions[0].reason == "RuleFailed"
    assert is_lifted(opened(policy=asks), policy=asks)


def test_as_many_people_must_approve_as_the_stage_says() -> None:
    """Each counts once; those who approved are told how many are missing; never none are enough."""
    two = stage(rules=[RULE], approvals={"groups": GROUPS, "exception": {"required": 2}})
    asked, _ = look(there(), NOW, policy=two)
    again = word(asked, meta={"uid": "another"})
    waits, plans = look(asked, NOW, word(asked), again, policy=two)
    assert only(waits).message == "waits for approvals: 1 of 2 (rita)"
    assert told(plans) == []
    pilot, _ = look(waits, NOW, word(asked), again, word(asked, "ralf"), policy=two)
    assert {one.approver for one in only(pilot).approvals} == {"rita", "ralf"}
    none = stage(rules=[RULE], approvals={"groups": GROUPS, "exception": {"required": 0}})
    assert only(look(there(), NOW, policy=none)[0]).required == 1


@pytest.mark.parametrize(
    "said, why",
    [
        pytest.param({"approver": "tessa"}, "you asked for this exception yourself", id="the requester"),
        pytest.param({"approver": "ana"}, "you own the pilot", id="the business owner"),
        pytest.param({"approver": "tom"}, "you own the pilot", id="the technical owner"),
        pytest.param({"approver": "system:serviceaccount:a:b"}, "is no person", id="a service account"),
        pytest.param({"approverGroups": ["sales"]}, "only these groups approve: risk", id="of no such group"),
        pytest.param(
            {"subject": {"kind": "PilotIdentity", "name": "other", "uid": "uid-of-triage"}},
            "name it so",
            id="under another name",
        ),
    ],
)
@pytest.mark.parametrize("decision", ["Approve", "Deny"])
def test_who_has_no_say_is_not_heard(said: dict[str, Any], why: str, decision: str) -> None:
    """Promise 3, for and against; each is told why."""
    asked, _ = look(there(), NOW)
    theirs = word(asked, decision=decision, **{"who": "x", **said} if "approver" not in said else said)
    pilot, plans = look(asked, NOW, theirs)
    assert only(pilot) == only(asked)
    assert told(plans) == []
    reason, message, _ = tells(theirs, asked)
    assert reason == "Refused"
    assert why in message


@pytest.mark.parametrize(
    "wish, why",
    [
        pytest.param({"rule": "none"}, "has no rule 'none'; its rules are: short, other", id="no such rule"),
        pytest.param({"requestedBy": ""}, "does not say who asks for it", id="of nobody"),
        pytest.param({"until": format_timestamp(NOW - HOUR)}, "is over", id="over before it began"),
        pytest.param(
            {"until": format_timestamp(NOW + 721 * HOUR)}, "allows an exception 720h", id="too long"
        ),
    ],
)
def test_what_could_never_be_in_force_is_refused(wish: dict[str, Any], why: str) -> None:
    """Nobody is asked, the message says what to change, and no approval helps, now or later."""
    asked, plans = look(there({**WISH, **wish}), NOW)
    assert only(asked).state is ExceptionState.REFUSED
    assert why in only(asked).message
    (notice,) = [notice for plan in plans for notice in plan.notices]
    assert (notice.type, notice.reason) == ("Warning", "ExceptionRefused")
    for now in (NOW, NOW + 3 * HOUR):
        pilot, more = look(asked, now, word(asked))
        assert only(pilot).state is ExceptionState.REFUSED
        assert told(more) == []
        assert of_grant(pilot, now).phase == "Denied"
    assert tells(word(asked), asked)[0] == "Void"


def test_nobody_uses_an_exception_that_he_approved() -> None:
    """Promise 3: not as requester, and not by way of a parent grant."""
    pilot = opened(delegation={"to": ["triage"], "maxDepth": 1})
    his = of_grant(pilot, asked=grant(requestedBy="rita", meta={"creationTimestamp": format_timestamp(NOW)}))
    assert his.phase == "Denied"
    assert "rita approved the exception from it" in his.conditions[0].message
    parent = active_grant(
        "parent", requestedBy="rita", duration="40m", status={"expiresAt": format_timestamp(UNTIL)}
    )
    child = grant(
        "child", parent="parent", requestedBy="ana", meta={"creationTimestamp": format_timestamp(NOW)}
    )
    seen = GrantSeen(child, pilot, STAGE, ca_not_after=CA_END, ancestors=(parent,), ancestor_pilots=(pilot,))
    plan = decide_grant(seen, moment())
    assert plan.status is not None
    status = plan.status(Outcome(INDEX, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    assert "rita approved the exception from it" in status.conditions[0].message


# How it ends.


def test_an_exception_ends_on_time() -> None:
    """The deadline is its own; the log says when and why; it is not asked for again."""
    pilot = opened()
    _, plans = look(pilot, NOW)
    assert plans[-1].recheck_at == UNTIL
    just_before = UNTIL - dt.timedelta(milliseconds=1)
    assert is_lifted(pilot, just_before)
    assert not is_lifted(pilot, UNTIL), "before anybody has looked at the pilot again"
    over, plans = look(pilot, UNTIL, word(pilot, "ralf", UNTIL))
    assert (only(over).state, only(over).message) == (
        ExceptionState.ENDED,
        f"its time was up at {format_timestamp(UNTIL)}",
    )
    (entry,) = told(plans)
    assert (entry.type, entry.data["wasInForce"], entry.data["openedBy"]) == (
        EntryType.EXCEPTION_ENDED,
        True,
        INDEX,
    )
    assert of_grant(over, UNTIL).phase == "Denied"
    assert told(look(over, UNTIL + HOUR, word(pilot))[1]) == []


CHANGES: Mapping[str, Callable[[PilotIdentity], tuple[PilotIdentity, StagePolicy]]] = {
    "the reason": lambda pilot: (_with(pilot, {**WISH, "reason": "another"}), STAGE),
    "the end, later": lambda pilot: (
        _with(pilot, {**WISH, "until": format_timestamp(UNTIL + HOUR)}),
        STAGE,
    ),
    "who asks": lambda pilot: (_with(pilot, {**WISH, "requestedBy": "ben"}), STAGE),
    "the rule's expression": lambda pilot: (
        pilot,
        stage(rules=[{**RULE, "expression": "false"}, OTHER], approvals={"groups": GROUPS}),
    ),
    "the groups that approve": lambda pilot: (pilot, stage(rules=[RULE, OTHER], approvals={"groups": ["x"]})),
    "how many must approve": lambda pilot: (
        pilot,
        stage(rules=[RULE, OTHER], approvals={"groups": GROUPS, "exception": {"required": 2}}),
    ),
    "what the pilot may reach": lambda pilot: (
        _changed(pilot, access=[tool("tickets", actions=["read", "comment", "delete"])]),
        STAGE,
    ),
    "who owns the pilot": lambda pilot: (
        _changed(pilot, owners={"business": "rita", "technical": "tom"}),
        STAGE,
    ),
    "the pilot itself, by a namesake": lambda pilot: (
        msgspec.structs.replace(pilot, metadata=msgspec.structs.replace(pilot.metadata, uid="another")),
        STAGE,
    ),
}


def _changed(pilot: PilotIdentity, **spec: Any) -> PilotIdentity:
    wishes = spec.pop("exceptions", [WISH])
    fresh = there(*wishes, **spec)
    return msgspec.structs.replace(pilot, spec=fresh.spec)


def _with(pilot: PilotIdentity, wish: Mapping[str, Any]) -> PilotIdentity:
    return _changed(pilot, exceptions=[wish])


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES.keys())
def test_whatever_changes_of_what_was_approved_ends_it(
    change: Callable[[PilotIdentity], tuple[PilotIdentity, StagePolicy]],
) -> None:
    """At once; it is asked for anew, and the old word is void, even if all is as it was."""
    before = opened()
    pilot, policy = change(before)
    assert not is_lifted(pilot, policy=policy), "before anybody has looked at the pilot again"
    after, plans = look(pilot, NOW + dt.timedelta(seconds=1), word(before), policy=policy)
    (entry,) = told(plans)
    assert (entry.type, entry.data["digest"]) == (EntryType.EXCEPTION_ENDED, only(before).digest)
    assert entry.data["wasInForce"] is True
    assert only(after).state is ExceptionState.WAITING
    assert only(after).digest != only(before).digest
    back, _ = look(
        msgspec.structs.replace(before, status=after.status), NOW + dt.timedelta(seconds=2), word(before)
    )
    assert only(back).state is ExceptionState.WAITING
    assert only(back).digest != only(before).digest
    assert not is_lifted(back)


def test_an_exception_that_is_taken_out_ends() -> None:
    """The status has none any more, and the log says why."""
    pilot = opened()
    after = msgspec.structs.replace(pilot, spec=msgspec.structs.replace(pilot.spec, exceptions=()))
    gone, plans = look(after, NOW)
    (entry,) = told(plans)
    assert entry.data["why"] == "it was taken out of spec.exceptions"
    assert gone.status.exceptions == ()
    assert of_grant(gone).phase == "Denied"


def test_one_denial_ends_it_for_good() -> None:
    """Before it is in force and after; who said so is told that it counted; approvals do not outweigh it."""
    asked, _ = look(there(), NOW)
    for pilot, was_in_force in ((asked, False), (opened(), True)):
        no = word(pilot, "ralf", decision="Deny")
        denied, plans = look(pilot, NOW, word(pilot), no)
        known = only(denied)
        assert (known.state, known.message) == (ExceptionState.DENIED, "denied by ralf: looked at it")
        (entry,) = told(plans)
        assert (entry.type, entry.data["wasInForce"]) == (EntryType.EXCEPTION_ENDED, was_in_force)
        assert of_grant(denied).phase == "Denied"
        assert only(look(denied, NOW, word(pilot, "rosa"))[0]).state is ExceptionState.DENIED
        assert tells(no, denied)[:2] == (
            "Counted",
            "the exception of PilotIdentity team-a/triage from rule 'short' ended on it",
        )


def test_exceptions_end_with_their_pilot() -> None:
    """The log has their end before the pilot's."""
    pilot = opened()
    going = msgspec.structs.replace(pilot, metadata=there(meta=deleting()).metadata)
    plan = decide_pilot(PilotSeen(going, {"sandbox": STAGE}), moment())
    assert [entry.type for entry in plan.entries] == [EntryType.EXCEPTION_ENDED, EntryType.PILOT_RETIRED]


def test_what_was_issued_under_an_exception_is_not_renewed_after_it() -> None:
    """As where a rule changes: that is told at once, and what is out lapses by itself."""
    pilot = opened()
    running = active_grant(duration="40m", status={"expiresAt": format_timestamp(UNTIL)})
    seen = GrantSeen(running, pilot, STAGE, ca_not_after=CA_END)
    assert decide_grant(seen, moment()).status is None
    withdrawn = msgspec.structs.replace(pilot, spec=msgspec.structs.replace(pilot.spec, exceptions=()))
    plan = decide_grant(GrantSeen(running, withdrawn, STAGE, ca_not_after=CA_END), moment())
    assert plan.release is None
    assert plan.status is not None
    status = plan.status(Outcome(INDEX))
    assert isinstance(status, TaskGrantStatus)
    assert (status.phase, status.conditions[0].reason) == ("Active", "RuleRefused")


# Approvals, and what a crash leaves.


def test_an_approval_follows_its_exception() -> None:
    """It waits, counts once with the entry that it was counted for, or is told what it is too late for."""
    asked, _ = look(there(), NOW)
    said = word(asked)
    assert tells(said, asked)[:2] == (
        "Waiting",
        f"it counts; 0 of 1 people have approved the exception of {asked.key} from rule 'short'",
    )
    pilot, _ = look(asked, NOW, said)
    reason, _, plan = tells(said, pilot)
    assert reason == "Counted"
    (used,) = [entry for entry in plan.entries if entry.type == EntryType.APPROVAL_USED]
    assert used.data["decidedBy"] == INDEX
    assert tells(word(asked, "ralf"), pilot)[:1] == ("Void",)
    stale = msgspec.structs.replace(said, status=ApprovalStatus(used=True))
    assert only(look(asked, NOW, stale)[0]).state is ExceptionState.WAITING, "each counts once"
    going = word(asked, meta=deleting())
    assert only(look(asked, NOW, going)[0]).state is ExceptionState.WAITING


def test_an_approval_that_is_seen_before_the_exception_is_asked_again_soon() -> None:
    """Then it is void: nobody can approve what the operator has not looked at."""
    asked, _ = look(there(), NOW)
    said = word(asked)
    early = decide_approval(ApprovalSeen(said, there(), STAGE), moment())
    made_at = said.metadata.creation_timestamp
    assert made_at is not None
    assert early.recheck_at == made_at + SEEN_WITHIN
    assert tells(said, there())[0] == "Waiting"
    assert tells(said, there(), NOW + SEEN_WITHIN)[0] == "Void"


def test_an_exception_is_not_a_stages() -> None:
    """Who names the stage is told what to name."""
    asked, _ = look(there(), NOW)
    subject = {"kind": "StagePolicy", "name": "sandbox", "uid": "uid-of-sandbox"}
    plan = decide_approval(ApprovalSeen(word(asked, subject=subject), STAGE), moment())
    assert plan.status is not None
    status = plan.status(Outcome(INDEX))
    assert isinstance(status, ApprovalStatus)
    assert status.conditions[0].reason == "Refused"
    assert "with its PilotIdentity as subject" in status.conditions[0].message


def test_a_review_lets_nobody_off() -> None:
    """What was said of something else is not taken for this, whatever its digest."""
    asked, _ = look(there(), NOW)
    assert only(look(asked, NOW, word(asked, purpose="Review"))[0]).state is ExceptionState.WAITING


def test_an_entry_is_told_once_however_often_the_status_is_lost() -> None:
    """Killed between entry and status, the same is decided again under the same id."""
    asked, _ = look(there(), NOW)
    seen = PilotSeen(
        asked,
        {"sandbox": STAGE},
        ca_not_after={"sandbox": CA_END},
        bundle_sequences={"sandbox": 1},
        reviews=(word(asked),),
    )
    first, second = (decide_pilot(seen, moment(NOW + n * HOUR / 4, n)) for n in (1, 2))
    assert [entry.id for entry in first.entries] == [entry.id for entry in second.entries]
    over = (decide_pilot(seen, moment(UNTIL + n * HOUR, n)) for n in (1, 2))
    assert len({entry.id for plan in over for entry in plan.entries}) == len(("defined", "ended"))


def test_one_is_opened_at_a_time_so_that_each_knows_its_entry() -> None:
    """The status names the group's last entry."""
    second = {**WISH, "rule": "other"}
    asked, _ = look(there(WISH, second), NOW)
    approvals = (word(asked), word(asked, "ralf", digest=asked.status.exceptions[1].digest))
    pilot, plans = look(asked, NOW, *approvals)
    assert [one.state for one in pilot.status.exceptions] == [ExceptionState.IN_FORCE] * 2
    groups = [plan.entries for plan in plans if told([plan])]
    assert [len(told([Plan(entries=group)])) for group in groups] == [1, 1]
    assert all(group[-1].type == EntryType.EXCEPTION_OPENED for group in groups)


def test_the_stage_in_which_it_was_approved_counts() -> None:
    """The same rule in another stage is another rule."""
    pilot = opened()
    pilot = msgspec.structs.replace(pilot, status=msgspec.structs.replace(pilot.status, stage="pilot"))
    other = stage("pilot", 10, rules=[RULE, OTHER], approvals={"groups": GROUPS}, dataClasses=["synthetic"])
    assert of_grant(pilot, policy=other).conditions[0].reason == "ExceptionAwaited"


@given(
    state=st.sampled_from(ExceptionState),
    change=st.sampled_from([None, *CHANGES.values()]),
    minutes=st.integers(-90, 90),
)
def test_nothing_but_an_approved_unchanged_and_current_exception_lifts_a_rule(
    state: ExceptionState,
    change: Callable[[PilotIdentity], tuple[PilotIdentity, StagePolicy]] | None,
    minutes: int,
) -> None:
    """Whatever a status may say: in force, of exactly this, and its end ahead."""
    pilot = opened()
    pilot = msgspec.structs.replace(
        pilot,
        status=msgspec.structs.replace(
            pilot.status, exceptions=(msgspec.structs.replace(only(pilot), state=state),)
        ),
    )
    pilot, policy = change(pilot) if change is not None else (pilot, STAGE)
    now = UNTIL + dt.timedelta(minutes=minutes)
    expected = state is ExceptionState.IN_FORCE and change is None and minutes < 0
    assert is_lifted(pilot, now, policy) is expected
