"""How long entries have been in a log at the least, by those who would rather have them look new.

A witness that cosigns only an old head, time and again, leaves all that came since under the log's key alone.
So a reader who wants the log witnessed "within an hour" asks for two things: a cosignature that is no older,
and that whatever is in the log for longer is under the head that it is on.

The times of entries are written by the log's keeper, who is not believed further than they speak against him:
an entry is as old as it says, as any entry behind it says, and as long as the reader knows a head over it.
One dated ahead of the reader's clock says nothing, and what nothing is said of counts as old.
"""

from __future__ import annotations

import datetime as dt
from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated

import msgspec

CLOCK_SKEW = dt.timedelta(minutes=1)
"""By so much another's clock may be ahead of the reader's own."""
_EPOCH = dt.datetime(1970, 1, 1, tzinfo=dt.UTC)
_MICROSECOND = dt.timedelta(microseconds=1)
_UNDATED = (1 << 63) - 1
"""In place of a time that cannot be read: later than every clock."""


@dataclass(frozen=True, slots=True)
class Sighting:
    """When the reader first saw a head of a log, by his own clock."""

    size: int
    at: Annotated[dt.datetime, msgspec.Meta(tz=True)]


@dataclass(frozen=True, slots=True)
class Overdue:
    """The oldest entry that should be under a witness's head by now, and is not.

    Attributes:
        index: which.
        since: it is in the log since then or longer; `None` where nothing shows that it is new.
        because: what shows that, in words.
    """

    index: int
    since: dt.datetime | None
    because: str


class _Dated(msgspec.Struct, frozen=True, gc=False):
    time: Annotated[dt.datetime, msgspec.Meta(tz=True)]


_DECODER = msgspec.json.Decoder(_Dated)


@dataclass(slots=True)
class Arrivals:
    """The times of a log's entries, as they are read: 16 bytes for each.

    Attributes:
        seen: the heads that the reader saw before.
    """

    seen: Sequence[Sighting] = ()
    _indices: array[int] = field(default_factory=lambda: array("q"))
    _times: array[int] = field(default_factory=lambda: array("q"))

    def take(self, index: int, encoded: bytes) -> None:
        """Take in the next entry."""
        self._indices.append(index)
        self._times.append(_time(encoded))

    def overdue(self, covered: int, now: dt.datetime, within: dt.timedelta) -> Overdue | None:
        """The first entry behind `covered` ones, if it is in the log for longer than `within`.

        It is the oldest of those behind: whatever shows that a later one is old shows it of this one.
        """
        at = bisect_left(self._indices, covered)
        if at == len(self._indices):
            return None
        index, behind = self._indices[at], self._times[at:]
        latest, oldest = max(behind), min(behind)
        if latest > _micros(now + CLOCK_SKEW):
            dated = self._indices[at + behind.index(latest)]
            return Overdue(index, None, f"entry {dated} has no time, or one ahead of this machine's clock")
        dated = self._indices[at + behind.index(oldest)]
        since = _EPOCH + oldest * _MICROSECOND
        because = "by its own time" if dated == index else f"by the time of entry {dated} behind it"
        for sighting in self.seen:
            if sighting.size > index and sighting.at < since:
                since, because = sighting.at, f"for a head of {sighting.size} entries was seen here then"
        return Overdue(index, since, because) if now - since > within else None


def _time(encoded: bytes) -> int:
    """An entry's time in microseconds since 1970."""
    try:
        return _micros(_DECODER.decode(encoded).time)
    except (msgspec.MsgspecError, UnicodeDecodeError):
        return _UNDATED


def _micros(moment: dt.datetime) -> int:
    return (moment - _EPOCH) // _MICROSECOND
