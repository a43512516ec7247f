"""Clocks: one that follows the event loop's time (which `looptime` makes fast), one that a test sets."""

from __future__ import annotations

import asyncio
import datetime as dt
from dataclasses import dataclass

START = dt.datetime(2026, 6, 1, 12, 0, tzinfo=dt.UTC)


class LoopClock:
    """Tells `START` plus the time that passed in the event loop since it was made, or begun anew."""

    def __init__(self) -> None:
        self.begin()

    def begin(self) -> None:
        """Begin at `START`: a fixture makes a clock before `looptime` takes the loop's time over."""
        self._began = asyncio.get_running_loop().time()

    def __call__(self) -> dt.datetime:
        """Tell the time, in whole milliseconds."""
        passed = asyncio.get_running_loop().time() - self._began
        return START + dt.timedelta(milliseconds=round(passed * 1000))


@dataclass(slots=True)
class SetClock:
    """Tells the time that it was set to."""

    now: dt.datetime = START

    def __call__(self) -> dt.datetime:
        """Tell the time."""
        return self.now

    def turn(self, seconds: float) -> None:
        """Turn it forward, or back."""
        self.now += dt.timedelta(seconds=seconds)
