"""Two replicas: one works, the other waits hot.

When the first is stopped politely it gives its Lease back; when it is killed the Lease runs out. Leadership
is only there so that two do not do the same work: where it fails, and two replicas both believe that they
lead, the log still does not fork and nothing is issued twice.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest

from e2e import places
from e2e.controlplane.component import Component
from e2e.installation import Installation
from e2e.patience import until
from e2e.stories import promises
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

LEASE_S = 15
RETRY_S = 2
POLITE_S = RETRY_S + 3
"""A waiting replica looks every two seconds, and the one that goes needs its time to end."""
KILLED_S = LEASE_S + 2 * RETRY_S + 3


@pytest.fixture
def alone(operator: Installation) -> Iterator[Installation]:
    """No operator runs, and nobody holds the Lease; afterwards the usual one works again."""
    operator.operator.stop()
    yield operator
    operator.operator.launch()
    operator.wait_ready(operator.operator, seconds=90)


@pytest.fixture
def pair(alone: Installation) -> Iterator[tuple[Component, Component]]:
    """Two replicas of different names: the first leads, the second waits."""
    first, second = alone.replica("replica-a"), alone.replica("replica-b")
    try:
        first.start()
        alone.wait_ready(first)
        until(lambda: leads(alone, first), "the first replica leads")
        second.start()
        alone.wait_ready(second)
        yield first, second
    finally:
        first.stop()
        second.stop()


def leads(installation: Installation, replica: Component) -> bool:
    """Whether a replica says of itself that it leads."""
    return installation.metrics(replica)["pilot_identity_leader"] == 1.0


def test_the_second_replica_waits(play: Play, alone: Installation, pair: tuple[Component, Component]) -> None:
    """It is ready, watches, and does nothing."""
    first, second = pair
    play.ready_pilot("triage")
    assert (leads(alone, first), leads(alone, second)) == (True, False)
    until(lambda: alone.metrics(second)["pilot_identity_objects"] >= 4, "the second replica watches too")
    assert alone.metrics(second)["pilot_identity_log_groups_total"] == 0
    assert play.admin.get(places.lease())["spec"]["holderIdentity"] == "replica-a"


def test_a_replica_that_is_stopped_hands_over_at_once(
    play: Play, alone: Installation, pair: tuple[Component, Component]
) -> None:
    """Politely stopped, it gives the Lease back; the other goes on with what was begun."""
    first, second = pair
    play.ready_pilot("triage")
    play.ask("across", "triage", duration="20s")
    play.phase("across", "Active")
    started = time.monotonic()
    first.stop()
    until(lambda: leads(alone, second), "the second replica leads", seconds=POLITE_S)
    print(f"took over {time.monotonic() - started:.1f} s after SIGTERM")
    assert first.exit_code == 0
    play.ask("after", "triage", duration="3s")
    for name in ("after", "across"):
        play.phase(name, "Expired", seconds=30)
    assert play.admin.get(places.lease())["spec"]["holderIdentity"] == "replica-b"
    ends = {EntryType.OPERATOR_STARTED, EntryType.OPERATOR_STOPPED}
    told = [(line.kind, line.entry.data["identity"]) for line in play.trail() if line.kind in ends]
    assert told[-3:] == [
        (EntryType.OPERATOR_STARTED, "replica-a"),
        (EntryType.OPERATOR_STOPPED, "replica-a"),
        (EntryType.OPERATOR_STARTED, "replica-b"),
    ]


def test_a_replica_that_is_killed_is_followed_when_its_lease_is_over(
    play: Play, alone: Installation, pair: tuple[Component, Component]
) -> None:
    """Within the lease's duration and a little; what ended meanwhile is withdrawn at once."""
    first, second = pair
    play.ready_pilot("triage")
    play.ask("meanwhile", "triage", duration="5s")
    play.phase("meanwhile", "Active")
    started = time.monotonic()
    first.kill()
    until(lambda: leads(alone, second), "the second replica leads", seconds=KILLED_S)
    print(f"took over {time.monotonic() - started:.1f} s after SIGKILL")
    play.phase("meanwhile", "Expired", seconds=2)
    play.gone("meanwhile")


def test_two_leaders_at_once_are_one_log(play: Play, alone: Installation) -> None:
    """Both hold the same Lease under the same name: no fork, no second credential, each grant ends once."""
    twins = alone.replica("twin-a", identity="twin"), alone.replica("twin-b", identity="twin")
    try:
        for twin in twins:
            twin.launch()
        for twin in twins:
            alone.wait_ready(twin)
        until(lambda: all(leads(alone, twin) for twin in twins), "both believe that they lead", seconds=40)
        play.ready_pilot("triage")
        with play.watch(play.secrets()) as secrets:
            asked = {
                name: play.ask(name, "triage", duration="4s")["metadata"]["uid"]
                for name in (f"task-{number}" for number in range(60))
            }
            _revoke_some(play, list(asked)[::5])
            for name in asked:
                play.phase(name, "Expired", "Revoked")
            until(lambda: all(leads(alone, twin) for twin in twins), "both still believe it")
            seen, trail = secrets.all(), play.trail()
        promises.hold(seen, trail)
        for name, uid in asked.items():
            assert len(promises.issuances(trail, uid)) <= 1, name
            assert trail.kinds(uid).count(EntryType.GRANT_CLOSED) == 1, name
            gone = [one for one in seen if one.name == name and one.change == "DELETED"]
            assert len(gone) == len(promises.issuances(trail, uid)), name
    finally:
        for twin in twins:
            twin.stop()


def _revoke_some(play: Play, names: list[str]) -> None:
    """Revoke from a second thread, while the first ones are still being issued."""

    def revoke() -> None:
        for name in names:
            word = {"reason": "both must hear it", "by": play.admin.name}
            play.admin.patch(play.grants(name), {"spec": {"revoke": word}})

    thread = threading.Thread(target=revoke)
    thread.start()
    thread.join()
