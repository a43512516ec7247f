"""A window: what an account is said to have asked for, in a bounded size, until an entry tells it."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from pilot_identity.core.audit.access import Sighting, Target
from pilot_identity.core.resources.timestamps import format_timestamp

MAX_ROWS = 32
"""Different verbs, resources and namespaces in one entry; what goes beyond is counted in one sum."""
MAX_NAMES = 3
"""Objects named in one row, the first ones."""
MAX_CREDENTIALS = 8
"""Tokens told apart in one entry."""
MAX_USERS = 8
"""Names told apart in one entry: of those who acted as the account, and of those as whom it acted."""
MAX_BORROWED_ROWS = 8
"""As `MAX_ROWS`, of what others asked for as the account."""
ABOUT = dt.timedelta(seconds=15)
"""So soon after the end a request may have been before it: the end is told by the operator's clock, the
request by the API server's. And for ten seconds the API server knows a token longer than its account."""


@dataclass(slots=True)
class _Row:
    requests: int = 0
    refused: int = 0
    names: dict[str, None] = field(default_factory=dict)
    has_more_names: bool = False

    def add(self, sighting: Sighting) -> None:
        self.requests += 1
        self.refused += sighting.is_refused
        if not sighting.name or sighting.name in self.names:
            return
        if len(self.names) < MAX_NAMES:
            self.names[sighting.name] = None
        else:
            self.has_more_names = True

    def data(self, target: Target) -> dict[str, Any]:
        told: dict[str, Any] = {**target._asdict(), "requests": self.requests, "refused": self.refused}
        if not target.namespace:
            del told["namespace"]
        if self.names:
            told["names"] = list(self.names)
        if self.has_more_names:
            told["moreNames"] = True
        return told


class _Rows:
    """Requests by what they asked for, in so many rows at most.

    Attributes:
        span: when the first and the last were received; `None` where there are none.
    """

    def __init__(self) -> None:
        self.requests = 0
        self.refused = 0
        self.span: tuple[dt.datetime, dt.datetime] | None = None
        self._rows: dict[Target, _Row] = {}
        self._beyond = _Row()

    def add(self, sighting: Sighting, max_rows: int) -> None:
        self.requests += 1
        self.refused += sighting.is_refused
        first, last = self.span or (sighting.at, sighting.at)
        self.span = min(first, sighting.at), max(last, sighting.at)
        row = self._rows.get(sighting.target)
        if row is None and len(self._rows) < max_rows:
            row = self._rows[sighting.target] = _Row()
        (row or self._beyond).add(sighting)

    def data(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "requests": self.requests,
            "refused": self.refused,
            "access": [row.data(target) for target, row in sorted(self._rows.items())],
        }
        if self.span is not None:
            told |= _span(*self.span)
        if self._beyond.requests:
            told["otherAccess"] = {"requests": self._beyond.requests, "refused": self._beyond.refused}
        return told


@dataclass(slots=True)
class _AfterEnd:
    """Requests after the access was withdrawn; those of the first seconds are told apart, as `about`."""

    ended_at: dt.datetime
    first_at: dt.datetime
    last_at: dt.datetime
    requests: int = 0
    allowed: int = 0
    about: int = 0
    about_allowed: int = 0

    def add(self, sighting: Sighting) -> None:
        self.first_at, self.last_at = min(self.first_at, sighting.at), max(self.last_at, sighting.at)
        self.requests += 1
        self.allowed += sighting.is_granted
        if sighting.at <= self.ended_at + ABOUT:
            self.about += 1
            self.about_allowed += sighting.is_granted

    def data(self) -> dict[str, Any]:
        told: dict[str, Any] = {
            "requests": self.requests,
            "allowed": self.allowed,
            "withdrawnAt": format_timestamp(self.ended_at),
            **_span(self.first_at, self.last_at),
        }
        if self.about:
            seconds = int(ABOUT.total_seconds())
            told["about"] = {"seconds": seconds, "requests": self.about, "allowed": self.about_allowed}
        return told


class AccessWindow:
    """The requests of one account since the last entry about it; its size is bounded whatever they are."""

    def __init__(self) -> None:
        self._own = _Rows()
        self._by_others = _Rows()
        self._borrowers: dict[str, int] = {}
        self._borrowed: dict[str, int] = {}
        self._credentials: dict[str, int] = {}
        self._after_end: _AfterEnd | None = None

    @property
    def is_empty(self) -> bool:
        """Whether there is nothing to tell."""
        return not (self._own.requests or self._by_others.requests)

    @property
    def requests(self) -> int:
        """How many the account made itself; `refused` those of them that were."""
        return self._own.requests

    @property
    def refused(self) -> int:
        """See `requests`."""
        return self._own.refused

    @property
    def span(self) -> tuple[dt.datetime, dt.datetime] | None:
        """When the first and the last of these was received; `None` where there are none."""
        return self._own.span

    @property
    def allowed_late(self) -> int:
        """What was still done after the end, later than clocks or the API server's cache explain."""
        late = self._after_end
        return late.allowed - late.about_allowed if late is not None else 0

    def by_unknown(self, issued: Iterable[str]) -> int:
        """How many were made with other tokens than `issued`."""
        known = frozenset(issued)
        return sum(count for one, count in self._credentials.items() if one not in known)

    def add(
        self, sighting: Sighting, ended_at: dt.datetime | None = None, *, max_rows: int = MAX_ROWS
    ) -> None:
        """Count a request; `ended_at` is when the grant's access was withdrawn, if it was."""
        if sighting.borrower:
            self._by_others.add(sighting, min(max_rows, MAX_BORROWED_ROWS))
            _count(self._borrowers, sighting.borrower, MAX_USERS)
            return
        self._own.add(sighting, min(max_rows, MAX_ROWS))
        _count(self._credentials, sighting.credential_id, MAX_CREDENTIALS)
        if sighting.borrowed:
            _count(self._borrowed, sighting.borrowed, MAX_USERS)
        if ended_at is not None and sighting.at > ended_at:
            if self._after_end is None:
                self._after_end = _AfterEnd(ended_at, sighting.at, sighting.at)
            self._after_end.add(sighting)

    def data(self, issued: Iterable[str]) -> dict[str, Any]:
        """Tell it as an entry's data; `issued` are the ids of tokens that are known to be the grant's."""
        known = frozenset(issued)
        told: dict[str, Any] = {
            **self._own.data(),
            "tokens": [
                {"credentialID": credential_id, "requests": count, "isKnown": credential_id in known}
                for credential_id, count in sorted(self._credentials.items())
            ],
        }
        if self._borrowed:
            told["impersonated"] = _users(self._borrowed)
        if self._by_others.requests:
            told["impersonatedBy"] = {**self._by_others.data(), "users": _users(self._borrowers)}
        if self._after_end is not None:
            told["afterEnd"] = self._after_end.data()
        return told


def _count(counts: dict[str, int], name: str, most: int) -> None:
    """Count one more of a name; beyond so many names they are `others`."""
    name = name if name in counts or len(counts) < most else "others"
    counts[name] = counts.get(name, 0) + 1


def _users(counts: Mapping[str, int]) -> list[dict[str, Any]]:
    return [{"user": user, "requests": count} for user, count in sorted(counts.items())]


def _span(first_at: dt.datetime, last_at: dt.datetime) -> dict[str, Any]:
    return {"from": format_timestamp(first_at), "until": format_timestamp(last_at)}
