"""Retention: an ended grant stays as an object for its stage's time, and goes only when its end is shown."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e import manifests, places
from e2e.controlplane.cluster import Cluster
from e2e.installation import Installation
from e2e.patience import until
from e2e.squatter import squat
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType

KEPT_S = 3


@pytest.fixture
def short_memory(play: Play) -> Iterator[None]:
    """Ended grants of the sandbox stay three seconds while the story is told."""
    path = places.stages("sandbox")
    usual = play.admin.get(path)["spec"]["retention"]
    play.admin.patch(path, {"spec": {"retention": f"{KEPT_S}s"}})
    play.condition(path, "Ready", reason="KeysReady")
    yield
    play.admin.patch(path, {"spec": {"retention": usual}})


def removed(play: Play, grant: str) -> None:
    """Wait until a grant's object is gone."""
    until(lambda: play.admin.find(play.grants(grant)) is None, f"grant {grant} is removed")


@pytest.mark.usefixtures("short_memory")
def test_ended_grants_go_when_their_time_as_a_record_is_over(play: Play) -> None:
    """Completed before it was issued or after, denied: none goes too early; the log keeps all of them."""
    play.ready_pilot("triage")
    with play.watch(play.grants()) as seen:
        play.ask("done", "triage", duration="10m")
        play.phase("done", "Active")
        play.ask("denied", "triage", access=[{"name": "unknown"}])
        play.ask("early", "triage", completed=True)
        play.admin.patch(play.grants("done"), {"spec": {"completed": True}})
        uids = {
            name: play.phase(name, "Completed", "Denied")["metadata"]["uid"]
            for name in ("done", "denied", "early")
        }
        for name in uids:
            removed(play, name)
        seen.wait_until(lambda present: not present, "the watch saw them go", seconds=10)
        sightings = seen.all()
    for name, uid in uids.items():
        last = next(one.object for one in reversed(sightings) if one.name == name)
        status = last["status"]
        ended = status["closure"]["provenAt"] if "closure" in status else status["decision"]["decidedAt"]
        assert moment(last["metadata"]["deletionTimestamp"]) >= int(moment(ended)) + KEPT_S, name
        kinds = play.trail().kinds(uid)
        assert kinds[-1] in {EntryType.GRANT_CLOSED, EntryType.GRANT_DENIED}, "going tells nothing new"
    assert play.admin.find(play.secrets("done")) is None


@pytest.mark.usefixtures("short_memory")
def test_what_is_not_shown_stays(play: Play, cluster: Cluster) -> None:
    """A grant whose end cannot be shown outlasts its time as a record."""
    play.ready_pilot("triage")
    squat(cluster, play.namespace, "pilot-revoked-sandbox")
    play.ask("stuck", "triage", duration="10m")
    play.ask("shown", "triage", duration="2s")
    play.phase("stuck", "Active")
    play.admin.patch(play.grants("stuck"), {"spec": {"completed": True}})
    play.phase("stuck", "Closing")
    removed(play, "shown")
    assert play.phase("stuck", "Closing")
    play.admin.delete(places.core("configmaps", play.namespace, "pilot-revoked-sandbox"))
    removed(play, "stuck")


@pytest.mark.usefixtures("short_memory")
def test_its_time_passes_while_the_operator_is_down(play: Play, operator: Installation) -> None:
    """The time is the object's own: a restart does not begin it again."""
    play.ready_pilot("triage")
    play.ask("task", "triage", duration="10m")
    play.phase("task", "Active")
    play.admin.patch(play.grants("task"), {"spec": {"completed": True}})
    play.phase("task", "Completed")
    operator.operator.kill()
    operator.operator.stop()
    assert play.admin.find(play.grants("task")) is not None
    operator.start_operator()
    removed(play, "task")


def test_a_name_is_free_again(play: Play, short_memory: None) -> None:  # noqa: ARG001 - for its effect
    """A new grant of the same name is another grant."""
    play.ready_pilot("triage")
    first = play.ask("task", "triage", duration="2s")
    play.phase("task", "Expired")
    removed(play, "task")
    second = play.admin.create(
        play.grants(), manifests.grant("task", "triage", requested_by=play.admin.name, duration="2s")
    )
    assert first["metadata"]["uid"] != second["metadata"]["uid"]
    play.phase("task", "Active")
