"""What the chart renders, without a cluster."""

from __future__ import annotations

import base64
import json
import subprocess
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CHART = ROOT / "charts" / "pilot-identity"
OPERATOR = "system:serviceaccount:pilot-identity-system:pilot-identity"

EVERY = "--reconcile-every=10m"

Document = dict[str, Any]
Render = Callable[..., list[Document]]
Helm = Callable[..., subprocess.CompletedProcess[str]]


def _of(documents: list[Document], kind: str) -> dict[str, Document]:
    return {document["metadata"]["name"]: document for document in documents if document["kind"] == kind}


def test_lint_is_clean(helm: Helm) -> None:
    """Helm finds nothing to warn of."""
    answer = helm("lint", "--strict", str(CHART))
    assert answer.returncode == 0, answer.stdout


def test_crds_are_the_one_source(render: Render) -> None:
    """The chart installs crds/ as they stand there, through a link and not a copy."""
    source = [yaml.safe_load(path.read_text()) for path in sorted((ROOT / "crds").glob("*.yaml"))]
    rendered = _of(render(), "CustomResourceDefinition")
    assert rendered == {crd["metadata"]["name"]: crd for crd in source}
    assert (CHART / "crds").is_symlink()


def test_a_package_carries_the_crds(helm: Helm, tmp_path: Path) -> None:
    """Packaging follows the link."""
    assert helm("package", str(CHART), "--destination", str(tmp_path)).returncode == 0
    with tarfile.open(next(tmp_path.glob("*.tgz"))) as package:
        packed = {Path(name).name for name in package.getnames() if "/crds/" in name}
    assert packed == {path.name for path in (ROOT / "crds").glob("*.yaml")}


def _described(schema: Document, path: str = "") -> list[str]:
    """Paths of fields without a description."""
    missing = []
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        if where == ".metadata":
            continue
        if not field.get("description"):
            missing.append(where)
        missing += _described(field.get("items", field), where)
    return missing


def _unbounded(schema: Document, path: str = "") -> list[str]:
    """Paths of lists without maxItems and strings without maxLength, enum or format."""
    found = []
    for name, field in schema.get("properties", {}).items():
        where = f"{path}.{name}"
        if where in {".apiVersion", ".kind", ".metadata"}:
            continue
        kinds = {"array": {"maxItems"}, "string": {"maxLength", "enum", "format"}}
        if field["type"] in kinds and not kinds[field["type"]] & field.keys():
            found.append(where)
        found += _unbounded(field.get("items", field), where)
    return found


@pytest.mark.parametrize("path", sorted((ROOT / "crds").glob("*.yaml")), ids=lambda path: path.stem)
def test_every_field_is_described_and_bounded(path: Path) -> None:
    """`kubectl explain` has a sentence for each field, and no list or string grows without end."""
    crd = yaml.safe_load(path.read_text())
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    assert _described(schema) == []
    assert _unbounded(schema) == []
    assert crd["spec"]["names"]["categories"] == ["nhi"]
    assert "status" in crd["spec"]["versions"][0]["subresources"]


def test_three_stages_share_nothing(render: Render) -> None:
    """Sandbox, pilot and production differ in rank, trust domain and every data class."""
    stages = _of(render(), "StagePolicy")
    specs = [stage["spec"] for stage in stages.values()]
    classes = [data_class for spec in specs for data_class in spec["dataClasses"]]
    assert set(stages) == {"sandbox", "pilot", "production"}
    assert len({spec["rank"] for spec in specs}) == len({spec["trustDomain"] for spec in specs}) == 3
    assert len(classes) == len(set(classes))
    assert stages["sandbox"]["spec"]["trustDomain"] == "sandbox.pilots.example.org"


def test_an_admin_adds_and_removes_stages(render: Render) -> None:
    """A stage is an entry of the values, a shipped one goes by null."""
    lab = 'stages.lab={"rank": 5, "credentials": {}, "dataClasses": ["toy"]}'
    stages = _of(
        render("--set-json", lab, "--set", "stages.pilot=null,trustDomainRoot=corp.example"), "StagePolicy"
    )
    assert set(stages) == {"sandbox", "lab", "production"}
    assert stages["lab"]["spec"]["trustDomain"] == "lab.corp.example"


@pytest.mark.parametrize(
    "values",
    [
        "trustDomainRoot=Upper.Case",
        "replicas=-1",
        "watchNamespaces={A_b}",
        "admission.mutation=maybe",
        "x=1",
        "kubernetesAccess.roles[0].kind=Role,kubernetesAccess.roles[0].name=without-a-namespace",
        "kubernetesAccess.roles[0].kind=User,kubernetesAccess.roles[0].name=x",
        "kubernetesAccess.roles[0].name=view",
        "kubernetesAccess.server=http://plain.example.org",
        "kubernetesAccess.certificateAuthority=not-pem",
    ],
)
def test_wrong_values_are_refused(helm: Helm, values: str) -> None:
    """The values' schema refuses what could not work."""
    assert helm("template", "x", str(CHART), "--set", values).returncode != 0


def test_every_validating_policy_denies_and_fails_closed(render: Render) -> None:
    """Each policy is bound, lets nothing through that it could not judge, and says what to change."""
    documents = render()
    policies = _of(documents, "ValidatingAdmissionPolicy")
    bindings = _of(documents, "ValidatingAdmissionPolicyBinding")
    assert set(policies) == {binding["spec"]["policyName"] for binding in bindings.values()}
    assert all(binding["spec"]["validationActions"] == ["Deny"] for binding in bindings.values())
    for name, policy in policies.items():
        assert policy["spec"]["failurePolicy"] == "Fail"
        reason = "Invalid" if name.startswith("pilot-identity-operator-") else "Forbidden"
        for validation in policy["spec"]["validations"]:
            assert validation["message"]
            assert validation["reason"] == reason, name


def test_policies_name_the_account_and_namespace_of_the_install(render: Render) -> None:
    """Another namespace or account name moves every wall with it."""
    moved = render("--namespace", "ops", "--set", "serviceAccount.name=op")
    policies = [document for document in moved if document["kind"] == "ValidatingAdmissionPolicy"]
    assert "pilot-identity-system" not in yaml.safe_dump(policies)
    assert "system:serviceaccount:ops:op" in yaml.safe_dump(policies, width=1000)


def test_stamps_are_there_where_the_api_server_has_them(render: Render) -> None:
    """By default where the server says so; always and never by value."""
    server = ("--api-versions", "admissionregistration.k8s.io/v1/MutatingAdmissionPolicy")
    kind = "MutatingAdmissionPolicy"
    assert _of(render(), kind) == {}
    assert len(_of(render(*server), kind)) == 4
    assert len(_of(render("--set", "admission.mutation=always"), kind)) == 4
    assert _of(render(*server, "--set", "admission.mutation=never"), kind) == {}


def _verbs(rules: list[Document]) -> dict[str, set[str]]:
    found: dict[str, set[str]] = {}
    for rule in rules:
        for resource in rule["resources"]:
            found.setdefault(resource, set()).update(rule["verbs"])
    return found


def test_secrets_of_others_cannot_be_read(render: Render) -> None:
    """Outside its namespace the operator has create, update and delete on Secrets, and nothing more."""
    rules = _of(render(), "ClusterRole")["pilot-identity-operator"]["rules"]
    assert _verbs(rules)["secrets"] == {"create", "update", "delete"}
    assert not any("*" in rule[field] for rule in rules for field in ("verbs", "resources", "apiGroups"))


def test_chosen_namespaces_get_roles_of_their_own(render: Render) -> None:
    """With watchNamespaces the ClusterRole keeps stages alone, and the operator is told which to watch."""
    chosen = render("--set", "watchNamespaces={a,b}")
    everywhere = _verbs(_of(render(), "ClusterRole")["pilot-identity-operator"]["rules"])
    cluster = _verbs(_of(chosen, "ClusterRole")["pilot-identity-operator"]["rules"])
    assert set(cluster) == {"stagepolicies", "stagepolicies/status"}
    roles = [document for document in chosen if document["kind"] == "Role"]
    for namespace in ("a", "b"):
        (role,) = [role for role in roles if role["metadata"]["namespace"] == namespace]
        assert {**cluster, **_verbs(role["rules"])} == everywhere
    (container,) = _of(chosen, "Deployment")["pilot-identity"]["spec"]["template"]["spec"]["containers"]
    assert container["args"] == ["run", "--namespace=a", "--namespace=b", "--http-port=8080", EVERY]


BINDABLE = [
    {"kind": "ClusterRole", "name": "view"},
    {"kind": "ClusterRole", "name": "edit", "namespace": "a"},
    {"kind": "Role", "name": "reader", "namespace": "a"},
]


def _bound(documents: list[Document]) -> set[tuple[str, str, str]]:
    """What may be bound: the namespace of the right (empty: everywhere), the kind and the role's name."""
    return {
        (role["metadata"].get("namespace", ""), resource, name)
        for role in documents
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        if "bind" in rule["verbs"]
        for resource in rule["resources"]
        for name in rule["resourceNames"]
    }


def test_without_a_list_there_is_no_right_to_give_kubernetes_access(render: Render) -> None:
    """No token, no review, no binding: only what was given under a longer list can be taken back."""
    documents = render()
    rules = [rule for role in documents if role["kind"] in {"Role", "ClusterRole"} for rule in role["rules"]]
    resources = {resource for rule in rules for resource in rule["resources"]}
    assert not resources & {
        "clusterroles",
        "roles",
        "serviceaccounts/token",
        "tokenreviews",
        "subjectaccessreviews",
    }
    verbs = _verbs(_of(documents, "ClusterRole")["pilot-identity-operator"]["rules"])
    assert verbs["rolebindings"] == {"get", "list", "delete"}
    assert verbs["serviceaccounts"] == {"create", "get", "list", "delete"}


@pytest.mark.parametrize("watched", ["", "a"])
def test_exactly_the_listed_roles_may_be_bound_and_read(render: Render, watched: str) -> None:
    """Each by its name, in its namespace or wherever pilots are served."""
    values = {"kubernetesAccess": {"roles": BINDABLE}, "watchNamespaces": [watched] if watched else []}
    settings = [f"{name}={json.dumps(value)}" for name, value in values.items()]
    documents = render(*(word for setting in settings for word in ("--set-json", setting)))
    expected = {(watched, "clusterroles", "view"), ("a", "clusterroles", "edit"), ("a", "roles", "reader")}
    assert _bound(documents) == expected
    cluster = _of(documents, "ClusterRole")["pilot-identity-operator"]["rules"]
    (read,) = [rule for rule in cluster if "clusterroles" in rule["resources"] and "get" in rule["verbs"]]
    assert read["resourceNames"] == ["view", "edit"]
    assert _verbs(cluster)["tokenreviews"] == _verbs(cluster)["subjectaccessreviews"] == {"create"}
    served = [
        rule
        for role in documents
        if role["kind"] in {"Role", "ClusterRole"}
        for rule in role["rules"]
        if "rolebindings" in rule["resources"]
    ]
    assert [rule["verbs"] for rule in served] == [["create", "get", "list", "delete"]]


def test_where_workloads_find_the_api_server(render: Render) -> None:
    """Server and authority go to the operator as arguments, the authority in base64."""
    pem = "-----BEGIN CERTIFICATE-----\nAA==\n-----END CERTIFICATE-----\n"
    values = {"server": "https://api.example.org", "certificateAuthority": pem}
    documents = render("--set-json", f"kubernetesAccess={json.dumps(values)}")
    (container,) = _of(documents, "Deployment")["pilot-identity"]["spec"]["template"]["spec"]["containers"]
    assert container["args"][-2:] == [
        "--kubernetes-server=https://api.example.org",
        f"--kubernetes-ca-data={base64.b64encode(pem.encode()).decode()}",
    ]


def test_tokens_are_held_to_the_audiences_that_are_named(render: Render) -> None:
    """Where the admin says what the API server calls itself, admission compares."""
    named = render("--set", "kubernetesAccess.audiences={https://one.example.org,two}")
    policy = _of(named, "ValidatingAdmissionPolicy")["pilot-identity-operator-tokens"]
    (rule,) = [rule for rule in policy["spec"]["validations"] if "audience" in rule["expression"]]
    assert rule["expression"].endswith("audience in ['https://one.example.org','two'])")


def test_the_pod_is_as_small_as_it_can_be(render: Render) -> None:
    """Non-root, read-only, no capabilities, seccomp; probes and identity are there."""
    pod = _of(render(), "Deployment")["pilot-identity"]["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert container["args"] == ["run", "--cluster-wide", "--http-port=8080", EVERY]
    assert {variable["name"] for variable in container["env"]} == {"POD_NAME", "POD_NAMESPACE"}
    assert container["livenessProbe"]["httpGet"]["path"] == "/healthz"
    assert container["readinessProbe"]["httpGet"]["path"] == "/readyz"


def test_the_account_is_what_the_policies_hold(render: Render) -> None:
    """The account that is installed is the one that is walled in."""
    documents = render()
    account = _of(documents, "ServiceAccount")["pilot-identity"]["metadata"]
    assert f"system:serviceaccount:{account['namespace']}:{account['name']}" == OPERATOR
    walls = [
        policy["spec"]["matchConditions"][0]["expression"]
        for name, policy in _of(documents, "ValidatingAdmissionPolicy").items()
        if name.startswith("pilot-identity-operator-")
    ]
    assert walls == [f"request.userInfo.username == '{OPERATOR}'"] * 6
