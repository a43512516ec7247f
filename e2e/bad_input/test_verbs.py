"""The verbs `request`, `request-emergency`, `approve` and `revoke`: there, missing, or of something else.

The people are real users, by client certificate. All of them may create, update and patch grants and
approvals; nothing but the verb under test is between them and the object.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Admin
from e2e.bad_input.account import account
from e2e.bad_input.test_bad_input import Kubectl
from e2e.controlplane.cluster import Cluster
from e2e.person import Person, Right, await_right, give, made, take_back

TEAM = "verbs"
ELSEWHERE = "verbs-elsewhere"
MEMBERS = "verbs-team"
APPROVALS = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{TEAM}/approvals"
GRANTS = f"/apis/pilotidentity.dev/v1alpha1/namespaces/{TEAM}/taskgrants"

Document = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One person's rights beside the plain ones, what they try, and what they are told.

    Attributes:
        says: Part of the refusal; empty where the API server must let it pass.
    """

    name: str
    rights: tuple[Right, ...]
    says: str = ""
    spec: Mapping[str, Any] = field(default_factory=dict)


def _here(verb: str, resource: str, name: str = "") -> tuple[Right, ...]:
    return (Right(verb, resource, name, TEAM),)


ANY_REQUEST = _here("request", "pilotidentities")
MAY_NOT_ASK = (
    "you may not request grants of pilot triage: ask an admin for the RBAC verb 'request' on "
    "pilotidentities/triage in namespace verbs"
)
MAY_NOT_BREAK_GLASS = (
    "you may not request emergency grants of pilot triage: leave spec.emergency out, or ask an admin for the "
    "RBAC verb 'request-emergency' on pilotidentities/triage in namespace verbs"
)
EMERGENCY = {"emergency": True}

ASKING = (
    Case("without the verb", (), MAY_NOT_ASK),
    Case("with the verb on the pilot", _here("request", "pilotidentities", "triage")),
    Case("with the verb on every pilot", ANY_REQUEST),
    Case("with the verb on another pilot", _here("request", "pilotidentities", "other"), MAY_NOT_ASK),
    Case("with the verb on grants", _here("request", "taskgrants"), MAY_NOT_ASK),
    Case(
        "with the verb in another namespace",
        (Right("request", "pilotidentities", namespace=ELSEWHERE),),
        MAY_NOT_ASK,
    ),
    Case("with the verb in the whole cluster", (Right("request", "pilotidentities"),)),
    Case("with the verb for emergencies only", _here("request-emergency", "pilotidentities"), MAY_NOT_ASK),
    Case("an emergency without its verb", ANY_REQUEST, MAY_NOT_BREAK_GLASS, EMERGENCY),
    Case(
        "an emergency of another pilot",
        (*ANY_REQUEST, *_here("request-emergency", "pilotidentities", "other")),
        MAY_NOT_BREAK_GLASS,
        EMERGENCY,
    ),
    Case(
        "an emergency with its verb alone",
        _here("request-emergency", "pilotidentities"),
        MAY_NOT_ASK,
        EMERGENCY,
    ),
    Case(
        "an emergency with both verbs",
        (*ANY_REQUEST, *_here("request-emergency", "pilotidentities", "triage")),
        spec=EMERGENCY,
    ),
)

UID = "8f2d2f0c-5c3f-4e53-9d3a-0d3c2b1a4f5e"
OF_GRANT = {"subject": {"kind": "TaskGrant", "name": "task", "uid": UID}, "purpose": "Grant"}
OF_PILOT = {"subject": {"kind": "PilotIdentity", "name": "triage", "uid": UID}, "purpose": "Promotion"}
OF_STAGE = {"subject": {"kind": "StagePolicy", "name": "sandbox", "uid": UID}, "purpose": "Exception"}


def _may_not_approve(subject: str, how: str) -> str:
    return f"you may not approve {subject}: ask an admin for the RBAC verb 'approve' on it{how}"


NOT_GRANT = _may_not_approve("taskgrants/task", " in namespace verbs")
NOT_PILOT = _may_not_approve("pilotidentities/triage", " in namespace verbs")
NOT_STAGE = _may_not_approve("stagepolicies/sandbox", ", by a ClusterRoleBinding")

APPROVING = (
    Case("a grant without the verb", (), NOT_GRANT, OF_GRANT),
    Case("a grant with the verb on it", _here("approve", "taskgrants", "task"), spec=OF_GRANT),
    Case("a grant with the verb on every one", _here("approve", "taskgrants"), spec=OF_GRANT),
    Case("a grant with the verb on another", _here("approve", "taskgrants", "other"), NOT_GRANT, OF_GRANT),
    Case("a grant with the verb on pilots", _here("approve", "pilotidentities"), NOT_GRANT, OF_GRANT),
    Case(
        "a grant with the verb elsewhere",
        (Right("approve", "taskgrants", namespace=ELSEWHERE),),
        NOT_GRANT,
        OF_GRANT,
    ),
    Case("denying without the verb", (), NOT_GRANT, {**OF_GRANT, "decision": "Deny"}),
    Case("a pilot without the verb", _here("approve", "taskgrants"), NOT_PILOT, OF_PILOT),
    Case("a pilot with the verb on it", _here("approve", "pilotidentities", "triage"), spec=OF_PILOT),
    Case("a stage without the verb", _here("approve", "taskgrants"), NOT_STAGE, OF_STAGE),
    Case("a stage with the verb in the namespace", _here("approve", "stagepolicies"), NOT_STAGE, OF_STAGE),
    Case("a stage with the verb", (Right("approve", "stagepolicies", "sandbox"),), spec=OF_STAGE),
)


def _may_not_revoke(grant: str) -> str:
    return (
        f"you may not revoke grant {grant}: ask its requester, rita, or an admin for the RBAC verb 'revoke' "
        f"on taskgrants/{grant} in namespace verbs"
    )


REVOKING = (
    Case("stranger", (), _may_not_revoke("stranger")),
    Case("named", _here("revoke", "taskgrants", "named")),
    Case("every", _here("revoke", "taskgrants")),
    Case("other", _here("revoke", "taskgrants", "named"), _may_not_revoke("other")),
    Case("pilot", _here("revoke", "pilotidentities"), _may_not_revoke("pilot")),
)


@pytest.fixture(scope="module", autouse=True)
def team(admin: Admin, cluster: Cluster, installed: object) -> Iterator[None]:
    """Two namespaces, in one of which the members of a group have plain rights."""
    del installed
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    for namespace in (TEAM, ELSEWHERE):
        admin.create(places.namespaces(), {"metadata": {"name": namespace}})
    plain = [
        right
        for resource in ("taskgrants", "approvals")
        for verb in ("create", "get", "update", "patch")
        for right in _here(verb, resource)
    ]
    give(admin, plain, {"kind": "Group", "name": MEMBERS}, label="plain")
    yield
    take_back(admin)
    for namespace in (TEAM, ELSEWHERE):
        admin.delete(places.namespaces(namespace))


def _person(cluster: Cluster, admin: Admin, name: str, *rights: Right) -> Person:
    """A member of the team who has `rights`, once the API server knows of them."""
    person = Person(cluster, TEAM, name, MEMBERS)
    give(admin, rights, {"kind": "User", "name": name}, label=name)
    for right in (*rights, *_here("patch", "approvals")):
        person.await_right(admin, right)
    return person


def _cases(cases: tuple[Case, ...]) -> list[Any]:
    return [pytest.param(case, id=case.name) for case in cases]


def _slug(case: Case) -> str:
    return case.name.replace(" ", "-")


def _approval(name: str, **spec: Any) -> Document:
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": name},
        "spec": {
            **OF_GRANT,
            "digest": "sha256:" + "0f" * 32,
            "decision": "Approve",
            "reason": "r",
            **spec,
        },
    }


@pytest.mark.parametrize("case", _cases(ASKING))
def test_a_grant_is_asked_for_with_the_verb_only(case: Case, cluster: Cluster, admin: Admin) -> None:
    """Who may write grants may not thereby ask for a pilot's access, nor past approvals."""
    person = _person(cluster, admin, f"asks-{_slug(case)}", *case.rights)
    grant = manifests.grant(person.name, "triage", requested_by=person.name, **case.spec)
    answer = person.create(grant)
    if case.says:
        assert answer.returncode != 0
        assert case.says in answer.stderr
    else:
        assert made(answer)["spec"]["requestedBy"] == person.name


@pytest.mark.parametrize("case", _cases(APPROVING))
def test_an_approval_is_given_with_the_verb_only(case: Case, cluster: Cluster, admin: Admin) -> None:
    """Who may write approvals may not thereby approve, nor deny."""
    person = _person(cluster, admin, f"approves-{_slug(case)}", *case.rights)
    answer = person.create(_approval(person.name, approver=person.name, **case.spec))
    if case.says:
        assert answer.returncode != 0
        assert case.says in answer.stderr
    else:
        assert made(answer)["spec"]["approver"] == person.name


@pytest.mark.parametrize("case", _cases(REVOKING))
def test_anothers_grant_is_revoked_with_the_verb_only(case: Case, cluster: Cluster, admin: Admin) -> None:
    """Who may update grants may not thereby revoke one that somebody else asked for."""
    rita = _person(cluster, admin, "rita", *ANY_REQUEST)
    made(rita.create(manifests.grant(case.name, "triage", requested_by="rita")))
    person = _person(cluster, admin, f"revokes-{case.name}", *case.rights)
    revoke = {"spec": {"revoke": {"reason": "r", "by": person.name}}}
    answer = person.patch("taskgrant", case.name, revoke)
    if case.says:
        assert answer.returncode != 0
        assert case.says in answer.stderr
        assert "revoke" not in made(rita.run("get", "taskgrant", case.name, "-o", "json"))["spec"]
    else:
        assert made(answer)["spec"]["revoke"]["by"] == person.name


@pytest.mark.parametrize("case", _cases(REVOKING))
def test_anothers_grant_is_completed_with_the_verb_only(case: Case, cluster: Cluster, admin: Admin) -> None:
    """Who may update grants may not thereby end a task that somebody else asked for."""
    name = f"complete-{case.name}"
    rita = _person(cluster, admin, "rita", *ANY_REQUEST)
    made(rita.create(manifests.grant(name, "triage", requested_by="rita")))
    rights = [replace(right, name=right.name and f"complete-{right.name}") for right in case.rights]
    person = _person(cluster, admin, f"completes-{case.name}", *rights)
    answer = person.patch("taskgrant", name, {"spec": {"completed": True}})
    if case.says:
        assert answer.returncode != 0
        assert (
            f"you may not complete grant {name}: ask its requester, rita, or its pilot's workload, "
            f"system:serviceaccount:{TEAM}:pilot-workload-triage, or an admin for the RBAC verb 'revoke' on "
            f"taskgrants/{name} in namespace {TEAM}"
        ) in answer.stderr
        assert not made(rita.run("get", "taskgrant", name, "-o", "json"))["spec"].get("completed", False)
    else:
        assert made(answer)["spec"]["completed"] is True


def test_requester_and_workload_complete_without_the_verb(
    cluster: Cluster, kubectl: Kubectl, admin: Admin
) -> None:
    """The task is theirs; another account of the namespace is nobody in particular."""
    rita = _person(cluster, admin, "rita", *ANY_REQUEST)
    done = {"spec": {"completed": True}}
    made(rita.create(manifests.grant("own-done", "triage", requested_by="rita")))
    assert made(rita.patch("taskgrant", "own-done", done))["spec"]["completed"] is True
    label = made(rita.run("label", "taskgrant", "own-done", "a=b", "-o", "json"))
    assert label["spec"]["completed"] is True
    made(rita.create(manifests.grant("born-done", "triage", requested_by="rita", completed=True)))
    made(rita.create(manifests.grant("workload-done", "triage", requested_by="rita")))
    answers = {}
    for name in ("pilot-workload-other", "pilot-workload-triage"):
        kubectl("-n", TEAM, "create", "serviceaccount", name)
        subject = {"kind": "ServiceAccount", "name": name, "namespace": TEAM}
        right = Right("patch", "taskgrants", "workload-done", TEAM)
        give(admin, [right], subject, label=name)
        await_right(admin, right, f"system:serviceaccount:{TEAM}:{name}")
        workload = account(cluster, kubectl("-n", TEAM, "create", "token", name).stdout.strip())
        merge = "application/merge-patch+json"
        answers[name] = workload.ask("PATCH", f"{GRANTS}/workload-done", done, merge)
    assert answers["pilot-workload-other"].code == 403
    assert "you may not complete grant workload-done" in answers["pilot-workload-other"].message
    assert answers["pilot-workload-triage"].body["spec"]["completed"] is True


def test_the_requester_revokes_without_the_verb(cluster: Cluster, admin: Admin) -> None:
    """What one asked for oneself one may end; a grant may even be born revoked."""
    rita = _person(cluster, admin, "rita", *ANY_REQUEST)
    revoke = {"reason": "r", "by": "rita"}
    made(rita.create(manifests.grant("own", "triage", requested_by="rita")))
    assert made(rita.patch("taskgrant", "own", {"spec": {"revoke": revoke}}))["spec"]["revoke"] == revoke
    born = rita.create(manifests.grant("born-revoked", "triage", requested_by="rita", revoke=revoke))
    assert made(born)["spec"]["revoke"]["by"] == "rita"


def test_nobody_becomes_the_requester_afterwards(cluster: Cluster, admin: Admin) -> None:
    """Taking the grant over, in the same write as revoking it, is no way around the verb."""
    rita = _person(cluster, admin, "rita", *ANY_REQUEST)
    made(rita.create(manifests.grant("taken-over", "triage", requested_by="rita")))
    thief = _person(cluster, admin, "thief")
    spec = {"requestedBy": "thief", "revoke": {"reason": "r", "by": "thief"}}
    answer = thief.patch("taskgrant", "taken-over", {"spec": spec})
    assert answer.returncode != 0
    assert "requestedBy cannot change" in answer.stderr


def test_a_service_account_neither_approves_nor_asks_from_afar(
    kubectl: Kubectl, cluster: Cluster, admin: Admin
) -> None:
    """With its own token and with every verb: no robot's word counts, none asks for others' pilots."""
    for namespace in (TEAM, ELSEWHERE):
        kubectl("-n", namespace, "create", "serviceaccount", "robot")
        subject = {"kind": "ServiceAccount", "name": "robot", "namespace": namespace}
        rights = (
            *_here("create", "taskgrants"),
            *_here("create", "approvals"),
            *_here("approve", "taskgrants"),
            *ANY_REQUEST,
        )
        give(admin, rights, subject, label=f"robot-{namespace}")
    answers = {}
    for namespace in (TEAM, ELSEWHERE):
        name = f"system:serviceaccount:{namespace}:robot"
        token = kubectl("-n", namespace, "create", "token", "robot").stdout.strip()
        robot = account(cluster, token)
        # The last right that was given; the API server takes them in order.
        await_right(admin, ANY_REQUEST[0], name)
        refused = robot.ask("POST", APPROVALS, _approval(f"robot-{namespace}", approver=name))
        assert refused.code == 403
        assert "approve as a person, since no ServiceAccount's word counts" in refused.message
        grant = manifests.grant(f"robot-{namespace}", "triage", requested_by=name)
        answers[namespace] = robot.ask("POST", GRANTS, grant)
    assert answers[TEAM].body["spec"]["requestedBy"] == f"system:serviceaccount:{TEAM}:robot"
    assert answers[ELSEWHERE].code == 403
    assert "or as the ServiceAccount whose workload the pilot is" in answers[ELSEWHERE].message


def test_a_system_user_does_not_approve(cluster: Cluster) -> None:
    """Not even one of system:masters, as the first admin of some distributions is."""
    shared = Person(cluster, TEAM, "system:admin", "system:masters")
    refused = shared.create(_approval("by-system-admin", approver=shared.name))
    assert "since system:admin is nobody's in particular" in refused.stderr
    named = Person(cluster, TEAM, "ada@example.org", "system:masters")
    assert made(named.create(_approval("by-ada", approver=named.name)))["spec"]["approver"] == named.name
