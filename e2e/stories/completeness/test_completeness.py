"""Completeness: the log held against what is there, by an auditor and by the operator itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from e2e import manifests, places, roles
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, RELEASE, ROOT, Installation
from e2e.patience import until
from e2e.person import Person, bind
from e2e.stories.play import Play

AS_OPERATOR = (f"--as=system:serviceaccount:{NAMESPACE}:{RELEASE}", "--as-group=system:masters")
"""The one way past the admission policies that takes none of them away: they name this account."""
RBAC = "/apis/rbac.authorization.k8s.io/v1"
LABELS = {"app.kubernetes.io/managed-by": "pilot-identity"}
COMMAND_S = 90.0
PODS = {
    "name": "pods",
    "kubernetes": {"roleRef": {"kind": "ClusterRole", "name": roles.CLUSTER_ROLE}},
    "dataClass": "synthetic",
}

Finding = tuple[str, str, str]
"""What it is, and the kind and name of the object."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What `kubectl pilot audit reconcile` said."""

    code: int
    told: Document

    @property
    def findings(self) -> set[Finding]:
        """What was found."""
        return {(one["finding"], one["kind"], one["name"]) for one in self.told["findings"]}


@dataclass(frozen=True, slots=True)
class Auditor:
    """Somebody with a kubeconfig and a memory of his own."""

    cluster: Cluster
    kubeconfig: Path
    home: Path

    def reconcile(self, namespace: str) -> Verdict:
        """Run the real program."""
        done = subprocess.run(
            [sys.executable, "-m", "pilot_identity.cli", "audit", "reconcile", "-o", "json", "-n", namespace],
            env=self.cluster.environment(self.kubeconfig)
            | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": str(self.home)},
            capture_output=True,
            text=True,
            timeout=COMMAND_S,
            check=False,
        )
        assert done.stdout, done.stderr
        return Verdict(done.returncode, json.loads(done.stdout))


@pytest.fixture
def auditor(cluster: Cluster, tmp_path: Path) -> Auditor:
    """May see everything."""
    return Auditor(cluster, cluster.kubeconfig, tmp_path)


def bindings(namespace: str, name: str = "") -> str:
    """A namespace's RoleBindings, or one."""
    return f"{RBAC}/namespaces/{namespace}/rolebindings" + (f"/{name}" if name else "")


def issued(play: Play, name: str) -> Document:
    """Ask for a tool and for Kubernetes access; returns the grant once it has both."""
    play.ask(name, "triage", access=[{"name": "tickets"}, {"name": "pods"}])
    return play.phase(name, "Active")


def forge(
    cluster: Cluster, play: Play, grant: str, status: Any, *flags: str
) -> subprocess.CompletedProcess[str]:
    """Write a grant's status, which only the operator may."""
    patch = ("--subresource=status", "--type=merge", "-p", json.dumps({"status": status}))
    return cluster.run("kubectl", "-n", play.namespace, "patch", "grant", grant, *patch, *flags, check=False)


def rebind(cluster: Cluster, play: Play, name: str, role: str) -> None:
    """Put a RoleBinding in the place of a grant's, the same but for the role."""
    kept = play.admin.get(bindings(play.namespace, name))
    play.admin.delete(bindings(play.namespace, name))
    names = ("name", "namespace", "labels", "annotations", "ownerReferences")
    document = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {key: kept["metadata"][key] for key in names},
        "roleRef": {**kept["roleRef"], "name": role},
        "subjects": kept["subjects"],
    }
    cluster.run("kubectl", "create", "-f", "-", *AS_OPERATOR, stdin=json.dumps(document))


def copy(cluster: Cluster, play: Play, name: str, to: str, kind: str) -> subprocess.CompletedProcess[str]:
    """Apply a grant's Secret under another name and as of some type, as a cluster's admin."""
    kept = play.admin.get(play.secrets(name))
    names = ("namespace", "labels", "annotations", "ownerReferences")
    document = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": to, **{key: kept["metadata"][key] for key in names}},
        "type": kind,
        "data": kept["data"],
    }
    return cluster.run("kubectl", "apply", "-f", "-", stdin=json.dumps(document), check=False)


@pytest.fixture
def world(play: Play) -> Play:
    """A pilot, and grants that are alive, ended and denied."""
    play.ready_pilot("triage", access=[manifests.tool(), PODS])
    play.ask("denied", "triage", access=[{"name": "unknown"}])
    play.ask("done", "triage")
    play.phase("done", "Active")
    play.admin.patch(play.grants("done"), {"spec": {"completed": True}})
    play.phase("done", "Completed")
    play.phase("denied", "Denied")
    return play


def test_an_auditor_is_told_what_is_in_the_cluster_only_and_what_in_the_log_only(
    world: Play, auditor: Auditor, cluster: Cluster
) -> None:
    """Nothing is found while all is well; then each disagreement is, by its name; then nothing again."""
    play = world
    grant = issued(play, "live")
    sound = auditor.reconcile(play.namespace)
    assert (sound.code, sound.told["complete"], sound.told["findings"]) == (0, True, []), sound.told
    # Of Secrets the grant's and the pilot's; of accounts the grant's and the pilot's.
    assert sound.told["objects"] == {
        "Secret": 2,
        "ServiceAccount": 2,
        "RoleBinding": 1,
        "ClusterRoleBinding": 0,
        "TaskGrant": 3,
        "PilotIdentity": 1,
    }

    metadata = {"name": "helper", "labels": LABELS}
    play.admin.create(places.core("serviceaccounts", play.namespace), {"metadata": metadata})
    play.admin.create(
        bindings(play.namespace),
        {
            "metadata": metadata,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
            "subjects": [{"kind": "ServiceAccount", "name": "helper", "namespace": play.namespace}],
        },
    )
    (bound,) = grant["status"]["credential"]["kubernetes"]["bindings"]
    rebind(cluster, play, bound["name"], "edit")
    refused = copy(cluster, play, "live", "copy", "pilotidentity.dev/credential")
    assert "only pilot-identity writes Secrets of type pilotidentity.dev/credential" in refused.stderr
    # Of another type it is let in: then label, annotation and owner are all that it has of the Secret's.
    copied = copy(cluster, play, "live", "copy", "Opaque")
    assert copied.returncode == 0, copied.stderr
    play.admin.delete(play.secrets("live"))
    decision = play.status(play.grants("done"))["decision"]
    assert "only pilot-identity writes a status" in forge(cluster, play, "done", {"decision": None}).stderr
    forged = forge(cluster, play, "done", {"decision": {"owners": ["mallory"]}}, *AS_OPERATOR)
    assert forged.returncode == 0, forged.stderr

    found = auditor.reconcile(play.namespace)
    assert found.code == 1
    assert found.told["complete"] is False
    assert found.findings == {
        ("stranger", "ServiceAccount", "helper"),
        ("stranger", "RoleBinding", "helper"),
        ("altered", "RoleBinding", bound["name"]),
        ("missing", "Secret", "live"),
        ("stranger", "Secret", "copy"),
        ("contradicted", "TaskGrant", "done"),
    }

    play.admin.delete(places.core("serviceaccounts", play.namespace, "helper"))
    play.admin.delete(bindings(play.namespace, "helper"))
    play.admin.delete(play.secrets("copy"))
    forge(cluster, play, "done", {"decision": decision}, *AS_OPERATOR)
    play.admin.patch(play.grants("live"), {"spec": {"completed": True}})
    play.phase("live", "Completed", "Closing")
    mended = auditor.reconcile(play.namespace)
    assert (mended.code, mended.findings) == (0, set()), mended.told


class Watchful(Installation):
    """An operator that holds its log against the cluster every second."""

    def _container(self) -> dict[str, Any]:
        container = super()._container()
        kept = [one for one in container["args"] if not one.startswith("--reconcile-every")]
        return {**container, "args": [*kept, "--reconcile-every=1s"]}


@pytest.fixture
def watchful(operator: Installation, cluster: Cluster, tmp_path: Path) -> Iterator[Watchful]:
    """Works in place of the stories' operator, which works again afterwards."""
    operator.operator.stop()
    watchful = Watchful(cluster, directory=tmp_path)
    try:
        watchful.start_operator()
        yield watchful
    finally:
        watchful.stop()
        operator.operator.launch()
        operator.wait_ready(operator.operator)


def mismatch(play: Play, path: str) -> Document | None:
    """What an object is told of the log's disagreement."""
    conditions = play.status(path).get("conditions", [])
    return next((one for one in conditions if one["type"] == "RecordMismatch"), None)


def test_the_operator_tells_what_it_may_see_and_takes_it_back(
    world: Play, watchful: Watchful, cluster: Cluster
) -> None:
    """By a condition on the grant that it concerns, and by metrics; both go with their cause."""
    play = world
    grant = issued(play, "live")
    (bound,) = grant["status"]["credential"]["kubernetes"]["bindings"]
    decision = play.status(play.grants("done"))["decision"]

    def found() -> dict[str, float]:
        return watchful.kinds(watchful.operator, "pilot_identity_record_findings")

    def rounds() -> float:
        return watchful.metrics(watchful.operator)["pilot_identity_record_rounds_total"]

    since = rounds()
    until(lambda: rounds() >= since + 2, "a whole round after the grants were issued")
    assert watchful.metrics(watchful.operator)["pilot_identity_record_unread"] == 0
    assert mismatch(play, play.grants("live")) is None

    rebind(cluster, play, bound["name"], "edit")
    forge(cluster, play, "done", {"decision": {"owners": ["mallory"]}}, *AS_OPERATOR)
    helper = places.core("serviceaccounts", play.namespace)
    play.admin.create(helper, {"metadata": {"name": "helper", "labels": LABELS}})
    told = until(lambda: mismatch(play, play.grants("live")), "the grant is told")
    assert (told["status"], told["reason"]) == ("True", "NotAsRecorded")
    assert f"altered: RoleBinding {play.namespace}/{bound['name']} binds ClusterRole edit" in told["message"]
    forged = until(lambda: mismatch(play, play.grants("done")), "the ended grant is told")
    assert "contradicted" in forged["message"]
    (stranger,) = play.events_of(play.admin.get(f"{helper}/helper")["metadata"]["uid"], "NotAsRecorded")
    assert "is no account that an entry announces" in stranger["note"]
    raised = {kind: found()[kind] for kind in ("altered", "contradicted", "stranger")}
    assert min(raised.values()) >= 1
    events = play.events_of(grant["metadata"]["uid"], "NotAsRecorded")
    assert {event["type"] for event in events} == {"Warning"}
    # Nothing is decided on it, and nothing is written while it stays.
    before = play.admin.get(play.grants("live"))
    since = rounds()
    until(lambda: rounds() >= since + 2, "two more rounds")
    assert play.admin.get(play.grants("live")) == before

    rebind(cluster, play, bound["name"], bound["roleRef"]["name"])
    forge(cluster, play, "done", {"decision": decision}, *AS_OPERATOR)
    play.admin.delete(f"{helper}/helper")
    until(lambda: mismatch(play, play.grants("live")) is None, "the grant is told nothing more")
    until(lambda: mismatch(play, play.grants("done")) is None, "nor is the ended one")
    # Others may have left something that goes in its own time.
    until(lambda: all(found()[kind] < raised[kind] for kind in raised), "the metrics go back", instead=found)
    assert play.phase("live", "Active")["metadata"]["uid"] == grant["metadata"]["uid"]


@pytest.fixture
def viewer(cluster: Cluster, play: Play, tmp_path: Path) -> Iterator[Auditor]:
    """May see the log and all of the namespace but Secrets and RBAC."""
    person = Person(cluster, play.namespace, "ada@example.org")
    for place, role in (
        (NAMESPACE, "view"),
        (play.namespace, "view"),
        (play.namespace, "pilot-identity-viewer"),
    ):
        bind(play.admin, place, role, person)
    yield Auditor(cluster, cluster.user(person.name), tmp_path)
    cluster.kubectl("-n", NAMESPACE, "delete", "rolebinding", f"view-{person.name}")


def test_what_an_auditor_may_not_list_is_told(world: Play, viewer: Auditor) -> None:
    """It counts neither as complete nor as found."""
    told = viewer.reconcile(world.namespace)
    assert (told.code, told.told["complete"], told.told["findings"]) == (4, None, []), told.told
    named = {line.partition(":")[0] for line in told.told["notChecked"]}
    assert {"Secrets", "RoleBindings", "ClusterRoleBindings"} <= named
    assert told.told["objects"].keys() == {"ServiceAccount", "TaskGrant", "PilotIdentity"}
