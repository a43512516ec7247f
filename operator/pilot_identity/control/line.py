"""The lines in front of limits: which grants of a pilot wait for room, in the order in which they came.

Whoever is at the head is looked at when there may be room, and when he leaves, the next. Were all of them
looked at each time, ten thousand that wait would cost a hundred million looks.
"""

from __future__ import annotations

import itertools
from collections import defaultdict

from pilot_identity.core.resources import Resource, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.metadata import Key


class Lines:
    """A line of grants for each pilot."""

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._lines: dict[Key, dict[Key, int]] = defaultdict(dict)

    def follow(self, grant: TaskGrant) -> None:
        """Take in a version of a grant; a new one that waits goes to the end, none loses its place."""
        if stands_in_line(grant):
            line = self._lines[grant.pilot_key]
            if grant.key not in line:
                line[grant.key] = next(self._numbers)
        else:
            self.leave(grant)

    def leave(self, grant: TaskGrant) -> None:
        """Forget a grant."""
        line = self._lines.get(grant.pilot_key)
        if line is not None and line.pop(grant.key, None) is not None and not line:
            del self._lines[grant.pilot_key]

    def head(self, pilot: Key) -> Key | None:
        """Who is next."""
        return next(iter(self._lines.get(pilot, ())), None)

    def ahead_of(self, grant: TaskGrant) -> int:
        """How many came before a grant, at most: some of them may have left; 0 where it is in no line."""
        line = self._lines.get(grant.pilot_key, {})
        if grant.key not in line:
            return 0
        return min(line[grant.key] - next(iter(line.values())), len(line) - 1)


def stands_in_line(resource: Resource | None) -> bool:
    """Whether it is a grant that waits for nothing but room."""
    if not isinstance(resource, TaskGrant) or resource.status.phase.is_terminal:
        return False
    ready = find(resource.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == Reason.LIMIT_REACHED
