"""People: real users, known to the API server by a client certificate, who may do what RBAC lets them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

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

    @property
    def scope(self) -> tuple[str, ...]:
        """What kubectl is told of where it holds."""
        return ("-n", self.namespace) if self.namespace else ()

    @property
    def subject(self) -> str:
        """What kubectl is told of what it is on."""
        return f"{self.resource}.{API_GROUP}" + (f"/{self.name}" if self.name else "")


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

    def await_right(self, right: Right, *flags: str) -> None:
        """Wait until the API server knows of a right that was given: it follows RBAC a moment late."""

        def may() -> bool:
            asked = self.run("auth", "can-i", right.verb, right.subject, *right.scope, *flags)
            return asked.stdout.strip() == "yes"

        until(may, f"{self.name} may {right.verb} {right.subject}")


def made(answer: CompletedProcess[str]) -> Document:
    """The object that came back; what was refused is a failure of the test."""
    assert answer.returncode == 0, answer.stderr
    found: Document = json.loads(answer.stdout)
    return found


def give(cluster: Cluster, rights: Sequence[Right], subject: Mapping[str, str], *, label: str) -> None:
    """Give rights on our resources to a subject of RBAC, by a role `<label>-<number>` for each.

    `subject` is as a RoleBinding names it: kind, name, and for a ServiceAccount its namespace.
    """
    documents: list[Document] = []
    group = {} if subject["kind"] == "ServiceAccount" else {"apiGroup": RBAC}
    for number, right in enumerate(rights):
        kind = "Role" if right.namespace else "ClusterRole"
        place = {"namespace": right.namespace} if right.namespace else {}
        metadata = {"name": f"{label}-{number}", "labels": {_GIVEN: "true"}, **place}
        rule = {"apiGroups": [API_GROUP], "resources": [right.resource], "verbs": [right.verb]}
        names = {"resourceNames": [right.name]} if right.name else {}
        documents += [
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": kind,
                "metadata": metadata,
                "rules": [{**rule, **names}],
            },
            {
                "apiVersion": f"{RBAC}/v1",
                "kind": f"{kind}Binding",
                "metadata": metadata,
                "roleRef": {"apiGroup": RBAC, "kind": kind, "name": metadata["name"]},
                "subjects": [{**subject, **group}],
            },
        ]
    if documents:
        cluster.apply(documents)


def take_back(cluster: Cluster) -> None:
    """Take away every right that `give` gave in the whole cluster; those of a namespace go with it."""
    cluster.kubectl("delete", "clusterroles,clusterrolebindings", "-l", _GIVEN)


def bind(cluster: Cluster, namespace: str, role: str, person: Person) -> None:
    """Bind a ClusterRole of the chart to a person, in one namespace."""
    cluster.apply(
        {
            "apiVersion": f"{RBAC}/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{role}-{person.name}", "namespace": namespace},
            "roleRef": {"apiGroup": RBAC, "kind": "ClusterRole", "name": role},
            "subjects": [{"apiGroup": RBAC, "kind": "User", "name": person.name}],
        }
    )
