from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.core.audit.arrivals import Arrivals, Overdue, Sighting

NOW = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
HOUR = dt.timedelta(hours=1)
MINUTE = dt.timedelta(minutes=1)


def arrivals(*ages: dt.timedelta, seen: tuple[Sighting, ...] = (), first: int = 0) -> Arrivals:
    """Entries that say they are so old."""
    taken = Arrivals(seen)
    for index, age in enumerate(ages, start=first):
        taken.take(index, f'{{"time":"{(NOW - age).isoformat()}"}}'.encode())
    return taken


def test_what_is_under_the_head_is_never_overdue() -> None:
    """However old it is."""
    assert arrivals(9 * HOUR, 8 * HOUR).overdue(2, NOW, HOUR) is None
    assert arrivals().overdue(0, NOW, HOUR) is None


def test_an_entry_is_as_old_as_it_says() -> None:
    """To the very bound."""
    assert arrivals(2 * HOUR, HOUR).overdue(1, NOW, HOUR) is None
    found = arrivals(2 * HOUR, HOUR + MINUTE / 60).overdue(1, NOW, HOUR)
    assert found == Overdue(1, NOW - HOUR - MINUTE / 60, "by its own time")


def test_an_entry_is_as_old_as_any_behind_it() -> None:
    """The log only grows at its end, so what stands before was there before."""
    found = arrivals(MINUTE, MINUTE, 2 * HOUR, MINUTE).overdue(1, NOW, HOUR)
    assert found == Overdue(1, NOW - 2 * HOUR, "by the time of entry 2 behind it")


def test_an_entry_is_as_old_as_the_readers_own_sight_of_it() -> None:
    """A sighting tells of what it has, and of nothing beyond."""
    seen = (Sighting(1, NOW - 9 * HOUR), Sighting(3, NOW - 3 * HOUR), Sighting(4, NOW - 2 * HOUR))
    known = arrivals(*[MINUTE] * 5, seen=seen)
    found = known.overdue(2, NOW, HOUR)
    assert found == Overdue(2, NOW - 3 * HOUR, "for a head of 3 entries was seen here then")
    assert known.overdue(4, NOW, HOUR) is None


@pytest.mark.parametrize("ahead, is_overdue", [(MINUTE, False), (MINUTE * 1.1, True)])
def test_a_time_that_is_yet_to_come_shows_nothing(ahead: dt.timedelta, is_overdue: bool) -> None:
    """Otherwise an entry would be new for as long as its writer likes; clocks may differ by a minute."""
    found = arrivals(MINUTE, -ahead).overdue(0, NOW, HOUR)
    assert (found is not None) is is_overdue
    if found is not None:
        assert (found.index, found.since, "entry 1 has no time" in found.because) == (0, None, True)


@pytest.mark.parametrize("encoded", [b"nonsense", b"{}", b'{"time":"2026-06-01T12:00:00"}', b"\xff"])
def test_what_has_no_time_counts_as_old(encoded: bytes) -> None:
    """Closed; a time without its zone is none."""
    taken = Arrivals()
    taken.take(0, encoded)
    found = taken.overdue(0, NOW, HOUR)
    assert (found is not None and found.since) is None
    assert found is not None


def test_a_log_may_begin_in_its_middle() -> None:
    """Where its oldest part is archived, or entries are missing."""
    assert arrivals(2 * HOUR, MINUTE, first=512).overdue(513, NOW, HOUR) is None
    found = arrivals(2 * HOUR, MINUTE, first=512).overdue(0, NOW, HOUR)
    assert found is not None
    assert found.index == 512
