"""Kubernetes access: a grant's kubeconfig works as it is, and stops working at once.

The operator binds only what the admin of the cluster listed in the chart's `kubernetesAccess.roles`: here the
ClusterRole `view` in any namespace, and one Role in the namespace `bindable`.
"""

from __future__ import annotations

import http.client
import json
import ssl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from functools import partial
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any
from urllib.parse import urlsplit

import pytest

from e2e import manifests, places, roles
from e2e.admin import Admin, Document
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, RELEASE, Installation
from e2e.patience import until
from e2e.person import Person, Right, give
from e2e.stories.play import TERMINAL, Play
from pilot_identity.core.audit.entries import EntryType

REFUSED_WITHIN_S = 1.0
PROVEN_WITHIN_S = 45.0
"""The API server believes a deleted account's token for up to 10 s; the tests are tried again until then."""
OPERATOR = f"system:serviceaccount:{NAMESPACE}:{RELEASE}"
RBAC = "/apis/rbac.authorization.k8s.io/v1"


def kubernetes(
    name: str = "pods", *, kind: str = "ClusterRole", role: str = roles.CLUSTER_ROLE, namespace: str = ""
) -> Document:
    """An access entry."""
    where = {"namespace": namespace} if namespace else {}
    access = {"roleRef": {"kind": kind, "name": role}, **where}
    return {"name": name, "kubernetes": access, "dataClass": "synthetic"}


SETTINGS = kubernetes("settings", kind="Role", role=roles.ROLE, namespace=roles.NAMESPACE)


def bindings(namespace: str, name: str = "") -> str:
    """A namespace's RoleBindings, or one."""
    return f"{RBAC}/namespaces/{namespace}/rolebindings" + (f"/{name}" if name else "")


class Workload:
    """Who holds a grant's kubeconfig."""

    def __init__(self, cluster: Cluster, play: Play, grant: str, directory: Path) -> None:
        self._cluster = cluster
        text = play.credential(grant).files["kubeconfig"]
        self.kubeconfig = directory / f"{grant}.kubeconfig"
        self.kubeconfig.write_bytes(text)
        self.config: Document = json.loads(text)
        self.token: str = self.config["users"][0]["user"]["token"]
        self._connection: http.client.HTTPSConnection | None = None

    def kubectl(self, *arguments: str) -> CompletedProcess[str]:
        """Run kubectl with nothing but the kubeconfig."""
        return self._cluster.run("kubectl", *arguments, kubeconfig=self.kubeconfig, check=False)

    def code(self, path: str) -> int:
        """The HTTP status of a GET, on one connection, as fast as it goes."""
        if self._connection is None:
            trust = ssl.create_default_context(cafile=str(self._cluster.ca))
            host = urlsplit(self.config["clusters"][0]["cluster"]["server"]).netloc
            self._connection = http.client.HTTPSConnection(host, context=trust, timeout=10)
        self._connection.request("GET", path, headers={"Authorization": f"Bearer {self.token}"})
        answer = self._connection.getresponse()
        answer.read()
        return answer.status

    def close(self) -> None:
        """Close the connection, if there is one."""
        if self._connection is not None:
            self._connection.close()


Holds = Callable[[str], Workload]


@pytest.fixture
def holds(cluster: Cluster, play: Play, tmp_path: Path) -> Iterator[Holds]:
    """Take a grant's kubeconfig from its Secret."""
    with ExitStack() as workloads:
        yield lambda grant: workloads.enter_context(closing(Workload(cluster, play, grant, tmp_path)))


def is_let_in(workload: Workload, path: str) -> bool:
    """Whether the API server still answers it."""
    return workload.code(path) == http.HTTPStatus.OK


def is_refused(workload: Workload, path: str) -> bool:
    """Whether the API server refuses it."""
    return workload.code(path) in {http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN}


def active(play: Play, name: str, pilot: str, *entries: str, **spec: Any) -> Document:
    """Ask for Kubernetes access and wait until it is there; returns the grant."""
    play.ask(name, pilot, access=[{"name": entry} for entry in entries], **spec)
    return play.phase(name, "Active", "Denied")


def nothing_left(play: Play, told: Document) -> None:
    """The account, the bindings and the Secret of a grant that was active are gone."""
    kubernetes_status = told["status"]["credential"]["kubernetes"]
    account = places.core("serviceaccounts", play.namespace, kubernetes_status["serviceAccountName"])
    assert play.admin.find(account) is None
    for binding in kubernetes_status["bindings"]:
        assert play.admin.find(bindings(binding["namespace"], binding["name"])) is None
    assert play.admin.find(play.secrets(told["metadata"]["name"])) is None


def test_a_kubeconfig_works_until_an_owner_revokes(play: Play, holds: Holds) -> None:
    """A real client lists Pods with it; refused within a second of the revocation, and that is proven."""
    play.ready_pilot("triage", access=[kubernetes()])
    grant = active(play, "watch", "triage", "pods")
    assert grant["status"]["phase"] == "Active", grant["status"]
    told = grant["status"]["credential"]["kubernetes"]
    workload = holds("watch")
    listed = workload.kubectl("get", "pods", "-o", "json")
    assert listed.returncode == 0, listed.stderr
    assert "cannot create" in workload.kubectl("create", "configmap", "x").stderr
    assert "cannot list" in workload.kubectl("get", "pods", "-n", "default").stderr

    # The entry was durable before the access stood, and names it.
    (binding,) = told["bindings"]
    stood = play.admin.get(bindings(play.namespace, binding["name"]))
    line = play.trail().announcing(grant["status"]["credential"]["id"])
    assert line is not None
    assert line.revision < int(stood["metadata"]["resourceVersion"])
    assert line.entry.data["credential"]["kubernetes"] == told
    account = play.admin.get(places.core("serviceaccounts", play.namespace, told["serviceAccountName"]))
    assert account["metadata"]["uid"] == told["serviceAccountUID"]
    assert account["automountServiceAccountToken"] is False

    pods = places.core("pods", play.namespace)
    assert workload.code(pods) == 200
    play.admin.patch(play.grants("watch"), {"spec": {"revoke": {"reason": "seen enough"}}})
    revoked_at = time.monotonic()
    while (code := workload.code(pods)) == 200:
        assert time.monotonic() < revoked_at + REFUSED_WITHIN_S, "still believed"
    assert code in {401, 403}

    ended = play.phase("watch", *TERMINAL, seconds=PROVEN_WITHIN_S)
    assert ended["status"]["phase"] == "Revoked"
    proofs = {proof["name"]: proof for proof in ended["status"]["closure"]["proofs"]}
    assert {"access-denied", "token-refused"} <= proofs.keys()
    assert all(proof["proven"] for proof in proofs.values()), proofs
    assert workload.code(pods) == 401
    nothing_left(play, grant)
    (closed,) = [
        one for one in play.trail().of(grant["metadata"]["uid"]) if one.kind is EntryType.GRANT_CLOSED
    ]
    assert closed.entry.data["closure"]["outcome"] == "Revoked"


def writes(audit_log: Path, namespace: str) -> list[str]:
    """What the operator wrote in a namespace, in order, but Events and what belongs to no single grant."""
    found: list[str] = []
    for line in audit_log.read_text().splitlines():
        event = json.loads(line)
        about = event.get("objectRef", {})
        is_write = (
            event["verb"] in {"create", "update", "patch", "delete"} and "dryRun" not in event["requestURI"]
        )
        is_done = event.get("responseStatus", {}).get("code", 0) < http.HTTPStatus.BAD_REQUEST
        is_its = event["user"]["username"] == OPERATOR and about.get("namespace") == namespace
        if is_write and is_done and is_its:
            resource = "/".join(filter(None, (about["resource"], about.get("subresource"))))
            found.append(f"{event['verb']} {resource}")
    return [one for one in found if one.split()[1] not in {"events", "configmaps"}]


def test_a_grant_costs_four_writes(play: Play, cluster: Cluster) -> None:
    """Account, binding, Secret and status to issue; the finalizer is stamped, the token is no object."""
    if cluster.audit_log is None:
        pytest.skip("the API server's audit log is not ours to read on this cluster")
    audit_log = cluster.audit_log
    play.ready_pilot("triage", access=[kubernetes()])
    settled = ["create serviceaccounts", "create secrets", "patch pilotidentities/status"]
    until(lambda: sorted(writes(audit_log, play.namespace)) == sorted(settled), "the pilot's are logged")
    active(play, "cost", "triage", "pods")
    expected = [
        "create serviceaccounts",
        "create serviceaccounts/token",
        "create rolebindings",
        "create secrets",
        "patch taskgrants/status",
    ]

    def made() -> list[str]:
        return writes(audit_log, play.namespace)[len(settled) :]

    until(lambda: made() == expected, "to issue it takes", instead=made)
    play.admin.patch(play.grants("cost"), {"spec": {"completed": True}})
    play.phase("cost", "Completed", seconds=PROVEN_WITHIN_S)
    first = ["delete rolebindings", "delete serviceaccounts", "delete secrets"]
    until(lambda: made()[5:8] == first, "to end it takes", instead=made)


def test_access_in_another_namespace(play: Play, holds: Holds) -> None:
    """The role is bound where the pilot says, and nowhere else; the end reaches it there."""
    play.ready_pilot("triage", access=[SETTINGS, kubernetes()])
    grant = active(play, "settings", "triage", "settings")
    (binding,) = grant["status"]["credential"]["kubernetes"]["bindings"]
    assert binding["namespace"] == roles.NAMESPACE
    assert "ownerReferences" not in play.admin.get(bindings(roles.NAMESPACE, binding["name"]))["metadata"]
    workload = holds("settings")
    assert workload.kubectl("get", "configmaps").returncode == 0, "its namespace is the kubeconfig's"
    assert "cannot list" in workload.kubectl("get", "secrets").stderr
    assert "cannot list" in workload.kubectl("get", "configmaps", "-n", play.namespace).stderr
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": True}})
    settings = places.core("configmaps", roles.NAMESPACE)
    until(partial(is_refused, workload, settings), "the suspension reaches it", seconds=REFUSED_WITHIN_S)
    play.phase("settings", "Revoked", seconds=PROVEN_WITHIN_S)
    nothing_left(play, grant)


def test_several_entries_share_one_account(play: Play, holds: Holds) -> None:
    """One account and one token, a binding for each entry; tools and Kubernetes go together."""
    play.ready_pilot("triage", access=[kubernetes(), SETTINGS, manifests.tool()])
    grant = active(play, "all", "triage", "tickets", "pods", "settings")
    status = grant["status"]["credential"]
    assert len(status["kubernetes"]["bindings"]) == 2
    assert len(status["tokens"]) == 1
    workload = holds("all")
    assert workload.kubectl("get", "pods").returncode == 0
    assert workload.kubectl("get", "configmaps", "-n", roles.NAMESPACE).returncode == 0
    play.admin.patch(play.grants("all"), {"spec": {"completed": True}})
    play.phase("all", "Completed", seconds=PROVEN_WITHIN_S)
    nothing_left(play, grant)


@pytest.fixture
def short_tokens(admin: Admin, play: Play) -> Iterator[None]:
    """JWT-SVIDs of the sandbox live six seconds, so that credentials are renewed while one looks."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["credentials"]["jwtTTL"]
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": "6s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": usual}}})


@pytest.mark.usefixtures("short_tokens")
def test_renewal_is_in_place(play: Play, holds: Holds) -> None:
    """A renewal brings another token of the same account; the bindings stay, and one that went comes back."""
    play.ready_pilot("triage", access=[kubernetes(), manifests.tool()])
    first = active(play, "long", "triage", "pods", "tickets")["status"]["credential"]["kubernetes"]
    (binding,) = first["bindings"]
    path = bindings(play.namespace, binding["name"])
    uid = play.admin.get(path)["metadata"]["uid"]

    def renewed(before: Document) -> Document:
        def look() -> Document | None:
            now: Document = play.status(play.grants("long"))["credential"]["kubernetes"]
            return now if now["credentialID"] != before["credentialID"] else None

        return until(look, "it is renewed", seconds=15)

    second = renewed(first)
    assert {**second, "credentialID": "", "notAfter": ""} == {**first, "credentialID": "", "notAfter": ""}
    assert play.admin.get(path)["metadata"]["uid"] == uid
    workload = holds("long")
    assert workload.kubectl("get", "pods").returncode == 0
    play.admin.delete(path)
    renewed(play.status(play.grants("long"))["credential"]["kubernetes"])
    assert play.admin.get(path)["metadata"]["uid"] != uid
    play.admin.patch(play.grants("long"), {"spec": {"completed": True}})
    play.phase("long", "Completed", seconds=PROVEN_WITHIN_S)


@pytest.mark.parametrize(
    "entry, says",
    [
        pytest.param(
            kubernetes(role="edit"),
            "ClusterRole 'edit' cannot be bound in namespace",
            id="a ClusterRole that is not listed",
        ),
        pytest.param(
            kubernetes(kind="Role", role=roles.ROLE),
            f"Role '{roles.ROLE}' cannot be bound in namespace",
            id="a listed Role's name in another namespace",
        ),
    ],
)
def test_a_role_that_no_admin_allowed(play: Play, entry: Document, says: str) -> None:
    """Denied, with the chart's value to change; nothing was made."""
    play.ready_pilot("triage", access=[entry])
    denied = active(play, "more", "triage", "pods")
    assert denied["status"]["phase"] == "Denied"
    told = play.condition(play.grants("more"), "Ready", reason="RoleNotBindable")
    assert says in told["message"]
    assert "the chart's value kubernetesAccess.roles" in told["message"]
    for path in (bindings(play.namespace), places.core("serviceaccounts", play.namespace)):
        names = [one["metadata"]["name"] for one in play.admin.get(path)["items"]]
        assert not any(name.startswith("pilot-grant-") for name in names)


def test_a_namespace_that_is_not_there(play: Play) -> None:
    """Denied, and the message says what to make."""
    play.ready_pilot("triage", access=[kubernetes(namespace="nowhere")])
    assert active(play, "lost", "triage", "pods")["status"]["phase"] == "Denied"
    told = play.condition(play.grants("lost"), "Ready", reason="RoleNotBindable")
    assert "'nowhere': there is no such namespace; make it" in told["message"]


def test_access_is_handed_out_only_by_whom_could_bind_it(play: Play, cluster: Cluster) -> None:
    """Who may declare pilots in one namespace cannot have the operator bind a role for them in another."""
    author = Person(cluster, play.namespace, "ann@example.org")
    create = Right("create", "pilotidentities", namespace=play.namespace)
    give(play.admin, [create], {"kind": "User", "name": author.name}, label="author")
    author.await_right(play.admin, create)
    refused = author.create(manifests.pilot("abroad", access=[kubernetes(namespace=roles.NAMESPACE)]))
    assert f"you may not create RoleBindings in namespace {roles.NAMESPACE}" in refused.stderr
    refused = author.create(manifests.pilot("here", access=[kubernetes()]))
    assert f"you may not create RoleBindings in namespace {play.namespace}" in refused.stderr
    assert author.create(manifests.pilot("tools")).returncode == 0


@pytest.fixture
def restarted(operator: Installation) -> Iterator[Installation]:
    """The operator, which works again afterwards."""
    yield operator
    if not operator.operator.is_running:
        operator.operator.launch()
    operator.wait_ready(operator.operator)


def test_a_deletion_that_orphans_leaves_no_account(play: Play, restarted: Installation) -> None:
    """The garbage collector strips the account of its owner before the operator sees the deletion."""
    play.ready_pilot("triage", access=[kubernetes()])
    grant = active(play, "orphaned", "triage", "pods")
    name = grant["status"]["credential"]["kubernetes"]["serviceAccountName"]
    path = places.core("serviceaccounts", play.namespace, name)
    restarted.operator.kill()
    play.admin.delete(f"{play.grants('orphaned')}?propagationPolicy=Orphan")
    until(lambda: "ownerReferences" not in play.admin.get(path)["metadata"], "it is stripped of its owner")
    restarted.operator.launch()
    restarted.wait_ready(restarted.operator)
    until(
        lambda: play.admin.find(play.grants("orphaned")) is None, "the grant is gone", seconds=PROVEN_WITHIN_S
    )
    nothing_left(play, grant)
    kinds = play.trail().kinds(grant["metadata"]["uid"])
    assert EntryType.GRANT_CLOSED in kinds
    assert EntryType.GRANT_UNPROVEN not in kinds


def test_killed_in_the_middle(play: Play, holds: Holds, restarted: Installation) -> None:
    """Killed while issuing it ends up with one account that works; killed before the end it still ends it."""
    play.ready_pilot("triage", access=[kubernetes()])
    for number in range(6):
        play.ask(f"cut-{number}", "triage", access=[{"name": "pods"}])
        time.sleep(0.012 * number)  # another point of its issue each time
        restarted.operator.kill()
        restarted.operator.launch()
        restarted.wait_ready(restarted.operator)
    grants = [play.phase(f"cut-{number}", "Active") for number in range(6)]
    pods = places.core("pods", play.namespace)
    workloads = [holds(f"cut-{number}") for number in range(6)]
    for workload in workloads:
        until(partial(is_let_in, workload, pods), "the access works")
    accounts = play.admin.get(places.core("serviceaccounts", play.namespace))["items"]
    assert len([one for one in accounts if one["metadata"]["name"].startswith("pilot-grant-")]) == 6

    restarted.operator.kill()
    for number in range(6):
        play.admin.patch(play.grants(f"cut-{number}"), {"spec": {"revoke": {"reason": "enough"}}})
    restarted.operator.launch()
    restarted.wait_ready(restarted.operator)
    for workload in workloads:
        until(partial(is_refused, workload, pods), "the access is cut")
    for grant in grants:
        ended = play.phase(grant["metadata"]["name"], "Revoked", seconds=PROVEN_WITHIN_S)
        proofs = {proof["name"]: proof for proof in ended["status"]["closure"]["proofs"]}
        # The token is known to no process that lives; its account's end is the proof.
        assert "earlier process" in proofs["token-refused"]["message"]
        nothing_left(play, grant)
