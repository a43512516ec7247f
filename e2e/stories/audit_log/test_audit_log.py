"""The log under fire: its writer killed, two writers at once, compaction all the while.

About twenty entries a second come from grants of three seconds. A watch notes every group that was ever
committed. After each blow `kubectl pilot audit verify` must find the log sound and going on from the head
that it saw the last time; at the end every entry that was ever committed must stand where it stood.

`PILOT_IDENTITY_LOG_KILLS` says how many kills there are; CI takes fewer.
"""

from __future__ import annotations

import os
import random
import secrets as randomness
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import places
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.component import Component
from e2e.installation import Installation
from e2e.patience import until
from e2e.sightings import Sightings
from e2e.stories import promises
from e2e.stories.audit_log.auditor import Auditor
from e2e.stories.feeder import Feeder
from e2e.stories.kubelet import Kubelet
from e2e.stories.play import Play
from pilot_identity.core.audit.chain import GRACE_SECONDS

KILLS = int(os.environ.get("PILOT_IDENTITY_LOG_KILLS", "15"))
EVERY_S = 0.1
"""Between two grants, each at least two entries."""
DURATION = "3s"
TWINS_S = 2 * GRACE_SECONDS
"""So that both compact what both wrote."""


@pytest.fixture
def auditor(cluster: Cluster, play: Play, groups: Sightings, tmp_path: Path) -> Auditor:
    """Has seen nothing yet."""
    return Auditor(cluster, play.admin, tmp_path, groups)


@pytest.fixture
def chance() -> random.Random:
    """Draws moments; the seed is printed, and `PILOT_IDENTITY_CRASH_SEED` draws them again."""
    seed = os.environ.get("PILOT_IDENTITY_CRASH_SEED") or randomness.token_hex(4)
    print(f"PILOT_IDENTITY_CRASH_SEED={seed}")
    return random.Random(seed)  # noqa: S311 - moments of a test, not keys


@pytest.fixture
def feeder(play: Play, chance: random.Random) -> Iterator[Feeder]:
    """Twenty entries a second."""
    play.ready_pilot("busy")
    with Feeder(play, "busy", chance, every_s=EVERY_S, duration=DURATION) as feeder:
        yield feeder


def let_pass(seconds: float) -> None:
    """The moment itself is what is drawn."""
    threading.Event().wait(seconds)


def test_a_killed_writer_loses_nothing_and_repeats_nothing(
    play: Play, operator: Installation, auditor: Auditor, feeder: Feeder, chance: random.Random
) -> None:
    """SIGKILL at random moments, a start included: what was committed stays as it is, compacted or not."""
    try:
        for number in range(KILLS):
            let_pass(chance.uniform(0.0, 2.5))
            operator.operator.kill()
            operator.operator.launch()
            print(f"kill {number}: {auditor.audit()} entries")
    finally:
        operator.wait_ready(operator.operator)
    feeder.stop()
    _let_compact(operator)
    size = auditor.hold()
    promises.each_entry_once(play.trail())
    print(f"{KILLS} kills; {size} entries; {_compacted(operator):.0f} of them compacted")


def test_two_writers_are_one_log(
    play: Play, operator: Installation, auditor: Auditor, chance: random.Random
) -> None:
    """Both hold the same Lease under the same name, both write, both compact: no fork, nothing twice."""
    operator.operator.stop()
    twins = operator.replica("log-twin-a", identity="twin"), operator.replica("log-twin-b", identity="twin")
    try:
        for twin in twins:
            twin.launch()
        for twin in twins:
            operator.wait_ready(twin)
        until(lambda: _both_lead(operator, twins), "both believe that they lead", seconds=40)
        play.ready_pilot("busy")
        wrote = {twin.name: 0.0 for twin in twins}
        feeding = Feeder(play, "busy", chance, every_s=EVERY_S, duration=DURATION)
        # One that loses the Lease after all ends, and leads again when it is started again.
        with Kubelet(twins[0]) as first, Kubelet(twins[1]) as second, feeding as feeder:
            for _ in range(4):
                let_pass(TWINS_S / 4)
                print(f"two writers: {auditor.audit()} entries; ended with {first.endings}, {second.endings}")
                for twin in twins:
                    wrote[twin.name] = max(wrote[twin.name], _groups_by(operator, twin))
            feeder.stop()
        assert all(wrote.values()), "both wrote"
        auditor.hold()
        promises.each_entry_once(play.trail())
        print(f"groups by each: {wrote}")
    finally:
        for twin in twins:
            twin.stop()
        operator.operator.launch()
        operator.wait_ready(operator.operator, seconds=90)


def test_full_bundles_are_compacted_behind_the_head(
    operator: Installation, auditor: Auditor, play: Play
) -> None:
    """After all of the above the log is mostly bundles, and only groups of its end are left."""
    _let_compact(operator)
    auditor.audit()
    names = [str(item["metadata"]["name"]) for item in play.admin.get(places.core("configmaps"))["items"]]
    bundles = sorted(name for name in names if name.startswith("audit-tile-"))
    assert bundles == [f"audit-tile-{256 * number:016d}" for number in range(len(bundles))]
    assert bundles
    first = min(int(name.removeprefix("audit-group-")) for name in names if name.startswith("audit-group-"))
    assert first > 256 * (len(bundles) - 1)


def _let_compact(operator: Installation) -> None:
    """Wait until there is no full bundle left to be made."""

    def is_compacted() -> bool:
        figures = operator.metrics(operator.operator)
        left = figures["pilot_identity_log_entries"] - figures["pilot_identity_log_compacted_entries"]
        return left < 256 and figures["pilot_identity_log_groups"] <= left + 1

    until(is_compacted, "full bundles are compacted", seconds=2 * GRACE_SECONDS + 30)


def _compacted(operator: Installation) -> float:
    return operator.metrics(operator.operator)["pilot_identity_log_compacted_entries"]


def _groups_by(operator: Installation, replica: Component) -> float:
    if not operator.answers(replica, "/readyz"):
        return 0.0
    return operator.metrics(replica)["pilot_identity_log_groups_total"]


def _both_lead(operator: Installation, twins: tuple[Component, Component]) -> bool:
    return all(operator.metrics(twin)["pilot_identity_leader"] == 1.0 for twin in twins)
