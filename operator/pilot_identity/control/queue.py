"""The queue: dirty keys, each once, the most urgent first, failures later and later."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from enum import IntEnum

from pilot_identity.core.resources.metadata import Key

FIRST_RETRY = 0.05
LONGEST_RETRY = 30.0


class Priority(IntEnum):
    """How urgent a pass is; the smaller goes first."""

    REVOKE = 0
    EXPIRE = 1
    ISSUE = 2
    RENEW = 3
    DRIFT = 4


class WorkQueue:
    """Keys that want a pass.

    A key waits at most once, at its most urgent priority; no key is with two workers at a time (a key that
    becomes dirty during its pass comes back after it); equal priorities are first come, first served.
    """

    def __init__(self) -> None:
        self._heap: list[tuple[Priority, int, Key]] = []
        self._waiting: dict[Key, Priority] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, Priority] = {}
        self._failures: dict[Key, int] = {}
        self._ticket = itertools.count()
        self._ready = asyncio.Event()

    def __len__(self) -> int:
        """How many keys wait."""
        return len(self._waiting) + len(self._again)

    @property
    def is_idle(self) -> bool:
        """Whether nothing waits and nothing is being done."""
        return not self._waiting and not self._busy

    def add(self, key: Key, priority: Priority) -> None:
        """Mark a key dirty."""
        if key in self._busy:
            self._again[key] = min(priority, self._again.get(key, priority))
            return
        known = self._waiting.get(key)
        if known is not None and known <= priority:
            return
        self._waiting[key] = priority
        heapq.heappush(self._heap, (priority, next(self._ticket), key))
        self._ready.set()

    async def take(self) -> Key:
        """Wait for the most urgent key; the caller owes `done` or `failed` for it."""
        while True:
            while self._heap:
                priority, _, key = heapq.heappop(self._heap)
                if self._waiting.get(key) == priority:
                    del self._waiting[key]
                    self._busy.add(key)
                    return key
            self._ready.clear()
            await self._ready.wait()

    def done(self, key: Key) -> None:
        """The pass went through."""
        self._failures.pop(key, None)
        self._release(key)

    def failed(self, key: Key) -> float:
        """The pass failed; returns how many seconds to wait before the key is added again."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        self._release(key)
        return min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(count - 1, 16))

    def _release(self, key: Key) -> None:
        self._busy.discard(key)
        priority = self._again.pop(key, None)
        if priority is not None:
            self.add(key, priority)
