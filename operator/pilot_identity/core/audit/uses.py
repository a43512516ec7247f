"""Uses: how much was done with a grant, as sums over the entries that tell of it."""

from __future__ import annotations

import datetime as dt
from collections import Counter
from dataclasses import dataclass, field, replace

from pilot_identity.core.audit.access_window import ABOUT
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.particulars import count, mappings, moment, text
from pilot_identity.core.resources.metadata import Key

ACCOUNT = "ServiceAccount"
"""The kind of an entry's subject where the operator knew no grant of an account."""


@dataclass(frozen=True, slots=True)
class Line:
    """One entry and its index in the log."""

    index: int
    entry: RecordedEntry

    @property
    def type(self) -> str:
        """What it tells."""
        return self.entry.type

    @property
    def is_of_an_account(self) -> bool:
        """Whether it tells of the account, because the operator knew no grant of it any more."""
        return Key.parse(self.entry.subject).kind == ACCOUNT


@dataclass(frozen=True, slots=True)
class Uses:
    """Sums over entries on use.

    Attributes:
        requests: that the API server answered; `refused` those of them that it refused.
        after_end: requests after the access was withdrawn; `allowed_after_end` those that were still done.
        about_end: of what was still allowed, so soon after the end that it may have been before.
        unknown_tokens: requests by tokens that the operator does not know as the grant's.
        by_others: requests that others made as its account, by impersonation; they count nowhere else.
        activities: what was reported, by kind.
    """

    requests: int = 0
    refused: int = 0
    after_end: int = 0
    allowed_after_end: int = 0
    about_end: int = 0
    unknown_tokens: int = 0
    by_others: int = 0
    activities: Counter[str] = field(default_factory=Counter)

    def __add__(self, other: Uses) -> Uses:
        """Both together."""
        return Uses(
            self.requests + other.requests,
            self.refused + other.refused,
            self.after_end + other.after_end,
            self.allowed_after_end + other.allowed_after_end,
            self.about_end + other.about_end,
            self.unknown_tokens + other.unknown_tokens,
            self.by_others + other.by_others,
            self.activities + other.activities,
        )


def uses_of(line: Line) -> Uses:
    """Sum up an entry about a grant; of most kinds there is nothing to sum."""
    data = line.entry.data
    if line.type == EntryType.ACTIVITY_RECORDED:
        return Uses(activities=Counter(text(each, "kind") for each in mappings(data, "activities")))
    if line.type != EntryType.ACCESS_SEEN:
        return Uses()
    strange = (token for token in mappings(data, "tokens") if token.get("isKnown") is not True)
    return Uses(
        requests=count(data, "requests"),
        refused=count(data, "refused"),
        after_end=count(data, "afterEnd", "requests"),
        allowed_after_end=count(data, "afterEnd", "allowed"),
        about_end=count(data, "afterEnd", "about", "allowed"),
        by_others=count(data, "impersonatedBy", "requests"),
        unknown_tokens=sum(count(token, "requests") for token in strange),
    )


def uses_of_account(line: Line, tokens: frozenset[str], ended_at: dt.datetime | None) -> Uses:
    """The same of an entry by which the operator knew neither the grant's tokens nor its end.

    What was not refused counts as allowed, and an entry as late where all of it is: it does not say more.
    """
    data, told = line.entry.data, uses_of(line)
    strange = (token for token in mappings(data, "tokens") if text(token, "credentialID") not in tokens)
    since = moment(data, "from")
    told = replace(told, unknown_tokens=sum(count(token, "requests") for token in strange))
    if ended_at is None or since is None or since <= ended_at:
        return told
    allowed = told.requests - told.refused
    is_about = (moment(data, "until") or since) <= ended_at + ABOUT
    return replace(
        told, after_end=told.requests, allowed_after_end=allowed, about_end=allowed if is_about else 0
    )
