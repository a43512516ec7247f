from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.core.activity.rate import GRANT, MAX_BUCKETS, TOGETHER, Allowance, Rate, cost
from pilot_identity.core.activity.report import MAX_ACTIVITIES, MAX_REPORT_OCTETS

NOW = dt.datetime(2026, 6, 1, 12, 0, 0, tzinfo=dt.UTC)
PLENTY = Allowance(per_second=1e9, burst=1e9)


def after(seconds: float) -> dt.datetime:
    """A moment."""
    return NOW + dt.timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "activities, octets, taken",
    [(1, 280, 1), (1, 1024, 1), (1, 1025, 2), (16, 1025, 16), (16, 16 * 1024 + 1, 17), (1, 32 * 1024, 32)],
)
def test_large_reports_take_more(activities: int, octets: int, taken: int) -> None:
    """As much as their bytes, where that is more than their activities."""
    assert cost(activities, octets) == taken


def test_the_largest_report_is_taken_at_once_and_again_after_a_while() -> None:
    """By default: so a report that may be sent can be recorded, and no more than 2 KiB a second follow."""
    rate, largest = Rate(GRANT, TOGETHER), cost(MAX_ACTIVITIES, MAX_REPORT_OCTETS)
    assert rate.take("a", largest, NOW) == 0
    assert rate.take("a", largest, NOW) == pytest.approx(2.0)
    taken = sum(rate.take("a", largest, after(second)) == 0 for second in range(1, 1601))
    assert taken == 100


def test_a_burst_is_taken_and_then_as_much_as_time_brings() -> None:
    """Two a second, ten at once."""
    rate = Rate(Allowance(2.0, 10.0), PLENTY)
    assert rate.take("a", 10, NOW) == 0
    assert rate.take("a", 1, NOW) == pytest.approx(0.5)
    assert rate.take("a", 1, after(0.5)) == 0
    assert rate.take("a", 4, after(1.5)) == pytest.approx(1.0)
    assert rate.take("a", 4, after(2.5)) == 0


def test_what_was_refused_costs_nothing() -> None:
    """Trying again and again does not make the wait longer."""
    rate = Rate(Allowance(1.0, 1.0), PLENTY)
    assert rate.take("a", 1, NOW) == 0
    assert [rate.take("a", 1, NOW) for _ in range(5)] == [1.0] * 5


def test_one_grant_does_not_spend_anothers() -> None:
    """Each has its own."""
    rate = Rate(Allowance(1.0, 1.0), PLENTY)
    assert rate.take("a", 1, NOW) == 0
    assert rate.take("b", 1, NOW) == 0


def test_all_together_are_bounded() -> None:
    """However many grants there are."""
    rate = Rate(PLENTY, Allowance(1.0, 3.0))
    assert [rate.take(f"grant-{number}", 1, NOW) for number in range(4)] == [0, 0, 0, 1.0]


def served(rate: Rate, asking: dict[str, float], seconds: int) -> dict[str, int]:
    """What each is given that asks for one so many times a second, the greedy always first."""
    given = dict.fromkeys(asking, 0)
    order = sorted(asking, key=lambda key: -asking[key])
    for tick in range(seconds * 10):
        for key in order:
            wanted = int((tick + 1) * asking[key] / 10) - int(tick * asking[key] / 10)
            given[key] += sum(rate.take(key, 1, after(tick / 10)) == 0 for _ in range(wanted))
    return given


def test_whoever_reports_little_is_heard_while_others_reach_their_bound() -> None:
    """Fifty that ask for all that they may have leave room for ten that ask for less than their share."""
    greedy = {f"greedy-{number}": 10.0 for number in range(50)}
    quiet = {f"quiet-{number}": 0.5 for number in range(10)}
    given = served(Rate(), {**greedy, **quiet}, 300)
    assert {key: given[key] for key in quiet} == dict.fromkeys(quiet, 150)
    assert sum(given.values()) <= TOGETHER.burst + 300 * TOGETHER.per_second
    assert sum(given.values()) >= 0.95 * 300 * TOGETHER.per_second


def test_a_newcomer_is_heard_at_once_while_others_reach_their_bound() -> None:
    """With the largest report there is."""
    rate = Rate()
    served(rate, {f"greedy-{number}": 10.0 for number in range(50)}, 120)
    assert rate.take("new", cost(MAX_ACTIVITIES, MAX_REPORT_OCTETS), after(120)) == 0


def test_those_who_ask_for_all_have_equal_shares() -> None:
    """Whoever asks first in each moment has no more than the last."""
    greedy = {f"greedy-{number}": 10.0 for number in range(60)}
    given = served(Rate(), greedy, 300)
    assert min(given.values()) >= 0.8 * 300 * TOGETHER.per_second / 60


def test_a_clock_that_is_set_back_gives_nothing_away() -> None:
    """Nor does it take anything."""
    rate = Rate(Allowance(1.0, 1.0), PLENTY)
    assert rate.take("a", 1, NOW) == 0
    assert rate.take("a", 1, after(-60)) == 1.0
    assert rate.take("a", 1, after(-59)) == 0


def test_no_more_than_so_many_grants_are_remembered() -> None:
    """Memory is bounded; who was not heard of for longest starts anew."""
    rate = Rate(Allowance(1.0, 1.0), PLENTY)
    for number in range(MAX_BUCKETS + 1):
        assert rate.take(f"grant-{number}", 1, NOW) == 0
    assert rate.take("grant-0", 1, NOW) == 0
    assert rate.take(f"grant-{MAX_BUCKETS}", 1, NOW) == 1.0
