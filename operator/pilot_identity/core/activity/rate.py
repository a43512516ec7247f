"""How much may be reported: a bucket of tokens for each grant, and one for all of them.

Reports stay in the log for good, so their rate is what bounds its growth, and a chatty agent must not keep
the decisions of others waiting. What counts is activities, and bytes where they are large: see `cost`.
"""

from __future__ import annotations

import datetime as dt
from collections import OrderedDict
from dataclasses import dataclass

MAX_BUCKETS = 10_000
"""As many grants are told apart; a grant that was not heard of for longest starts anew."""


OCTETS = 1024
"""Of a report's body, for each that is taken. One tool call is less than that."""


def cost(activities: int, octets: int) -> int:
    """What a report takes: its activities, or each 1,024 bytes of its body that it begins, whichever is more.

    >>> cost(activities=3, octets=900), cost(activities=1, octets=1025), cost(activities=16, octets=32 * 1024)
    (3, 2, 32)
    """
    return max(activities, -(-octets // OCTETS))


@dataclass(frozen=True, slots=True)
class Allowance:
    """What is allowed: `burst` at once, and `per_second` in the long run."""

    per_second: float
    burst: float


GRANT = Allowance(per_second=2.0, burst=60.0)
"""What the reports of one grant cost; the largest one is 32, so it fits in at once."""
TOGETHER = Allowance(per_second=50.0, burst=500.0)
"""What the reports of all grants cost."""


@dataclass(slots=True)
class _Bucket:
    """What is left, and as of when."""

    left: float
    at: dt.datetime

    def fill(self, allowance: Allowance, now: dt.datetime) -> None:
        """Add what the time since then brings; a clock that was set back brings nothing."""
        passed = max(0.0, (now - self.at).total_seconds())
        self.left = min(allowance.burst, self.left + passed * allowance.per_second)
        self.at = now

    def wait(self, allowance: Allowance, count: float) -> float:
        """Seconds until `count` are there."""
        return max(0.0, (count - self.left) / allowance.per_second)


class Rate:
    """Counts what was taken."""

    def __init__(self, each: Allowance = GRANT, together: Allowance = TOGETHER) -> None:
        self._each = each
        self._together = together
        self._all: _Bucket | None = None
        self._buckets: OrderedDict[str, _Bucket] = OrderedDict()

    def take(self, key: str, count: int, now: dt.datetime) -> float:
        """Take `count` for `key`; returns 0, or how many seconds to wait where nothing was taken."""
        mine = self._buckets.setdefault(key, _Bucket(self._each.burst, now))
        self._buckets.move_to_end(key)
        while len(self._buckets) > MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if self._all is None:
            self._all = _Bucket(self._together.burst, now)
        mine.fill(self._each, now)
        self._all.fill(self._together, now)
        wait = max(mine.wait(self._each, count), self._all.wait(self._together, count))
        if wait == 0.0:
            mine.left -= count
            self._all.left -= count
        return wait
