from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from pilot_identity.core.decisions.witnessed import PATIENCE, Trouble, WitnessStanding, tell_witnessed
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import Condition, ConditionType, Reason, find
from tests.core.builders import NOW, stage

AGO = NOW.replace(microsecond=0) - dt.timedelta(minutes=10)
GOOD = WitnessStanding("w1.example.org", 41, AGO)


def away(
    reason: Reason = Reason.WITNESS_UNREACHABLE,
    *,
    name: str = "w1.example.org",
    span: dt.timedelta = PATIENCE,
    message: str = "no answer",
) -> WitnessStanding:
    """A witness in trouble for so long."""
    return WitnessStanding(name, 41, AGO, Trouble(reason, NOW - span, message))


def told(before: StagePolicy, *witnesses: WitnessStanding, now: dt.datetime = NOW) -> StagePolicy:
    """The stage once it is told."""
    telling = tell_witnessed(before, witnesses, now)
    assert telling is not None
    status = msgspec.structs.replace(before.status, conditions=telling.conditions)
    return msgspec.structs.replace(before, status=status)


def witnessed(of: StagePolicy) -> Condition:
    """What it is told."""
    found = find(of.status.conditions, ConditionType.WITNESSED)
    assert found is not None
    return found


def test_a_stage_is_told_who_cosigns() -> None:
    """Beside its other conditions, and once."""
    before = stage()
    after = told(before, GOOD, WitnessStanding("w2.example.org", 40, AGO))
    assert after.status.conditions[:-1] == before.status.conditions
    assert (witnessed(after).status, witnessed(after).reason) == ("True", "Cosigned")
    assert witnessed(after).message == "the audit log's heads are cosigned by w1.example.org, w2.example.org"
    grown = (WitnessStanding("w1.example.org", 99, NOW), WitnessStanding("w2.example.org", 99, NOW))
    assert tell_witnessed(after, grown, NOW + PATIENCE) is None


TROUBLES = {
    "a witness that is away": (away(), Reason.WITNESS_UNREACHABLE, PATIENCE),
    "one that refuses": (away(Reason.WITNESS_REFUSED), Reason.WITNESS_REFUSED, PATIENCE),
    "one that cannot be brought on": (away(Reason.WITNESS_BEHIND), Reason.WITNESS_BEHIND, PATIENCE),
    "one that saw another history, at once": (
        away(Reason.WITNESS_INCONSISTENT, span=dt.timedelta(0)),
        Reason.WITNESS_INCONSISTENT,
        dt.timedelta(0),
    ),
}


@pytest.mark.parametrize("standing, reason, after", TROUBLES.values(), ids=TROUBLES)
def test_what_a_witness_does_instead_is_told(
    standing: WitnessStanding, reason: Reason, after: dt.timedelta
) -> None:
    """With its name, what it did and since when nothing is cosigned; people are warned."""
    telling = tell_witnessed(stage(), [standing], NOW)
    assert telling is not None
    assert (telling.notice.type, telling.notice.reason) == ("Warning", reason)
    condition = telling.conditions[-1]
    assert (condition.status, condition.reason) == ("False", str(reason))
    assert condition.message == (
        "witness w1.example.org: no answer; the last head that it cosigned has 41 entries, "
        "at 2026-06-01T11:50:00Z"
    )
    if after:
        assert tell_witnessed(stage(), [standing], NOW - dt.timedelta(milliseconds=1)) is None


def test_what_passes_by_itself_changes_nothing() -> None:
    """Neither for the worse nor for the better: what stands stands."""
    short = away(span=PATIENCE / 2)
    assert tell_witnessed(told(stage(), GOOD), [short], NOW) is None
    never = WitnessStanding("w1.example.org", 0, None)
    assert tell_witnessed(told(stage(), away()), [never], NOW) is None


def test_what_is_told_is_written_once() -> None:
    """However long it lasts; its end is told, too."""
    before = told(stage(), away())
    later = NOW + dt.timedelta(days=1)
    assert tell_witnessed(before, [away()], later) is None
    after = told(before, GOOD, now=later)
    assert witnessed(after).status == "True"
    assert witnessed(after).last_transition_time > witnessed(before).last_transition_time


def test_of_several_troubles_the_gravest_is_the_reason() -> None:
    """And each is in the message; of a witness that never cosigned that is said."""
    never = WitnessStanding("w3", 0, None, Trouble(Reason.WITNESS_REFUSED, AGO, "it answers 404"))
    after = told(stage(), away(name="w2"), GOOD, never)
    assert witnessed(after).reason == "WitnessRefused"
    assert "witness w2: no answer; the last" in witnessed(after).message
    assert "witness w3: it answers 404; it is not known to have" in witnessed(after).message
    assert "w1" not in witnessed(after).message


def test_without_a_witness_there_is_no_condition() -> None:
    """Where one was, that it is gone is told."""
    assert tell_witnessed(stage(), [], NOW) is None
    telling = tell_witnessed(told(stage(), GOOD), [], NOW)
    assert telling is not None
    assert telling.conditions == stage().status.conditions
    assert (telling.notice.type, telling.notice.reason) == ("Warning", Reason.UNWITNESSED)
