"""A leak: somebody finds a credential where it does not belong, and a responder who knows nothing else of it.

From the thing that was found to the grant, the people and the tree behind it, and to its end, by the real
program run by a real user; the credential really works before and really stops.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import manifests, places, roles
from e2e.admin import Admin
from e2e.controlplane.cluster import Cluster
from e2e.patience import until
from e2e.person import Person, bind
from e2e.stories.cast import OWNER, REQUESTER, Cast
from e2e.stories.cli.terminal import Terminal, kept
from e2e.stories.play import Play

ASK = ("request", "triage", "--task", "TASK-1")


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Cast:
    """People, where somebody signs their certificates."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    return Cast(play, cluster)


@pytest.fixture
def alice(cluster: Cluster, cast: Cast) -> Terminal:
    """Asks for grants."""
    return Terminal(cluster, cast.enter("alice", REQUESTER))


@pytest.fixture
def tom(cluster: Cluster, cast: Cast) -> Terminal:
    """Owns the pilot, and responds; he reads no audit log."""
    bind(cast.play.admin, cast.play.namespace, "view", cast.enter("tom"))
    return Terminal(cluster, cast.enter("tom", OWNER))


@pytest.fixture
def short_tokens(admin: Admin, play: Play) -> Iterator[None]:
    """Tokens of the sandbox live six seconds while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["credentials"]["jwtTTL"]
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": "6s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": usual}}})


@pytest.mark.parametrize("found", ["kubeconfig", "token"])
def test_a_leaked_kubeconfig_is_traced_and_stops_working(  # noqa: PLR0913, PLR0917 - fixtures
    play: Play, alice: Terminal, tom: Terminal, cluster: Cluster, tmp_path: Path, found: str
) -> None:
    """The file as it is, or only the token in it; kubectl works with it before and is refused after."""
    view = {"roleRef": {"kind": "ClusterRole", "name": roles.CLUSTER_ROLE}}
    play.ready_pilot("triage", access=[{"name": "pods", "kubernetes": view, "dataClass": "synthetic"}])
    alice.does(*ASK, "--access", "pods", "--name", "task")
    leaked = play.credential("task").files["kubeconfig"]
    path = kept(tmp_path / "found.kubeconfig", leaked)
    token = json.loads(leaked)["users"][0]["user"]["token"]
    thing, stdin = (path, "") if found == "kubeconfig" else ("-", token)

    def works() -> bool:
        done = cluster.run("kubectl", "get", "pods", kubeconfig=Path(path), check=False)
        return done.returncode == 0

    assert works()
    seen = tom.does("trace", thing, "-o", "json", stdin=stdin)
    (grant,) = seen.json["grants"]
    assert (grant["name"], grant["ground"], grant["isAlive"]) == ("task", "recorded", True)
    ended = tom.does("trace", thing, "--revoke", "--reason", "in a public repository", stdin=stdin)
    assert "Revoked" in ended.out
    assert not works()
    for said in (seen, ended):
        assert token not in said.out + said.err
    status = play.admin.get(play.grants("task"))["status"]
    assert status["closure"]["message"] == f"revoked by {tom.name}: in a public repository"
    assert all(proof["proven"] for proof in status["closure"]["proofs"])


def test_a_leak_high_in_a_tree_ends_the_tree(
    play: Play, alice: Terminal, tom: Terminal, tmp_path: Path
) -> None:
    """What descends from the grant is shown before, and has ended after."""
    play.ready_pilot("triage", delegation={"to": ["triage"], "maxDepth": 2})
    ask = (*ASK, "--access", "tickets")
    alice.does(*ask, "--name", "top", "--duration", "15m")
    alice.does(*ask, "--name", "middle", "--duration", "10m", "--parent", "top")
    alice.does(*ask, "--name", "leaf", "--duration", "5m", "--parent", "middle")
    top, leaf = (kept(tmp_path / name, play.credential(name).files["token.jwt"]) for name in ("top", "leaf"))
    (seen,) = tom.does("trace", leaf, "-o", "json").json["grants"]
    assert seen["parents"] == ["top", "middle"]
    (seen,) = tom.does("trace", top, "-o", "json").json["grants"]
    assert [(each["name"], each["generation"]) for each in seen["children"]] == [("middle", 1), ("leaf", 2)]
    tom.does("trace", top, "--revoke", "--reason", "in a screenshot")
    for name in ("top", "middle", "leaf"):
        play.gone(name)
        play.phase(name, "Revoked")
    assert tom.does("trace", leaf, "-o", "json").json["grants"][0]["isAlive"] is False


def test_a_token_that_was_renewed_since_still_leads_to_its_grant(  # noqa: PLR0913, PLR0917 - fixtures
    play: Play, alice: Terminal, tom: Terminal, cluster: Cluster, tmp_path: Path, short_tokens: None
) -> None:
    """By the stage's signature, or by the log for those who read it; the grant ends all the same."""
    del short_tokens
    play.ready_pilot("triage")
    alice.does(*ASK, "--access", "tickets", "--name", "task")
    first = play.credential("task")
    until(lambda: play.credential("task").id != first.id, "the credential was renewed")
    thing = kept(tmp_path / "token.jwt", first.files["token.jwt"])
    (seen,) = tom.does("trace", thing, "-o", "json").json["grants"]
    assert (seen["name"], seen["ground"], seen["isCurrent"]) == ("task", "signed", False)

    root = Terminal(cluster, Person(cluster, play.namespace, "root@example.org", "system:masters"))
    for identifier in (first.serial, first.claims()["jti"]):
        (seen,) = root.does("trace", identifier, "-o", "json").json["grants"]
        assert (seen["name"], seen["ground"], seen["isCurrent"]) == ("task", "recorded", False)
    assert tom.run("trace", first.serial).code == 1, "he reads no log, and no grant has it now"

    tom.does("trace", thing, "--revoke")
    play.gone("task")
    assert play.phase("task", "Revoked")


def test_the_inventory_before_and_after(play: Play, alice: Terminal, tom: Terminal) -> None:
    """A responder who has nothing in hand lists what is out, suspends the pilot, and finds nothing active."""
    play.ready_pilot("triage", access=[manifests.tool()])
    for number in range(3):
        alice.does(*ASK, "--access", "tickets", "--name", f"task-{number}")
    active = ("grants", "--pilot", "triage", "--phase", "active", "-o", "name")
    assert len(tom.does(*active).out.splitlines()) == 3
    tom.does("suspend", "triage")
    for number in range(3):
        play.phase(f"task-{number}", "Revoked")
    assert tom.does(*active).out == ""
    residual = tom.does("grants", "--pilot", "triage", "-o", "json").json["items"]
    assert all(each["residualUntil"] is not None for each in residual), "only what a copy could still pass as"
