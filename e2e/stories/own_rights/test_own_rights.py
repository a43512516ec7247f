"""The operator has the rights that it needs, and no others.

The API server's own audit log tells each request of the operator's account. Every rule that the chart renders
for that account must have been used, and no request may have been refused for want of a right.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import yaml

from e2e import manifests, places, roles
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, RELEASE, Installation
from e2e.patience import until
from e2e.stories.play import Play
from pilot_identity.core.audit.chain import GRACE_SECONDS
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import API_VERSION

USER = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
RBAC = "rbac.authorization.k8s.io"
BIND = "bind"
"""Never a request's verb: the API server asks for it within the creation of a RoleBinding."""
DECISION = "authorization.k8s.io/decision"


@dataclass(frozen=True, slots=True)
class Right:
    """One verb on one resource; an empty namespace is every namespace, an empty name every object."""

    role: str
    namespace: str
    group: str
    resource: str
    verb: str
    name: str

    def allows(self, request: Request) -> bool:
        """Whether this right is one by which the request was allowed."""
        return (
            (self.group, self.resource, self.verb) == (request.group, request.resource, request.verb)
            and self.namespace in {"", request.namespace}
            and self.name in {"", request.name}
        )


@dataclass(frozen=True, slots=True)
class Request:
    """One request of the operator's account."""

    namespace: str
    group: str
    resource: str
    verb: str
    name: str
    is_forbidden: bool


@pytest.fixture
def audit_log(cluster: Cluster) -> Path:
    """The API server's audit log, where it is ours to read."""
    if cluster.audit_log is None:
        pytest.skip("the API server's audit log is not ours to read on this cluster")
    return cluster.audit_log


def rendered(cluster: Cluster) -> Iterator[Right]:
    """Every right that the installed chart gives to the operator's account."""
    manifest = cluster.helm("get", "manifest", RELEASE, "--namespace", NAMESPACE)
    documents = [document for document in yaml.safe_load_all(manifest) if document]
    roles = {
        (document["kind"], document["metadata"].get("namespace", ""), document["metadata"]["name"]): document
        for document in documents
        if document["kind"] in {"Role", "ClusterRole"}
    }
    for binding in documents:
        if binding["kind"] not in {"RoleBinding", "ClusterRoleBinding"}:
            continue
        assert [(subject["kind"], subject["name"]) for subject in binding["subjects"]] == [
            ("ServiceAccount", RELEASE)
        ]
        namespace = binding["metadata"].get("namespace", "")
        reference = binding["roleRef"]
        of_role = namespace if reference["kind"] == "Role" else ""
        for rule in roles[reference["kind"], of_role, reference["name"]]["rules"]:
            yield from _rights(reference["name"], namespace, rule)


def _rights(role: str, namespace: str, rule: dict[str, Any]) -> Iterator[Right]:
    for group in rule["apiGroups"]:
        for resource in rule["resources"]:
            for verb in rule["verbs"]:
                for name in rule.get("resourceNames", [""]):
                    yield Right(role, namespace, group, resource, verb, name)


PROGRAMS = ("pilot-identity/", "kopf/")
"""User agents of the operator: other stories attack with its token, and are not it."""


def requests(audit_log: Path) -> set[Request]:
    """Every kind of request that the operator itself made for a resource, in the whole session."""
    found: set[Request] = set()
    for line in audit_log.read_text().splitlines():
        event = json.loads(line)
        if event["user"]["username"] != USER or "objectRef" not in event:
            continue
        if not event.get("userAgent", "").startswith(PROGRAMS):
            continue
        about = event["objectRef"]
        resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
        found.add(
            Request(
                about.get("namespace", ""),
                about.get("apiGroup", ""),
                resource,
                event["verb"],
                about.get("name", ""),
                event.get("annotations", {}).get(DECISION) == "forbid",
            )
        )
    return found


def live(play: Play) -> None:
    """All that happens to pilots and grants, so that this story is whole by itself."""
    view = {"roleRef": {"kind": "ClusterRole", "name": roles.CLUSTER_ROLE}}
    settings = {"roleRef": {"kind": "Role", "name": roles.ROLE}, "namespace": roles.NAMESPACE}
    reach = [
        {"name": name, "kubernetes": access, "dataClass": "synthetic"}
        for name, access in (("pods", view), ("settings", settings))
    ]
    play.ready_pilot("triage", access=[manifests.tool(), *reach])
    # Something else that gives what a grant gave, so that the operator must tell the two apart at the end.
    everyone = f"system:serviceaccounts:{play.namespace}"
    play.admin.create(
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{play.namespace}/rolebindings",
        {
            "metadata": {"name": "everyone"},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": roles.CLUSTER_ROLE},
            "subjects": [{"apiGroup": RBAC, "kind": "Group", "name": everyone}],
        },
    )
    play.ask("reach", "triage", access=[{"name": "pods"}, {"name": "settings"}])
    grant = play.phase("reach", "Active")
    assert len(grant["status"]["credential"]["kubernetes"]["bindings"]) == 2
    # Nobody asked for it; its status says so.
    subject = {"kind": "TaskGrant", "name": "reach", "uid": grant["metadata"]["uid"]}
    word = {"subject": subject, "purpose": "Grant", "decision": "Approve", "reason": "unasked"}
    by = {"approver": play.admin.name, "digest": "sha256:" + "0f" * 32}
    unasked = {"apiVersion": API_VERSION, "kind": "Approval", "metadata": {"name": "unasked"}}
    play.admin.create(places.approvals(play.namespace), {**unasked, "spec": {**word, **by}})
    until(lambda: play.status(places.approvals(play.namespace, "unasked")), "the approval has a status")
    play.admin.patch(play.grants("reach"), {"spec": {"completed": True}})
    play.phase("reach", "Completed", seconds=45)
    for name, ends in (("short", "Expired"), ("ended", "Completed"), ("deleted", "")):
        play.ask(name, "triage", duration="3s")
        if ends == "Completed":
            play.phase(name, "Active")
            play.admin.patch(play.grants(name), {"spec": {"completed": True}})
        if ends:
            play.phase(name, ends)
        else:
            play.admin.delete(play.grants(name))
    play.make_stage("rotated", rank=70, data_classes=["rotated-data"])
    play.admin.patch(places.stages("rotated"), {"spec": {"keys": {"distrusted": [1]}}})
    stage = places.stages("sandbox")
    usual = play.admin.get(stage)["spec"]["retention"]
    play.admin.patch(stage, {"spec": {"retention": "1s"}})
    play.condition(stage, "Ready", reason="KeysReady")
    play.ask("kept", "triage", access=[{"name": "unknown"}])
    until(lambda: play.admin.find(play.grants("kept")) is None, "its time as a record is over")
    play.admin.patch(stage, {"spec": {"retention": usual}})
    # More entries than a bundle of the log has, so that their groups are deleted behind it.
    for number in range(WIDTH + 1):
        play.ask(f"many-{number}", "triage", access=[{"name": "unknown"}])
    play.admin.delete(play.pilots("triage"))
    until(lambda: play.admin.find(play.pilots("triage")) is None, "the pilot is gone")
    keys = places.core("secrets", name="stage-keys-rotated")
    until(lambda: play.admin.find(keys) is None, "keys that were rotated out are gone")
    bundle = places.core("configmaps", play.namespace, "pilot-bundle-sandbox")
    until(lambda: play.admin.find(bundle) is None, "its bundle is gone")


def test_no_right_is_spare_and_none_is_missing(play: Play, cluster: Cluster, audit_log: Path) -> None:
    """What the chart gives is what the operator uses."""
    live(play)
    rights = list(rendered(cluster))
    assert rights

    def spare() -> list[Right]:
        made = [request for request in requests(audit_log) if not request.is_forbidden]
        return [right for right in rights if right.verb != BIND and not any(map(right.allows, made))]

    # The log is written a second late.
    seconds = GRACE_SECONDS + 30
    until(lambda: not spare(), "every right was used; spare:", seconds=seconds, instead=spare)
    forbidden = [request for request in requests(audit_log) if request.is_forbidden]
    assert forbidden == []


def test_no_right_reads_what_others_store(operator: Installation) -> None:
    """Outside its own namespace no Secret can be read or patched; nothing is given by a wildcard."""
    for right in rendered(operator.cluster):
        assert "*" not in {right.group, right.resource, right.verb}
        assert right.verb not in {"escalate", "impersonate", "deletecollection"}
        # Exactly the roles that the installation's values list, each by its name.
        assert right.verb != BIND or right.name in {roles.CLUSTER_ROLE, roles.ROLE}
        if right.resource == "secrets":
            may = (
                {"create", "get", "delete"}
                if right.namespace == NAMESPACE
                else {"create", "update", "delete"}
            )
            assert right.verb in may, right
        if right.resource == "serviceaccounts/token":
            # Any account's whole power; the admission policies hold it to the accounts of grants.
            assert right.verb == "create"
