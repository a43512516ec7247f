"""Deadlines: one heap and one waiting task for all objects, not a timer each."""

from __future__ import annotations

import asyncio
import datetime as dt
import heapq
from collections.abc import Callable
from contextlib import suppress

from pilot_identity.core.resources.metadata import Key
from pilot_identity.ports import Clock

LONGEST_SLEEP = 30.0
"""Seconds; the wall clock can be set while the loop's clock runs on, so that it is looked at now and then."""


class Deadlines:
    """When to look at a key again although nothing changed; a key has one deadline, the last one set."""

    def __init__(self, clock: Clock, due: Callable[[Key], None]) -> None:
        self._clock = clock
        self._due = due
        self._heap: list[tuple[dt.datetime, Key]] = []
        self._current: dict[Key, dt.datetime] = {}
        self._changed = asyncio.Event()

    def __len__(self) -> int:
        """How many keys have a deadline."""
        return len(self._current)

    def set(self, key: Key, when: dt.datetime | None) -> None:
        """Set or clear a key's deadline."""
        if when is None:
            self._current.pop(key, None)
            return
        if self._current.get(key) == when:
            return
        self._current[key] = when
        heapq.heappush(self._heap, (when, key))
        if self._heap[0][1] == key:
            self._changed.set()

    def pop_due(self) -> float:
        """Hand over what is due; returns the seconds until the next deadline, within bounds."""
        now = self._clock()
        while self._heap:
            when, key = self._heap[0]
            if self._current.get(key) != when:
                heapq.heappop(self._heap)
                continue
            if when > now:
                return min(LONGEST_SLEEP, (when - now).total_seconds())
            heapq.heappop(self._heap)
            del self._current[key]
            self._due(key)
        return LONGEST_SLEEP

    async def run(self) -> None:
        """Hand over keys as they become due, for ever."""
        while True:
            self._changed.clear()
            seconds = self.pop_due()
            # Not wait_for: before Python 3.12 it loses a cancellation that comes with what it waits for.
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._changed.wait()
