"""Who asked, approved, revoked and changed is the API server's word; records are the operator's alone.

The people here are cluster admins (`system:masters`) under different names, so that nothing but the admission
policies is in their way.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from subprocess import CompletedProcess
from typing import Any, Protocol

import pytest

from e2e.bad_input.test_bad_input import Kubectl
from e2e.controlplane.cluster import Cluster
from e2e.person import Person, made
from e2e.squatter import squat

HOME = "pilot-identity-system"
TEAM = "people"
CHANGED_BY = "pilotidentity.dev/changed-by"
FINALIZER = "pilotidentity.dev/withdraw"

Document = dict[str, Any]


class As(Protocol):
    """Runs kubectl as a person."""

    def __call__(
        self, person: str, *arguments: str, document: Document | None = None
    ) -> CompletedProcess[str]:
        """Run it in the team's namespace unless the arguments say otherwise."""


@pytest.fixture(scope="module", autouse=True)
def team(kubectl: Kubectl, installed: object) -> Iterator[None]:
    """A namespace."""
    del installed
    kubectl("create", "namespace", TEAM)
    yield
    kubectl("delete", "namespace", TEAM, "--wait=false")


@pytest.fixture(scope="module")
def as_(kubectl: Kubectl) -> As:
    """Run kubectl as a person who may do anything that admission lets pass."""

    def run(person: str, *arguments: str, document: Document | None = None) -> CompletedProcess[str]:
        stdin = None if document is None else json.dumps(document)
        place = () if "-n" in arguments else ("-n", TEAM)
        rights = ("--as", person, "--as-group", "system:masters")
        return kubectl(*arguments, *place, *rights, stdin=stdin, check=False)

    return run


@pytest.fixture(scope="module")
def stamps(kubectl: Kubectl, installed: object) -> None:
    """Skip where the chart could install no MutatingAdmissionPolicies."""
    del installed
    listed = kubectl("get", "mutatingadmissionpolicies", "-o", "name", check=False)
    if "pilot-identity-stamp" not in listed.stdout:
        pytest.skip("this API server has no MutatingAdmissionPolicy in admissionregistration.k8s.io/v1")


@pytest.fixture
def without_stamps(kubectl: Kubectl, as_: As) -> Iterator[None]:
    """Take the stamps' bindings away for a while, as on an API server that has none."""
    kinds = "mutatingadmissionpolicybindings"
    listed = kubectl("get", kinds, "-o", "name", check=False).stdout.split()
    names = [name for name in listed if "/pilot-identity-stamp-" in name]
    saved = [json.loads(kubectl("get", name, "-o", "json").stdout) for name in names]
    for name in names:
        kubectl("delete", name)
    _await_stamps(as_, present=False)
    yield
    for binding in saved:
        metadata = {key: binding["metadata"][key] for key in ("name", "labels", "annotations")}
        kubectl("create", "-f", "-", stdin=json.dumps({**binding, "metadata": metadata}))
    _await_stamps(as_, present=bool(saved))


def _await_stamps(as_: As, *, present: bool) -> None:
    """The API server follows a change of its policies within about a second."""
    deadline = time.monotonic() + 15
    while time.monotonic() < deadline:
        probe = ("create", "--dry-run=server", "-o", "json", "-f", "-")
        tried = [
            as_("alice", *probe, document=document)
            for document in (_pilot("probe"), _grant("probe"), _approval("probe"))
        ]
        if all((answer.returncode == 0) is present for answer in tried):
            return
        time.sleep(0.1)  # between two looks
    pytest.fail(f"the stamps are not {'back' if present else 'gone'} within 15 s")


def _pilot(name: str, purpose: str = "p") -> Document:
    owners = {"business": "carol", "technical": "alice"}
    spec = {"workflow": "w", "purpose": purpose, "stage": "sandbox", "owners": owners}
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "PilotIdentity",
        "metadata": {"name": name},
        "spec": spec,
    }


def _grant(name: str, **spec: Any) -> Document:
    spec = {"pilot": "nobody", "task": {"id": "T-1"}, "access": [{"name": "a"}], **spec}
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {"name": name},
        "spec": spec,
    }


def _approval(name: str, **spec: Any) -> Document:
    subject = {"kind": "TaskGrant", "name": "g", "uid": "8f2d2f0c-5c3f-4e53-9d3a-0d3c2b1a4f5e"}
    spec = {
        "subject": subject,
        "purpose": "Grant",
        "digest": "sha256:" + "0f" * 32,
        "decision": "Approve",
        "reason": "r",
        **spec,
    }
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": name},
        "spec": spec,
    }


_MAKERS: dict[str, Callable[[str], Document]] = {
    "pilotidentity": _pilot,
    "taskgrant": _grant,
    "approval": _approval,
}


def _settled(cluster: Cluster, written: Document) -> Document:
    """Wait until the operator has said its word on an object; returns the object as it is then."""
    where = ("-n", written["metadata"]["namespace"])
    name = f"{written['kind'].lower()}/{written['metadata']['name']}"
    seen = "--for=jsonpath={.status.observedGeneration}=" + str(written["metadata"]["generation"])
    cluster.kubectl(*where, "wait", name, seen, "--timeout=30s")
    settled: Document = cluster.get(*where, name)
    return settled


def _create(as_: As, person: str, document: Document) -> Document:
    return made(as_(person, "create", "-o", "json", "-f", "-", document=document))


@pytest.mark.usefixtures("stamps")
def test_the_requester_is_stamped_over_what_the_client_wrote(as_: As) -> None:
    """A forged requestedBy is overwritten by the name of who creates the grant."""
    assert _create(as_, "alice", _grant("unsaid"))["spec"]["requestedBy"] == "alice"
    assert _create(as_, "alice", _grant("forged", requestedBy="bob"))["spec"]["requestedBy"] == "alice"


@pytest.mark.usefixtures("stamps")
def test_the_approver_is_stamped_over_what_the_client_wrote(as_: As) -> None:
    """A forged approver is overwritten by the name of who creates the approval."""
    assert _create(as_, "alice", _approval("forged", approver="bob"))["spec"]["approver"] == "alice"


@pytest.mark.usefixtures("stamps")
def test_the_approvers_groups_are_stamped_over_what_the_client_wrote(as_: As) -> None:
    """All the groups that the API server knows of, and none that the client made up, or left out."""
    own = ["system:masters", "system:authenticated"]
    for name, groups in (("made-up", ["admins"]), ("left-out", ["system:masters"]), ("none", [])):
        document = _approval(f"groups-{name}", approverGroups=groups)
        assert _create(as_, "alice", document)["spec"]["approverGroups"] == own


@pytest.mark.usefixtures("stamps")
def test_of_more_groups_than_fit_the_approver_chooses(cluster: Cluster) -> None:
    """64 are kept: the first ones, or those of the approver's own that were named."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    many = ["system:masters", *(f"group-{number}" for number in range(80))]
    person = Person(cluster, TEAM, "ida", *many)
    unnamed = made(person.create(_approval("of-many")))["spec"]["approverGroups"]
    assert unnamed == many[:64]
    named = _approval("of-many-named", approverGroups=["group-79", "admins"])
    assert made(person.create(named))["spec"]["approverGroups"] == ["group-79"]


@pytest.mark.usefixtures("stamps")
def test_a_group_whose_name_does_not_fit_is_left_out(cluster: Cluster) -> None:
    """It cannot keep its members from approving by another group."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    # No certificate holds such a name; by impersonation an authenticating proxy's or OIDC's group is had.
    long = Person(cluster, TEAM, "ira", "system:masters")
    groups = ("system:masters", "g" * 254, "g" * 253)
    flags = ("--as", "ira", *(flag for group in groups for flag in ("--as-group", group)))
    stamped = made(long.create(_approval("of-a-long-one"), *flags))["spec"]["approverGroups"]
    assert stamped == ["system:masters", "g" * 253, "system:authenticated"]


@pytest.mark.usefixtures("stamps")
def test_who_revokes_is_stamped_and_stays(as_: As) -> None:
    """revoke.by is who sets revoke, whatever was written; afterwards it is nobody's to change."""
    _create(as_, "alice", _grant("to-revoke"))
    revoke = json.dumps({"spec": {"revoke": {"reason": "r", "by": "alice"}}})
    ended = made(as_("bob", "patch", "taskgrant", "to-revoke", "--type=merge", "-p", revoke, "-o", "json"))
    assert ended["spec"]["revoke"]["by"] == "bob"
    assert ended["spec"]["requestedBy"] == "alice"
    again = json.dumps({"spec": {"revoke": {"by": "carol"}}})
    refused = as_("carol", "patch", "taskgrant", "to-revoke", "--type=merge", "-p", again)
    assert "revoke cannot be changed or removed" in refused.stderr


@pytest.mark.usefixtures("stamps")
def test_the_finalizer_is_stamped_beside_others(as_: As) -> None:
    """A new pilot or grant is held from its first moment, at no write of the operator's."""
    assert _create(as_, "alice", _pilot("held"))["metadata"]["finalizers"] == [FINALIZER]
    assert _create(as_, "alice", _grant("held"))["metadata"]["finalizers"] == [FINALIZER]
    shared = _grant("held-by-two")
    shared["metadata"]["finalizers"] = ["example.org/other"]
    assert _create(as_, "alice", shared)["metadata"]["finalizers"] == ["example.org/other", FINALIZER]
    loosened = json.dumps({"metadata": {"finalizers": [FINALIZER]}})
    made(as_("alice", "patch", "taskgrant", "held-by-two", "--type=merge", "-p", loosened, "-o", "json"))


@pytest.mark.usefixtures("stamps")
def test_who_changed_a_spec_is_stamped_on_every_change(as_: As) -> None:
    """The annotation names who last changed spec, whatever the client wrote."""
    forged = _pilot("changing")
    forged["metadata"]["annotations"] = {CHANGED_BY: "bob"}
    assert _create(as_, "alice", forged)["metadata"]["annotations"][CHANGED_BY] == "alice"
    patch = json.dumps({"spec": {"purpose": "another"}})
    changed = made(
        as_("carol", "patch", "pilotidentity", "changing", "--type=merge", "-p", patch, "-o", "json")
    )
    assert changed["metadata"]["annotations"][CHANGED_BY] == "carol"
    label = json.dumps({"metadata": {"labels": {"team": "a"}}})
    labelled = made(
        as_("dave", "patch", "pilotidentity", "changing", "--type=merge", "-p", label, "-o", "json")
    )
    assert labelled["metadata"]["annotations"][CHANGED_BY] == "carol"
    forge = json.dumps({"metadata": {"annotations": {CHANGED_BY: "dave"}}})
    refused = as_("dave", "patch", "pilotidentity", "changing", "--type=merge", "-p", forge)
    assert "leave the annotation pilotidentity.dev/changed-by as it is" in refused.stderr


def _excepted(name: str, reason: str = "r", **fields: str) -> Document:
    """A pilot that asks for an exception."""
    document = _pilot(name)
    exception = {"rule": "quiet", "reason": reason, "until": "2999-01-01T00:00:00Z", **fields}
    document["spec"]["exceptions"] = [{**exception, "rule": "other"}, exception]
    return document


def _askers(document: Document) -> list[str]:
    return [exception.get("requestedBy", "") for exception in document["spec"]["exceptions"]]


@pytest.mark.usefixtures("stamps")
def test_who_asks_for_an_exception_is_stamped_and_stays(as_: As) -> None:
    """Whoever wrote it as it is now, whatever the client wrote, and whoever changed something else since."""
    made_by = _create(as_, "alice", _excepted("excepted", requestedBy="bob"))
    assert _askers(made_by) == ["alice", "alice"]

    def patched(person: str, spec: Document) -> Document:
        patch = json.dumps({"spec": spec})
        return made(
            as_(person, "patch", "pilotidentity", "excepted", "--type=merge", "-p", patch, "-o", "json")
        )

    assert _askers(patched("carol", {"purpose": "another"})) == ["alice", "alice"]
    other, quiet = _excepted("excepted")["spec"]["exceptions"]
    mixed = patched("dave", {"exceptions": [{**other, "requestedBy": "eve"}, {**quiet, "reason": "more"}]})
    assert _askers(mixed) == ["alice", "dave"]
    assert _askers(patched("eve", {"exceptions": [quiet]})) == ["eve"], "another reason again is another wish"


@pytest.mark.usefixtures("without_stamps")
def test_nobody_asks_for_an_exception_in_anothers_name(as_: As) -> None:
    """Where nothing is stamped: one's own name or none, and what others wrote stays theirs."""

    def created(**fields: str) -> CompletedProcess[str]:
        document = _excepted("excepted-without", **fields)
        document["metadata"]["annotations"] = {CHANGED_BY: "alice"}
        return as_("alice", "create", "-o", "json", "-f", "-", document=document)

    def patched(spec: Document) -> CompletedProcess[str]:
        patch = json.dumps({"metadata": {"annotations": {CHANGED_BY: "bob"}}, "spec": spec})
        flags = ("--type=merge", "-p", patch, "-o", "json")
        return as_("bob", "patch", "pilotidentity", "excepted-without", *flags)

    forged = created(requestedBy="bob")
    assert "set requestedBy to your own user name, alice, in each of spec.exceptions" in forged.stderr
    exceptions = made(created(requestedBy="alice"))["spec"]["exceptions"]
    refused = patched({"exceptions": [{**one, "reason": "another"} for one in exceptions]})
    assert "set requestedBy to your own user name, bob" in refused.stderr
    assert _askers(made(patched({"purpose": "another"}))) == ["alice", "alice"]


@pytest.mark.usefixtures("stamps", "operator")
@pytest.mark.parametrize("flags", [("--server-side",), ()], ids=["server-side", "client-side"])
def test_applying_twice_changes_nothing(as_: As, cluster: Cluster, flags: tuple[str, ...]) -> None:
    """GitOps: the same manifests again leave stamps, finalizers and resource versions as they are."""
    way = "server" if flags else "client"
    documents = [
        _excepted(f"twice-{way}"),
        _grant(f"twice-{way}", revoke={"reason": "r"}),
        _approval(f"twice-{way}"),
    ]
    # An operator that has just started says of a pilot first that its stage has no keys yet.
    cluster.kubectl("wait", "stagepolicy/sandbox", "--for=condition=Ready", "--timeout=30s")
    for document in documents:
        first = made(as_("argo", "apply", *flags, "-o", "json", "-f", "-", document=document))
        first = _settled(cluster, first)
        second = made(as_("argo", "apply", *flags, "-o", "json", "-f", "-", document=document))
        other = made(as_("flux", "apply", *flags, "-o", "json", "-f", "-", document=document))
        assert first["spec"] == second["spec"] == other["spec"]
        assert first["metadata"].get("finalizers") == other["metadata"].get("finalizers")
        versions = {applied["metadata"]["resourceVersion"] for applied in (first, second, other)}
        assert len(versions) == 1, f"{document['kind']} changed"


@pytest.mark.usefixtures("stamps")
def test_replacing_by_the_first_manifest_keeps_the_stamps(as_: As) -> None:
    """A PUT of a manifest that never had the stamps keeps them; only the finalizer must be kept by hand."""
    document = _grant("replaced")
    _create(as_, "alice", document)
    assert (
        f"keep {FINALIZER} in metadata.finalizers"
        in as_("alice", "replace", "-f", "-", document=document).stderr
    )
    document["metadata"]["finalizers"] = [FINALIZER]
    replaced = made(as_("bob", "replace", "-o", "json", "-f", "-", document=document))
    assert replaced["spec"]["requestedBy"] == "alice"


@pytest.mark.usefixtures("stamps")
def test_what_is_no_object_is_told_by_the_schema(as_: As) -> None:
    """A manifest that the stamps cannot even read gets the schema's answer, not a stamp's."""
    specs: tuple[Any, ...] = ("hello", [], None)
    for spec in specs:
        refused = as_(
            "alice", "create", "--validate=false", "-f", "-", document={**_grant("odd"), "spec": spec}
        )
        assert "spec" in refused.stderr
        assert "MutatingAdmissionPolicy" not in refused.stderr


@pytest.mark.usefixtures("without_stamps")
def test_without_stamps_every_other_name_is_refused(as_: As) -> None:
    """Where the API server cannot stamp, people write their own names, and can write no other."""
    create = ("create", "-f", "-")
    for document in (_grant("by-bob", requestedBy="bob"), _grant("by-nobody")):
        refused = as_("alice", *create, document=document)
        assert "set spec.requestedBy to your own user name, alice" in refused.stderr
    for document in (_approval("by-bob", approver="bob"), _approval("by-nobody")):
        refused = as_("alice", *create, document=document)
        assert "set spec.approver to your own user name, alice" in refused.stderr
    for groups in (["admins"], ["system:masters", "admins"]):
        refused = as_(
            "alice", *create, document=_approval("of-admins", approver="alice", approverGroups=groups)
        )
        assert "name in spec.approverGroups only groups that you are in, not admins" in refused.stderr
    own = _approval("of-masters", approver="alice", approverGroups=["system:masters"])
    assert _create(as_, "alice", own)["spec"]["approverGroups"] == ["system:masters"]
    assert as_("alice", *create, document=_grant("unstamped", requestedBy="alice")).returncode == 0
    assert as_("alice", *create, document=_approval("unstamped", approver="alice")).returncode == 0
    for revoke in ({"reason": "r"}, {"reason": "r", "by": "alice"}):
        patch = json.dumps({"spec": {"revoke": revoke}})
        refused = as_("bob", "patch", "taskgrant", "unstamped", "--type=merge", "-p", patch)
        assert "set spec.revoke.by to your own user name, bob" in refused.stderr
    forged = _pilot("unstamped")
    forged["metadata"]["annotations"] = {CHANGED_BY: "bob"}
    refused = as_("alice", *create, document=forged)
    assert f"set the annotation {CHANGED_BY} to your own user name, alice" in refused.stderr
    forged["metadata"]["annotations"] = {CHANGED_BY: "alice"}
    assert as_("alice", *create, document=forged).returncode == 0


@pytest.mark.parametrize("kind", ["pilotidentity", "taskgrant"])
def test_nobody_strips_the_finalizer(as_: As, kind: str) -> None:
    """What was issued is withdrawn first; an admin who must may take the binding away."""
    document = _MAKERS[kind]("stripped")
    document["metadata"]["finalizers"] = [FINALIZER]
    as_("alice", "create", "-f", "-", document=document)
    strip = json.dumps({"metadata": {"finalizers": None}})
    refused = as_("alice", "patch", kind, "stripped", "--type=merge", "-p", strip)
    assert f"keep {FINALIZER} in metadata.finalizers" in refused.stderr


@pytest.mark.parametrize("kind", ["pilotidentity", "taskgrant", "approval", "stagepolicy"])
def test_nobody_else_writes_a_status(as_: As, kind: str) -> None:
    """Statuses are believed after a restart, so nobody but the operator writes them, admins included."""
    name = "sandbox" if kind == "stagepolicy" else "no-status"
    if kind != "stagepolicy":
        document = _MAKERS[kind](name)
        as_("alice", "create", "-f", "-", document=document)
    forge = json.dumps({"status": {"observedGeneration": 7}})
    refused = as_("alice", "patch", kind, name, "--subresource=status", "--type=merge", "-p", forge)
    assert "only pilot-identity writes a status" in refused.stderr


def test_nobody_else_writes_the_audit_log(as_: As) -> None:
    """Not even by the dry run of an admin; other ConfigMaps there are free."""
    create = ("create", "configmap", "-n", HOME, "--dry-run=server")
    refused = as_("alice", *create, "audit-group-0000000000000000")
    assert "only pilot-identity writes ConfigMaps audit-" in refused.stderr
    assert as_("alice", *create, "settings").returncode == 0


@pytest.mark.usefixtures("operator")
def test_nobody_else_touches_a_credential(as_: As, cluster: Cluster) -> None:
    """Neither forged, nor relabelled, nor held by a finalizer: the operator must be able to delete it."""
    wall = "only pilot-identity writes Secrets of type pilotidentity.dev/credential"
    forged = {"apiVersion": "v1", "kind": "Secret", "type": "pilotidentity.dev/credential"}
    made = as_("mallory", "create", "-f", "-", document={**forged, "metadata": {"name": "forged"}})
    assert wall in made.stderr
    _create(as_, "alice", _pilot("guarded"))
    cluster.kubectl("-n", TEAM, "wait", "pilot/guarded", "--for=condition=Ready", "--timeout=30s")
    secret = "secret/pilot-svid-guarded"
    assert wall in as_("mallory", "label", secret, "app.kubernetes.io/managed-by-").stderr
    hold = json.dumps({"metadata": {"finalizers": ["example.org/mine"]}})
    assert wall in as_("mallory", "patch", secret, "--type=merge", "-p", hold).stderr


@pytest.fixture(scope="module")
def editor(kubectl: Kubectl) -> Callable[..., CompletedProcess[str]]:
    """Runs kubectl as somebody who may edit the team's namespace, and nothing else."""
    kubectl("-n", TEAM, "create", "rolebinding", "editor", "--clusterrole=edit", "--user=erin")

    def run(*arguments: str) -> CompletedProcess[str]:
        return kubectl(*arguments, "-n", TEAM, "--as", "erin", check=False)

    deadline = time.monotonic() + 15
    while run("auth", "can-i", "delete", "configmaps").returncode != 0:
        assert time.monotonic() < deadline, "the API server knows of no binding within 15 s"
        time.sleep(0.1)  # between two looks
    return run


@pytest.mark.parametrize("prefix", ["pilot-bundle-", "pilot-revoked-"])
def test_nobody_else_touches_a_bundle_or_a_list(
    prefix: str, editor: Callable[..., CompletedProcess[str]], as_: As, cluster: Cluster
) -> None:
    """Neither an editor of the namespace nor an admin makes, strips, holds, outnumbers or deletes one."""
    wall = "only pilot-identity writes and deletes ConfigMaps pilot-bundle-… and pilot-revoked-…"
    name = f"{prefix}guarded"
    number = "pilotidentity.dev/number"
    metadata = {"name": name, "labels": {"app.kubernetes.io/managed-by": "pilot-identity"}}
    document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "data": {"a": "ours"}}
    _create(as_, f"system:serviceaccount:{HOME}:pilot-identity", document)
    held = json.dumps({"metadata": {"finalizers": ["example.org/mine"]}})
    for attempt in (
        ("create", "configmap", f"{prefix}other", "--from-literal=bundle.pem=mine"),
        ("label", "configmap", name, "app.kubernetes.io/managed-by-"),
        ("annotate", "configmap", name, f"{number}=9223372036854775807"),
        ("patch", "configmap", name, "--type=merge", "-p", '{"data": {"a": "mine"}}'),
        ("patch", "configmap", name, "--type=merge", "-p", held),
        ("delete", "configmap", name),
        ("delete", "configmaps", "--all"),
    ):
        assert wall in editor(*attempt).stderr, attempt
        assert wall in as_("mallory", *attempt).stderr, attempt
    squat(cluster, TEAM, f"{prefix}before")
    assert wall in editor("label", "configmap", f"{prefix}before", "a=b").stderr
    assert editor("delete", "configmap", f"{prefix}before").returncode == 0, "what stood there before may go"


def test_a_namespace_goes_with_its_bundles_and_lists(as_: As, cluster: Cluster, kubectl: Kubectl) -> None:
    """The wall lets the namespace controller through."""
    place = "people-that-leave"
    kubectl("create", "namespace", place)
    for name in ("pilot-bundle-sandbox", "pilot-revoked-sandbox"):
        metadata = {
            "name": name,
            "namespace": place,
            "labels": {"app.kubernetes.io/managed-by": "pilot-identity"},
        }
        document = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata}
        operator = f"system:serviceaccount:{HOME}:pilot-identity"
        made(as_(operator, "create", "-o", "json", "-f", "-", "-n", place, document=document))
    cluster.kubectl("delete", "namespace", place, "--wait", "--timeout=60s")


def test_no_service_account_approves(as_: As) -> None:
    """Not even under its own name."""
    refused = as_("system:serviceaccount:people:default", "create", "-f", "-", document=_approval("by-robot"))
    assert "approve as a person" in refused.stderr


def test_nobody_else_makes_keys(as_: As) -> None:
    """A key that somebody slipped in would sign for a stage."""
    create = ("create", "secret", "generic", "-n", HOME, "--dry-run=server")
    for name in ("stage-keys-forged", "audit-log-key"):
        assert "only pilot-identity writes Secrets stage-keys-" in as_("alice", *create, name).stderr
    assert as_("alice", *create, "pull-secret").returncode == 0


def test_nobody_else_makes_a_grants_account(as_: As) -> None:
    """An account pilot-grant-… that somebody made first would get that grant's bindings."""
    refused = as_("alice", "create", "serviceaccount", "pilot-grant-forged")
    assert "only pilot-identity makes ServiceAccounts pilot-grant-" in refused.stderr


def test_no_pilot_lives_with_the_keys(as_: As) -> None:
    """The operator's namespace is its own."""
    for document in (_pilot("intruder"), _grant("intruder")):
        refused = as_("alice", "create", "-n", HOME, "-f", "-", document=document)
        assert "use another namespace: this one is pilot-identity's own" in refused.stderr
