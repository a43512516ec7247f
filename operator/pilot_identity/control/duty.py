"""Duty: the time in which a replica takes what is told to it, and its end.

What a replica takes in its last seconds nobody tells any more. So it stops to take before it tells what it
has: who comes then is asked to come back, and finds the next leader.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

log = logging.getLogger(__name__)

TELL_SECONDS = 3.0
"""For telling use, and that it stops, on the way out; until then no other replica works."""


@dataclass(slots=True)
class Duty:
    """Whether this replica works.

    Attributes:
        is_on: whether it leads and has read everything.
        is_ending: whether it began to stop.
    """

    is_on: Callable[[], bool]
    is_ending: bool = False

    def is_working(self) -> bool:
        """Whether it takes what is told to it."""
        return self.is_on() and not self.is_ending

    async def end(self, *tellings: Callable[[], Awaitable[object]]) -> None:
        """Take nothing more, then tell what is left to tell, in this order, as far as that goes soon."""
        self.is_ending = True
        if not self.is_on():
            return
        until = asyncio.get_running_loop().time() + TELL_SECONDS
        for telling in tellings:
            try:
                async with asyncio.timeout_at(until):
                    await telling()
            except Exception as error:  # noqa: BLE001 - whatever it is, the Lease is to be given back
                log.warning("ends before all was told: %r", error)
