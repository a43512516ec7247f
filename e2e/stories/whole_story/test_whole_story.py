"""A task told end to end, from the log alone; and what becomes of a log that somebody edits."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE
from e2e.patience import until
from e2e.person import Person
from e2e.stories.access_seen.agent import PODS, Agent, call, make_pods
from e2e.stories.access_seen.conftest import Doors
from e2e.stories.cast import APPROVER, Cast, policy
from e2e.stories.cli.terminal import Said, Terminal
from e2e.stories.play import Play
from pilot_identity.control.pilot_use import step_of
from pilot_identity.core.audit.groups import NAME_PREFIX
from pilot_identity.core.resources.timestamps import format_timestamp

LATE_S = 90.0
"""The API server's word comes in batches, and a token is believed for some seconds after its account."""
GUARD = "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/pilot-identity-audit-log"
PARENTS = {"grant": {"required": 1, "when": "!has(grant.spec.parent)"}}


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Iterator[Cast]:
    """People, in a sandbox that asks one of them for what is not delegated."""
    with policy(play.admin, play, approvals=PARENTS):
        yield Cast(play, cluster)


class Auditor:
    """One with a laptop, who may read the log's ConfigMaps."""

    def __init__(self, cluster: Cluster) -> None:
        self._terminal = Terminal(cluster, Person(cluster, NAMESPACE, "audrey@example.org", "system:masters"))

    def run(self, *arguments: str) -> Said:
        """Run a verb of `kubectl pilot audit`."""
        return self._terminal.run("audit", *arguments)

    def chain(self, grant: str) -> dict[str, Any]:
        """The story of a grant, as data."""
        told: dict[str, Any] = self._terminal.does("audit", "chain", grant, "-o", "json").json
        return told


@pytest.fixture
def auditor(cluster: Cluster, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Auditor:
    """With a memory of her own."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return Auditor(cluster)


def told(story: dict[str, Any], section: str) -> list[str]:
    """Every line of a section."""
    return [line for each in story["sections"].get(section, []) for line in each["told"]]


def indices(story: dict[str, Any], section: str) -> list[int]:
    """The entries of a section."""
    return [each["index"] for each in story["sections"].get(section, [])]


@dataclass(frozen=True, slots=True)
class Task:
    """A task that was worked on.

    Attributes:
        grant, child: as they were when they became active.
        reported: the entries of what its agent reported.
    """

    name: str
    grant: Document
    child: Document
    reported: list[int]


@pytest.fixture
def task(play: Play, cast: Cast, cluster: Cluster, doors: Doors, tmp_path: Path) -> Task:
    """An agent was allowed, read two Pods, called three tools and delegated once; it is not done yet."""
    play.ready_pilot("triage", access=[manifests.tool(), PODS], delegation={"to": ["helper"], "maxDepth": 1})
    play.ready_pilot("helper")
    make_pods(play, "web-0", "web-1")
    bob = cast.enter("bob", APPROVER)
    play.ask("incident", "triage", access=[{"name": "tickets"}, {"name": "pods"}])
    cast.say(bob, cast.awaiting("incident"), ticket="CHG-7")
    grant = play.phase("incident", "Active")
    agent = Agent(play, cluster, "incident", tmp_path)
    for pod in ("web-0", "web-1"):
        assert agent.kubectl("get", "pod", pod).returncode == 0
    answers = [doors.report(call(number), token=agent.token) for number in range(3)]
    assert [status for status, _ in answers] == [201] * 3
    play.ask("lookup", "helper", parent="incident", duration="5m")
    child = play.phase("lookup", "Active")
    assert doors.report(call(9), token=Agent(play, cluster, "lookup", tmp_path).token)[0] == 201
    return Task(f"{play.namespace}/incident", grant, child, [answer["index"] for _, answer in answers])


def end(play: Play) -> None:
    """The task is done: what was issued is withdrawn, and that is shown."""
    play.admin.patch(play.grants("incident"), {"spec": {"completed": True}})
    play.phase("incident", "Completed", seconds=LATE_S)
    play.phase("lookup", "Revoked", "Completed", seconds=LATE_S)


def used(play: Play) -> Document:
    """Wait until the statuses tell of all use, by the pilots' as well; returns the grant's usage."""

    def summed() -> Document | None:
        usage: Document = play.status(play.grants("incident")).get("usage", {})
        return usage if usage.get("chained") and usage.get("requests", 0) >= 2 else None

    def pilots_used() -> bool:
        return all(
            play.status(play.pilots(pilot)).get("lastUsed") == step(grant)
            for pilot, grant in (("triage", "incident"), ("helper", "lookup"))
        )

    def step(grant: str) -> str:
        exact = datetime.fromisoformat(play.status(play.grants(grant))["usage"]["lastUsed"])
        return format_timestamp(step_of(exact))

    usage = until(summed, "the grant's status tells of its own use and of its child's", seconds=LATE_S)
    assert (usage["activities"], usage["chained"]["activities"]) == (3, 1)
    until(pilots_used, "the pilots' statuses tell when they were used", seconds=LATE_S)
    return usage


def test_the_whole_story_of_a_task(play: Play, auditor: Auditor, task: Task, cluster: Cluster) -> None:
    """Asked, approved, used, delegated, ended, proven: all in one tree, which the log alone can draw."""
    story = auditor.chain(task.name)
    assert (story["standing"], "not ended yet" in story["leftOpen"]) == ("open", True)
    end(play)
    usage = used(play)
    story = auditor.chain(task.name)
    assert story["use"]["own"]["requests"] == usage["requests"]
    assert (story["uid"], story["standing"]) == (task.grant["metadata"]["uid"], "ended")
    assert "asked for pilot triage" in told(story, "request")[0]
    assert any(line.startswith("allowed (") for line in told(story, "decision"))
    assert "bob@example.org approved it: looked at it (CHG-7)" in told(story, "approvals")
    assert indices(story, "credentials") == [task.grant["status"]["credential"]["auditIndex"]]
    assert any("to ClusterRole view" in line for line in told(story, "kubernetes access"))
    seen = told(story, "seen by the API server")
    assert any(line.startswith(f"get pods in {play.namespace} (web-0") for line in seen)
    assert indices(story, "activity") == task.reported
    assert story["use"]["own"]["activities"] == {"tool_call": 3}
    assert story["use"]["chained"]["activities"] == {"tool_call": 1}
    (delegated,) = story["children"]
    assert (delegated["uid"], delegated["standing"]) == (task.child["metadata"]["uid"], "ended")
    assert told(story, "end")[0].startswith("Completed")
    assert told(story, "proof")[-1].startswith("shown: ")
    assert "other entries" not in story["sections"]

    drawn = auditor.run("chain", task.name)
    assert drawn.code == 0, drawn.err
    print(drawn.out)
    for index in [*indices(story, "seen by the API server"), *task.reported]:
        assert f" {index}  " in drawn.out
    replayed = auditor.run("replay", task.name)
    assert (replayed.code, "agrees" in replayed.out) == (0, True), replayed
    assert auditor.run("verify").code == 0
    _edit(play, cluster, auditor, task.reported[1])
    assert auditor.run("verify").code == 0


def _edit(play: Play, cluster: Cluster, auditor: Auditor, index: int) -> None:
    """Change one byte of an entry, as far as one must go for it, and put it back."""
    group = _group_of(play, index)
    name = str(group["metadata"]["name"])
    path = places.core("configmaps", NAMESPACE, name)
    entries = group["data"]["entries"]
    assert entries.count("call_1") == 1
    forged = {**group, "data": {**group["data"], "entries": entries.replace("call_1", "call_7")}}

    replaced = cluster.run("kubectl", "replace", "-f", "-", stdin=json.dumps(forged), check=False)
    assert "field is immutable" in replaced.stderr
    deleted = cluster.run("kubectl", "delete", "configmap", name, "-n", NAMESPACE, check=False)
    assert "only pilot-identity writes ConfigMaps audit-" in deleted.stderr
    guard = _bare(play.admin.get(GUARD))
    play.admin.delete(GUARD)
    try:
        # An admin who breaks the glass, or whoever holds etcd.
        until(lambda: _is_gone(play, cluster, name, path), "nothing guards the log")
        play.admin.create(places.core("configmaps", NAMESPACE), _bare(forged))
        verdict = auditor.run("verify", "-o", "json")
        (finding,) = verdict.json["findings"]
        assert (verdict.code, finding["flaw"], finding["where"]) == (1, "entry-changed", name)
        assert finding["index"] == index
        chained = auditor.run("chain", f"{play.namespace}/incident")
        assert (chained.code, chained.out) == (1, "")
        play.admin.delete(path)
        play.admin.create(places.core("configmaps", NAMESPACE), _bare(group))
    finally:
        play.admin.create(GUARD.rpartition("/")[0], guard)


def _group_of(play: Play, index: int) -> Document:
    """The group that has an entry."""
    items: list[Document] = play.admin.get(places.core("configmaps", NAMESPACE))["items"]
    groups = [item for item in items if item["metadata"]["name"].startswith(NAME_PREFIX)]
    first = [int(item["metadata"]["name"].removeprefix(NAME_PREFIX)) for item in groups]
    at = max(number for number in first if number <= index)
    return {"apiVersion": "v1", "kind": "ConfigMap", **groups[first.index(at)]}


def _is_gone(play: Play, cluster: Cluster, name: str, path: str) -> bool:
    """Whether a ConfigMap of the log could be deleted: a policy that is gone still holds for a moment."""
    cluster.run("kubectl", "delete", "configmap", name, "-n", NAMESPACE, check=False)
    return play.admin.find(path) is None


def _bare(document: Document) -> Document:
    """An object as it was made, without what the API server added."""
    metadata = {
        key: document["metadata"][key]
        for key in ("name", "namespace", "labels")
        if key in document["metadata"]
    }
    return {**document, "metadata": metadata}
