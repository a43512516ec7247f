"""An exception that lifted a rule is held to what the log says of it: its opening and its end."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.history import ON_ITS_WAY, SETTLED_AFTER
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.pilots import decide_pilot
from pilot_identity.core.decisions.plan import Outcome
from pilot_identity.core.resources import Approval, PilotIdentity
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from tests.core.builders import CA_END, NOW, grant, moment
from tests.core.decisions.conftest import taken_up
from tests.core.decisions.replayed import recorded
from tests.core.decisions.test_consistency import (
    SECOND,
    begun,
    decided,
    fields,
    last,
    put_in,
    rewritten,
    told,
    without,
)
from tests.core.decisions.test_exceptions import RULE, STAGE, there, word

OPENED_AT = NOW - ON_ITS_WAY
OPENED, ENDED = EntryType.EXCEPTION_OPENED, EntryType.EXCEPTION_ENDED


def looked_at(pilot: PilotIdentity, *said: Approval, at: dt.datetime = OPENED_AT) -> tuple[Entry, ...]:
    """What one pass for a pilot tells the log."""
    return decide_pilot(pilot_seen(pilot, said), moment(at)).entries


def pilot_seen(pilot: PilotIdentity, said: Sequence[Approval]) -> PilotSeen:
    """The pilot beside its stage."""
    return PilotSeen(
        pilot,
        {"sandbox": STAGE},
        ca_not_after={"sandbox": CA_END},
        bundle_sequences={"sandbox": 1},
        reviews=tuple(said),
    )


def asking() -> PilotIdentity:
    """A pilot whose wish stands in its status."""
    pilot = there()
    plan = decide_pilot(pilot_seen(pilot, ()), moment(OPENED_AT))
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, PilotIdentityStatus)
    return msgspec.structs.replace(pilot, status=status)


def opened(*, at: dt.datetime = OPENED_AT) -> tuple[list[RecordedEntry], PilotIdentity]:
    """A log in which a person opened the exception of a pilot, which the decision that comes last used."""
    asked = asking()
    seen = pilot_seen(asked, (word(asked),))
    plan = decide_pilot(seen, moment(at))
    before = begun(recorded((*taken_up(STAGE, OPENED_AT), *plan.entries)))
    assert before[-1].type == OPENED
    assert plan.status is not None
    status = plan.status(Outcome(len(before) - 1))
    assert isinstance(status, PilotIdentityStatus)
    pilot = msgspec.structs.replace(asked, status=status)
    return [*before, *used_by(pilot)], pilot


def used_by(pilot: PilotIdentity, **changes: Any) -> list[RecordedEntry]:
    """What the log is told of a grant that the rule refuses; with changes to the exception in the status."""
    (known,) = pilot.status.exceptions
    exceptions = (msgspec.structs.replace(known, **changes),)
    status = msgspec.structs.replace(pilot.status, exceptions=exceptions)
    log = decided(grant(), msgspec.structs.replace(pilot, status=status), STAGE)
    assert log[-1].type == EntryType.GRANT_ISSUED
    return [one for one in log if one.type not in {EntryType.STAGE_POLICY_CHANGED, EntryType.PILOT_DEFINED}]


def test_an_exception_that_people_opened() -> None:
    """In an earlier moment, or in the very same one: its entry comes first, and the status only then."""
    for at in (OPENED_AT, NOW):
        log, _ = opened(at=at)
        assert fields(log) == set()
        assert {check.name: check.message for check in last(log).then.checks}[f"rule/{RULE['name']}"]


def test_an_exception_that_was_never_opened() -> None:
    """The status alone says so; and it names no entry, one of another kind, or one to come."""
    log, pilot = opened()
    never = rewritten(log, OPENED, None, type=str(EntryType.ACCESS_SEEN))
    assert fields(never) == {"observation.pilot"}
    index = pilot.status.exceptions[0].audit_index
    assert f"it was not opened by entry {index}" in last(never).mismatches[0]
    before = [one for one in log if one.subject_uid != "uid-of-task-1"]
    for other in (None, 0, len(before), 4000):
        assert fields([*before, *used_by(pilot, audit_index=other)]) == {"observation.pilot"}


def test_an_exception_that_was_opened_for_another_pilot() -> None:
    """Its digest has the pilot's UID; so has its entry."""
    log, _ = opened()
    assert fields(rewritten(log, OPENED, None, subject_uid="another")) == {"observation.pilot"}


def test_an_exception_of_another_digest() -> None:
    """People opened something else under that rule."""
    log, _ = opened()
    other = rewritten(log, OPENED, lambda data: data.update(digest="sha256:" + "0" * 64))
    assert fields(other) == {"observation.pilot"}


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda data: data.update(until="2026-06-01T12:00:01.000Z"), id="until earlier"),
        pytest.param(
            lambda data: data["approvals"][0].update(approver="ana"), id="of who asks for the grant"
        ),
        pytest.param(lambda data: data["approvals"][0].update(uid="another"), id="on another approval"),
        pytest.param(lambda data: data.update(approvals=[]), id="of nobody"),
    ],
)
def test_an_exception_that_was_opened_in_another_way(change: Callable[[dict[str, Any]], object]) -> None:
    """Nobody hides that he approved it himself."""
    log, _ = opened()
    assert fields(rewritten(log, OPENED, change)) == {"observation.pilot"}


def test_an_exception_on_the_word_of_nobody() -> None:
    """Its approval was given, and the log has it; of a part of the log nobody knows."""
    log, _ = opened()
    unsaid = rewritten(log, EntryType.APPROVAL_GIVEN, None, type=str(EntryType.ACCESS_SEEN))
    assert fields(unsaid) == {"observation.pilot"}
    assert last(unsaid).mismatches[0].endswith("no entry before says that 'word-rita-' was given")


def test_an_exception_that_was_opened_in_a_part_of_the_log_that_was_not_read() -> None:
    """Then it is not known how; its end is."""
    log, pilot = opened()
    part = [*log[1:3], *used_by(pilot, audit_index=7)]
    assert fields(part, first=256) == set()
    assert fields(part) == {"observation.pilot"}


class TestEnded:
    """An exception that is over lifts nothing."""

    def denied(self, at: dt.datetime) -> tuple[list[RecordedEntry], PilotIdentity, list[RecordedEntry]]:
        """The log, the pilot, and what somebody's denial told the log."""
        log, pilot = opened()
        no = word(pilot, "ralf", decision="Deny")
        entries = without(recorded(looked_at(pilot, no, at=at)), EntryType.PILOT_DEFINED)  # it is there
        assert entries[-1].type == ENDED
        return log, pilot, entries

    def test_it_was_denied_before(self) -> None:
        """The status says so soon after the log does."""
        log, _, denial = self.denied(NOW - ON_ITS_WAY)
        ended = put_in(log, *denial)
        assert fields(ended) == {"observation.pilot"}
        assert last(ended).mismatches[0].endswith(f"entry {len(ended) - 2} says that it ended")
        later = [msgspec.structs.replace(denial[-1], time=NOW - ON_ITS_WAY + SECOND)]
        assert fields(put_in(log, *denial[:-1], *later)) == set()

    def test_it_was_denied_in_the_moment_of_a_crash(self) -> None:
        """The status follows once the pass was made again."""
        log, _, denial = self.denied(NOW - SETTLED_AFTER)
        for since, expected in ((SECOND, set()), (SETTLED_AFTER, {"observation.pilot"})):
            restarted = told(EntryType.OPERATOR_STARTED, {}, at=NOW - since)
            assert fields(put_in(log, *denial, restarted)) == expected

    def test_it_was_denied_after_the_decision(self) -> None:
        """A decision that was on its way did not know."""
        log, _, denial = self.denied(NOW + SECOND)
        assert fields(put_in(log, *denial)) == set()

    def test_it_was_taken_out_and_put_back_before_the_status_said_so(self) -> None:
        """By a later definition; of the same one it is over."""
        log, pilot = opened()
        without_it = msgspec.structs.replace(pilot, spec=msgspec.structs.replace(pilot.spec, exceptions=()))
        ended = recorded(looked_at(without_it, at=NOW - ON_ITS_WAY))[-1:]
        assert ended[0].type == ENDED
        assert ended[0].data["generation"] == pilot.metadata.generation
        assert fields(put_in(log, *ended)) == {"observation.pilot"}
        before = [
            msgspec.structs.replace(ended[0], data={**ended[0].data, "generation": 0}),
            msgspec.structs.replace(ended[0], data={**ended[0].data, "policyGeneration": 0}),
        ]
        for one in before:
            assert fields(put_in(log, one)) == set()

    def test_it_was_opened_again(self) -> None:
        """What ended was what people were still asked about, and their no was taken back."""
        log, pilot, denial = self.denied(OPENED_AT)
        place = [one.type for one in log].index(OPENED)
        again = [*log[:place], *denial, log[place]]
        assert fields([*again, *used_by(pilot, audit_index=len(again) - 1)]) == set()
        ended = [*log[: place + 1], *denial]
        assert fields([*ended, *used_by(pilot)]) == {"observation.pilot"}
