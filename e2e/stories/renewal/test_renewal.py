"""A task's time is not its credentials' time: they are short, and follow each other while the task goes on.

Each is replaced at half of its life, some sooner and some later, with a new key, in place. That ends as soon
as the grant would not be given any more: what is out lapses by itself, and soon.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator

import pytest

from e2e import manifests, places
from e2e.admin import Admin, Document
from e2e.credential import Credential
from e2e.patience import until
from e2e.stories.play import Play, moment

TOKEN_S = 12
"""How long tokens live while the story is told."""
READ_ONLY = manifests.tool(actions=["read"])
ASKED = {"name": "tickets", "actions": ["comment"]}


@pytest.fixture
def short_tokens(admin: Admin, play: Play) -> Iterator[None]:
    """Tokens of the sandbox live twelve seconds while the story is told."""
    path = places.stages("sandbox")
    usual = admin.get(path)["spec"]
    admin.patch(path, {"spec": {"credentials": {"jwtTTL": f"{TOKEN_S}s"}}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    admin.patch(
        path,
        {"spec": {"credentials": usual["credentials"], "dataClasses": usual["dataClasses"], "rules": None}},
    )


def credential_of(play: Play, grant: str) -> Document:
    """What a grant's status says of its credential."""
    status: Document = play.status(play.grants(grant))["credential"]
    return status


def test_renewals_are_spread_and_change_the_key(play: Play, short_tokens: None) -> None:
    """Eight grants that begin together do not renew together, and no key serves twice."""
    del short_tokens
    play.ready_pilot("triage", access=[manifests.tool()])
    names = [f"long-{number}" for number in range(8)]
    with play.watch(play.secrets()) as secrets:
        uids = [play.ask(name, "triage", duration="20s")["metadata"]["uid"] for name in names]
        for name in names:
            play.phase(name, "Expired", seconds=60)
        versions = {
            name: [Credential.of(one.object) for one in secrets.of(name) if one.change != "DELETED"]
            for name in names
        }
    trail = play.trail()
    issued = [trail.of(uid)[1].entry for uid in uids]
    due = [moment(entry.data["credential"]["renewAt"]) - int(entry.time.timestamp()) for entry in issued]
    assert all(0.4 * TOKEN_S <= after <= 0.6 * TOKEN_S for after in due), due
    assert max(due) - min(due) > 0.01 * TOKEN_S, "they are spread"
    for name, seen in versions.items():
        assert len(seen) >= 2, f"{name} was renewed"
        for before, after in itertools.pairwise(seen):
            assert after.replaces == before.id
            assert after.uid == before.uid, "in place, so that kubelet follows"
            assert before.claims()["exp"] > after.claims()["iat"], "there is always one that holds"
    keys = [one.files["tls.key"] for seen in versions.values() for one in seen]
    assert len(set(keys)) == len(keys)


def test_renewal_stops_at_once_when_the_pilot_changes(play: Play, short_tokens: None) -> None:
    """The condition tells long before the renewal is due; nothing is renewed; and back is back."""
    del short_tokens
    play.ready_pilot("triage")
    play.ask("long", "triage", duration="10m", access=[ASKED])
    play.phase("long", "Active")
    before = credential_of(play, "long")
    play.admin.patch(play.pilots("triage"), {"spec": {"access": [READ_ONLY]}})
    told = play.condition(play.grants("long"), "Ready", reason="ActionOutsidePilot")
    assert told["message"].startswith("not renewed: ")
    assert time.time() < moment(before["renewAt"]), "it waited for no renewal"
    lapses = play.credential("long").claims()["exp"]
    until(lambda: time.time() > lapses, "the token has lapsed", seconds=TOKEN_S + 5)
    assert credential_of(play, "long")["id"] == before["id"]
    assert play.status(play.grants("long"))["phase"] == "Active"
    play.admin.patch(play.pilots("triage"), {"spec": {"access": [manifests.tool()]}})
    play.condition(play.grants("long"), "Ready", reason="Issued")
    until(lambda: credential_of(play, "long")["id"] != before["id"], "it is renewed again")


def test_renewal_stops_at_once_when_the_policy_changes(play: Play, short_tokens: None) -> None:
    """A rule that the stage got after the grant was issued counts for what follows."""
    del short_tokens
    play.ready_pilot("triage")
    play.ask("long", "triage", duration="10m")
    play.phase("long", "Active")
    before = credential_of(play, "long")
    rule = {"name": "short", "expression": "grant.spec.task.id == 'OTHER'", "message": "only the other task"}
    play.admin.patch(places.stages("sandbox"), {"spec": {"rules": [rule]}})
    told = play.condition(play.grants("long"), "Ready", reason="RuleRefused")
    assert "only the other task" in told["message"]
    assert time.time() < moment(before["renewAt"])
    lapses = play.credential("long").claims()["exp"]
    until(lambda: time.time() > lapses, "the token has lapsed", seconds=TOKEN_S + 5)
    assert credential_of(play, "long")["id"] == before["id"]


def test_a_grant_ends_with_its_owners(play: Play, short_tokens: None) -> None:
    """Who answered for it when it was decided answers no more: nothing is left to renew."""
    del short_tokens
    play.ready_pilot("triage")
    play.ask("long", "triage", duration="10m")
    play.phase("long", "Active")
    play.admin.patch(play.pilots("triage"), {"spec": {"owners": {"technical": "new@example.org"}}})
    closure = play.phase("long", "Revoked", seconds=60)["status"]["closure"]
    assert closure["reason"] == "OwnerLeft"
    play.gone("long")
