from __future__ import annotations

import datetime as dt

import msgspec

from pilot_identity.core.decisions.mismatch import tell_mismatch
from pilot_identity.core.decisions.plan import Outcome
from pilot_identity.core.decisions.unsound import tell_unsound
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.conditions import Condition, ConditionType, Finding, Reason, settle
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import NOW, active_grant, moment

LATER = NOW + dt.timedelta(hours=1)


def told(grant: TaskGrant, *messages: str) -> TaskGrant:
    """The grant once it is told that."""
    telling = tell_mismatch(grant, messages, NOW)
    assert telling is not None
    return with_conditions(grant, telling.conditions)


def with_conditions(grant: TaskGrant, conditions: tuple[Condition, ...]) -> TaskGrant:
    """The grant with these conditions."""
    status = msgspec.structs.replace(grant.status, conditions=conditions)
    return msgspec.structs.replace(grant, status=status)


def types(grant: TaskGrant) -> list[str]:
    """The types of its conditions."""
    return [one.type for one in grant.status.conditions]


def test_a_mismatch_is_one_condition_beside_the_others() -> None:
    """With all that is found in one message, and an Event that warns."""
    grant = active_grant()
    telling = tell_mismatch(grant, ["altered: x", "missing: y"], NOW)
    assert telling is not None
    *others, mismatch = telling.conditions
    assert tuple(others) == grant.status.conditions
    assert (mismatch.type, mismatch.status, mismatch.reason) == ("RecordMismatch", "True", "NotAsRecorded")
    assert mismatch.message == "altered: x; missing: y"
    assert (telling.notice.type, telling.notice.reason) == ("Warning", Reason.NOT_AS_RECORDED)


def test_what_is_told_is_not_told_again() -> None:
    """Nothing is written at a round that finds the same."""
    assert tell_mismatch(told(active_grant(), "x"), ["x"], LATER) is None
    assert tell_mismatch(active_grant(), [], LATER) is None


def test_another_finding_changes_the_message_in_its_place() -> None:
    """It has been so since it was first found."""
    before = told(active_grant(), "x")
    telling = tell_mismatch(before, ["x", "y"], LATER)
    assert telling is not None
    assert telling.conditions[-1].message == "x; y"
    assert telling.conditions[-1].last_transition_time == before.status.conditions[-1].last_transition_time


def test_what_is_over_goes_and_leaves_the_others() -> None:
    """And people are told that, too."""
    telling = tell_mismatch(told(active_grant(), "x"), [], LATER)
    assert telling is not None
    assert telling.conditions == active_grant().status.conditions
    assert (telling.notice.type, telling.notice.reason) == ("Normal", Reason.AS_RECORDED)


def test_a_long_list_fits_into_a_condition() -> None:
    """Its end is cut; the log and the metrics have all."""
    grant = told(active_grant(), *(["x" * 100] * 50))
    assert len(grant.status.conditions[-1].message) == 1024
    assert tell_mismatch(grant, ["x" * 100] * 50, LATER) is None


def test_no_pass_takes_it_away() -> None:
    """Whatever else a pass finds: only the round that gave it takes it back, and it is there once."""
    grant = told(active_grant(), "x")
    findings = [Finding(ConditionType.READY, status=False, reason=Reason.REVOKED, message="m")]
    settled = settle(grant.status.conditions, findings, generation=2, now=LATER)
    assert [one.type for one in settled] == ["Ready", "RecordMismatch"]
    assert settled[-1] == grant.status.conditions[-1]
    plan = tell_unsound(grant, "broken", moment())
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, TaskGrantStatus)
    assert [one.type for one in status.conditions] == ["Ready", "RecordMismatch"]
