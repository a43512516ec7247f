"""What this machine's clocks say of the time that passed, and which of them to believe for what.

Python's own, CLOCK_MONOTONIC, stands still while a machine is suspended. CLOCK_BOOTTIME goes on then, but
both stand still in a virtual machine that its host paused; there the wall clock alone jumps, once somebody
sets it. None of them is always right, so each rule takes the one whose error is harmless:

- Whoever must act only *after* some time (take over a lease, delete a group) counts by the loop's clock: at
  worst it acts later.
- Whoever must stop, or look again, *within* some time counts by `Instant`s, by the clock that went furthest:
  at worst it looks once too often.

Where a mistake would cost more than that, no clock of this machine is enough: see `adapters.audit_log`.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import time
from dataclasses import dataclass

_BOOT = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
"""Linux has it; elsewhere the wall clock is left as the second opinion."""


@dataclass(frozen=True, slots=True)
class Instant:
    """A moment by three clocks, in seconds: the event loop's, the one since boot, and the wall clock."""

    loop: float
    boot: float
    wall: float

    @classmethod
    def now(cls) -> Instant:
        """This moment."""
        return cls(asyncio.get_running_loop().time(), time.clock_gettime(_BOOT), time.time())

    def until(self, later: Instant) -> float:
        """Seconds from here until `later`, by the clock that went furthest."""
        return max(later.loop - self.loop, later.boot - self.boot, later.wall - self.wall)


def utc_now() -> dt.datetime:
    """`ports.Clock`: aware, UTC, milliseconds, which is what entries and statuses tell."""
    now = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
