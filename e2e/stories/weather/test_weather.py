"""Weather: the API server or etcd goes away in the middle of work, and comes back.

Fifty grants and more are being issued and ended meanwhile. The operator may end (it is crash-only: what it
cannot keep it leaves to the next start) and is started again as kubelet would. Afterwards every grant is
where it belongs, and the log verifies.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterator

import pytest

from e2e.controlplane.cluster import Cluster, ControlPlane
from e2e.installation import Installation
from e2e.patience import until
from e2e.stories import promises
from e2e.stories.feeder import Feeder
from e2e.stories.kubelet import Kubelet
from e2e.stories.play import TERMINAL, Play
from pilot_identity.core.audit.entries import EntryType

GRANTS = 50
DURATION_S = 6
PAUSE_S = 15.0
"""Longer than the lease is held without renewal, so that the operator must let go."""
SETTLED_S = 60

Storm = Callable[[ControlPlane], None]


def api_server_killed(plane: ControlPlane) -> None:
    """A crash of the API server, and its restart."""
    plane.apiserver.kill()
    plane.apiserver.start()


def api_server_paused(plane: ControlPlane) -> None:
    """A machine that hangs: connections stay open, and nothing answers."""
    plane.apiserver.pause()
    try:
        # That time passes is the weather itself.
        threading.Event().wait(PAUSE_S)
    finally:
        plane.apiserver.resume()


def etcd_killed(plane: ControlPlane) -> None:
    """A power cut below the API server."""
    plane.etcd.kill()
    plane.etcd.start()


@pytest.fixture
def plane(cluster: Cluster) -> ControlPlane:
    """The control plane, where its weather is ours to make."""
    if not isinstance(cluster, ControlPlane):
        pytest.skip("this cluster's components are not ours to kill")
    return cluster


@pytest.fixture
def kept(operator: Installation) -> Iterator[Kubelet]:
    """The operator under a kubelet; ready again afterwards."""
    with Kubelet(operator.operator) as kubelet:
        yield kubelet
        until(lambda: operator.answers(operator.operator, "/readyz"), "the operator is ready", seconds=60)


@pytest.mark.parametrize("storm", [api_server_killed, api_server_paused, etcd_killed])
def test_every_grant_reaches_its_end(play: Play, kept: Kubelet, plane: ControlPlane, storm: Storm) -> None:
    """Whatever was being issued or ended when it broke; nothing is issued twice, nothing is left alive."""
    play.ready_pilot("busy")
    chance = random.Random(storm.__name__)  # noqa: S311 - draws ways of ending a test's grants
    feeding = Feeder(play, "busy", chance, every_s=0.1, duration=f"{DURATION_S}s")
    with play.watch(play.secrets()) as secrets, feeding as feeder:
        feeder.burst(GRANTS)
        storm(plane)
        plane.wait_ready()
        feeder.burst(GRANTS // 5)
        feeder.stop()

        def alive() -> list[str]:
            listed = play.admin.get(play.grants())["items"]
            return [
                grant["metadata"]["name"]
                for grant in listed
                if grant.get("status", {}).get("phase") not in TERMINAL
                or "deletionTimestamp" in grant["metadata"]
            ]

        until(lambda: not alive(), "every grant has ended;", seconds=SETTLED_S, instead=alive)
        secrets.wait_until(
            lambda present: not [name for name in present if name.startswith("fed-")],
            "no Secret of a grant is left",
            seconds=10,
        )
        seen, trail = secrets.all(), play.trail()
    print(f"{len(feeder.asked)} grants; the operator ended with {kept.endings}")
    promises.hold(seen, trail)
    for asked in feeder.asked:
        assert len(promises.issuances(trail, asked.uid)) <= 1, asked.name
        assert trail.kinds(asked.uid).count(EntryType.GRANT_CLOSED) == 1, asked.name
