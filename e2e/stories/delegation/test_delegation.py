"""Delegation: a grant's holder passes a piece of it on to another pilot, and never more.

A child grant names its parent. It is issued only where the parent's pilot allows it, within the parent's
access, audiences and time, and it says where it comes from: in its status, in its token, in the log. When the
parent ends, all that was made from it ends.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Admin, Document
from e2e.patience import until
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

CLAIMS = "https://pilotidentity.dev/claims"
NARROW = {"name": "tickets", "actions": ["read"], "resources": ["projects/billing/issues/**"]}
LEVELS = (1, 4, 16, 64)
"""A tree of 85 grants: each but the leaves has four children."""


@pytest.fixture
def roomy(admin: Admin, play: Play) -> Iterator[None]:
    """The sandbox lets a pilot have many grants while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]["limits"]
    admin.patch(path, {"spec": {"limits": {"activeGrants": 500, "requestsPerMinute": 500}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(path, {"spec": {"limits": usual}})


def two_pilots(play: Play, *, depth: int = 3, **spec: Any) -> None:
    """`triage`, which may delegate to `helper`, and `helper`, which may delegate to itself."""
    play.ready_pilot("triage", delegation={"to": ["helper"], "maxDepth": depth})
    play.ready_pilot("helper", **{"delegation": {"maxDepth": 1}, **spec})


def test_a_child_gets_a_piece_of_its_parent(play: Play) -> None:
    """Its token says who had it before, and it ends no later than its parent."""
    two_pilots(play)
    parent = play.ask("whole", "triage", duration="10m")
    asked = play.ask("piece", "helper", parent="whole", access=[NARROW], duration="5m")
    status = play.phase("piece", "Active")["status"]
    assert status["chain"] == ["whole"]
    assert status["parentUID"] == parent["metadata"]["uid"]
    assert moment(status["expiresAt"]) <= moment(play.phase("whole", "Active")["status"]["expiresAt"])
    told = [
        {
            "grant": "whole",
            "uid": parent["metadata"]["uid"],
            "pilot": "triage",
            "requestedBy": play.admin.name,
        }
    ]
    claims = play.credential("piece").claims()
    assert claims[CLAIMS]["delegation"] == told
    assert claims["authorization_details"][0]["actions"] == ["read"]
    *_, issued = play.trail().of(asked["metadata"]["uid"])
    assert issued.entry.data["delegation"] == told


@pytest.mark.parametrize(
    "asked, reason",
    [
        pytest.param({"access": [{"name": "tickets"}]}, "AccessOutsideParent", id="more access"),
        pytest.param(
            {"access": [{**NARROW, "resources": ["projects/billing/**"]}]},
            "AccessOutsideParent",
            id="wider resources",
        ),
        pytest.param({"access": [{"name": "invoices"}]}, "AccessOutsideParent", id="another audience"),
        pytest.param({"access": [NARROW], "duration": "6m"}, "DurationOutsideParent", id="more time"),
    ],
)
def test_a_child_that_is_wider_than_its_parent_is_denied(
    play: Play, asked: Mapping[str, Any], reason: str
) -> None:
    """Though its own pilot may have it: a parent's piece is all there is to pass on."""
    tools = [manifests.tool(), manifests.tool("invoices", manifests.OTHER_AUDIENCE)]
    two_pilots(play, access=tools)
    play.ask("parent", "triage", access=[NARROW], duration="5m")
    play.phase("parent", "Active")
    play.ask("wider", "helper", parent="parent", **{"duration": "1m", **asked})
    status = play.phase("wider", "Denied")["status"]
    assert status["decision"]["reason"] == reason
    assert play.admin.find(play.secrets("wider")) is None


def test_a_child_is_denied_where_the_parents_pilot_does_not_allow_it(play: Play) -> None:
    """Neither to a pilot that is not listed, nor deeper than any ancestor's pilot says."""
    two_pilots(play, depth=1, delegation={"maxDepth": 8})
    play.ready_pilot("stranger")
    play.ask("parent", "triage")
    play.phase("parent", "Active")
    play.ask("strange", "stranger", parent="parent", duration="1m")
    assert play.phase("strange", "Denied")["status"]["decision"]["reason"] == "DelegationNotAllowed"
    play.ask("child", "helper", parent="parent", duration="5m")
    play.phase("child", "Active")
    play.ask("grandchild", "helper", parent="child", duration="1m")
    status = play.phase("grandchild", "Denied")["status"]
    assert status["decision"]["reason"] == "DelegationTooDeep"
    assert status["chain"] == ["parent", "child"]


def test_a_namesake_of_the_parent_is_not_the_parent(play: Play) -> None:
    """A child that waits keeps to the grant that it was first looked at with."""
    two_pilots(play)
    play.ask("parent", "triage")
    play.ask("child", "helper", parent="parent", duration="1m")
    play.phase("child", "Active")
    play.admin.delete(play.grants("parent"))
    until(lambda: play.admin.find(play.grants("parent")) is None, "the parent is gone")
    play.ask("parent", "triage")
    closure = play.phase("child", "Revoked")["status"]["closure"]
    assert closure["reason"] == "ParentEnded"
    play.gone("child")


def names() -> list[list[str]]:
    """Name the tree's grants, a list for each level: `g`, then `g-0` to `g-3`, then `g-0-0` and so on."""
    return [
        ["-".join(["g", *path]) for path in itertools.product("0123", repeat=level)]
        for level in range(len(LEVELS))
    ]


def parent_of(name: str) -> str:
    """The name of the grant above."""
    return name.rpartition("-")[0]


def plant(play: Play) -> dict[str, Document]:
    """Ask for the whole tree, leaves first: manifests come in any order. Returns the grants, all active."""
    levels = names()
    assert tuple(map(len, levels)) == LEVELS
    for level in reversed(range(len(levels))):
        for name in levels[level]:
            below = {"parent": parent_of(name)} if level else {}
            pilot = "triage" if level < 2 else "helper"
            play.ask(name, pilot, duration=f"{20 - level}m", **below)
    every = [name for level in levels for name in level]
    return {name: play.phase(name, "Active", seconds=60) for name in every}


def test_a_tree_of_85_grants_ends_with_its_root(play: Play, roomy: None) -> None:
    """All access is gone within seconds, and the log tells each end, never a child's before its parent's."""
    del roomy
    play.ready_pilot("triage", delegation={"to": ["helper"], "maxDepth": 3})
    play.ready_pilot("helper", delegation={"maxDepth": 1})
    grants = plant(play)
    assert grants["g-3-1-2"]["status"]["chain"] == ["g", "g-3", "g-3-1"]
    owned = {name: grant["metadata"]["uid"] for name, grant in grants.items()}

    def credentials() -> list[str]:
        return [
            secret["metadata"]["name"]
            for secret in play.admin.get(play.secrets())["items"]
            if secret["metadata"]["name"] in owned
        ]

    assert len(credentials()) == sum(LEVELS)
    play.admin.patch(play.grants("g"), {"spec": {"revoke": {"reason": "leaked", "by": play.admin.name}}})
    until(lambda: not credentials(), "every credential of the tree is gone", seconds=5)
    ended = {name: play.phase(name, "Revoked", seconds=60) for name in grants}
    trail = play.trail()
    closed = {
        name: next(line for line in trail.of(uid) if line.kind is EntryType.GRANT_CLOSED)
        for name, uid in owned.items()
    }
    for name, line in closed.items():
        closure = ended[name]["status"]["closure"]
        assert closure["auditIndex"] == line.index
        if name != "g":
            assert closure["reason"] == "ParentEnded"
            assert line.index > closed[parent_of(name)].index, f"{name} is told before its parent"


def test_a_branch_ends_alone(play: Play) -> None:
    """What is beside or above the grant that ends goes on."""
    two_pilots(play)
    play.ask("root", "triage")
    for name in ("left", "right"):
        play.ask(name, "helper", parent="root", duration="5m")
        play.ask(f"{name}-leaf", "helper", parent=name, duration="1m")
    for name in ("root", "left", "right", "left-leaf", "right-leaf"):
        play.phase(name, "Active")
    play.admin.patch(play.grants("left"), {"spec": {"completed": True}})
    play.phase("left", "Completed")
    closure = play.phase("left-leaf", "Revoked")["status"]["closure"]
    assert (closure["reason"], closure["message"]) == ("ParentEnded", "its parent 'left' is Completed")
    for name in ("root", "right", "right-leaf"):
        assert play.status(play.grants(name))["phase"] == "Active"
        play.credential(name)
