import pytest

from pilot_identity.cli.reading import as_grant, as_pilot, as_stage
from pilot_identity.core.decisions.grants.approving import digest_of
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run


@pytest.fixture
def digest(api: FakeApi) -> str:
    """A grant waits for two approvals; returns the digest that they must name."""
    pilot, stage = things.pilot(), things.stage()
    grant = things.grant("task", "AwaitingApproval", spec={"emergency": True})
    digest = digest_of(as_grant(grant), as_pilot(pilot), as_stage(stage))
    grant["status"]["approval"] = {
        "digest": digest,
        "required": 2,
        "approvedBy": ["bea@example.org"],
        "expiresAt": things.at(hours=1),
    }
    api.put("pilotidentities", pilot)
    api.put("stagepolicies", stage)
    api.put("taskgrants", grant)
    tells(api, "Waiting", "it counts; 1 of 2 people have approved")
    return digest


def tells(api: FakeApi, reason: str, message: str) -> None:
    """What the operator will say of the next approval."""
    condition = {"type": "Ready", "status": "False", "reason": reason, "message": message}
    made = {
        "metadata": {"name": "task-abcde", "namespace": "team-a", "uid": "u"},
        "spec": {
            "subject": {"kind": "TaskGrant", "name": "task", "uid": things.UID},
            "purpose": "Grant",
            "digest": "d",
            "decision": "Approve",
            "reason": "r",
        },
        "status": {"conditions": [condition]},
    }
    api.scripts.put({"type": "MODIFIED", "object": made})


@pytest.mark.parametrize("verb, decision", [("approve", "Approve"), ("deny", "Deny")])
def test_a_word_is_bound_to_what_was_shown(
    api: FakeApi, run: Run, digest: str, verb: str, decision: str
) -> None:
    """By digest and UID, as the person whom the API server knows, with reason and ticket."""
    result = run(verb, "task", "--reason", "needed for the audit", "--ticket", "SEC-7", stdin="y\n")
    assert result.exit_code == 0, result.output
    (made,) = api.of("approvals")
    assert made["spec"] == {
        "subject": {"kind": "TaskGrant", "name": "task", "uid": things.UID},
        "purpose": "Grant",
        "digest": digest,
        "decision": decision,
        "reason": "needed for the audit",
        "approver": "alice@example.org",
        "approverGroups": ["team-a", "system:authenticated"],
        "ticket": "SEC-7",
    }


@pytest.mark.parametrize("reason", ["Refused", "Void"])
def test_a_word_that_does_not_count_fails(api: FakeApi, run: Run, digest: str, reason: str) -> None:
    """Else the approver walks away and the requester waits; the operator's sentence says why."""
    del digest
    api.scripts.get()
    tells(api, reason, "you asked for this grant yourself")
    result = run("approve", "task", "--reason", "fine", "--yes")
    assert result.exit_code == 1
    assert "does not count: you asked for this grant yourself" in result.stderr
    assert "approved" not in result.stdout


def test_a_word_may_be_left_without_waiting(api: FakeApi, run: Run, digest: str) -> None:
    """Also where the operator is not there to hear it; else that is told, with its own code."""
    del digest
    api.scripts.get()
    assert run("approve", "task", "--reason", "fine", "--yes", "--timeout", "1s").exit_code == 3
    api.objects = {key: body for key, body in api.objects.items() if key[0] != "approvals"}
    result = run("approve", "task", "--reason", "fine", "--yes", "--no-wait", "-o", "name")
    assert (result.exit_code, result.stdout) == (0, "approval.pilotidentity.dev/task-abcde\n")


def test_a_person_sees_what_they_approve(api: FakeApi, run: Run, digest: str) -> None:
    """Who asked, for what task, with which access in full, for how long, who else approved."""
    shown = run("approve", "task", "-r", "fine", stdin="n\n").stderr
    for told in (
        "EMERGENCY",
        "alice@example.org",
        "TASK-1: Sort the morning's tickets",
        "15m",
        "tickets=read@projects/** at https://tickets.example.org (data internal, sensitivity high)",
        "tom@example.org (technical)",
        "1 of 2 (bea@example.org)",
        digest,
    ):
        assert told in shown, told
    assert api.of("approvals") == []


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_said(api: FakeApi, run: Run, digest: str, answer: str) -> None:
    """Also where nobody is there to answer."""
    del digest
    result = run("approve", "task", "--reason", "fine", stdin=answer)
    assert result.exit_code == 1
    assert api.of("approvals") == []
    assert run("approve", "task", "--reason", "fine", "--yes").exit_code == 0


def test_what_changed_under_the_approvers_eyes_is_not_approved(api: FakeApi, run: Run, digest: str) -> None:
    """The digest that the operator asks for is not that of what would be shown."""
    del digest
    api.put("pilotidentities", things.pilot(stage="sandbox", material={"model": "another"}))
    result = run("approve", "task", "--reason", "fine", "--yes")
    assert result.exit_code == 1
    assert "just changed" in result.stderr
    assert api.of("approvals") == []


def test_who_may_not_see_stages_can_approve_and_is_told(api: FakeApi, run: Run, digest: str) -> None:
    """Stages are cluster-scoped; an approver's rights may end at the namespace."""
    api.forbidden = "GET .*/stagepolicies"
    result = run("approve", "task", "--reason", "fine", "--yes")
    assert result.exit_code == 0
    assert "the digest is the operator's word" in result.stderr
    assert api.of("approvals")[0]["spec"]["digest"] == digest


def test_a_word_about_another_version_is_shown_as_a_change(api: FakeApi, run: Run, digest: str) -> None:
    """So that the next person looks twice."""
    del digest
    api.put(
        "approvals",
        {
            "metadata": {"name": "before", "namespace": "team-a"},
            "spec": {
                "subject": {"kind": "TaskGrant", "name": "task", "uid": things.UID},
                "purpose": "Grant",
                "digest": "sha256:" + "0" * 64,
                "decision": "Approve",
                "approver": "bea@example.org",
                "reason": "looked fine",
            },
        },
    )
    shown = run("approve", "task", "--reason", "fine", "--yes").stderr
    assert "CHANGED" in shown
    assert "since bea@example.org said Approve" in shown


def test_a_description_cannot_repaint_the_screen(api: FakeApi, run: Run, digest: str) -> None:
    """What the requester wrote is shown with its control characters made visible."""
    del digest
    grant = api.of("taskgrants")[0]
    grant["spec"]["task"]["description"] = "harmless\x1b[2K\r\u202eegnahc"
    api.forbidden = "GET .*/stagepolicies"
    shown = run("approve", "task", "--reason", "fine", stdin="n\n").output
    assert "\x1b" not in shown
    assert "\u202e" not in shown
    assert r"harmless\x1b[2K\r\u202eegnahc" in shown


@pytest.mark.parametrize("phase", ["Active", "Denied", "Pending"])
def test_only_what_waits_can_be_approved(api: FakeApi, run: Run, phase: str) -> None:
    """Anything else is told as it is."""
    api.put("taskgrants", things.grant("task", phase))
    result = run("approve", "task", "--reason", "fine", "--yes")
    assert result.exit_code == 1
    assert f"it is {phase}" in result.stderr
    assert run("approve", "nowhere", "--reason", "fine", "--yes").exit_code == 1
    assert run("approve", "task").exit_code == 2, "a reason is owed"


def test_kubernetes_access_is_shown_as_the_role_that_is_bound(api: FakeApi, run: Run, digest: str) -> None:
    """With its namespace, and the parents of a child grant."""
    del digest
    role = {"roleRef": {"kind": "ClusterRole", "name": "view"}, "namespace": "live"}
    pilot = things.pilot(access=[{"name": "pods", "dataClass": "internal", "kubernetes": role}])
    grant = api.of("taskgrants")[0]
    grant["spec"] |= {"access": [{"name": "pods"}], "parent": "middle", "audience": ["https://a.example.org"]}
    grant["status"]["chain"] = ["top", "middle"]
    api.put("pilotidentities", pilot)
    api.forbidden = "GET .*/stagepolicies"
    shown = run("approve", "task", "--reason", "fine", stdin="n\n").stderr
    assert "pods: Kubernetes ClusterRole view in namespace live (data internal, sensitivity low)" in shown
    assert "top > middle" in shown
    api.forbidden = "GET .*/(stagepolicies|pilotidentities)"
    assert "you may not see it" in run("approve", "task", "--reason", "fine", stdin="n\n").stderr
