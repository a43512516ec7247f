"""The operator is killed at fifty random points between a grant's creation and its end.

A stream of grants of three seconds runs all the while, so that at any moment some are being issued, some
are out and some are being withdrawn. The operator is killed (SIGKILL) and started again at once, as kubelet
does: some moments after a burst of grants, about when the burst ends, anywhere between, and while it starts.
A watch notes every Secret ever seen. After each restart, and at the end, the promises are held against the
log.

`PILOT_IDENTITY_CRASH_SEED` chooses the points again; the seed and each point are printed.
How late an end may be is a promise, so `make e2e` tells this story when no other is told beside it.
"""

from __future__ import annotations

import os
import random
import secrets as randomness
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pytest

from e2e.audit import Trail
from e2e.installation import Installation
from e2e.patience import until
from e2e.sightings import Sighting
from e2e.stories import promises
from e2e.stories.feeder import Feeder
from e2e.stories.play import TERMINAL, Play, moment
from pilot_identity.core.audit.entries import EntryType

KILLS = 50
DURATION_S = 3
BACK_WITHIN_S = 2.0
"""None is alive so long after its end once the operator is back."""

Up = list[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class Point:
    """When to kill.

    Attributes:
        around: what probably goes on then.
        delay_s: after a burst of grants; with "start", after the process was started.
    """

    around: str
    delay_s: float


def draw(chance: random.Random) -> Point:
    """Draw a point; issuing takes some hundredths of a second, so most of the time is between."""
    around = chance.choices(("issuing", "between", "ending", "start"), (40, 30, 20, 10))[0]
    low, high = {
        "issuing": (0.0, 0.08),
        "between": (0.0, DURATION_S),
        "ending": (DURATION_S - 1.0, DURATION_S + 0.2),
        "start": (0.3, 2.0),
    }[around]
    return Point(around, chance.uniform(low, high))


@pytest.fixture
def restarted(operator: Installation) -> Iterator[Installation]:
    """The operator, which works again afterwards."""
    yield operator
    if not operator.operator.is_running:
        operator.operator.launch()
    operator.wait_ready(operator.operator)


def test_a_crash_at_any_point_breaks_no_promise(play: Play, restarted: Installation) -> None:
    """No credential without an entry before it, none issued twice, none alive 2 s after its end."""
    seed = os.environ.get("PILOT_IDENTITY_CRASH_SEED") or randomness.token_hex(4)
    chance = random.Random(seed)  # noqa: S311 - draws points of a test, not keys
    print(f"PILOT_IDENTITY_CRASH_SEED={seed}")
    play.ready_pilot("busy")
    up: Up = []
    feeding = Feeder(play, "busy", random.Random(f"{seed} fed"), every_s=0.25, duration=f"{DURATION_S}s")  # noqa: S311 - likewise
    with play.watch(play.secrets()) as secrets, feeding as feeder:
        since = time.time()
        for number in range(KILLS):
            point = draw(chance)
            print(f"{number:2} {point.around:8} {point.delay_s:.3f} s")
            if point.around != "start":
                restarted.wait_ready(restarted.operator)
                since = time.time()
                feeder.burst(3)
            _let_pass(point.delay_s)
            restarted.operator.kill()
            if point.around != "start":
                up.append((since, time.time()))
            restarted.operator.launch()
            seen = secrets.all()
            promises.hold(seen, play.trail())
        feeder.stop()
        restarted.wait_ready(restarted.operator)
        up.append((time.time(), time.time() + 3600))
        _all_ended(play)
        secrets.wait_until(
            lambda present: not [name for name in present if name.startswith("fed-")],
            "no Secret of a grant is left",
            seconds=BACK_WITHIN_S,
        )
        seen, trail = secrets.all(), play.trail()
    promises.hold(seen, trail)
    released = {credential.id for credential in promises.credentials(seen)}
    for asked in feeder.asked:
        issued = promises.issuances(trail, asked.uid)
        # None where it was ended before it was issued.
        assert len(issued) <= 1, f"{asked.name} was issued {issued}"
        assert set(issued) <= released, f"{asked.name}: the log says released, nobody saw it"
        assert trail.kinds(asked.uid).count(EntryType.GRANT_CLOSED) == 1, asked.name
    _none_overstayed(seen, trail, up)
    abandoned = sum(line.kind is EntryType.CREDENTIAL_ABANDONED for line in trail)
    print(f"{len(feeder.asked)} grants, {len(released)} credentials, {abandoned} abandoned")


def _let_pass(seconds: float) -> None:
    """The point in time itself is what is tested."""
    threading.Event().wait(seconds)


def _all_ended(play: Play) -> None:
    """Wait until no grant is in the middle of its life."""

    def alive() -> list[str]:
        listed = play.admin.get(play.grants())["items"]
        return [
            grant["metadata"]["name"]
            for grant in listed
            if grant.get("status", {}).get("phase") not in TERMINAL
            or "deletionTimestamp" in grant["metadata"]
        ]

    until(lambda: not alive(), "every grant has ended;", seconds=20, instead=alive)


def _none_overstayed(seen: Sequence[Sighting], trail: Trail, up: Up) -> None:
    """How long each credential stood after its end while the operator was ready, all its lives together."""
    ends = {
        line.credential_id: moment(line.entry.data["expiresAt"])
        for line in trail
        if line.kind is EntryType.GRANT_ISSUED
    }
    stood: dict[str, float] = {}
    for one in seen:
        end = ends.get(promises.credential_of(one)) if one.change == "DELETED" else None
        if end is not None:
            stood[one.name] = sum(max(0.0, min(one.at, down) - max(end, since)) for since, down in up)
    late = {name: f"{over:.2f} s" for name, over in stood.items() if over > BACK_WITHIN_S}
    print(
        f"of {len(stood)} the longest stood {max(stood.values()):.2f} s after its end, under a live operator"
    )
    assert not late, f"of {len(stood)} stood too long after their end: {late}"
