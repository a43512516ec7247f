"""Time and randomness, as arguments: the core has neither."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

RENEWAL_JITTER = 0.1
"""Renewal is at half the lifetime, give or take this share of it, so that a fleet does not renew at once."""


@dataclass(frozen=True, slots=True)
class Moment:
    """When a decision is made, and the random values that it may use.

    Attributes:
        now: aware, UTC.
        nonce: 128 random bits: the id of the credential that may be issued.
        serial: a random positive certificate serial of at most 159 bits (RFC 5280 §4.1.2.2).
        jitter: in [0, 1).
    """

    now: dt.datetime
    nonce: str
    serial: int
    jitter: float

    @property
    def second(self) -> dt.datetime:
        """`now` rounded down to the whole second, which is what certificates can say."""
        return self.now.replace(microsecond=0)

    def renewal(self, start: dt.datetime, end: dt.datetime) -> dt.datetime:
        """When to renew what lives from `start` to `end`: at half of it ±10 %."""
        share = 0.5 + RENEWAL_JITTER * (2 * self.jitter - 1)
        return start + (end - start) * share
