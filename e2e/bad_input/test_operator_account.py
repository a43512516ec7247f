"""The operator's own account, attacked with its own token: each way is refused by the API server (promise 7).

403 is RBAC's answer; the admission policies answer 422, so that it is plain which of the two held.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e.bad_input.account import Account, account
from e2e.bad_input.test_bad_input import Kubectl
from e2e.controlplane.cluster import Cluster
from e2e.squatter import CLEANER, squat

HOME = "pilot-identity-system"
AWAY = "operator-account"
SECRETS = f"/api/v1/namespaces/{AWAY}/secrets"
CONFIGMAPS = f"/api/v1/namespaces/{AWAY}/configmaps"
ACCOUNTS = f"/api/v1/namespaces/{AWAY}/serviceaccounts"
HOME_SECRETS = f"/api/v1/namespaces/{HOME}/secrets"
HOME_CONFIGMAPS = f"/api/v1/namespaces/{HOME}/configmaps"
PILOTS = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{AWAY}/pilotidentities"
GRANTS = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{AWAY}/taskgrants"
MERGE = "application/merge-patch+json"
OURS = {"app.kubernetes.io/managed-by": "pilot-identity"}
UID = "0d9f9c2e-9f0f-4a3c-8f57-6a8a3f6f8f10"
GRANT_ACCOUNT = "pilot-grant-0d9f9c2e9f0f4a3c8f57"
"""The account of a grant with that UID."""
THE_GRANTS = "{the grant's}"
"""Stands for the account of the grant `attacked`, whose UID the API server chose."""
BINDINGS = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{AWAY}/rolebindings"

Document = dict[str, Any]


def _owner(kind: str, name: str, **changes: Any) -> Document:
    owner = {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": kind,
        "name": name,
        "uid": UID,
        "controller": True,
    }
    return {**owner, **changes}


def _credential(
    name: str, credential: str = "c-1", *, replaces: str = "", owner: Document | None = None, **metadata: Any
) -> Document:
    """A Secret as the operator rightly makes it, but for what the case changes."""
    annotations = {"pilotidentity.dev/credential": credential}
    if replaces:
        annotations["pilotidentity.dev/replaces"] = replaces
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "pilotidentity.dev/credential",
        "metadata": {
            "name": name,
            "labels": OURS,
            "annotations": annotations,
            "ownerReferences": [owner or _owner("TaskGrant", name)],
            **metadata,
        },
        "stringData": {"token.jwt": "made-up"},
    }


def _configmap(name: str, **fields: Any) -> Document:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, "labels": OURS}, **fields}


def _workload(pilot: str, **fields: Any) -> Document:
    metadata = {
        "name": f"pilot-workload-{pilot}",
        "labels": OURS,
        "ownerReferences": [_owner("PilotIdentity", pilot)],
    }
    return {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": metadata, **fields}


def _token_request(**spec: Any) -> Document:
    return {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1", "spec": spec}


def _grant_account(name: str = GRANT_ACCOUNT, uid: str = UID) -> Document:
    """A grant's ServiceAccount as the operator rightly makes it, but for what the case changes."""
    metadata = {"name": name, "labels": OURS, "ownerReferences": [_owner("TaskGrant", "attacked", uid=uid)]}
    return {
        "apiVersion": "v1",
        "kind": "ServiceAccount",
        "metadata": metadata,
        "automountServiceAccountToken": False,
    }


def _grant_binding(
    name: str = f"{GRANT_ACCOUNT}-pods",
    role: str = "view",
    subjects: list[Document] | None = None,
    **metadata: Any,
) -> Document:
    """A grant's RoleBinding as the operator rightly makes it, but for what the case changes."""
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": name,
            "labels": OURS,
            "annotations": {"pilotidentity.dev/grant": f"{AWAY}/attacked"},
            **metadata,
        },
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
        "subjects": subjects or [{"kind": "ServiceAccount", "name": GRANT_ACCOUNT, "namespace": AWAY}],
    }


def _without(document: Document, *path: str) -> Document:
    changed = copy.deepcopy(document)
    *way, last = path
    place = changed
    for step in way:
        place = place[step]
    del place[last]
    return changed


@pytest.fixture(scope="module", autouse=True)
def neighbourhood(kubectl: Kubectl, cluster: Cluster, installed: object) -> Iterator[None]:
    """A namespace with things that are not the operator's, a pilot and a grant, and credentials of both."""
    del installed
    kubectl("create", "namespace", AWAY)
    pilot = {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "PilotIdentity",
        "metadata": {"name": "attacked", "finalizers": ["example.org/other"]},
        "spec": {
            "workflow": "w",
            "purpose": "p",
            "stage": "production",
            "owners": {"business": "carol", "technical": "alice"},
        },
    }
    grant = {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "TaskGrant",
        "metadata": {"name": "attacked"},
        "spec": {"pilot": "nobody", "task": {"id": "T-1"}, "access": [{"name": "a"}]},
    }
    foreign_secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "foreign", "labels": OURS},
        "stringData": {"password": "foreign-password"},
    }
    settings = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings", "labels": OURS}}
    foreign_binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {"name": "foreign", "labels": OURS},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "view"},
        "subjects": [{"kind": "ServiceAccount", "name": "default", "namespace": AWAY}],
    }
    # Without an owner, which the garbage collector would look for.
    workload = _without(_workload("attacked"), "metadata", "ownerReferences")
    for document in (pilot, grant, foreign_secret, settings, foreign_binding, workload):
        kubectl("create", "-n", AWAY, "-f", "-", stdin=json.dumps(document))
    squat(cluster, AWAY, "pilot-bundle-foreign")
    yield
    kubectl("patch", "pilotidentity", "attacked", "-n", AWAY, "--type=json", "-p",
            '[{"op": "remove", "path": "/metadata/finalizers/0"}]', check=False)  # fmt: skip
    kubectl("delete", "namespace", AWAY, "--wait=false")


@pytest.fixture(scope="module")
def operator_account(cluster: Cluster, kubectl: Kubectl) -> Account:
    """The chart's own ServiceAccount, with a token of its own."""
    token = kubectl("create", "token", "pilot-identity", "-n", HOME).stdout.strip()
    return account(cluster, token)


@pytest.fixture(scope="module")
def grant_account(operator_account: Account, kubectl: Kubectl) -> str:
    """The account of the grant `attacked`, rightly made by the operator's account."""
    uid = kubectl("get", "taskgrant", "attacked", "-n", AWAY, "-o", "jsonpath={.metadata.uid}").stdout
    name = "pilot-grant-" + uid.replace("-", "")[:20]
    assert operator_account.ask("POST", ACCOUNTS, _grant_account(name, uid)).code == 201
    return name


@dataclass(frozen=True)
class Attack:
    """One request that must not succeed, and part of the answer."""

    says: str
    verb: str
    path: str
    answer: str
    body: Document | list[Document] | None = None
    content_type: str = "application/json"
    code: int = 422


ATTACKS = (
    # Another account's token
    Attack(
        "a service-account-token Secret",
        "POST",
        SECRETS,
        "never service account tokens",
        {
            **_credential("loot"),
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                **_credential("loot")["metadata"],
                "annotations": {
                    "kubernetes.io/service-account.name": "default",
                    "pilotidentity.dev/credential": "c",
                },
            },
        },
    ),
    Attack(
        "a service-account-token Secret at home",
        "POST",
        HOME_SECRETS,
        "in its own namespace pilot-identity's account may make only Secrets stage-keys-",
        {
            "type": "kubernetes.io/service-account-token",
            "metadata": {
                "name": "loot",
                "annotations": {"kubernetes.io/service-account.name": "pilot-identity"},
            },
        },
    ),
    Attack(
        "a token of any account by TokenRequest",
        "POST",
        f"{ACCOUNTS}/default/token",
        "tokens of grants' ServiceAccounts only",
        _token_request(),
    ),
    Attack(
        "a token of a pilot's workload by TokenRequest",
        "POST",
        f"{ACCOUNTS}/pilot-workload-attacked/token",
        "tokens of grants' ServiceAccounts only",
        _token_request(),
    ),
    Attack(
        "a token of its own account by TokenRequest",
        "POST",
        f"/api/v1/namespaces/{HOME}/serviceaccounts/pilot-identity/token",
        "tokens of grants' ServiceAccounts only",
        _token_request(),
    ),
    Attack(
        "a token of a namespace's controllers by TokenRequest",
        "POST",
        "/api/v1/namespaces/kube-system/serviceaccounts/namespace-controller/token",
        "tokens of grants' ServiceAccounts only",
        _token_request(),
    ),
    Attack(
        "a grant's token that holds for days",
        "POST",
        f"{ACCOUNTS}/{THE_GRANTS}/token",
        "holds for an hour at most",
        _token_request(expirationSeconds=172800),
    ),
    Attack(
        "a grant's token for somebody else than the API server",
        "POST",
        f"{ACCOUNTS}/{THE_GRANTS}/token",
        "is for the API server alone",
        _token_request(audiences=["https://vault.example.org"]),
    ),
    Attack(
        "a grant's token bound to a Secret",
        "POST",
        f"{ACCOUNTS}/{THE_GRANTS}/token",
        "leave boundObjectRef out",
        _token_request(boundObjectRef={"apiVersion": "v1", "kind": "Secret", "name": "foreign"}),
    ),
    # Another's Secret
    Attack("another's Secret by GET", "GET", f"{SECRETS}/foreign", "forbidden", code=403),
    Attack("all Secrets by LIST", "GET", SECRETS, "forbidden", code=403),
    Attack("another's Secret by PATCH", "PATCH", f"{SECRETS}/foreign", "forbidden", {}, MERGE, code=403),
    Attack("all Secrets by DELETE of a collection", "DELETE", SECRETS, "forbidden", code=403),
    Attack(
        "another's Secret by DELETE",
        "DELETE",
        f"{SECRETS}/foreign",
        "may replace or delete only Secrets of type",
    ),
    Attack(
        "another's Secret in the answer to a foreground DELETE",
        "DELETE",
        f"{SECRETS}/foreign?propagationPolicy=Foreground",
        "may replace or delete only Secrets of type",
    ),
    Attack(
        "another's Secret in the answer to a dry-run DELETE",
        "DELETE",
        f"{SECRETS}/foreign?dryRun=All&propagationPolicy=Foreground",
        "may replace or delete only Secrets of type",
    ),
    Attack(
        "another's Secret by PUT",
        "PUT",
        f"{SECRETS}/foreign",
        "field is immutable",
        _credential("foreign", replaces="c-0"),
    ),
    Attack(
        "another's Secret by PUT of its own type",
        "PUT",
        f"{SECRETS}/foreign",
        "may write Secrets of type pilotidentity.dev/credential only",
        {**_credential("foreign"), "type": "Opaque"},
    ),
    # A Secret that is not as it should be
    Attack(
        "a Secret of another type", "POST", SECRETS, "set type to", {**_credential("x"), "type": "Opaque"}
    ),
    Attack(
        "a Secret without the label",
        "POST",
        SECRETS,
        "label",
        _without(_credential("x"), "metadata", "labels"),
    ),
    Attack(
        "a Secret that names no credential",
        "POST",
        SECRETS,
        "set the annotation pilotidentity.dev/credential",
        _without(_credential("x"), "metadata", "annotations"),
    ),
    Attack(
        "a Secret without an owner",
        "POST",
        SECRETS,
        "exactly one owner",
        _without(_credential("x"), "metadata", "ownerReferences"),
    ),
    Attack(
        "a Secret owned by a Deployment",
        "POST",
        SECRETS,
        "exactly one owner",
        _credential("x", owner=_owner("Deployment", "x", apiVersion="apps/v1")),
    ),
    Attack(
        "a Secret whose owner is no controller",
        "POST",
        SECRETS,
        "exactly one owner",
        _credential("x", owner=_owner("TaskGrant", "x", controller=False)),
    ),
    Attack(
        "a pilot's Secret under another pilot's name",
        "POST",
        SECRETS,
        "exactly one owner",
        _credential("pilot-svid-one", owner=_owner("PilotIdentity", "two")),
    ),
    Attack(
        "a pilot's Secret made for a grant",
        "POST",
        SECRETS,
        "exactly one owner",
        _credential("pilot-svid-one", owner=_owner("TaskGrant", "one")),
    ),
    Attack(
        "a Secret held by a finalizer",
        "POST",
        SECRETS,
        "no finalizers on Secrets",
        _credential("x", finalizers=["example.org/hold"]),
    ),
    # Keys at home
    Attack(
        "a credential at home",
        "POST",
        HOME_SECRETS,
        "in its own namespace pilot-identity's account may make only Secrets stage-keys-",
        _credential("x"),
    ),
    Attack(
        "stage keys under another name",
        "POST",
        HOME_SECRETS,
        "set name and type so",
        {"type": "pilotidentity.dev/stage-keys", "metadata": {"name": "keys"}},
    ),
    Attack(
        "stage keys in a pilot's namespace",
        "POST",
        SECRETS,
        "set type to",
        {"type": "pilotidentity.dev/stage-keys", "metadata": {"name": "stage-keys-x"}},
    ),
    # ConfigMaps
    Attack(
        "a ConfigMap of any name",
        "POST",
        CONFIGMAPS,
        "may write only ConfigMaps named pilot-bundle-",
        _configmap("kube-root-ca.crt"),
    ),
    Attack(
        "another's ConfigMap by PUT",
        "PUT",
        f"{CONFIGMAPS}/settings",
        "may write only ConfigMaps named pilot-bundle-",
        _configmap("settings"),
    ),
    Attack(
        "another's ConfigMap of such a name by PUT",
        "PUT",
        f"{CONFIGMAPS}/pilot-bundle-foreign",
        "this one is someone else's",
        _configmap("pilot-bundle-foreign"),
    ),
    Attack("another's ConfigMap by DELETE", "DELETE", f"{CONFIGMAPS}/settings", "this one is someone else's"),
    Attack(
        "a ConfigMap of any name at home", "POST", HOME_CONFIGMAPS, "named audit-", _configmap("settings")
    ),
    Attack(
        "an audit group that can be rewritten",
        "POST",
        HOME_CONFIGMAPS,
        "set immutable to true",
        _configmap("audit-group-0000000000000000"),
    ),
    Attack(
        "an audit tile that can be rewritten",
        "POST",
        HOME_CONFIGMAPS,
        "set immutable to true",
        _configmap("audit-tile-0000000000000000"),
    ),
    # ServiceAccounts
    Attack(
        "a ServiceAccount of any name",
        "POST",
        ACCOUNTS,
        "named pilot-workload-<pilot>",
        {**_workload("x"), "metadata": {**_workload("x")["metadata"], "name": "builder"}},
    ),
    Attack(
        "a grant's ServiceAccount of a pilot",
        "POST",
        ACCOUNTS,
        "of its UID> a TaskGrant",
        {**_workload("x"), "metadata": {**_workload("x")["metadata"], "name": "pilot-grant-x"}},
    ),
    Attack(
        "a grant's ServiceAccount of another grant's UID",
        "POST",
        ACCOUNTS,
        "of its UID> a TaskGrant",
        _grant_account(name="pilot-grant-00000000000000000000"),
    ),
    Attack(
        "another's ServiceAccount by DELETE",
        "DELETE",
        f"{ACCOUNTS}/default",
        "may delete only the ServiceAccounts of grants",
    ),
    Attack(
        "a workload's ServiceAccount by DELETE",
        "DELETE",
        f"{ACCOUNTS}/pilot-workload-attacked",
        "may delete only the ServiceAccounts of grants",
    ),
    # RoleBindings
    Attack(
        "a RoleBinding of any name", "POST", BINDINGS, "named pilot-grant-<part", _grant_binding(name="more")
    ),
    Attack(
        "a RoleBinding without the label",
        "POST",
        BINDINGS,
        "set name and label so",
        _without(_grant_binding(), "metadata", "labels"),
    ),
    Attack(
        "a subject that is not its own, another account, bound",
        "POST",
        BINDINGS,
        "exactly one subject",
        _grant_binding(subjects=[{"kind": "ServiceAccount", "name": "default", "namespace": AWAY}]),
    ),
    Attack(
        "a subject that is not its own, itself, bound",
        "POST",
        BINDINGS,
        "exactly one subject",
        _grant_binding(subjects=[{"kind": "ServiceAccount", "name": "pilot-identity", "namespace": HOME}]),
    ),
    Attack(
        "a subject that is not its own, another grant's account, bound",
        "POST",
        BINDINGS,
        "exactly one subject",
        _grant_binding(
            subjects=[
                {"kind": "ServiceAccount", "name": "pilot-grant-00000000000000000000", "namespace": AWAY}
            ]
        ),
    ),
    Attack(
        "a subject that is not its own, a person, bound",
        "POST",
        BINDINGS,
        "exactly one subject",
        _grant_binding(
            subjects=[{"kind": "User", "name": "mallory", "apiGroup": "rbac.authorization.k8s.io"}]
        ),
    ),
    Attack(
        "a subject that is not its own bound beside its own",
        "POST",
        BINDINGS,
        "exactly one subject",
        _grant_binding(
            subjects=[
                {"kind": "ServiceAccount", "name": GRANT_ACCOUNT, "namespace": AWAY},
                {"kind": "ServiceAccount", "name": "default", "namespace": AWAY},
            ]
        ),
    ),
    Attack(
        "an account of the same name elsewhere bound",
        "POST",
        BINDINGS,
        "set the annotation pilotidentity.dev/grant",
        _grant_binding(subjects=[{"kind": "ServiceAccount", "name": GRANT_ACCOUNT, "namespace": "default"}]),
    ),
    Attack(
        "a RoleBinding owned by another grant",
        "POST",
        BINDINGS,
        "owned by its TaskGrant or by nobody",
        _grant_binding(ownerReferences=[_owner("TaskGrant", "attacked", uid=UID.replace("0d9f", "ffff"))]),
    ),
    Attack(
        "a RoleBinding held by a finalizer",
        "POST",
        BINDINGS,
        "no finalizers on RoleBindings",
        _grant_binding(finalizers=["example.org/hold"]),
    ),
    Attack(
        "a role bound at home, where the keys are",
        "POST",
        BINDINGS.replace(AWAY, HOME),
        "outside its own namespace",
        _grant_binding(),
    ),
    Attack(
        "a role that no admin listed",
        "POST",
        BINDINGS,
        "attempting to grant RBAC permissions not currently held",
        _grant_binding(role="cluster-admin"),
        code=403,
    ),
    Attack(
        "another's RoleBinding by DELETE",
        "DELETE",
        f"{BINDINGS}/foreign",
        "may delete only the RoleBindings of grants",
    ),
    Attack(
        "another's RoleBinding changed", "PUT", f"{BINDINGS}/foreign", "forbidden", _grant_binding(), code=403
    ),
    Attack(
        "a role bound in the whole cluster",
        "POST",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "forbidden",
        {**_grant_binding(), "kind": "ClusterRoleBinding"},
        code=403,
    ),
    Attack(
        "all ClusterRoleBindings by LIST",
        "GET",
        "/apis/rbac.authorization.k8s.io/v1/clusterrolebindings",
        "forbidden",
        code=403,
    ),
    Attack(
        "a ServiceAccount of another pilot's name",
        "POST",
        ACCOUNTS,
        "the PilotIdentity of that name",
        {**_workload("x"), "metadata": {**_workload("y")["metadata"], "name": "pilot-workload-x"}},
    ),
    Attack(
        "a ServiceAccount with another's Secret",
        "POST",
        ACCOUNTS,
        "without secrets, imagePullSecrets and finalizers",
        _workload("x", secrets=[{"name": "foreign"}]),
    ),
    Attack(
        "a ServiceAccount with a pull Secret",
        "POST",
        ACCOUNTS,
        "without secrets, imagePullSecrets and finalizers",
        _workload("x", imagePullSecrets=[{"name": "foreign"}]),
    ),
    Attack(
        "a ServiceAccount at home",
        "POST",
        f"/api/v1/namespaces/{HOME}/serviceaccounts",
        "in the pilots' namespaces",
        _workload("x"),
    ),
    Attack(
        "another's ServiceAccount changed",
        "PUT",
        f"{ACCOUNTS}/default",
        "forbidden",
        {"metadata": {"name": "default"}},
        code=403,
    ),
    # Its own kinds
    Attack(
        "a pilot's spec",
        "PATCH",
        f"{PILOTS}/attacked",
        "never writes a spec",
        {"spec": {"stage": "sandbox"}},
        MERGE,
    ),
    Attack(
        "a grant completed",
        "PATCH",
        f"{GRANTS}/attacked",
        "never writes a spec",
        {"spec": {"completed": True}},
        MERGE,
    ),
    Attack(
        "a pilot's labels",
        "PATCH",
        f"{PILOTS}/attacked",
        "change nothing but metadata.finalizers",
        {"metadata": {"labels": {"a": "b"}}},
        MERGE,
    ),
    Attack(
        "who changed a pilot",
        "PATCH",
        f"{PILOTS}/attacked",
        "change nothing but metadata.finalizers",
        {"metadata": {"annotations": {"pilotidentity.dev/changed-by": "mallory"}}},
        MERGE,
    ),
    Attack(
        "a pilot's owner",
        "PATCH",
        f"{PILOTS}/attacked",
        "change nothing but metadata.finalizers",
        {"metadata": {"ownerReferences": [_owner("TaskGrant", "attacked")]}},
        MERGE,
    ),
    Attack(
        "another's finalizer",
        "PATCH",
        f"{PILOTS}/attacked",
        "the finalizer pilotidentity.dev/withdraw only",
        {"metadata": {"finalizers": ["pilotidentity.dev/withdraw"]}},
        MERGE,
    ),
    Attack("a grant made", "POST", GRANTS, "forbidden", {"metadata": {"name": "x"}}, code=403),
    Attack("a pilot deleted", "DELETE", f"{PILOTS}/attacked", "forbidden", code=403),
    # What would make it more than it is
    Attack(
        "a role bound to itself",
        "POST",
        f"/apis/rbac.authorization.k8s.io/v1/namespaces/{AWAY}/rolebindings",
        "forbidden",
        {
            "metadata": {"name": "more"},
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "ClusterRole",
                "name": "cluster-admin",
            },
            "subjects": [{"kind": "ServiceAccount", "name": "pilot-identity", "namespace": HOME}],
        },
        code=403,
    ),
    Attack(
        "the wall taken down",
        "DELETE",
        "/apis/admissionregistration.k8s.io/v1/validatingadmissionpolicybindings/pilot-identity-operator-secrets",
        "forbidden",
        code=403,
    ),
)


@pytest.mark.parametrize("attack", [pytest.param(attack, id=attack.says) for attack in ATTACKS])
def test_refused(attack: Attack, operator_account: Account, grant_account: str) -> None:
    """The API server refuses, says what would be right, and gives nothing away."""
    path = attack.path.replace(THE_GRANTS, grant_account)
    answer = operator_account.ask(attack.verb, path, attack.body, attack.content_type)
    assert (answer.code, attack.answer in answer.message) == (attack.code, True), answer
    assert "foreign-password" not in json.dumps(answer.body)


def test_its_own_credentials_it_may_make_replace_and_delete(
    operator_account: Account, kubectl: Kubectl
) -> None:
    """A credential is replaced only by naming the one that stands there: compare-and-swap without a read."""
    uid = kubectl("get", "taskgrant", "attacked", "-n", AWAY, "-o", "jsonpath={.metadata.uid}").stdout
    owner = _owner("TaskGrant", "attacked", uid=uid)  # the garbage collector takes what has no living owner
    ask, path = operator_account.ask, f"{SECRETS}/task-42"

    def secret(credential: str, replaces: str = "", owned_by: Document = owner) -> Document:
        return _credential("task-42", credential, replaces=replaces, owner=owned_by)

    assert ask("POST", SECRETS, secret("c-1")).code == 201
    assert ask("POST", SECRETS, secret("c-1")).code == 409
    assert "another credential" in ask("PUT", path, secret("c-2")).message
    assert "another credential" in ask("PUT", path, secret("c-2", replaces="c-0")).message
    usurped = secret("c-2", replaces="c-1", owned_by=_owner("TaskGrant", "attacked"))
    assert "belongs to another object" in ask("PUT", path, usurped).message
    assert ask("PUT", f"{path}?dryRun=All", secret("c-2", replaces="c-1")).code == 200
    assert ask("PUT", path, secret("c-2", replaces="c-1")).code == 200
    assert ask("PUT", f"{path}?dryRun=All", secret("c-2", replaces="c-1")).code == 422
    assert ask("DELETE", path).code == 200


def test_the_pilots_own_secret_has_its_name(operator_account: Account) -> None:
    """A Secret pilot-svid-<pilot> is made for the pilot of that name."""
    secret = _credential("pilot-svid-one", owner=_owner("PilotIdentity", "one"))
    assert operator_account.ask("POST", f"{SECRETS}?dryRun=All", secret).code == 201


def test_its_own_configmaps_and_accounts_it_may_make(operator_account: Account) -> None:
    """Bundles are made, replaced and deleted; workloads' accounts are made."""
    ask, path = operator_account.ask, f"{CONFIGMAPS}/pilot-bundle-sandbox"
    assert ask("POST", CONFIGMAPS, _configmap("pilot-bundle-sandbox")).code == 201
    assert ask("PUT", path, _configmap("pilot-bundle-sandbox", data={"bundle.pem": ""})).code == 200
    assert ask("DELETE", path).code == 200
    assert ask("POST", f"{ACCOUNTS}?dryRun=All", _workload("x")).code == 201


def test_a_grants_access_it_may_make_and_take_back(
    operator_account: Account, grant_account: str, kubectl: Kubectl
) -> None:
    """Account, token and binding, all named by the grant's UID, are made and deleted; nothing is changed."""
    uid = kubectl("get", "taskgrant", "attacked", "-n", AWAY, "-o", "jsonpath={.metadata.uid}").stdout
    ask, name = operator_account.ask, grant_account
    assert ask("POST", f"{ACCOUNTS}/{name}/token", _token_request(expirationSeconds=600)).code == 201
    owned = [_owner("TaskGrant", "attacked", uid=uid)]
    subjects = [{"kind": "ServiceAccount", "name": name, "namespace": AWAY}]
    binding = _grant_binding(f"{name}-pods", subjects=subjects, ownerReferences=owned)
    assert ask("POST", BINDINGS, binding).code == 201
    assert ask("PUT", f"{BINDINGS}/{name}-pods", binding).code == 403
    assert ask("DELETE", f"{BINDINGS}/{name}-pods").code == 200
    assert ask("DELETE", f"{ACCOUNTS}/{name}?dryRun=All").code == 200


def test_a_grants_account_goes_though_it_lost_its_owner(
    operator_account: Account, grant_account: str, kubectl: Kubectl
) -> None:
    """Whoever orphans what a grant owns, by the grant's DELETE, keeps no account of it."""
    path = f"{ACCOUNTS}/{grant_account}"
    strip = '[{"op": "remove", "path": "/metadata/ownerReferences"}]'
    kubectl("patch", "serviceaccount", grant_account, "-n", AWAY, "--type=json", "-p", strip, *CLEANER)
    assert "ownerReferences" not in operator_account.ask("GET", path).body["metadata"]
    assert operator_account.ask("DELETE", f"{path}?dryRun=All").code == 200


FORGERIES = (
    ("a grant's account changed", ("label", "serviceaccount", "{name}", "a=b"), "nobody changes"),
    ("a grant's token minted", ("create", "token", "{name}"), "only pilot-identity mints tokens"),
    (
        "a grant's account bound",
        ("create", "rolebinding", "mine", "--clusterrole=edit", f"--serviceaccount={AWAY}:{{name}}"),
        "only pilot-identity binds",
    ),
    (
        "a grant's account bound by its user name",
        (
            "create",
            "rolebinding",
            "mine",
            "--clusterrole=edit",
            f"--user=system:serviceaccount:{AWAY}:{{name}}",
        ),
        "only pilot-identity binds",
    ),
    (
        "a grant's account bound in the whole cluster",
        ("create", "clusterrolebinding", "mine", "--clusterrole=edit", f"--serviceaccount={AWAY}:{{name}}"),
        "only pilot-identity binds",
    ),
    (
        "a binding of a grant's name",
        ("create", "rolebinding", "{name}-pods", "--clusterrole=edit", f"--serviceaccount={AWAY}:default"),
        "makes bindings of such names",
    ),
    (
        "a pod that runs as a grant",
        ("run", "pod", "--image=none", '--overrides={{"spec": {{"serviceAccountName": "{name}"}}}}'),
        "no pod runs as a grant's ServiceAccount",
    ),
    (
        "another account of such a name",
        ("create", "serviceaccount", "pilot-grant-forged"),
        "only pilot-identity makes",
    ),
)


@pytest.mark.parametrize(
    "arguments, says", [pytest.param(*forgery[1:], id=forgery[0]) for forgery in FORGERIES]
)
def test_nobody_else_touches_a_grants_access(
    arguments: tuple[str, ...], says: str, grant_account: str, kubectl: Kubectl
) -> None:
    """Even the cluster's admin is refused, and the message says why."""
    refused = kubectl("-n", AWAY, *(one.format(name=grant_account) for one in arguments), check=False)
    assert refused.returncode != 0
    assert says in refused.stderr


def test_nobody_keeps_a_lasting_token_of_a_grant(kubectl: Kubectl) -> None:
    """The API server would fill such a Secret with a token that no grant's end could take back."""
    secret = {
        "apiVersion": "v1",
        "kind": "Secret",
        "type": "kubernetes.io/service-account-token",
        "metadata": {"name": "loot", "annotations": {"kubernetes.io/service-account.name": GRANT_ACCOUNT}},
    }
    refused = kubectl("create", "-n", AWAY, "-f", "-", stdin=json.dumps(secret), check=False)
    assert "would hold a lasting token of a grant's ServiceAccount" in refused.stderr


def test_keys_and_audit_groups_are_made_once(operator_account: Account) -> None:
    """At home the operator makes its keys and appends to its log, and cannot take either back."""
    ask = operator_account.ask
    keys = {"type": "pilotidentity.dev/stage-keys", "metadata": {"name": "stage-keys-attacked"}}
    group = _configmap("audit-group-9999999999999999", immutable=True)
    assert ask("POST", f"{HOME_SECRETS}?dryRun=All", keys).code == 201
    audit_key = {"type": "pilotidentity.dev/audit-key", "metadata": {"name": "audit-log-key"}}
    assert ask("POST", f"{HOME_SECRETS}?dryRun=All", audit_key).code in {201, 409}
    assert ask("POST", f"{HOME_CONFIGMAPS}?dryRun=All", group).code == 201
    assert ask("POST", HOME_SECRETS, keys).code in {201, 409}
    released = f"{HOME_SECRETS}/sh.helm.release.v1.pilot-identity.v1"
    assert "deletes only stage keys" in ask("DELETE", f"{released}?dryRun=All").message
    assert ask("DELETE", f"{HOME_SECRETS}/stage-keys-attacked?dryRun=All").code == 200, "they are rotated"
    assert (
        "makes stage keys and the audit key once"
        in ask("PUT", f"{HOME_SECRETS}/stage-keys-attacked", keys).message
    )


def test_its_finalizer_and_statuses_it_may_write(operator_account: Account) -> None:
    """Taking its own finalizer away and writing a status are what it needs of its own kinds."""
    ask = operator_account.ask
    ready = {"status": {"observedGeneration": 1}}
    assert ask("PATCH", f"{PILOTS}/attacked/status", ready, MERGE).code == 200
    assert ask("PATCH", f"{GRANTS}/attacked/status", {"status": {"phase": "Pending"}}, MERGE).code == 200
    without = {"metadata": {"finalizers": ["example.org/other"]}}
    assert ask("PATCH", f"{PILOTS}/attacked?dryRun=All", without, MERGE).code == 200
