"""People: real users, known to the API server by a client certificate, who may do what RBAC lets them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

from e2e.admin import Admin
from e2e.controlplane.cluster import Cluster
from e2e.patience import until

API_GROUP = "pilotidentity.dev"
RBAC = "rbac.authorization.k8s.io"
_GIVEN = "e2e.pilotidentity.dev/given"

Document = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Right:
    """A verb on one of our resources.

    Attributes:
        name: The object's; empty for every object.
        namespace: Where it holds; empty for the whole cluster.
    """

    verb: str
    resource: str
    name: str = ""
    namespace: str = ""

    def review(self, user: str, groups: Sequence[str]) -> Document:
        """The question to the API server whether that user has it."""
        asked = {"verb": self.verb, "group": API_GROUP, "resource": self.resource}
        where = {"name": self.name, "namespace": self.namespace}
        spec = {"user": user, "groups": list(groups), "resourceAttributes": asked | where}
        return {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}


class Person:
    """One user, at work in one namespace."""

    def __init__(self, cluster: Cluster, namespace: str, name: str, *groups: str) -> None:
        self.name = name
        self.groups = groups
        self.namespace = namespace
        self._cluster = cluster
        self._kubeconfig: Path = cluster.user(name, *groups)

    def run(self, *arguments: str, document: Mapping[str, Any] | None = None) -> CompletedProcess[str]:
        """Run kubectl as this person, in their namespace unless the arguments say otherwise."""
        place = () if "-n" in arguments else ("-n", self.namespace)
        stdin = None if document is None else json.dumps(document)
        return self._cluster.run(
            "kubectl", *arguments, *place, stdin=stdin, kubeconfig=self._kubeconfig, check=False
        )

    def create(self, document: Mapping[str, Any], *flags: str) -> CompletedProcess[str]:
        """Create an object; `made` reads the answer."""
        return self.run("create", *flags, "-o", "json", "-f", "-", document=document)

    def patch(self, kind: str, name: str, patch: Mapping[str, Any], *flags: str) -> CompletedProcess[str]:
        """Merge `patch` into an object (RFC 7386); `made` reads the answer."""
        return self.run("patch", kind, name, "--type=merge", "-p", json.dumps(patch), "-o", "json", *flags)

    def await_right(self, admin: Admin, right: Right) -> None:
        """Wait until the API server knows of a right that was given to this person."""
        await_right(admin, right, self.name, *self.groups)


def made(answer: CompletedProcess[str]) -> Document:
    """The object that came back; what was refused is a failure of the test."""
    assert answer.returncode == 0, answer.stderr
    found: Document = json.loads(answer.stdout)
    return found


def await_right(admin: Admin, right: Right, user: str, *groups: str) -> None:
    """Wait until the API server knows of a right that was given: it follows RBAC a moment late."""
    review = right.review(user, (*groups, "system:authenticated"))

    def may() -> bool:
        told = admin.create("/apis/authorization.k8s.io/v1/subjectaccessreviews", review)
        return bool(told["status"]["allowed"])

    until(may, f"{user} may {right.verb} {right.resource} {right.name}")


def give(admin: Admin, rights: Sequence[Right], subject: Mapping[str, str], *, label: str) -> None:
    """Give rights on our resources to a subject of RBAC, by a role `<label>-<number>` for each.

    `subject` is as a RoleBinding names it: kind, name, and for a ServiceAccount its namespace.
    """
    group = {} if subject["kind"] == "ServiceAccount" else {"apiGroup": RBAC}
    for number, right in enumerate(rights):
        kind = "Role" if right.namespace else "ClusterRole"
        name = f"{label}-{number}"
        rule = {"apiGroups": [API_GROUP], "resources": [right.resource], "verbs": [right.verb]}
        names = {"resourceNames": [right.name]} if right.name else {}
        role = {"kind": kind, "rules": [{**rule, **names}]}
        binding = {
            "kind": f"{kind}Binding",
            "roleRef": {"apiGroup": RBAC, "kind": kind, "name": name},
            "subjects": [{**subject, **group}],
        }
        for body in (role, binding):
            metadata = {"name": name, "labels": {_GIVEN: "true"}}
            plural = f"{str(body['kind']).lower()}s"
            known = {"apiVersion": f"{RBAC}/v1", "metadata": metadata, **body}
            admin.apply(f"{_collection(plural, right.namespace)}/{name}", known)


def take_back(admin: Admin) -> None:
    """Take away every right that `give` gave in the whole cluster; those of a namespace go with it."""
    for plural in ("clusterrolebindings", "clusterroles"):
        admin.delete(f"{_collection(plural)}?labelSelector={_GIVEN}")


def _collection(plural: str, namespace: str = "") -> str:
    return f"/apis/{RBAC}/v1/{f'namespaces/{namespace}/' if namespace else ''}{plural}"


def bind(admin: Admin, namespace: str, role: str, person: Person) -> None:
    """Bind a ClusterRole of the chart to a person, in one namespace."""
    name = f"{role}-{person.name}"
    binding = {
        "apiVersion": f"{RBAC}/v1",
        "kind": "RoleBinding",
        "metadata": {"name": name},
        "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
        "subjects": [{"apiGroup": RBAC, "kind": "User", "name": person.name}],
    }
    admin.apply(f"{_collection('rolebindings', namespace)}/{name}", binding)
