"""Who asks, who approves and who revokes is the API server's word.

Real people, known by client certificates, in the roles that the chart ships. What they write of themselves is
overwritten where the API server can stamp, and refused where it cannot; either way the log has the name of
who really asked. (Each verb, there and missing, is in `e2e/bad_input/test_verbs.py`.)
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e import manifests, places
from e2e.admin import Admin, Document
from e2e.bad_input.account import Account, account
from e2e.controlplane.cluster import Cluster
from e2e.installation import CHART, NAMESPACE, RELEASE
from e2e.patience import until
from e2e.person import Person, Right, bind, give, made, take_back
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

OWNER = "pilot-identity-owner"
REQUESTER = "pilot-identity-requester"
APPROVER = "pilot-identity-approver"
EMERGENCY = "pilot-identity-emergency"

PROVES = {
    OWNER: Right("revoke", "taskgrants"),
    REQUESTER: Right("request", "pilotidentities"),
    APPROVER: Right("approve", "taskgrants"),
    EMERGENCY: Right("request-emergency", "pilotidentities"),
}
"""Of each role the verb by which one sees that the API server knows of its binding."""


@pytest.fixture(autouse=True)
def users(admin: Admin, cluster: Cluster) -> Iterator[None]:
    """Skip where nobody signs users' certificates."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    yield
    take_back(admin)


@pytest.fixture(params=["always", "never"])
def mutation(request: pytest.FixtureRequest, play: Play, cluster: Cluster) -> Iterator[str]:
    """The chart with its stamps and without; afterwards as it was."""
    mode: str = request.param
    listed = cluster.run("kubectl", "get", "mutatingadmissionpolicies", check=False)
    if mode == "always" and listed.returncode != 0:
        pytest.skip("this API server has no MutatingAdmissionPolicy in admissionregistration.k8s.io/v1")
    was_stamping = "pilot-identity-stamp-requester" in listed.stdout
    settings = ("--reuse-values", "--set", f"admission.mutation={mode}")
    cluster.helm("upgrade", RELEASE, str(CHART), "--namespace", NAMESPACE, *settings)
    try:
        _await_stamps(play, cluster, present=mode == "always")
        yield mode
    finally:
        cluster.helm("rollback", RELEASE, "--namespace", NAMESPACE)
        _await_stamps(play, cluster, present=was_stamping)


def _await_stamps(play: Play, cluster: Cluster, *, present: bool) -> None:
    """The API server takes policies into use, and out of it, a moment late, and each by itself."""
    ada = Person(cluster, play.namespace, "ada@example.org", "system:masters")
    unsigned = (
        manifests.grant("probe", "probe", requested_by="nobody"),
        _approval("probe", {"name": "probe", "uid": _UID}, approver="nobody"),
    )

    def is_so() -> bool:
        asked = [ada.create(document, "--dry-run=server") for document in unsigned]
        return all((answer.returncode == 0) is present for answer in asked)

    until(is_so, f"stamps are {'there' if present else 'gone'}")


_UID = "8f2d2f0c-5c3f-4e53-9d3a-0d3c2b1a4f5e"


def _approval(name: str, grant: Document, **spec: object) -> Document:
    """An approval of a grant, whose digest nobody looks at in these stories."""
    subject = {"kind": "TaskGrant", "name": grant["name"], "uid": grant["uid"]}
    said = {"purpose": "Grant", "digest": "sha256:" + "0f" * 32, "decision": "Approve", "reason": "r"}
    return {
        "apiVersion": "pilotidentity.dev/v1alpha1",
        "kind": "Approval",
        "metadata": {"name": name},
        "spec": {"subject": subject, **said, **spec},
    }


def _enter(cluster: Cluster, play: Play, name: str, *roles: str, groups: tuple[str, ...] = ()) -> Person:
    """Someone in these roles in the story's namespace."""
    person = Person(cluster, play.namespace, name, *groups)
    for role in roles:
        bind(play.admin, play.namespace, role, person)
        right = PROVES[role]
        person.await_right(play.admin, Right(right.verb, right.resource, namespace=play.namespace))
    return person


def test_the_roles_of_the_chart_are_enough_for_a_days_work(play: Play, cluster: Cluster) -> None:
    """A requester asks and gets; a colleague cannot revoke it, the owner can; the log has both names."""
    play.ready_pilot("triage")
    alice = _enter(cluster, play, "alice@example.org", REQUESTER)
    carl = _enter(cluster, play, "carl@example.org", REQUESTER)
    tom = _enter(cluster, play, "tom@example.org", OWNER)
    grant = made(alice.create(manifests.grant("task", "triage", requested_by=alice.name)))
    play.phase("task", "Active")

    def revoke(person: Person) -> Document:
        return {"spec": {"revoke": {"by": person.name, "reason": "wrong ticket"}}}

    refused = carl.patch("taskgrant", "task", revoke(carl))
    assert "you may not revoke grant task: ask its requester, alice@example.org, or" in refused.stderr
    made(tom.patch("taskgrant", "task", revoke(tom)))
    play.phase("task", "Revoked")
    lines = {line.kind: line.entry.data for line in play.trail().of(grant["metadata"]["uid"])}
    assert lines[EntryType.GRANT_ISSUED]["requestedBy"] == alice.name
    assert lines[EntryType.GRANT_CLOSED]["closure"]["message"] == f"revoked by {tom.name}: wrong ticket"


def test_an_owner_suspends_by_a_plain_update(play: Play, cluster: Cluster) -> None:
    """`suspend` needs no verb of its own: it is the owner's spec; a requester has no part in it."""
    play.ready_pilot("triage")
    alice = _enter(cluster, play, "alice@example.org", REQUESTER)
    tom = _enter(cluster, play, "tom@example.org", OWNER)
    suspend = {"spec": {"suspend": True}}
    assert "cannot patch resource" in alice.patch("pilotidentity", "triage", suspend).stderr
    made(tom.patch("pilotidentity", "triage", suspend))
    play.gone("pilot-svid-triage")


def test_an_emergency_is_a_right_of_its_own(play: Play, cluster: Cluster) -> None:
    """Neither requester nor owner may ask past approvals; whoever has the emergency role beside may."""
    tom = _enter(cluster, play, "tom@example.org", OWNER, REQUESTER)
    alarm = manifests.grant("alarm", "triage", requested_by=tom.name, emergency=True)
    refused = tom.create(alarm)
    assert "ask an admin for the RBAC verb 'request-emergency' on pilotidentities/triage" in refused.stderr
    eve = _enter(cluster, play, "eve@example.org", REQUESTER, EMERGENCY)
    alarm["spec"]["requestedBy"] = eve.name
    assert made(eve.create(alarm, "--dry-run=server"))["spec"]["emergency"] is True


def test_no_namespace_admin_makes_himself_an_approver(play: Play, cluster: Cluster) -> None:
    """The roles are not aggregated to admin, so its escalation check keeps him from binding them."""
    ada = Person(cluster, play.namespace, "ada@example.org")
    bind(play.admin, play.namespace, "admin", ada)
    ada.await_right(play.admin, Right("revoke", "taskgrants", namespace=play.namespace))
    for role in (APPROVER, EMERGENCY):
        binding = ("create", "rolebinding", role, f"--clusterrole={role}", f"--user={ada.name}")
        assert "attempting to grant RBAC permissions not currently held" in ada.run(*binding).stderr
    lent = ("create", "rolebinding", "lent", f"--clusterrole={REQUESTER}", "--user=carl@example.org")
    assert ada.run(*lent).returncode == 0


def test_forged_names_are_overwritten_or_refused(play: Play, cluster: Cluster, mutation: str) -> None:
    """With stamps nobody needs to write who they are, and a lie is overwritten; without, a lie is refused."""
    alice = _enter(cluster, play, "alice@example.org", REQUESTER)
    bob = _enter(cluster, play, "bob@example.org", APPROVER, groups=("risk",))
    own = {"approver": bob.name, "approverGroups": ["risk"]}
    truth = made(alice.create(manifests.grant("true", "triage", requested_by=alice.name)))
    assert truth["spec"]["requestedBy"] == alice.name
    subject = truth["metadata"]
    assert made(bob.create(_approval("true", subject, **own)))["spec"]["approver"] == bob.name
    forged = [
        (
            alice,
            manifests.grant("forged", "triage", requested_by="tom@example.org"),
            "set spec.requestedBy to your own user name, alice@example.org",
        ),
        (
            bob,
            _approval("forged-name", subject, **{**own, "approver": "tom@example.org"}),
            "set spec.approver to your own user name, bob@example.org",
        ),
        (
            bob,
            _approval("forged-groups", subject, **{**own, "approverGroups": ["risk", "board"]}),
            "name in spec.approverGroups only groups that you are in, not board",
        ),
    ]
    for person, document, says in forged:
        answer = person.create(document)
        if mutation == "never":
            assert answer.returncode != 0
            assert says in answer.stderr
            continue
        spec = made(answer)["spec"]
        assert spec.get("requestedBy", spec.get("approver")) == person.name
        if "approver" in spec:
            assert spec["approverGroups"] == ["risk", "system:authenticated"]


def test_whoever_impersonates_is_whom_they_impersonate(play: Play, cluster: Cluster) -> None:
    """The name in the record is the impersonated one: RBAC's `impersonate` is the right to act in that name.

    Kubernetes tells policies the impersonated user only; who was behind it is in the API server's audit log
    (`impersonatedUser` beside `user`). What counts are the impersonated user's verbs, not one's own.
    """
    _enter(cluster, play, "alice@example.org", REQUESTER)
    ivy = _enter(cluster, play, "ivy@example.org")
    may = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": "impersonates-alice"},
        "rules": [
            {
                "apiGroups": [""],
                "resources": ["users"],
                "resourceNames": ["alice@example.org"],
                "verbs": ["impersonate"],
            }
        ],
    }
    name = "impersonates-alice"
    cluster.apply(may)
    cluster.kubectl("create", "clusterrolebinding", name, f"--clusterrole={name}", f"--user={ivy.name}")
    try:
        ask = manifests.grant("in-her-name", "triage", requested_by="alice@example.org")
        can = ("auth", "can-i", "request", "pilotidentities.pilotidentity.dev", "--as", "alice@example.org")
        until(lambda: ivy.run(*can).stdout.strip() == "yes", "ivy may ask in alice's name")
        assert "cannot create resource" in ivy.create(ask).stderr
        told = made(ivy.create(ask, "--as", "alice@example.org"))
        assert told["spec"]["requestedBy"] == "alice@example.org"
    finally:
        cluster.kubectl("delete", "clusterrolebinding,clusterrole", name)


def _as_account(cluster: Cluster, play: Play, name: str) -> tuple[str, Account]:
    """A ServiceAccount of the namespace in the requester's role, speaking with a token of its own."""
    flag = f"--serviceaccount={play.namespace}:{name}"
    cluster.kubectl("-n", play.namespace, "create", "rolebinding", name, f"--clusterrole={REQUESTER}", flag)
    token = cluster.kubectl("-n", play.namespace, "create", "token", name).strip()
    return f"system:serviceaccount:{play.namespace}:{name}", account(cluster, token)


def test_a_workload_asks_for_its_own_pilot_and_for_no_other(play: Play, cluster: Cluster) -> None:
    """RBAC's `request` lets the account ask for both pilots; the operator gives it its own pilot's alone."""
    play.ready_pilot("triage")
    play.ready_pilot("sorter")
    name, triage = _as_account(cluster, play, "pilot-workload-triage")

    def ask(who: Account, grant: str, pilot: str, by: str) -> Document:
        document = manifests.grant(grant, pilot, requested_by=by)
        answers = until(
            lambda: [one for one in [who.ask("POST", play.grants(), document)] if one.code in {201, 409}],
            f"{by} may ask for {pilot}",
        )
        assert answers[0].code == 201, answers[0].message
        return answers[0].body

    own = ask(triage, "own", "triage", name)
    assert own["spec"]["requestedBy"] == name
    grant = play.phase("own", "Active")
    assert grant["status"]["decision"]["allowed"] is True
    ask(triage, "of-another", "sorter", name)
    decision = play.phase("of-another", "Denied")["status"]["decision"]
    assert decision["reason"] == "RequesterNotWorkload"
    assert f"{name} is not the workload of pilot 'sorter'" in decision["message"]
    assert decision["checks"][-1]["name"] == "requester-is-workload"
    assert play.admin.find(play.secrets("of-another")) is None

    cluster.kubectl("-n", play.namespace, "create", "serviceaccount", "robot")
    robot, stranger = _as_account(cluster, play, "robot")
    ask(stranger, "of-a-stranger", "triage", robot)
    assert play.phase("of-a-stranger", "Denied")["status"]["decision"]["reason"] == "RequesterNotWorkload"
    trail = play.trail()
    *_, denied = trail.of(play.admin.get(play.grants("of-another"))["metadata"]["uid"])
    assert (denied.kind, denied.entry.data["requestedBy"]) == (EntryType.GRANT_DENIED, name)


def test_a_workload_without_the_verb_asks_for_nothing(play: Play, cluster: Cluster) -> None:
    """Being the workload is not enough: RBAC has the first word."""
    play.ready_pilot("triage")
    name = "pilot-workload-triage"
    token = cluster.kubectl("-n", play.namespace, "create", "token", name).strip()
    by = f"system:serviceaccount:{play.namespace}:{name}"
    refused = account(cluster, token).ask(
        "POST", play.grants(), manifests.grant("own", "triage", requested_by=by)
    )
    assert refused.code == 403
    assert play.admin.find(play.grants("own")) is None


def test_a_stage_is_approved_by_a_right_in_the_whole_cluster(play: Play, cluster: Cluster) -> None:
    """A StagePolicy is in no namespace, and neither is the verb: the role in a namespace is not enough."""
    bob = _enter(cluster, play, "bob@example.org", APPROVER)
    uid = play.admin.get(places.stages("sandbox"))["metadata"]["uid"]
    document = _approval("stage", {"name": "sandbox", "uid": uid}, purpose="Exception", approver=bob.name)
    document["spec"]["subject"]["kind"] = "StagePolicy"
    assert "by a ClusterRoleBinding" in bob.create(document).stderr
    right = Right("approve", "stagepolicies", "sandbox")
    give(play.admin, [right], {"kind": "User", "name": bob.name}, label="stage-approver")
    bob.await_right(play.admin, right)
    assert made(bob.create(document))["spec"]["approver"] == bob.name
