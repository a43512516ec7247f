"""The queue: dirty keys, each once, the most urgent first, namespaces in turn, failures later and later."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from enum import IntEnum

from pilot_identity.core.resources.metadata import Key

FIRST_RETRY = 0.05
LONGEST_RETRY = 30.0
TURN_EVERY = 8
"""Of so many keys taken, one is the most urgent of the namespace whose turn it is, however little that is.

So what is urgent in one namespace, again and again, delays the others and starves nobody.
"""


class Priority(IntEnum):
    """How urgent a pass is; the smaller goes first."""

    REVOKE = 0
    EXPIRE = 1
    ISSUE = 2
    RENEW = 3
    DRIFT = 4


class _Lanes:
    """Keys of one priority: namespaces in turn, and within one first come, first served."""

    def __init__(self) -> None:
        # Ordered by whose turn it is; every lane has a key, which may have gone elsewhere meanwhile.
        self._lanes: dict[str, deque[tuple[int, Key]]] = {}

    def __bool__(self) -> bool:
        return bool(self._lanes)

    def __contains__(self, namespace: str) -> bool:
        return namespace in self._lanes

    def add(self, ticket: int, key: Key) -> None:
        self._lanes.setdefault(key.namespace, deque()).append((ticket, key))

    def take(self, namespace: str | None = None) -> tuple[int, Key]:
        """Take the first key of a namespace, or of the one whose turn it is, which then goes last."""
        if namespace is None:
            namespace = next(iter(self._lanes))
        lane = self._lanes.pop(namespace)
        taken = lane.popleft()
        if lane:
            self._lanes[namespace] = lane
        return taken


class WorkQueue:
    """Keys that want a pass.

    A key waits at most once, at its most urgent priority; no key is with two workers at a time (a key that
    becomes dirty during its pass comes back after it). Among equal priorities namespaces take turns, so that
    one that asks for ten thousand things delays another's by one pass, not by ten thousand.
    """

    def __init__(self) -> None:
        self._lanes = {priority: _Lanes() for priority in Priority}
        # How many keys of each namespace wait, ordered by whose turn it is.
        self._turns: dict[str, int] = {}
        self._waiting: dict[Key, tuple[Priority, int]] = {}
        self._busy: set[Key] = set()
        self._again: dict[Key, Priority] = {}
        self._failures: dict[Key, int] = {}
        self._ticket = itertools.count()
        self._taken = 0
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
        if known is not None and known[0] <= priority:
            return
        ticket = next(self._ticket)
        self._waiting[key] = priority, ticket
        self._lanes[priority].add(ticket, key)
        if known is None:
            self._turns[key.namespace] = self._turns.get(key.namespace, 0) + 1
        self._ready.set()

    async def take(self) -> Key:
        """Wait for the most urgent key; the caller owes `done` or `failed` for it."""
        while True:
            key = self._next()
            if key is not None:
                return key
            self._ready.clear()
            await self._ready.wait()

    def _next(self) -> Key | None:
        if not self._waiting:
            return None
        self._taken += 1
        key = self._of_next_namespace() if self._taken % TURN_EVERY == 0 else self._most_urgent()
        del self._waiting[key]
        self._busy.add(key)
        left = self._turns.pop(key.namespace) - 1
        if left:
            self._turns[key.namespace] = left
        return key

    def _most_urgent(self) -> Key:
        for lanes in self._lanes.values():
            while lanes:
                ticket, key = lanes.take()
                if self._is_current(ticket, key):
                    return key
        raise AssertionError("a key that waits is in a lane")

    def _of_next_namespace(self) -> Key:
        namespace = next(iter(self._turns))
        for lanes in self._lanes.values():
            while namespace in lanes:
                ticket, key = lanes.take(namespace)
                if self._is_current(ticket, key):
                    return key
        raise AssertionError("a namespace that has a turn has a key in a lane")

    def _is_current(self, ticket: int, key: Key) -> bool:
        """Whether the key still waits by this ticket, neither taken nor marked more urgent since."""
        waiting = self._waiting.get(key)
        return waiting is not None and waiting[1] == ticket

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
