"""When a key may sign: published first, used later (SPIFFE_Federation.md §4.1).

A verifier that has not yet fetched the new bundle refuses what the new key signed. So a key is published some
refresh hints ahead of its use: at least three, and five unless the caller is in a hurry.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.spiffe.clauses import Clause, Violation, broken, names

MIN_HINTS_AHEAD = 3
HINTS_AHEAD = 5


@dataclass(frozen=True, slots=True)
class Publication:
    """A key's way into use, in a trust domain that already has consumers."""

    published_at: dt.datetime
    used_from: dt.datetime
    refresh_hint: dt.timedelta


PUBLICATION: tuple[Clause[Publication], ...] = (
    # Make sure that a key is known before anything is signed with it.
    Clause(
        "Federation §4.1 published-first",
        "key must be published before it is used",
        lambda it: it.published_at < it.used_from,
    ),
    # Make sure that every consumer had its chance to fetch it.
    Clause(
        "Federation §4.1 published-ahead",
        f"key must be published at least {MIN_HINTS_AHEAD} refresh hints before it is used",
        lambda it: (
            it.published_at >= it.used_from  # has the row above
            or it.used_from - it.published_at >= MIN_HINTS_AHEAD * it.refresh_hint
        ),
    ),
)

CLAUSES = names(PUBLICATION)


def earliest_use(
    published_at: dt.datetime, refresh_hint: dt.timedelta, *, hints: int = HINTS_AHEAD
) -> dt.datetime:
    """From when a key that was published at `published_at` may sign.

    >>> earliest_use(dt.datetime(2026, 1, 1, tzinfo=dt.UTC), dt.timedelta(minutes=5)).isoformat()
    '2026-01-01T00:25:00+00:00'
    """
    return published_at + hints * refresh_hint


def publication_violations(publication: Publication) -> tuple[Violation, ...]:
    """What is wrong with the time at which a key comes into use."""
    return broken(PUBLICATION, publication)
