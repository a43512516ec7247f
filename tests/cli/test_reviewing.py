from __future__ import annotations

import pytest

from pilot_identity.cli.reading import as_pilot
from pilot_identity.core.resources.digests import pilot_digest
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run
from tests.cli.test_approving import tells


@pytest.fixture
def digest(api: FakeApi) -> str:
    """A pilot that must be reviewed, by its stage and after an emergency; returns its digest."""
    role = {"roleRef": {"kind": "ClusterRole", "name": "view"}, "namespace": "live"}
    pilot = things.pilot(
        delegation={"to": ["sorter"], "maxDepth": 2},
        material={"model": "m-1", "dataSources": ["mail"]},
        exceptions=[{"rule": "no-night", "reason": "month end", "until": "2026-12-31T00:00:00Z"}],
    )
    pilot["spec"]["access"].append({"name": "pods", "dataClass": "internal", "kubernetes": role})
    emergency = {"name": "alarm", "uid": "uid-alarm", "requestedBy": "eve@example.org"}
    owed = {"grants": [emergency], "since": things.at(hours=-1), "dueAt": things.at(hours=3, seconds=30)}
    pilot["status"] |= {
        "stageSince": things.at(days=-20),
        "reviewDue": things.at(days=10, hours=1),
        "reviewOwed": owed,
        "reviewed": {"name": "r", "uid": "u", "approver": "rita@example.org", "at": things.at(days=-20)},
    }
    stage = things.stage()
    stage["spec"]["review"] = {"every": "720h", "grace": "24h"}
    api.put("pilotidentities", pilot)
    api.put("stagepolicies", stage)
    tells(api, "Counted", "PilotIdentity team-a/triage was reviewed by it")
    return pilot_digest(as_pilot(pilot))


def test_a_review_is_bound_to_what_was_shown(api: FakeApi, run: Run, digest: str) -> None:
    """By digest and UID, as the person whom the API server knows, with reason and ticket."""
    result = run("review", "triage", "--reason", "looked at it", "--ticket", "AUD-3", stdin="y\n")
    assert result.exit_code == 0, result.output
    assert "reviewed pilot triage" in result.stdout
    (made,) = api.of("approvals")
    assert made["spec"] == {
        "subject": {"kind": "PilotIdentity", "name": "triage", "uid": "uid-triage"},
        "purpose": "Review",
        "digest": digest,
        "decision": "Approve",
        "reason": "looked at it",
        "approver": "alice@example.org",
        "approverGroups": ["team-a", "system:authenticated"],
        "ticket": "AUD-3",
    }


def test_a_person_sees_what_they_review(api: FakeApi, run: Run, digest: str) -> None:
    """All that the pilot may ever reach, who answers for it, who looked when, what happened meanwhile."""
    shown = run("review", "triage", "-r", "fine", stdin="n\n").stderr
    for told in (
        "team-a/triage, in stage sandbox",
        "Sorts tickets",
        "bea@example.org (business), tom@example.org (technical)",
        "tickets=read,comment@projects/** at https://tickets.example.org (data internal, sensitivity high)",
        "pods: Kubernetes ClusterRole view in namespace live (data internal, sensitivity low)",
        "to sorter, at most 2 deep",
        "m-1, mail",
        "from rule no-night until 2026-12-31 00:00:00Z: month end",
        "20d ago, by rita@example.org",
        "in 10d",
        "grant alarm by eve@example.org, issued without approvals",
        "in 3h",
        digest,
        "nothing was said",
    ):
        assert told in shown, told
    assert api.of("approvals") == []


def test_a_pilot_that_nobody_reviewed_says_since_when_it_is_there(
    api: FakeApi, run: Run, digest: str
) -> None:
    """Its entry into the stage is what the time counts from."""
    del digest
    del api.of("pilotidentities")[0]["status"]["reviewed"]
    shown = run("review", "triage", "-r", "fine", stdin="n\n").stderr
    assert "never; it entered its stage 20d ago" in shown


@pytest.mark.parametrize("answer", ["n\n", "\n", ""])
def test_without_a_yes_nothing_is_said(api: FakeApi, run: Run, digest: str, answer: str) -> None:
    """Also where nobody is there to answer; `--yes` is one."""
    del digest
    assert run("review", "triage", "--reason", "fine", stdin=answer).exit_code == 1
    assert api.of("approvals") == []
    assert run("review", "triage", "--reason", "fine", "--yes").exit_code == 0


def test_a_review_that_does_not_count_fails(api: FakeApi, run: Run, digest: str) -> None:
    """With the operator's own sentence."""
    del digest
    api.scripts.get()
    tells(api, "Refused", "you asked for an emergency grant yourself; ask somebody else to review")
    result = run("review", "triage", "--reason", "fine", "--yes")
    assert result.exit_code == 1
    assert "does not count: you asked for an emergency grant yourself" in result.stderr
    assert "reviewed pilot" not in result.stdout


def test_a_review_may_be_left_without_waiting(api: FakeApi, run: Run, digest: str) -> None:
    """Its name is told, for a script."""
    del digest
    api.scripts.get()
    result = run("review", "triage", "--reason", "fine", "--yes", "--no-wait", "-o", "name")
    assert (result.exit_code, result.stdout) == (0, "approval.pilotidentity.dev/triage-abcde\n")


def test_what_nobody_wants_reviewed_is_not(api: FakeApi, run: Run) -> None:
    """Such a word would be void: it is not even said."""
    api.put("pilotidentities", things.pilot())
    api.put("stagepolicies", things.stage())
    result = run("review", "triage", "--reason", "fine", "--yes")
    assert result.exit_code == 1
    assert "pilot triage owes no review, and its stage sandbox wants none" in result.stderr
    assert run("review", "nobody", "--reason", "fine", "--yes").exit_code == 1
    assert run("review", "triage").exit_code == 2, "a reason is owed"
    assert api.of("approvals") == []


def test_who_may_not_see_stages_can_review(api: FakeApi, run: Run, digest: str) -> None:
    """Whether the stage wants it is then the operator's to say."""
    api.forbidden = "GET .*/stagepolicies"
    result = run("review", "triage", "--reason", "fine", "--yes")
    assert result.exit_code == 0, result.output
    assert api.of("approvals")[0]["spec"]["digest"] == digest
