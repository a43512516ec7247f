"""People approve: who may, what exactly, how long it holds.

Real users with client certificates, in the roles of the chart, against the API server. Promise 3: no approval
by the requester, by anyone in the delegation chain or by a service account; none that outlives a change of
what was approved; none used twice.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import pytest

from e2e import manifests, places
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.installation import Installation
from e2e.patience import WITHIN_S, until
from e2e.person import Right, give, made, take_back
from e2e.stories import promises
from e2e.stories.cast import APPROVER, OWNER, REQUESTER, Cast, approval, change, policy
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

ONE = {"grant": {"required": 1}}


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Iterator[Cast]:
    """People, where somebody signs their certificates, in a sandbox that asks one of them."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    with policy(play.admin, play, approvals=ONE):
        play.ready_pilot("triage")
        yield Cast(play, cluster)
    take_back(play.admin)


def waits(play: Play, name: str) -> None:
    """That a grant still waits, with nothing given out."""
    status = play.status(play.grants(name))
    assert status["phase"] == "AwaitingApproval"
    assert "credential" not in status
    assert play.admin.find(play.secrets(name)) is None


def test_a_colleague_approves_and_the_task_starts(play: Play, cast: Cast) -> None:
    """The log tells who asked, then who approved exactly what and why, then what was issued on it."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    waits(play, "task")
    said = cast.say(bob, asked, ticket="CHG-7")
    grant = play.phase("task", "Active")
    assert play.credential("task").owner_uid == grant["metadata"]["uid"]
    uid = said["metadata"]["uid"]
    counted = {"name": "task-bob", "uid": uid, "approver": bob.name}
    assert grant["status"]["decision"]["approvals"] == [counted]
    assert grant["status"]["approval"]["approvedBy"] == [bob.name]
    cast.told("task-bob", "Counted")
    status = play.status(places.approvals(play.namespace, "task-bob"))
    assert (status["used"], status["usedBy"]) == (True, f"TaskGrant {play.namespace}/task")
    trail = play.trail()
    (given,) = [line for line in trail.of(uid) if line.kind == EntryType.APPROVAL_GIVEN]
    (issued,) = [line for line in trail.of(grant["metadata"]["uid"]) if line.kind == EntryType.GRANT_ISSUED]
    assert given.index < issued.index
    told = given.entry.data
    assert (told["approver"], told["reason"], told["ticket"]) == (bob.name, "looked at it", "CHG-7")
    assert told["digest"] == asked["status"]["approval"]["digest"]
    assert issued.entry.data["decision"]["approvals"] == [counted]


def test_nobody_approves_what_he_asked_for(play: Play, cast: Cast) -> None:
    """Both roles in one person are no way around: the word is refused, and that is on record."""
    alice, bob = cast.enter("alice", REQUESTER, APPROVER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    own = cast.say(alice, asked)
    told = cast.told("task-alice", "Refused")
    assert "you asked for this grant yourself" in told["message"]
    waits(play, "task")
    assert play.trail().kinds(own["metadata"]["uid"]) == [EntryType.APPROVAL_VOID]
    cast.say(bob, asked)
    play.phase("task", "Active")


def test_nobody_approves_below_what_he_asked_for(play: Play, cast: Cast) -> None:
    """Who asked for the parent has no say in the child."""
    play.admin.patch(play.pilots("triage"), {"spec": {"delegation": {"maxDepth": 1}}})
    play.condition(play.pilots("triage"), "Ready", reason="IdentityIssued")
    alice = cast.enter("alice", REQUESTER, APPROVER)
    carl, bob = cast.enter("carl", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "parent", "triage")
    cast.say(bob, cast.awaiting("parent"))
    play.phase("parent", "Active")
    cast.ask(carl, "child", "triage", parent="parent", duration="5m")
    cast.say(alice, cast.awaiting("child"))
    assert "you asked for grant 'parent'" in cast.told("child-alice", "Refused")["message"]
    waits(play, "child")


def test_no_service_account_approves(play: Play, cluster: Cluster, cast: Cast) -> None:
    """The API server refuses the word itself, whatever rights the account was given."""
    alice = cast.enter("alice", REQUESTER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cluster.kubectl("-n", play.namespace, "create", "serviceaccount", "robot")
    subject = {"kind": "ServiceAccount", "name": "robot", "namespace": play.namespace}
    rights = [
        Right("approve", "taskgrants", namespace=play.namespace),
        Right("create", "approvals", namespace=play.namespace),
    ]
    give(play.admin, rights, subject, label="robot")
    robot = f"system:serviceaccount:{play.namespace}:robot"

    def refused() -> str:
        document = json.dumps(approval(alice, asked, "by-robot", approver=robot))
        answer = cluster.run("kubectl", *place, "create", "-f", "-", stdin=document, check=False)
        return answer.stderr if "approve as a person" in answer.stderr else ""

    place = ("-n", play.namespace, "--as", robot)
    until(refused, "the service account's approval is refused for what it is")
    waits(play, "task")


def test_what_was_approved_cannot_be_swapped(play: Play, cast: Cast) -> None:
    """An approval of A is none of B: not under A's name, not with A's digest."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage", access=[{"name": "tickets", "actions": ["read"]}])
    small = cast.awaiting("task")
    cast.say(bob, small, "of-the-small-one")
    play.phase("task", "Active")
    play.admin.delete(play.grants("task"))
    until(lambda: play.admin.find(play.grants("task")) is None, "the approved grant is gone")

    cast.ask(alice, "task", "triage")
    big = cast.awaiting("task")
    assert big["status"]["approval"]["digest"] != small["status"]["approval"]["digest"]
    cast.say(bob, small, "of-the-one-that-is-gone")
    assert "there is no TaskGrant 'task' with UID" in cast.told("of-the-one-that-is-gone", "Void")["message"]
    cast.say(bob, big, "digest-of-the-small-one", digest=small["status"]["approval"]["digest"])
    assert "its digest is not the grant's" in cast.told("digest-of-the-small-one", "Void")["message"]
    waits(play, "task")


def test_an_approval_of_another_name_does_not_count(play: Play, cast: Cast) -> None:
    """RBAC was asked about the name, the operator goes by the UID: an approval names both, or nothing."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    subject = {"kind": "TaskGrant", "name": "other", "uid": asked["metadata"]["uid"]}
    cast.say(bob, asked, "misnamed", subject=subject)
    cast.told("misnamed", "Void")
    waits(play, "task")


def test_an_approval_is_used_once(play: Play, cast: Cast) -> None:
    """What was issued on it ends; the same word, said again of the next grant, is void."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    first = cast.ask(alice, "first", "triage")
    cast.say(bob, cast.awaiting("first"))
    play.phase("first", "Active")
    cast.told("first-bob", "Counted")
    before = play.admin.get(places.approvals(play.namespace, "first-bob"))
    cast.ask(alice, "second", "triage")
    second = cast.awaiting("second")
    changed = bob.patch("approval", "first-bob", {"spec": {"subject": {"name": "second"}}})
    assert changed.returncode != 0
    copied = {**before["spec"], "subject": {**before["spec"]["subject"], "name": "second"}}
    made(bob.create({**approval(bob, second, "copied"), "spec": copied}))
    cast.told("copied", "Void")
    waits(play, "second")
    assert first["metadata"]["uid"] == before["spec"]["subject"]["uid"]


def test_a_material_change_voids_what_was_approved(play: Play, cast: Cast) -> None:
    """Approved by one of two, then the pilot may reach more: it asks anew; going back revives nothing."""
    change(play.admin, play, approvals={"grant": {"required": 2}})
    alice, bob, cleo = (
        cast.enter("alice", REQUESTER),
        cast.enter("bob", APPROVER),
        cast.enter("cleo", APPROVER),
    )
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cast.say(bob, asked)
    cast.told("task-bob", "Waiting")
    digest = asked["status"]["approval"]["digest"]
    wider = [manifests.tool(resources=["projects/**"])]
    play.admin.patch(play.pilots("triage"), {"spec": {"access": wider}})
    changed = cast.awaiting("task", other_than=digest)
    assert "its digest is not the grant's" in cast.told("task-bob", "Void")["message"]
    assert "approvedBy" not in changed["status"]["approval"]
    cast.say(cleo, asked)
    cast.told("task-cleo", "Void")
    waits(play, "task")

    play.admin.patch(play.pilots("triage"), {"spec": {"access": [manifests.tool()]}})
    again = cast.awaiting("task", other_than=changed["status"]["approval"]["digest"])
    assert again["status"]["approval"]["digest"] == digest

    def as_it_was() -> bool:
        """The grant is decided anew first, then what was said about it."""
        return "though they are now as they were" in cast.told("task-bob", "Void")["message"]

    until(as_it_was, "what was approved is void though all is as it was")
    waits(play, "task")
    _await_later_second(play, again)
    cast.say(bob, again, "bob-again")
    cast.say(cleo, again, "cleo-again")
    grant = play.phase("task", "Active")
    counted = {one["name"] for one in grant["status"]["decision"]["approvals"]}
    assert counted == {"bob-again", "cleo-again"}


def _await_later_second(play: Play, grant: Document) -> None:
    """Wait until what is made now is of a later second than the grant's last change."""

    def is_later() -> bool:
        document = manifests.grant("clock", "triage", requested_by=play.admin.name)
        dry = play.admin.create(play.grants() + "?dryRun=All", document)
        return moment(dry["metadata"]["creationTimestamp"]) > moment(grant["status"]["approval"]["since"])

    until(is_later, "the API server's clock is a second further")


def test_a_change_of_policy_voids_what_was_approved(play: Play, cast: Cast) -> None:
    """Whoever approved under the old rules did not approve under these."""
    change(play.admin, play, approvals={"grant": {"required": 2}})
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cast.say(bob, asked)
    cast.told("task-bob", "Waiting")
    change(play.admin, play, approvals=ONE, credentials={"maxTaskDuration": "2h"})
    try:
        cast.awaiting("task", other_than=asked["status"]["approval"]["digest"])
        cast.told("task-bob", "Void")
        waits(play, "task")
    finally:
        change(play.admin, play, credentials={"maxTaskDuration": "8h"})


def test_one_no_is_final(play: Play, cast: Cast) -> None:
    """A Deny ends the grant for good, whoever else approves; the log has who and why."""
    change(play.admin, play, approvals={"grant": {"required": 2}})
    alice, bob, cleo = (
        cast.enter("alice", REQUESTER),
        cast.enter("bob", APPROVER),
        cast.enter("cleo", APPROVER),
    )
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cast.say(bob, asked)
    cast.told("task-bob", "Waiting")
    said = cast.say(cleo, asked, decision="Deny", reason="not before the audit")
    grant = play.phase("task", "Denied")
    decision = grant["status"]["decision"]
    assert decision["reason"] == "ApprovalDenied"
    assert decision["message"] == f"denied by {cleo.name}: not before the audit"
    cast.told("task-cleo", "Counted")
    assert "was decided without it" in cast.told("task-bob", "Void")["message"]
    cast.say(bob, asked, "too-late")
    cast.told("too-late", "Void")
    assert play.phase("task", "Denied")["status"]["decision"] == decision
    trail = play.trail()
    first, *waited, last = trail.kinds(grant["metadata"]["uid"])
    assert (first, set(waited), last) == (
        EntryType.GRANT_REQUESTED,
        {EntryType.GRANT_DECIDED},
        EntryType.GRANT_DENIED,
    )
    assert trail.kinds(said["metadata"]["uid"]) == [EntryType.APPROVAL_GIVEN, EntryType.APPROVAL_USED]


def test_two_approvers_are_two_people(play: Play, cast: Cast) -> None:
    """The same person twice is one; the second person makes two."""
    change(play.admin, play, approvals={"grant": {"required": 2}})
    alice, bob, cleo = (
        cast.enter("alice", REQUESTER),
        cast.enter("bob", APPROVER),
        cast.enter("cleo", APPROVER),
    )
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cast.say(bob, asked, "once")
    cast.say(bob, asked, "twice")
    cast.told("twice", "Waiting")
    waits(play, "task")
    until(
        lambda: play.status(play.grants("task"))["approval"].get("approvedBy") == [bob.name],
        "the grant says who approved so far",
    )
    cast.say(cleo, asked)
    grant = play.phase("task", "Active")
    assert {one["approver"] for one in grant["status"]["decision"]["approvals"]} == {bob.name, cleo.name}


def test_only_the_stages_groups_approve(play: Play, cast: Cast) -> None:
    """The right to approve is not enough where the stage names groups; the API server says who is in them."""
    change(play.admin, play, approvals={**ONE, "groups": ["risk"]})
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    rita = cast.enter("rita", APPROVER, groups=("risk",))
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    cast.say(bob, asked)
    assert "only these groups approve: risk" in cast.told("task-bob", "Refused")["message"]
    waits(play, "task")
    cast.say(rita, asked)
    play.phase("task", "Active")


def test_approvals_are_asked_for_where_the_stage_says_when(play: Play, cast: Cast) -> None:
    """A CEL `when` over the request: writing wants a second pair of eyes, reading does not."""
    writes = "grant.spec.access.exists(entry, !has(entry.actions) || 'comment' in entry.actions)"
    change(play.admin, play, approvals={"grant": {"required": 1, "when": writes}})
    alice = cast.enter("alice", REQUESTER)
    cast.ask(alice, "reads", "triage", access=[{"name": "tickets", "actions": ["read"]}])
    play.phase("reads", "Active")
    cast.ask(alice, "writes", "triage")
    cast.awaiting("writes")
    waits(play, "writes")


def test_a_request_does_not_wait_for_ever(play: Play, cast: Cast) -> None:
    """Past the stage's limit it is Expired; whoever approves then is told that it came too late."""
    change(play.admin, play, approvals={"grant": {"required": 1, "within": "3s"}})
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    grant = play.phase("task", "Expired")
    assert grant["status"]["closure"]["reason"] == "ApprovalTimedOut"
    cast.say(bob, asked)
    cast.told("task-bob", "Void")
    assert play.phase("task", "Expired")["status"]["closure"] == grant["status"]["closure"]


def test_what_waits_can_be_revoked(play: Play, cast: Cast) -> None:
    """Revoked while it waits: an approval afterwards gives nothing out."""
    alice, bob, tom = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER), cast.enter("tom", OWNER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    made(tom.patch("taskgrant", "task", {"spec": {"revoke": {"by": tom.name, "reason": "not needed"}}}))
    play.phase("task", "Revoked")
    cast.say(bob, asked)
    cast.told("task-bob", "Void")
    assert play.admin.find(play.secrets("task")) is None


def test_a_frozen_stage_lets_nobody_approve_past_it(play: Play, cast: Cast) -> None:
    """What was approved while the stage is frozen is refused for good."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    change(play.admin, play, freeze=True)
    grant = play.phase("task", "Denied")
    assert grant["status"]["decision"]["reason"] == "StageFrozen"
    cast.say(bob, asked)
    cast.told("task-bob", "Void")
    change(play.admin, play, freeze=False)
    assert play.phase("task", "Denied")["status"]["decision"] == grant["status"]["decision"]


@pytest.fixture
def restarted(operator: Installation) -> Iterator[Installation]:
    """The operator, which works again afterwards."""
    yield operator
    if not operator.operator.is_running:
        operator.operator.launch()
    operator.wait_ready(operator.operator)


def told_of(play: Play, grant: Document, said: Document) -> None:
    """Issued once, on this word, which was heard once and is used."""
    uid, word = grant["metadata"]["uid"], said["metadata"]["uid"]
    trail = play.trail()
    assert len(promises.issuances(trail, uid)) == 1
    assert [line.kind for line in trail.of(word)].count(EntryType.APPROVAL_GIVEN) == 1
    decided = play.status(play.grants(grant["metadata"]["name"]))["decision"]
    assert word in {one["uid"] for one in decided["approvals"]}


def _has(name: str, present: dict[str, Document]) -> bool:
    return name in present


def test_an_approval_that_nobody_was_there_to_hear_counts_once(
    play: Play, cast: Cast, restarted: Installation
) -> None:
    """Of two words one is heard, then the operator is killed; the other is said; after that it is issued."""
    change(play.admin, play, approvals={"grant": {"required": 2}})
    alice, bob, carl = (
        cast.enter("alice", REQUESTER),
        cast.enter("bob", APPROVER),
        cast.enter("carl", APPROVER),
    )
    cast.ask(alice, "task", "triage")
    asked = cast.awaiting("task")
    first = cast.say(bob, asked)
    cast.told("task-bob", "Waiting")
    restarted.operator.kill()
    second = cast.say(carl, asked)
    waits(play, "task")
    restarted.operator.launch()
    restarted.wait_ready(restarted.operator)
    grant = play.phase("task", "Active")
    for said, name in ((first, "task-bob"), (second, "task-carl")):
        told_of(play, grant, said)
        cast.told(name, "Counted")
    assert play.status(places.approvals(play.namespace, "task-carl"))["used"] is True


def test_an_operator_killed_between_approval_and_issue_counts_it_once(
    play: Play, cast: Cast, restarted: Installation
) -> None:
    """Some milliseconds after the API server has the approval, at points from before the entry to after."""
    alice, bob = cast.enter("alice", REQUESTER), cast.enter("bob", APPROVER)
    reached: list[str] = []
    with (
        play.watch(places.approvals(play.namespace)) as words,
        play.watch(play.secrets()) as secrets,
        ThreadPoolExecutor(1) as meanwhile,
    ):
        for number in range(6):
            name = f"task-{number}"
            cast.ask(alice, name, "triage")
            asked = cast.awaiting(name)
            said = meanwhile.submit(cast.say, bob, asked)
            words.wait_until(partial(_has, f"{name}-bob"), f"{name} is approved", seconds=WITHIN_S)
            threading.Event().wait(number * 0.015)  # the point in time itself is what is tested
            restarted.operator.kill()
            said.result()
            reached.append(play.status(play.grants(name))["phase"])
            restarted.operator.launch()
            restarted.wait_ready(restarted.operator)
            grant = play.phase(name, "Active")
            told_of(play, grant, said.result())
            cast.told(f"{name}-bob", "Counted")
        seen = secrets.all()
    print(f"phases when it was killed: {reached}")
    assert "AwaitingApproval" in reached, "it was always too late"
    promises.hold(seen, play.trail())
