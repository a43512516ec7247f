"""Closing: every way in which a grant ends, what is shown of it, and what becomes of it in bad weather."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from e2e import places
from e2e.controlplane.cluster import Cluster, ControlPlane
from e2e.installation import Installation
from e2e.patience import until
from e2e.stories import promises
from e2e.stories.kubelet import Kubelet
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

Act = Callable[[Play], None]
MANY = 200
PAUSE_S = 30.0
ONCE_BACK_S = 120.0


def complete(play: Play) -> None:
    """The workload says that it is done."""
    play.admin.patch(play.grants("task"), {"spec": {"completed": True}})


def revoke(play: Play) -> None:
    """Somebody with the right to revoke says so."""
    word = {"reason": "no longer needed", "by": play.admin.name}
    play.admin.patch(play.grants("task"), {"spec": {"revoke": word}})


def suspend(play: Play) -> None:
    """An owner suspends the pilot."""
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": True}})


def change_owner(play: Play) -> None:
    """An owner leaves the pilot."""
    owners = {"business": "new@example.org", "technical": "tom@example.org"}
    play.admin.patch(play.pilots("triage"), {"spec": {"owners": owners}})


WAYS: dict[str, tuple[Act, str, str]] = {
    "its task is done": (complete, "Completed", "TaskCompleted"),
    "it is revoked": (revoke, "Revoked", "Revoked"),
    "its pilot is suspended": (suspend, "Revoked", "PilotSuspended"),
    "an owner of its pilot left": (change_owner, "Revoked", "OwnerLeft"),
}


@pytest.mark.parametrize("act, phase, reason", WAYS.values(), ids=WAYS)
def test_a_grant_ends_and_shows_it(play: Play, act: Act, phase: str, reason: str) -> None:
    """One pass: the Secret gone, certificate and token on the lists, each proof with its time, one entry."""
    play.ready_pilot("triage")
    play.ask("task", "triage", duration="10m")
    active = play.phase("task", "Active")
    act(play)
    ended = play.phase("task", phase)
    status, closure = ended["status"], ended["status"]["closure"]
    assert (closure["outcome"], closure["reason"]) == (phase, reason)
    proofs = {proof["name"]: proof for proof in closure["proofs"]}
    assert set(proofs) == {"secret-gone", "on-revocation-list"}
    assert all(proof["proven"] for proof in proofs.values()), closure
    assert moment(closure["withdrawnAt"]) <= moment(closure["provenAt"])
    assert closure["residualUntil"] == active["status"]["credential"]["notAfter"]
    assert [one["type"] for one in status["conditions"]] == ["Ready"]
    assert play.trail().kinds(ended["metadata"]["uid"]) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_ISSUED,
        EntryType.GRANT_CLOSED,
    ]


def test_what_has_lapsed_needs_no_list(play: Play) -> None:
    """A grant whose time is up has nothing out: no list is written for it."""
    play.ready_pilot("triage")
    play.ask("task", "triage", duration="3s")
    closure = play.phase("task", "Expired")["status"]["closure"]
    assert [proof["name"] for proof in closure["proofs"]] == ["secret-gone"]
    assert "residualUntil" not in closure
    assert play.admin.find(places.core("configmaps", play.namespace, "pilot-revoked-sandbox")) is None


@pytest.fixture
def plane(cluster: Cluster) -> ControlPlane:
    """The control plane, where its weather is ours to make."""
    if not isinstance(cluster, ControlPlane):
        pytest.skip("this cluster's components are not ours to pause")
    return cluster


@pytest.fixture
def kept(operator: Installation) -> Iterator[Kubelet]:
    """The operator under a kubelet; ready again afterwards."""
    with Kubelet(operator.operator) as kubelet:
        yield kubelet
        until(lambda: operator.answers(operator.operator, "/readyz"), "the operator is ready", seconds=60)


def test_two_hundred_closings_survive_a_pause_of_the_api_server(
    play: Play, plane: ControlPlane, kept: Kubelet
) -> None:
    """It hangs for thirty seconds in their middle; all are closed and shown, each recorded once."""
    play.ready_pilot("busy")
    names = [f"task-{number}" for number in range(MANY)]
    for name in names:
        play.ask(name, "busy", duration="30m")

    def in_phase(*phases: str) -> list[str]:
        listed = play.admin.get(play.grants())["items"]
        return [one["metadata"]["name"] for one in listed if one.get("status", {}).get("phase") in phases]

    until(lambda: len(in_phase("Active")) == MANY, "all are active;", seconds=60, instead=in_phase)
    word = {"spec": {"revoke": {"reason": "all of them", "by": play.admin.name}}}

    def revoke_one(name: str) -> None:
        play.admin.patch(play.grants(name), word)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(revoke_one, names[: MANY // 2]))
        until(lambda: in_phase("Revoked"), "the first are revoked")
        list(pool.map(revoke_one, names[MANY // 2 :]))
    before = len(in_phase("Revoked"))
    plane.apiserver.pause()
    try:
        # That time passes is the weather itself.
        threading.Event().wait(PAUSE_S)
    finally:
        plane.apiserver.resume()
    plane.wait_ready()
    print(f"{before} of {MANY} were revoked when it hung; the operator ended with {kept.endings}")
    assert before < MANY, "the pause came too late to be in their middle"
    until(
        lambda: len(in_phase("Revoked")) == MANY,
        "all are revoked;",
        seconds=ONCE_BACK_S,
        instead=lambda: f"{len(in_phase('Revoked'))} are",
    )
    trail = play.trail()
    for one in play.admin.get(play.grants())["items"]:
        closure = one["status"]["closure"]
        assert closure["provenAt"], one["metadata"]["name"]
        assert all(proof["proven"] for proof in closure["proofs"])
        assert trail.kinds(one["metadata"]["uid"]).count(EntryType.GRANT_CLOSED) == 1
        assert play.admin.find(play.secrets(one["metadata"]["name"])) is None
    promises.each_entry_once(trail)


def test_a_grant_whose_time_ends_while_the_operator_is_down(play: Play, operator: Installation) -> None:
    """What it issued ends by itself; once it is back the Secret goes, and the end is shown and recorded."""
    play.ready_pilot("triage")
    play.ask("task", "triage", duration="4s")
    status = play.phase("task", "Active")["status"]
    credential = play.credential("task")
    operator.operator.kill()
    ends = moment(status["expiresAt"])
    assert credential.certificate.not_valid_after_utc.timestamp() <= ends
    assert credential.claims()["exp"] <= ends
    # The end is to pass while nobody looks.
    threading.Event().wait(6)
    assert play.admin.find(play.secrets("task")) is not None
    operator.operator.stop()
    operator.start_operator()
    closure = play.phase("task", "Expired")["status"]["closure"]
    assert moment(closure["requestedAt"]) == ends
    assert [(proof["name"], proof["proven"]) for proof in closure["proofs"]] == [("secret-gone", True)]
    assert play.admin.find(play.secrets("task")) is None
