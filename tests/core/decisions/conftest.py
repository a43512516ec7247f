"""Every decision on a grant that any test of this folder makes is told to a log and made again from it."""

from __future__ import annotations

import datetime as dt

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.plan import Plan
from pilot_identity.core.decisions.replaying import Verdict, is_digest
from pilot_identity.core.decisions.stage_keys import Generation
from pilot_identity.core.decisions.stages import StageSeen, decide_stage
from pilot_identity.core.resources import PilotIdentity, StagePolicy
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.stage_policy import StagePolicyStatus
from pilot_identity.core.resources.timestamps import format_timestamp
from tests.core.builders import CA_END, NOW, moment
from tests.core.decisions.replayed import announced, recorded, replay, require_agreement


def taken_up(stage: StagePolicy, at: dt.datetime = NOW) -> tuple[Entry, ...]:
    """What the log was told when a stage became ready."""
    keys = (Generation(1, stage.spec.trust_domain, NOW, CA_END, f"key-of-{stage.name}"),)
    fresh = msgspec.structs.replace(stage, status=StagePolicyStatus())
    return decide_stage(StageSeen(fresh, (), keys, at), moment(at)).entries


def opened_before(pilot: PilotIdentity | None, at: dt.datetime) -> tuple[Entry, ...]:
    """A log's beginning with the entries that opened a pilot's exceptions, each where its status says."""
    if pilot is None:
        return ()
    uid = pilot.metadata.uid
    told: dict[int, Entry] = {}
    words: dict[str, Entry] = {}
    for known in pilot.status.exceptions:
        if known.audit_index is None:
            continue
        data = {
            "digest": known.digest,
            "until": format_timestamp(known.until),
            "approvals": [encode(one) for one in known.approvals],
        }
        step = f"{uid}/exception-opened/{known.digest}"
        told[known.audit_index] = Entry(step, EntryType.EXCEPTION_OPENED, str(pilot.key), uid, at, data)
        words |= {
            one.uid: Entry(
                f"{one.uid}/given", EntryType.APPROVAL_GIVEN, f"Approval {one.name}", one.uid, at, {}
            )
            for one in known.approvals
        }
    between = (
        Entry(f"nothing/{number}", EntryType.ACCESS_SEEN, "TaskGrant a/b", "b", at, {})
        for number in range(max(told, default=0))
    )
    others = iter((*words.values(), *between))
    return tuple(told[index] if index in told else next(others) for index in range(max(told, default=-1) + 1))


def by_digest(log: list[RecordedEntry]) -> bool:
    """Whether something that was looked at was too large for its entry."""
    return any(is_digest(value) for entry in log for value in entry.data.values())


@pytest.fixture(autouse=True)
def _replays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay each decision from a log with the policy, the plan's own entries and what opened exceptions."""
    if request.module.__name__.endswith("test_histories"):
        return  # it replays whole logs

    def consider_and_replay(case: Case) -> Plan:
        plan = consider(case)
        at = min(NOW, case.moment.now)
        before = taken_up(case.seen.stage, at) if case.seen.stage is not None else ()
        opened = opened_before(case.seen.pilot, at)
        log = recorded((*opened, *before, *plan.entries, *announced(plan)))
        for again in replay(log):
            if again.verdict is Verdict.CANNOT:
                assert by_digest(log), again.why
            else:
                require_agreement(again)
        return plan

    monkeypatch.setattr("pilot_identity.core.decisions.grants.life.consider", consider_and_replay)
