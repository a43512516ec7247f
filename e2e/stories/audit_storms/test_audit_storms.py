"""The log in a storm: what it is stored in is killed, again and again, while entries come.

About twenty entries a second come from grants of three seconds. A watch notes every group that was ever
committed. After each blow `kubectl pilot audit verify` must find the log sound and going on from the head
that it saw the last time; at the end every entry that was ever committed must stand where it stood.

`PILOT_IDENTITY_LOG_STORMS` says how many blows there are; CI takes fewer.
"""

from __future__ import annotations

import os
import random
import secrets as randomness
import threading

import pytest

from e2e.controlplane.cluster import APISERVER, ETCD, ControlPlane
from e2e.stories import promises
from e2e.stories.audit_log.auditor import Auditor
from e2e.stories.feeder import Feeder
from e2e.stories.play import Play

STORMS = int(os.environ.get("PILOT_IDENTITY_LOG_STORMS", "2"))
EVERY_S = 0.1
"""Between two grants, each at least two entries."""
DURATION = "3s"
CALM_S = 3.0
"""So long at most it is calm between two blows."""


@pytest.fixture
def chance() -> random.Random:
    """Draws moments; the seed is printed, and `PILOT_IDENTITY_CRASH_SEED` draws them again."""
    seed = os.environ.get("PILOT_IDENTITY_CRASH_SEED") or randomness.token_hex(4)
    print(f"PILOT_IDENTITY_CRASH_SEED={seed}")
    return random.Random(seed)  # noqa: S311 - moments of a test, not keys


@pytest.mark.parametrize("name", [ETCD, APISERVER])
def test_a_killed_storage_loses_nothing_and_repeats_nothing(
    name: str, play: Play, cluster: ControlPlane, auditor: Auditor, chance: random.Random
) -> None:
    """SIGKILL of what the log is stored in: an answer that was lost is found out, not guessed."""
    play.ready_pilot("busy")
    component = cluster.components[name]
    with Feeder(play, "busy", chance, every_s=EVERY_S, duration=DURATION) as feeder:
        for number in range(STORMS):
            threading.Event().wait(chance.uniform(0.5, CALM_S))  # the moment itself is what is drawn
            component.kill()
            component.start()
            cluster.wait_ready()
            print(f"{name} killed {number}: {auditor.audit()} entries")
        feeder.stop()
    auditor.hold()
    promises.each_entry_once(play.trail())
