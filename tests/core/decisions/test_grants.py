"""What a grant is told: each check's objection, what is issued, and how it ends."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.decisions.announced import (
    ABANDON_AFTER,
    Announced,
    Announcement,
    Holding,
    announcement_of,
)
from pilot_identity.core.decisions.credentials import CLAIMS
from pilot_identity.core.decisions.grants.checks.table import checks_of, renewal_checks_of
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW, RETENTION, GrantSeen, Request, request_of
from pilot_identity.core.decisions.hindrance import Hindrance, Obstacle
from pilot_identity.core.decisions.plan import DeleteCredential, Outcome, Plan, Revoke
from pilot_identity.core.resources import Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import RoleRef
from pilot_identity.core.resources.task_grant import Binding, TaskGrantStatus
from tests.core.builders import (
    CA_END,
    NOW,
    TOOL,
    active_grant,
    credential_status,
    deleting,
    grant,
    moment,
    ready,
    ready_pilot,
    stage,
    tool,
)

KUBERNETES: Mapping[str, Any] = {
    "name": "cluster",
    "dataClass": "synthetic",
    "kubernetes": {"roleRef": {"kind": "Role", "name": "view"}},
}
BINDING = Binding("team-a", "pilot-grant-uidoftask1-cluster", RoleRef("Role", "view"))


def seen(
    asked: TaskGrant | None = None,
    pilot: PilotIdentity | None = None,
    policy: StagePolicy | None = None,
    **facts: Any,
) -> GrantSeen:
    """A grant that would be issued, but for what the case changes."""
    known = {"ca_not_after": CA_END, **facts}
    return GrantSeen(asked or grant(), pilot or ready_pilot(), policy or stage(), **known)


def announced(holding: Holding, *, issuance: int = 1, age: dt.timedelta = ABANDON_AFTER) -> Announced:
    """An announcement that the status does not know."""
    entry = RecordedEntry(
        "uid-of-task-1/credential/1", "t", "TaskGrant team-a/task-1", "uid-of-task-1", NOW - age, {}
    )
    uid = "uid-of-secret" if holding in {Holding.ANNOUNCED, Holding.PREVIOUS} else ""
    return Announced(entry, 7, Announcement("announced", issuance), holding, uid)


def status_of(plan: Plan, outcome: Outcome | None = None) -> TaskGrantStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(outcome or Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def announcement(plan: Plan) -> Entry:
    """The entry that a plan's release is announced by."""
    assert plan.release is not None
    return plan.release.announce("ab" * 32)


def released(plan: Plan) -> Announced:
    """What a pass leaves that carried out a plan up to its Secret, and was killed before its status."""
    entry = announcement(plan)
    recorded = decode_entry(encode_entry(entry, "log"))
    announcement_in = announcement_of(recorded)
    assert announcement_in is not None
    return Announced(recorded, 9, announcement_in, Holding.ANNOUNCED, "uid-of-secret")


def settled_status(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes, as it is read back: in the precision of its JSON."""
    kept = grant(status=encode(status_of(plan))).status
    assert isinstance(kept, TaskGrantStatus)
    return kept


DENIED: Mapping[str, tuple[GrantSeen, str, str, str]] = {
    "the stage is frozen": (
        seen(policy=stage(freeze=True)),
        "stage-not-frozen",
        "StageFrozen",
        "stage 'sandbox' is frozen; ask again once its spec.freeze is false",
    ),
    "the pilot is suspended": (
        seen(pilot=ready_pilot(suspend=True)),
        "pilot-not-suspended",
        "PilotSuspended",
        "pilot 'triage' is suspended; ask again once it is not",
    ),
    "it brings a certificate request": (
        seen(grant(certificateRequest="-----BEGIN")),
        "certificate-request-sound",
        "CertificateRequestInvalid",
        (
            "spec.certificateRequest: certificate request must be one PEM block CERTIFICATE REQUEST and "
            "nothing else"
        ),
    ),
    "it is an emergency in a stage that has none": (
        seen(grant(emergency=True)),
        "emergency-allowed",
        "EmergencyNotAllowed",
        "leave spec.emergency out",
    ),
    "it is a long emergency": (
        seen(grant(emergency=True, duration="15m1s"), policy=stage(emergency={})),
        "emergency-short",
        "DurationTooLong",
        "allows an emergency grant 15m; asked for 15m1s",
    ),
    "a service account asks that is not the workload": (
        seen(grant(requestedBy="system:serviceaccount:team-a:pilot-workload-other")),
        "requester-is-workload",
        "RequesterNotWorkload",
        "ask as system:serviceaccount:team-a:pilot-workload-triage, or as a person",
    ),
    "a service account of the workload's name asks in another namespace": (
        seen(grant(requestedBy="system:serviceaccount:team-b:pilot-workload-triage")),
        "requester-is-workload",
        "RequesterNotWorkload",
        "is not the workload of pilot 'triage'",
    ),
    "a service account asks that only a refused edit names": (
        seen(
            grant(requestedBy="system:serviceaccount:team-a:stolen"),
            ready_pilot(workload={"serviceAccountName": "stolen"}),
        ),
        "requester-is-workload",
        "RequesterNotWorkload",
        "is not the workload of pilot 'triage'",
    ),
    "it names access that the pilot has not": (
        seen(grant(access=[{"name": "tickets"}, {"name": "wiki"}])),
        "access-known",
        "AccessUnknown",
        "pilot 'triage' has no access 'wiki'; it has: tickets",
    ),
    "it names access of a pilot that has none": (
        seen(pilot=ready_pilot(access=[])),
        "access-known",
        "AccessUnknown",
        "it has: none",
    ),
    "it asks for a role that no admin allowed": (
        seen(
            grant(access=[{"name": "cluster"}]),
            ready_pilot(access=[KUBERNETES]),
            hindrances=(Hindrance(BINDING, Obstacle.NOT_BINDABLE),),
        ),
        "roles-bindable",
        "RoleNotBindable",
        "Role 'view' cannot be bound in namespace 'team-a': the operator may bind only what an admin allows",
    ),
    "it asks for a role that is not there": (
        seen(hindrances=(Hindrance(BINDING, Obstacle.ROLE_MISSING),)),
        "roles-bindable",
        "RoleNotBindable",
        "there is no such role; make it",
    ),
    "it asks for access in a namespace that is not there": (
        seen(hindrances=(Hindrance(BINDING, Obstacle.NAMESPACE_MISSING),)),
        "roles-bindable",
        "RoleNotBindable",
        "there is no such namespace; make it, then ask again",
    ),
    "the name of its binding is someone else's": (
        seen(hindrances=(Hindrance(BINDING, Obstacle.NAME_TAKEN),)),
        "roles-bindable",
        "KubernetesNameTaken",
        "has the name 'pilot-grant-uidoftask1-cluster' or 'pilot-grant-uidoftask1'; it is never overwritten",
    ),
    "it asks for an action too many": (
        seen(grant(access=[{"name": "tickets", "actions": ["read", "delete"]}])),
        "actions-within-pilot",
        "ActionOutsidePilot",
        "allows the actions read, comment; asked for read, delete",
    ),
    "it asks for every action": (
        seen(grant(access=[{"name": "tickets", "actions": ["*"]}])),
        "actions-within-pilot",
        "ActionOutsidePilot",
        "asked for *",
    ),
    "it asks for a resource beyond": (
        seen(grant(access=[{"name": "tickets", "resources": ["projects/payroll/1"]}])),
        "resources-within-pilot",
        "ResourceOutsidePilot",
        "allows the resources projects/billing/**; asked for projects/payroll/1",
    ),
    "it asks for everything": (
        seen(grant(access=[{"name": "tickets", "resources": ["**"]}])),
        "resources-within-pilot",
        "ResourceOutsidePilot",
        "asked for **",
    ),
    "it names an audience of no entry": (
        seen(grant(audience=["https://wiki.example.org"])),
        "audience-within-pilot",
        "AudienceOutsidePilot",
        "audience 'https://wiki.example.org'; spec.audience can only narrow",
    ),
    "it names an audience of an entry that it does not ask for": (
        seen(
            grant(audience=["https://wiki.example.org"]),
            ready_pilot(access=[TOOL, tool("wiki", audience="https://wiki.example.org")]),
        ),
        "audience-within-pilot",
        "AudienceOutsidePilot",
        "no access that the grant names has audience",
    ),
    "its data class left the stage": (
        seen(policy=stage(dataClasses=["public"])),
        "data-classes-of-stage",
        "DataClassOutsideStage",
        "access 'tickets' has data class 'synthetic', which stage 'sandbox' does not allow",
    ),
    "it is to last too long": (
        seen(grant(duration="1h0m1s")),
        "duration-within-stage",
        "DurationTooLong",
        "stage 'sandbox' allows a task 1h; asked for 1h1s",
    ),
    "a rule does not hold": (
        seen(policy=stage(rules=[{"name": "r", "expression": "false", "message": "not on Sundays"}])),
        "rule/r",
        "RuleRefused",
        "rule 'r' of stage 'sandbox': not on Sundays",
    ),
    "the second rule does not hold": (
        seen(
            policy=stage(
                rules=[
                    {"name": "first", "expression": "true"},
                    {"name": "second", "expression": "grant.spec.duration == '1m'"},
                ]
            )
        ),
        "rule/second",
        "RuleRefused",
        "rule 'second' of stage 'sandbox': grant.spec.duration == '1m'",
    ),
    "a rule gives no answer": (
        seen(policy=stage(rules=[{"name": "r", "expression": "grant.spec.parent == 'x'"}])),
        "rule/r",
        "RuleFailed",
        'gave no answer, so no: Key not found in map : "parent"',
    ),
    "nobody can tell whether it needs approvals": (
        seen(policy=stage(approvals={"grant": {"required": 1, "when": "grant.spec.parent == 'x'"}})),
        "approvals",
        "RuleFailed",
        "approvals.grant.when of stage 'sandbox' gave no answer, so no",
    ),
}


@pytest.mark.parametrize("case, check, reason, message", DENIED.values(), ids=DENIED)
def test_a_grant_is_denied_for_good_because(case: GrantSeen, check: str, reason: str, message: str) -> None:
    """The phase is final, the reason documented, the message says what to change, the log has every check."""
    plan = decide_grant(case, moment())
    status = status_of(plan)
    assert plan.release is None
    assert (status.phase, status.credential) == (Phase.DENIED, None)
    assert status.decision is not None
    assert (status.decision.allowed, status.decision.reason, status.decision.audit_index) == (
        False,
        reason,
        9,
    )
    assert message in status.decision.message
    assert [result.name for result in status.decision.checks if not result.passed] == [check]
    assert case.stage is not None
    names = [one.name for one in checks_of(case.stage)]
    assert [result.name for result in status.decision.checks] == names[: len(status.decision.checks)]
    assert [(one.type, one.status, one.reason) for one in status.conditions] == [
        ("Ready", "False", reason),
        ("Stalled", "True", reason),
    ]
    entry = plan.entries[-1]
    assert (entry.id, entry.type.value) == ("uid-of-task-1/denied", "dev.pilotidentity.grant.denied.v1")
    assert entry.data["decision"]["reason"] == reason
    assert [notice.type for notice in plan.notices] == ["Warning"]


WAITS: Mapping[str, tuple[GrantSeen, str, str]] = {
    "its pilot is not there": (
        replace(seen(), pilot=None, stage=None),
        "PilotNotFound",
        "no PilotIdentity 'triage' in namespace 'team-a'",
    ),
    "its pilot is being deleted": (
        seen(pilot=ready_pilot(meta=deleting())),
        "PilotNotFound",
        "no PilotIdentity",
    ),
    "its pilot has no stage yet": (
        replace(seen(), stage=None),
        "PilotNotReady",
        "is not ready (IdentityIssued",
    ),
    "its stage has no keys yet": (seen(ca_not_after=None), "PilotNotReady", "is not ready"),
    "its pilot was refused": (
        seen(pilot=ready_pilot(status={"conditions": [ready("UnknownStage", is_true=False)]})),
        "PilotNotReady",
        "is not ready (UnknownStage: )",
    ),
    "its pilot was never looked at": (
        seen(pilot=ready_pilot(status={"conditions": []})),
        "PilotNotReady",
        "it has no identity yet",
    ),
    "its pilot was edited and not accepted yet": (
        seen(pilot=ready_pilot(meta={"generation": 2}, status={"observedGeneration": 1})),
        "PilotNotReady",
        "is not ready",
    ),
    "the stage asks for approvals": (
        seen(policy=stage(approvals={"grant": {"required": 2}})),
        "ApprovalRequired",
        "asks for the approval of 2 people who did not ask for the grant; nobody has approved yet",
    ),
    "the review of an emergency is overdue": (
        seen(
            pilot=ready_pilot(
                status={
                    "digest": "sha256:ab",
                    "reviewOwed": {
                        "grants": [{"name": "alarm", "uid": "u", "requestedBy": "eve"}],
                        "since": "2026-06-01T09:00:00Z",
                        "dueAt": "2026-06-01T12:00:00Z",
                    },
                }
            )
        ),
        "ReviewOverdue",
        "the review of emergency grants alarm was due at 2026-06-01T12:00:00",
    ),
    "its review is not recorded yet": (
        seen(grant(emergency=True), policy=stage(emergency={})),
        "ReviewUnrecorded",
        "waits until the status of PilotIdentity team-a/triage says that a review is owed for it",
    ),
    "the pilot has as many as it may": (
        seen(policy=stage(limits={"activeGrants": 3}), active_grants=3),
        "LimitReached",
        "has 3 active grants, stage 'sandbox' allows 3",
    ),
    "the pilot asked too often": (
        seen(policy=stage(limits={"requestsPerMinute": 2}), issued_lately=2, oldest_issue=NOW),
        "LimitReached",
        "was issued 2 grants within a minute",
    ),
}


PASSING = {"LimitReached", "ReviewUnrecorded"}
"""A limit, and what passes within moments: the log is not told that a check said so."""


@pytest.mark.parametrize("case, reason, message", WAITS.values(), ids=WAITS)
def test_a_grant_waits_because(case: GrantSeen, reason: str, message: str) -> None:
    """Nothing is issued and nothing is final; the condition says what it waits for."""
    plan = decide_grant(case, moment())
    status = status_of(plan)
    assert (plan.release, status.decision) == (None, None)
    kinds = [entry.type for entry in plan.entries]
    assert EntryType.GRANT_REQUESTED in kinds
    was_checked = isinstance(request_of(case, NOW), Request) and reason not in PASSING
    assert (EntryType.GRANT_DECIDED in kinds) is was_checked
    expected = Phase.AWAITING_APPROVAL if reason == "ApprovalRequired" else Phase.PENDING
    assert status.phase is expected
    (condition,) = status.conditions
    assert (condition.status, condition.reason) == ("False", reason)
    assert message in condition.message


def test_a_grant_that_asked_too_often_is_looked_at_when_the_minute_is_over() -> None:
    """The recheck is when the oldest of the last minute leaves it."""
    first = NOW - dt.timedelta(seconds=50)
    case = seen(policy=stage(limits={"requestsPerMinute": 1}), issued_lately=1, oldest_issue=first)
    assert decide_grant(case, moment()).recheck_at == first + RATE_WINDOW


ALLOWED: Mapping[str, GrantSeen] = {
    "nothing is against it": seen(),
    "it narrows the actions": seen(grant(access=[{"name": "tickets", "actions": ["read"]}])),
    "it narrows the resources": seen(
        grant(access=[{"name": "tickets", "resources": ["projects/billing/7"]}])
    ),
    "it names an audience that it has": seen(grant(audience=["https://tickets.example.org"])),
    "it lasts as long as the stage allows": seen(grant(duration="1h")),
    "one fewer than the limit is active": seen(policy=stage(limits={"activeGrants": 3}), active_grants=2),
    "one fewer than the rate was asked": seen(
        policy=stage(limits={"requestsPerMinute": 2}), issued_lately=1, oldest_issue=NOW
    ),
    "an announced credential was abandoned before": seen(grant(status={"issuances": 1})),
    "it waited for an approval that is not needed any more": seen(
        grant(status={"phase": "AwaitingApproval"})
    ),
}


@pytest.mark.parametrize("case", ALLOWED.values(), ids=ALLOWED)
def test_a_grant_is_issued_where(case: GrantSeen) -> None:
    """Every check passed, the entry names the credential, and all of it ends with the task."""
    plan = decide_grant(case, moment())
    status, entry = status_of(plan), announcement(plan)
    assert plan.release is not None
    assert (plan.release.secret, plan.release.replaces) == ("task-1", "")
    assert status.phase is Phase.ACTIVE
    assert status.decision is not None
    assert case.stage is not None
    passed = [(one.name, True) for one in checks_of(case.stage)]
    assert [(one.name, one.passed) for one in status.decision.checks] == passed
    ends = NOW.replace(microsecond=0) + case.grant.spec.duration
    assert status.expires_at == ends
    order = plan.release.order
    assert all(end <= ends for end in (order.not_after, *(token.expires_at for token in order.tokens)))
    assert entry.data["credential"]["id"] == order.id == "nonce-1"
    assert status.credential is not None
    assert (status.credential.audit_index, status.credential.secret_uid) == (9, "uid-of-secret")
    number = case.grant.status.issuances + 1
    assert status.issuances == status.credential.issuance == number
    assert entry.id == f"uid-of-task-1/credential/{number}"
    assert plan.recheck_at is not None
    assert plan.recheck_at <= ends
    assert plan.hold is not case.grant.metadata.is_held


class TestAnnounced:
    """What the log announced and the status does not know is settled before anything else is decided."""

    UNRELEASED: Mapping[str, tuple[GrantSeen, int]] = {
        "before its first credential": (seen(announced=announced(Holding.NOTHING)), 1),
        "at a renewal that left the Secret as it was": (
            seen(active_grant(), announced=announced(Holding.PREVIOUS, issuance=2)),
            2,
        ),
        "at a renewal whose Secret someone deleted": (
            seen(active_grant(), announced=announced(Holding.NOTHING, issuance=2)),
            2,
        ),
        "where it would be denied now": (
            seen(policy=stage(freeze=True), announced=announced(Holding.NOTHING)),
            1,
        ),
        "where it would wait now": (seen(ca_not_after=None, announced=announced(Holding.NOTHING)), 1),
    }

    @pytest.mark.parametrize("case, number", UNRELEASED.values(), ids=UNRELEASED)
    def test_what_was_never_released_is_abandoned_in_a_pass_of_its_own(
        self, case: GrantSeen, number: int
    ) -> None:
        """The log says so, the number stays used, and nothing else happens before the next pass, now."""
        plan = decide_grant(case, moment())
        status = status_of(plan)
        entries = plan.entries
        assert [entry.id for entry in entries] == [f"uid-of-task-1/abandoned/{number}"]
        assert entries[0].data["abandoned"] == {"id": "announced", "issuance": number}
        assert status == msgspec.structs.replace(case.grant.status, issuances=number)
        assert plan == Plan(entries=entries, status=plan.status, recheck_at=NOW)

    @pytest.mark.parametrize("holding", [Holding.NOTHING, Holding.PREVIOUS])
    def test_what_another_leader_may_still_release_is_waited_for(self, holding: Holding) -> None:
        """Nothing is called abandoned before that; where the grant is to end, what is out is cut at once."""
        young = announced(holding, issuance=2, age=ABANDON_AFTER - dt.timedelta(seconds=1))
        settled_at = NOW + dt.timedelta(seconds=1)
        assert decide_grant(seen(active_grant(), announced=young), moment()) == Plan(recheck_at=settled_at)
        ending = decide_grant(seen(active_grant(completed=True), announced=young), moment())
        assert ending.prove is not None
        assert ending.prove.conclude(()) == Plan(recheck_at=settled_at)
        assert [type(one) for one in ending.withdraw] == [Revoke, DeleteCredential]

    def test_the_pass_after_an_abandonment_issues_under_another_number(self) -> None:
        """Numbers are never used twice, and the entry of abandonment comes first."""
        asked = grant()
        told = decide_grant(seen(asked, announced=announced(Holding.NOTHING)), moment())
        after = msgspec.structs.replace(asked, status=status_of(told))
        plan = decide_grant(seen(after), moment(number=2))
        assert EntryType.CREDENTIAL_ABANDONED not in {entry.type for entry in plan.entries}
        assert announcement(plan).id == "uid-of-task-1/credential/2"
        assert plan.release is not None
        assert plan.release.order.id == "nonce-2"
        assert status_of(plan).issuances == 2

    def test_what_was_released_first_is_adopted(self) -> None:
        """The status says what the killed pass would have; nothing is recorded or released again."""
        issued, later = decide_grant(seen(), moment()), NOW + dt.timedelta(seconds=30)
        plan = decide_grant(seen(announced=released(issued)), moment(later, 2))
        status, wanted = status_of(plan, Outcome()), settled_status(issued)
        assert msgspec.structs.replace(status, conditions=wanted.conditions) == wanted
        assert [(one.type, one.status, one.reason) for one in status.conditions] == [
            ("Ready", "True", "Issued")
        ]
        assert [notice.reason for notice in plan.notices] == ["Issued"]
        assert plan == Plan(status=plan.status, notices=plan.notices, recheck_at=later)

    def test_what_was_released_in_a_renewal_is_adopted(self) -> None:
        """The credential is the new one; the task's end and its decision stay as they were."""
        standing = active_grant()
        renewed = decide_grant(seen(standing), moment(NOW + dt.timedelta(minutes=2)))
        case = seen(standing, announced=released(renewed))
        plan = decide_grant(case, moment(NOW + dt.timedelta(minutes=2), 2))
        status = status_of(plan, Outcome())
        assert status.credential == settled_status(renewed).credential
        assert (status.issuances, status.phase) == (2, Phase.ACTIVE)
        assert (status.expires_at, status.decision) == (
            standing.status.expires_at,
            standing.status.decision,
        )
        assert (plan.entries, plan.release, plan.withdraw) == ((), None, ())

    def test_a_grant_whose_secrets_name_is_taken_is_denied_for_good(self) -> None:
        """It was allowed and announced; found foreign, it is abandoned, denied, and told what to change."""
        plan = decide_grant(seen(announced=announced(Holding.FOREIGN)), moment())
        status = status_of(plan)
        assert (plan.release, plan.withdraw, plan.recheck_at) == (None, (), NOW + RETENTION)
        assert (status.phase, status.credential) == (Phase.DENIED, None)
        assert status.decision is not None
        assert (status.decision.allowed, status.decision.reason, status.decision.audit_index) == (
            False,
            "SecretNameTaken",
            9,
        )
        assert "a Secret 'task-1' exists that is not this grant's; it is never overwritten" in (
            status.decision.message
        )
        assert "spec.secretName" in status.decision.message
        assert [(one.type, one.status, one.reason) for one in status.conditions] == [
            ("Ready", "False", "SecretNameTaken"),
            ("Stalled", "True", "SecretNameTaken"),
        ]
        assert [entry.id for entry in plan.entries] == ["uid-of-task-1/abandoned/1", "uid-of-task-1/denied"]
        assert plan.entries[0].data["secretHolds"] == Holding.FOREIGN.value
        assert plan.entries[1].data["decision"]["reason"] == "SecretNameTaken"
        assert [notice.type for notice in plan.notices] == ["Warning"]

    def test_an_active_grant_whose_secrets_place_was_taken_lapses(self) -> None:
        """It is abandoned in the log, told once, and the condition says why; it stays active to its end."""
        standing = active_grant()
        plan = decide_grant(seen(standing, announced=announced(Holding.FOREIGN, issuance=2)), moment())
        status = status_of(plan)
        assert (plan.release, plan.withdraw, plan.recheck_at) == (None, (), standing.status.expires_at)
        assert [entry.id for entry in plan.entries] == ["uid-of-task-1/abandoned/2"]
        assert (status.phase, status.issuances, status.credential) == (
            Phase.ACTIVE,
            2,
            standing.status.credential,
        )
        (condition,) = status.conditions
        assert (condition.status, condition.reason) == ("False", "SecretNameTaken")
        assert condition.message.startswith("not renewed: a Secret 'task-1' exists")
        assert [notice.type for notice in plan.notices] == ["Warning"]

    def test_a_grant_whose_secrets_place_was_taken_is_not_tried_again(self) -> None:
        """However long its renewal is due; it ends on time as any other."""
        displaced = active_grant(
            status={"conditions": [ready("SecretNameTaken", is_true=False)], "issuances": 2}
        )
        ends = displaced.status.expires_at
        assert ends is not None
        assert decide_grant(seen(displaced), moment(NOW + dt.timedelta(minutes=9))) == Plan(recheck_at=ends)
        ending = decide_grant(seen(displaced), moment(ends)).prove
        assert ending is not None
        assert status_of(ending.conclude(())).phase is Phase.EXPIRED


def test_credentials_never_outlive_the_stages_authority() -> None:
    """A CA that ends soon ends what it signs."""
    plan = decide_grant(seen(ca_not_after=NOW + dt.timedelta(minutes=2)), moment())
    assert plan.release is not None
    ends = [plan.release.order.not_after, *(token.expires_at for token in plan.release.order.tokens)]
    assert max(ends) <= NOW + dt.timedelta(minutes=2)


def test_each_audience_gets_a_token_of_its_own() -> None:
    """Tokens are named after their entries where there are several, and say what they allow."""
    wiki = tool("wiki", audience="https://wiki.example.org", actions=["*"])
    asked = grant(access=[{"name": "wiki", "actions": ["edit"]}, {"name": "tickets"}])
    plan = decide_grant(seen(asked, ready_pilot(access=[TOOL, wiki])), moment())
    assert plan.release is not None
    tokens = {token.file: token for token in plan.release.order.tokens}
    assert {file: token.audience for file, token in tokens.items()} == {
        "wiki.jwt": "https://wiki.example.org",
        "tickets.jwt": "https://tickets.example.org",
    }
    assert len({token.token_id for token in tokens.values()}) == 2
    (detail,) = tokens["wiki.jwt"].claims["authorization_details"]
    assert (detail["identifier"], detail["actions"], detail["locations"]) == (
        "wiki",
        ["edit"],
        ["https://wiki.example.org"],
    )
    claims = tokens["wiki.jwt"].claims[CLAIMS]
    assert (claims["stage"], claims["task"], claims["grant"]["uid"]) == (
        "sandbox",
        "TICKET-42",
        "uid-of-task-1",
    )


def test_an_audience_narrows_the_tokens() -> None:
    """Only the named audience gets a token."""
    wiki = tool("wiki", audience="https://wiki.example.org")
    asked = grant(access=[{"name": "wiki"}, {"name": "tickets"}], audience=["https://wiki.example.org"])
    plan = decide_grant(seen(asked, ready_pilot(access=[TOOL, wiki])), moment())
    assert plan.release is not None
    assert [(token.file, token.audience) for token in plan.release.order.tokens] == [
        ("token.jwt", "https://wiki.example.org")
    ]


class TestRenewal:
    """A long task renews short credentials."""

    due = NOW + dt.timedelta(minutes=2)

    def test_nothing_happens_before_it_is_due(self) -> None:
        """The plan only says when to look again."""
        assert decide_grant(seen(active_grant()), moment()) == Plan(
            recheck_at=dt.datetime(2026, 6, 1, 12, 1, 0, 250_000, tzinfo=dt.UTC)
        )

    def test_a_due_credential_is_replaced_within_the_task(self) -> None:
        """The next number, in place of exactly the one before, and no later than the task's end."""
        plan = decide_grant(seen(active_grant()), moment(self.due))
        assert plan.release is not None
        assert plan.release.replaces == "credential-1"
        assert announcement(plan).id == "uid-of-task-1/credential/2"
        status = status_of(plan)
        assert status.issuances == 2
        assert status.expires_at is not None
        assert plan.release.order.not_after <= status.expires_at == active_grant().status.expires_at
        assert status.phase is Phase.ACTIVE

    def test_what_lasts_to_the_end_is_not_renewed(self) -> None:
        """A credential that lapses with the task needs no other."""
        ends = "2026-06-01T12:10:00.250Z"
        asked = active_grant(status={"credential": credential_status(renewAt=ends, notAfter=ends)})
        assert decide_grant(seen(asked), moment(self.due)).release is None

    LAPSES: Mapping[str, tuple[GrantSeen, str]] = {
        "its pilot is not ready": (
            seen(active_grant(), ready_pilot(meta={"generation": 2}, status={"observedGeneration": 1})),
            "PilotNotReady",
        ),
        "its access was taken from the pilot": (
            seen(active_grant(), ready_pilot(access=[tool("wiki")])),
            "AccessUnknown",
        ),
        "its actions were taken from the pilot": (
            seen(
                active_grant(access=[{"name": "tickets", "actions": ["comment"]}]),
                ready_pilot(access=[tool("tickets", actions=["read"])]),
            ),
            "ActionOutsidePilot",
        ),
        "its stage got rules": (
            seen(active_grant(), policy=stage(rules=[{"name": "r", "expression": "false"}])),
            "RuleRefused",
        ),
        "its stage lost its keys": (seen(active_grant(), ca_not_after=None), "PilotNotReady"),
    }

    @pytest.mark.parametrize("case, reason", LAPSES.values(), ids=LAPSES)
    def test_what_would_not_be_granted_now_lapses(self, case: GrantSeen, reason: str) -> None:
        """Nothing is renewed; what is out ends by itself, and the condition says why."""
        plan = decide_grant(case, moment(self.due))
        assert plan.release is None
        assert plan.withdraw == ()
        status = status_of(plan)
        assert (status.phase, status.conditions[0].reason) == (Phase.ACTIVE, reason)
        assert status.conditions[0].message.startswith("not renewed: ")
        assert plan.recheck_at == status.expires_at

    def test_limits_and_approvals_are_for_the_start(self) -> None:
        """A running task is not stopped by a limit that came later."""
        policy = stage(rules=[{"name": "short", "expression": "true"}])
        at_start, on_renewal = checks_of(policy), renewal_checks_of(policy)
        assert {one.name for one in at_start} - {one.name for one in on_renewal} >= {
            "emergencies-reviewed",
            "not-denied",
            "approvals",
            "active-grants-limit",
            "request-rate-limit",
            "review-recorded",
        }
        assert "rule/short" in {one.name for one in on_renewal}


def test_an_active_grant_without_a_credential_is_a_contradiction() -> None:
    """An exception means that nothing could be decided."""
    broken = active_grant()
    status = msgspec.structs.replace(broken.status, credential=None)
    with pytest.raises(ValueError, match=re.escape("an active grant has a credential and an end")):
        decide_grant(seen(msgspec.structs.replace(broken, status=status)), moment())
