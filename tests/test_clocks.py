from __future__ import annotations

import time

import pytest

from pilot_identity.clocks import Instant


@pytest.mark.parametrize(
    "loop, boot, wall",
    [(20.0, 1.0, 1.0), (1.0, 20.0, 1.0), (1.0, 1.0, 20.0), (20.0, 20.0, -3600.0)],
    ids=["all agree on less", "suspended", "paused, then set", "the wall clock was set back"],
)
def test_the_clock_that_went_furthest_counts(loop: float, boot: float, wall: float) -> None:
    """At worst somebody looks once too often, or stops too early."""
    began = Instant(100.0, 5000.0, 1e9)
    assert began.until(Instant(100.0 + loop, 5000.0 + boot, 1e9 + wall)) == 20.0


async def test_an_instant_is_of_this_machine() -> None:
    """By three clocks that are read at the same moment."""
    before, now, after = time.time(), Instant.now(), time.time()
    assert before <= now.wall <= after
    assert 0.0 <= now.until(Instant.now()) < 60.0
