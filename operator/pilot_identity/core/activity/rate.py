"""How much may be reported: a bucket of tokens for each grant, and one for all of them.

Reports stay in the log for good, so their rate is what bounds its growth, and a chatty agent must not keep
the decisions of others waiting. What counts is activities, and bytes where they are large: see `cost`.

Where all together reach their bound, each has its fair share of it: a credit that grows as fast as the bound
allows to each of those that reported lately. Whoever has credit finds room down to the last; whoever has none
only where more than a reserve is left. So those who report much share what those who report little leave.
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


LATELY = dt.timedelta(minutes=1)
"""Who asked within it takes part in the sharing."""
SHARED = 0.9
"""Of the bound, what is shared out; by the rest the reserve comes back."""
RESERVE = 0.5
"""Of the burst of all, what is kept for those who have credit; all credit together is no more than that."""


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


@dataclass(slots=True)
class _Account:
    """One grant's: its own bucket, and the credit that is its share of all."""

    own: _Bucket
    credit: _Bucket


class Rate:
    """Counts what was taken."""

    def __init__(self, each: Allowance = GRANT, together: Allowance = TOGETHER) -> None:
        self._each = each
        self._together = together
        self._all: _Bucket | None = None
        self._accounts: OrderedDict[str, _Account] = OrderedDict()
        self._lately: OrderedDict[str, dt.datetime] = OrderedDict()

    def take(self, key: str, count: int, now: dt.datetime) -> float:
        """Take `count` for `key`; returns 0, or how many seconds to wait where nothing was taken."""
        share = self._share(key, now)
        mine = self._account(key, share, now)
        if self._all is None:
            self._all = _Bucket(self._together.burst, now)
        mine.own.fill(self._each, now)
        mine.credit.fill(share, now)
        self._all.fill(self._together, now)
        # With credit, down to the last; without, down to the reserve; whichever comes first. A large report
        # may take more than the credit there can be: that is owed, and comes back before the next.
        reserve = min(self._together.burst * RESERVE, max(0.0, self._together.burst - count))
        by_credit = max(
            mine.credit.wait(share, min(count, share.burst)), self._all.wait(self._together, count)
        )
        by_plenty = self._all.wait(self._together, count + reserve)
        wait = max(mine.own.wait(self._each, count), min(by_credit, by_plenty))
        if wait == 0.0:
            mine.own.left -= count
            self._all.left -= count
            mine.credit.left = max(-share.burst, mine.credit.left) - count
        return wait

    def _share(self, key: str, now: dt.datetime) -> Allowance:
        """What each of those is allowed who asked lately, this one among them."""
        self._lately[key] = now
        self._lately.move_to_end(key)
        while now - next(iter(self._lately.values())) > LATELY or len(self._lately) > MAX_BUCKETS:
            self._lately.popitem(last=False)
        many = len(self._lately)
        return Allowance(self._together.per_second * SHARED / many, self._together.burst * RESERVE / many)

    def _account(self, key: str, share: Allowance, now: dt.datetime) -> _Account:
        fresh = _Account(_Bucket(self._each.burst, now), _Bucket(share.burst, now))
        mine = self._accounts.setdefault(key, fresh)
        self._accounts.move_to_end(key)
        while len(self._accounts) > MAX_BUCKETS:
            self._accounts.popitem(last=False)
        return mine
