"""The stage's calendar: a pilot that nobody looks at gets nothing more, until somebody looks."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e import places
from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.patience import until
from e2e.person import Right, give, take_back
from e2e.stories.cast import APPROVER, REQUESTER, Cast, change, policy
from e2e.stories.cli.terminal import Terminal
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

EVERY_S, GRACE_S = 4, 2
CALENDAR = {"every": f"{EVERY_S}s", "grace": f"{GRACE_S}s"}


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Iterator[Cast]:
    """People, where somebody signs their certificates, in a sandbox whose pilots are reviewed often."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    with policy(play.admin, play, review=CALENDAR):
        try:
            yield Cast(play, cluster)
        finally:
            change(play.admin, play, review=None)
    take_back(play.admin)


def overdue(play: Play) -> Document:
    """Wait until the pilot says that nobody looked at it."""
    return play.condition(play.pilots("triage"), "ReviewOverdue", reason="ReviewOverdue", seconds=30)


def test_a_pilot_that_nobody_looks_at_stands_still_until_somebody_does(play: Play, cast: Cast) -> None:
    """Told on time and once; new grants wait, the running one goes on; a review lets them go on."""
    alice, rita = cast.enter("alice", REQUESTER), cast.enter("rita", APPROVER)
    pilot = play.ready_pilot("triage")
    uid = pilot["metadata"]["uid"]
    cast.ask(alice, "running", "triage", duration="5m")
    running = play.phase("running", "Active")
    entered = moment(pilot["status"]["stageSince"])
    assert moment(pilot["status"]["reviewDue"]) == pytest.approx(entered + EVERY_S, abs=0.01)

    told = overdue(play)
    assert "wants a review every 4s, at most 2s late" in told["message"]
    late = moment(told["lastTransitionTime"]) - (entered + EVERY_S + GRACE_S)
    assert -1 <= late <= 1, "by a deadline, not by the next look"
    (event,) = play.events_of(uid, "ReviewOverdue")
    assert event["type"] == "Warning"
    cast.ask(alice, "next", "triage", duration="5m")
    waits = play.condition(play.grants("next"), "Ready", reason="ReviewOverdue")
    digest = play.status(play.pilots("triage"))["digest"]
    assert f"digest {digest}" in waits["message"]
    assert play.admin.find(play.secrets("next")) is None
    assert play.status(play.grants("running")) == running["status"]

    # Time enough for what follows: with this the review is the last one of the story.
    change(play.admin, play, review={"every": "1h", "grace": "1s"})
    assert "ReviewOverdue" not in conditions(play)
    play.phase("next", "Active")
    change(play.admin, play, review=CALENDAR)
    overdue(play)
    cast.ask(alice, "last", "triage", duration="5m")
    play.condition(play.grants("last"), "Ready", reason="ReviewOverdue")
    terminal = Terminal(cast.cluster, rita)
    answer = terminal.does("review", "triage", "--reason", "still what it is for", "--yes")
    assert "reviewed pilot triage" in answer.out
    play.phase("last", "Active")
    status = play.status(play.pilots("triage"))
    assert status["reviewed"]["approver"] == rita.name
    assert moment(status["reviewDue"]) == pytest.approx(moment(status["reviewed"]["at"]) + EVERY_S, abs=0.01)
    trail = play.trail()
    kinds = trail.kinds(uid)
    assert EntryType.PILOT_REVIEWED in kinds
    (reviewed,) = [line for line in trail.of(uid) if line.kind == EntryType.PILOT_REVIEWED]
    assert reviewed.entry.data["reason"] == "still what it is for"
    assert reviewed.entry.data["approval"]["approver"] == rita.name
    before = kinds[: kinds.index(EntryType.PILOT_REVIEWED)]
    assert before.count(EntryType.REVIEW_OVERDUE) == 1, "the same date is told once"


def conditions(play: Play) -> set[str]:
    """Wait until the pilot was looked at; returns the types of its conditions."""

    def types() -> set[str]:
        return {one["type"] for one in play.status(play.pilots("triage"))["conditions"]}

    until(lambda: "ReviewOverdue" not in types(), "the review is not overdue any more")
    return types()


def test_running_grants_are_not_renewed(play: Play, cast: Cast) -> None:
    """Their credentials lapse by themselves, and they say why; nothing is withdrawn."""
    before = play.admin.get(places.stages("sandbox"))["spec"]["credentials"]
    change(play.admin, play, credentials={"x509TTL": "30s", "jwtTTL": "20s"})
    try:
        alice = cast.enter("alice", REQUESTER)
        play.ready_pilot("triage")
        cast.ask(alice, "running", "triage", duration="5m")
        play.phase("running", "Active")
        told = play.condition(play.grants("running"), "Ready", reason="ReviewOverdue", seconds=40)
        assert "not renewed: stage 'sandbox' wants a review every 4s" in told["message"]
        grant = play.admin.get(play.grants("running"))
        assert (grant["status"]["phase"], grant["status"]["credential"]["issuance"]) == ("Active", 1)
        assert play.admin.find(play.secrets("running")) is not None
    finally:
        change(play.admin, play, credentials=before)


def test_without_the_verb_nobody_reviews(play: Play, cast: Cast) -> None:
    """RBAC is asked about the pilot; a requester has no say in it."""
    alice = cast.enter("alice", REQUESTER)
    pilot = play.ready_pilot("triage")
    give(
        play.admin,
        [Right("create", "approvals", namespace=play.namespace)],
        {"kind": "User", "name": alice.name},
        label="writes-approvals",
    )
    alice.await_right(play.admin, Right("create", "approvals", namespace=play.namespace))
    refused = Terminal(cast.cluster, alice).run("review", "triage", "--reason", "fine", "--yes")
    assert refused.code == 1
    assert "you may not approve pilotidentities/triage" in refused.err
    listed = play.admin.get(places.approvals(play.namespace))["items"]
    assert [one for one in listed if one["spec"]["subject"]["uid"] == pilot["metadata"]["uid"]] == []
