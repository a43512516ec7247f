"""Decisions made again from the log alone, after what they rested on has changed or is gone."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e import manifests, places
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, ROOT
from e2e.stories.cast import APPROVER, REQUESTER, Cast, change, policy
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

SECONDS = 90.0
PARTLY = 4
PROGRAM = (sys.executable, "-m", "pilot_identity.cli")
SHORT = {"name": "short", "expression": "duration(grant.spec.duration) <= duration('20m')"}
ASKS_ONE = {"grant": {"required": 1, "when": "grant.spec.task.id.startsWith('CHANGE-')"}}


@dataclass(frozen=True, slots=True)
class Auditor:
    """One with a laptop who may read the log, and keeps what was seen in `home`."""

    cluster: Cluster
    home: Path

    def replays(self, *arguments: str) -> tuple[int, list[Any]]:
        """Run `kubectl pilot audit replay`; returns its exit code and what it printed as JSON."""
        done = subprocess.run(
            [*PROGRAM, "audit", "replay", *arguments, "-o", "json", "-n", NAMESPACE],
            env=self.cluster.environment(self.cluster.kubeconfig)
            | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.stdout, done.stderr
        return done.returncode, [json.loads(line) for line in done.stdout.splitlines()]

    def agrees(self, grant: str) -> Sequence[Any]:
        """Replay a grant's decisions, which must all agree; returns them as they were and are."""
        code, told = self.replays(grant)
        assert code == 0, told
        assert {one["verdict"] for one in told} == {"agrees"}
        assert all(one["now"]["checks"] == one["then"]["checks"] for one in told)
        return told


@pytest.fixture
def auditor(cluster: Cluster, tmp_path: Path) -> Auditor:
    """Has seen nothing yet."""
    return Auditor(cluster, tmp_path)


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Cast:
    """People, where somebody signs their certificates."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    return Cast(play, cluster)


def test_every_decision_can_be_made_again_whatever_became_of_what_it_rested_on(
    play: Play, cast: Cast, auditor: Auditor
) -> None:
    """Allowed, denied by each kind of check, approved, delegated; then policy and pilot are others."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    with policy(play.admin, play, rules=[SHORT], approvals=ASKS_ONE):
        play.ready_pilot("triage", delegation={"maxDepth": 1})
        play.ask("allowed", "triage")
        play.ask("by-rule", "triage", duration="21m")
        play.ask("by-access", "triage", access=[{"name": "tickets", "actions": ["delete"]}])
        play.ask("by-duration", "triage", duration="9h")
        cast.ask(alice, "approved", "triage", task={"id": "CHANGE-7"})
        cast.say(bob, cast.awaiting("approved"))
        play.phase("allowed", "Active")
        play.ask("child", "triage", parent="allowed", duration="5m")
        for name in ("by-rule", "by-access", "by-duration"):
            play.phase(name, "Denied")
        for name in ("approved", "child"):
            play.phase(name, "Active")
        _turn_everything_round(play)

        assert _outcomes(auditor.agrees(f"{play.namespace}/allowed")) == ["allowed"]
        assert _outcomes(auditor.agrees(f"{play.namespace}/by-rule")) == ["RuleRefused"]
        assert _outcomes(auditor.agrees(f"{play.namespace}/by-access")) == ["ActionOutsidePilot"]
        assert _outcomes(auditor.agrees(f"{play.namespace}/by-duration")) == ["DurationTooLong"]
        assert _outcomes(auditor.agrees(f"{play.namespace}/child")) == ["allowed"]
        waited, issued = auditor.agrees(f"{play.namespace}/approved")
        assert waited["then"]["reason"] == "ApprovalRequired"
        assert [word["approver"] for word in issued["now"]["approvals"]] == [bob.name]
        assert auditor.agrees(str(issued["index"])) == [issued]

    code, (*others, counts) = auditor.replays("--all")
    assert counts["differ"] == 0, others
    assert code == (PARTLY if counts["cannot"] else 0)
    assert counts["agree"] >= len(("allowed", "rule", "access", "duration", "child", "waited", "issued"))
    # Of other stories: what no check decided, or what is too large for an entry.
    assert {one["verdict"] for one in others} <= {"cannot be replayed"}
    assert not [one for one in others if one["subject"].startswith(f"TaskGrant {play.namespace}/")]


def _turn_everything_round(play: Play) -> None:
    """A policy, a pilot and grants that are nothing of what was decided upon."""
    change(play.admin, play, rules=[], approvals={"grant": {"required": 2, "when": None}})
    access = [manifests.tool("invoices", manifests.OTHER_AUDIENCE)]
    play.admin.patch(play.pilots("triage"), {"spec": {"access": access, "purpose": "Something else"}})
    play.condition(play.pilots("triage"), "Ready", reason="IdentityIssued")
    for name in ("by-rule", "approved"):
        play.admin.delete(play.grants(name))
    for approval in play.admin.get(places.approvals(play.namespace))["items"]:
        play.admin.delete(places.approvals(play.namespace, approval["metadata"]["name"]))


def _outcomes(told: Sequence[Any]) -> list[str]:
    return ["allowed" if one["then"]["allowed"] else one["then"]["reason"] for one in told]


def test_each_step_is_in_the_log_with_who_took_it(play: Play, cast: Cast) -> None:
    """Asked, decided, approved, used; a pilot's definitions and suspension; and which operator worked."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    with policy(play.admin, play, approvals={"grant": {"required": 1}}):
        pilot = play.ready_pilot("triage")
        cast.ask(alice, "task", "triage", task={"id": "CHANGE-8"})
        said = cast.say(bob, cast.awaiting("task"))
        grant = play.phase("task", "Active")
        cast.told("task-bob", "Counted")
    play.admin.patch(play.pilots("triage"), {"spec": {"purpose": "Shows it in other words"}})
    play.condition(play.pilots("triage"), "Ready", reason="IdentityIssued")
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": True}})
    play.condition(play.pilots("triage"), "Ready", reason="Suspended")
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": False}})
    play.condition(play.pilots("triage"), "Ready", reason="IdentityIssued")
    play.phase("task", "Revoked")

    trail = play.trail()
    lines = trail.of(grant["metadata"]["uid"])
    assert [line.kind for line in lines] == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_DECIDED,
        EntryType.GRANT_APPROVED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_CLOSED,
    ]
    asked, decided, approved, issued, _ = lines
    assert asked.entry.data["requestedBy"] == alice.name
    assert asked.entry.data["spec"]["task"] == {"id": "CHANGE-8"}
    assert decided.entry.data["decision"]["reason"] == "ApprovalRequired"
    assert [one["approver"] for one in approved.entry.data["approvals"]] == [bob.name]
    assert approved.revision == issued.revision, "in one write"
    used = [line for line in trail.of(said["metadata"]["uid"]) if line.kind is EntryType.APPROVAL_USED]
    assert [line.entry.data["decidedBy"] for line in used] == [issued.index]

    kinds = trail.kinds(pilot["metadata"]["uid"])
    assert kinds.count(EntryType.PILOT_DEFINED) == len(("first", "reworded", "suspended", "resumed"))
    assert EntryType.PILOT_CHANGED not in kinds, "nothing material changed"
    assert kinds[-1] is EntryType.PILOT_RESUMED
    started = [line for line in trail if line.kind is EntryType.OPERATOR_STARTED]
    assert started
    assert {"identity", "version", "python"} <= started[0].entry.data.keys()
