"""Breaking the glass: nobody approves beforehand, everybody sees it, somebody must look afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from e2e import manifests, places
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.patience import until
from e2e.person import Person, made, take_back
from e2e.stories.cast import APPROVER, EMERGENCY, REQUESTER, Cast, approval, change, policy
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

STRICT = {"approvals": {"grant": {"required": 1}}, "emergency": {"maxDuration": "10m", "reviewWithin": "1h"}}


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Iterator[Cast]:
    """People, where somebody signs their certificates, in a sandbox that has emergencies."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    with policy(play.admin, play, **STRICT):
        play.ready_pilot("triage")
        yield Cast(play, cluster)
    take_back(play.admin)


def review(cast: Cast, person: Person, name: str, **spec: Any) -> Document:
    """A person's review of the pilot as it is now."""
    pilot = cast.play.admin.get(cast.play.pilots("triage"))
    subject = {"kind": "PilotIdentity", "name": "triage", "uid": pilot["metadata"]["uid"]}
    said = {"subject": subject, "purpose": "Review", "digest": pilot["status"]["digest"], **spec}
    return made(person.create(approval(person, pilot, name, **said)))


def await_later_second(cast: Cast) -> None:
    """Wait until what is made now is of a later second than the last emergency."""
    play = cast.play
    since = moment(play.status(play.pilots("triage"))["reviewOwed"]["since"])

    def is_later() -> bool:
        document = manifests.grant("clock", "triage", requested_by=play.admin.name)
        dry = play.admin.create(play.grants() + "?dryRun=All", document)
        return moment(dry["metadata"]["creationTimestamp"]) > since

    until(is_later, "the API server's clock is a second further")


def test_who_breaks_the_glass_is_heard_and_looked_at(play: Play, cast: Cast) -> None:
    """Issued at once; Warning Event and entry; a review is owed, which the requester cannot make himself."""
    eve = cast.enter("eve", REQUESTER, EMERGENCY, APPROVER)
    rita = cast.enter("rita", APPROVER)
    cast.ask(eve, "alarm", "triage", emergency=True, duration="5m")
    grant = play.phase("alarm", "Active")
    uid = grant["metadata"]["uid"]
    assert "approvals" not in grant["status"]["decision"]
    (event,) = play.events_of(uid, "EmergencyIssued")
    assert event["type"] == "Warning"
    assert f"{eve.name} broke the glass" in event["note"]
    pilot = play.admin.get(play.pilots("triage"))
    owed = pilot["status"]["reviewOwed"]
    assert owed["grants"] == [{"name": "alarm", "uid": uid, "requestedBy": eve.name}]
    issued_at = moment(grant["status"]["issuedAt"])
    assert 3500 < moment(owed["dueAt"]) - issued_at <= 3600
    trail = play.trail()
    assert trail.kinds(uid) == [
        EntryType.GRANT_REQUESTED,
        EntryType.GRANT_EMERGENCY,
        EntryType.GRANT_ISSUED,
    ]
    told = [line for line in trail.of(pilot["metadata"]["uid"]) if line.kind == EntryType.REVIEW_OWED]
    assert told[0].index < trail.of(uid)[1].index

    await_later_second(cast)
    review(cast, eve, "own")
    assert "you asked for an emergency grant yourself" in cast.told("own", "Refused")["message"]
    assert "reviewOwed" in play.status(play.pilots("triage"))
    review(cast, rita, "review", reason="the outage was real")
    cast.told("review", "Counted")
    status = play.status(play.pilots("triage"))
    assert "reviewOwed" not in status
    assert (status["reviewed"]["name"], status["reviewed"]["approver"]) == ("review", rita.name)
    said = play.status(places.approvals(play.namespace, "review"))
    assert (said["used"], said["usedBy"]) == (True, f"PilotIdentity {play.namespace}/triage")
    (line,) = [
        line for line in play.trail().of(pilot["metadata"]["uid"]) if line.kind == EntryType.PILOT_REVIEWED
    ]
    assert line.entry.data["reason"] == "the outage was real"


def test_without_its_review_the_pilot_is_held(play: Play, cast: Cast) -> None:
    """Overdue: no new grant, neither ordinary nor urgent, until the review is there; then they go on."""
    change(play.admin, play, approvals={"grant": {"required": 0}}, emergency={"reviewWithin": "2s"})
    eve, rita = cast.enter("eve", REQUESTER, EMERGENCY), cast.enter("rita", APPROVER)
    cast.ask(eve, "alarm", "triage", emergency=True, duration="5m")
    play.phase("alarm", "Active")
    owed = play.status(play.pilots("triage"))["reviewOwed"]
    until(lambda: _now(play) > moment(owed["dueAt"]), "the review is overdue")
    cast.ask(eve, "next", "triage", duration="5m")
    cast.ask(eve, "urgent", "triage", emergency=True, duration="5m")
    for name in ("next", "urgent"):
        told = play.condition(play.grants(name), "Ready", reason="ReviewOverdue")
        assert "the review of emergency grants alarm was due" in told["message"]
        assert play.admin.find(play.secrets(name)) is None
    review(cast, rita, "review")
    play.phase("next", "Active")
    play.phase("urgent", "Active")
    assert [one["name"] for one in play.status(play.pilots("triage"))["reviewOwed"]["grants"]] == ["urgent"]


def _now(play: Play) -> float:
    document = manifests.grant("clock", "triage", requested_by=play.admin.name)
    dry = play.admin.create(play.grants() + "?dryRun=All", document)
    return moment(dry["metadata"]["creationTimestamp"])


def test_a_deleted_emergency_still_owes_its_review(play: Play, cast: Cast) -> None:
    """The review is in the pilot's status: taking the grant away takes nothing of it away."""
    eve = cast.enter("eve", REQUESTER, EMERGENCY)
    cast.ask(eve, "alarm", "triage", emergency=True, duration="5m")
    play.phase("alarm", "Active")
    play.admin.delete(play.grants("alarm"))
    until(lambda: play.admin.find(play.grants("alarm")) is None, "the emergency grant is gone")
    owed = play.status(play.pilots("triage"))["reviewOwed"]
    assert [one["name"] for one in owed["grants"]] == ["alarm"]


@pytest.mark.parametrize(
    "emergency, reason, says",
    [
        pytest.param(None, "EmergencyNotAllowed", "has no emergency grants", id="no emergencies"),
        pytest.param({"maxDuration": "4m"}, "DurationTooLong", "allows an emergency grant 4m", id="too long"),
    ],
)
def test_an_emergency_has_its_bounds(
    play: Play, cast: Cast, emergency: Document | None, reason: str, says: str
) -> None:
    """Where the stage has none, or for longer than it allows: denied, and no review is owed."""
    change(play.admin, play, emergency=emergency)
    eve = cast.enter("eve", REQUESTER, EMERGENCY)
    cast.ask(eve, "alarm", "triage", emergency=True, duration="5m")
    decision = play.phase("alarm", "Denied")["status"]["decision"]
    assert decision["reason"] == reason
    assert says in decision["message"]
    assert "reviewOwed" not in play.status(play.pilots("triage"))
