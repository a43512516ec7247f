"""Every decision on a grant that any test of this folder makes is told to a log and made again from it."""

from __future__ import annotations

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, RecordedEntry
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.plan import Plan
from pilot_identity.core.decisions.replaying import Verdict, is_digest
from pilot_identity.core.decisions.stage_keys import Generation
from pilot_identity.core.decisions.stages import StageSeen, decide_stage
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.stage_policy import StagePolicyStatus
from tests.core.builders import CA_END, NOW, moment
from tests.core.decisions.replayed import announced, recorded, replay, require_agreement


def taken_up(stage: StagePolicy) -> tuple[Entry, ...]:
    """What the log was told when a stage became ready."""
    keys = (Generation(1, stage.spec.trust_domain, NOW, CA_END, f"key-of-{stage.name}"),)
    fresh = msgspec.structs.replace(stage, status=StagePolicyStatus())
    return decide_stage(StageSeen(fresh, (), keys, NOW), moment()).entries


def by_digest(log: list[RecordedEntry]) -> bool:
    """Whether something that was looked at was too large for its entry."""
    return any(is_digest(value) for entry in log for value in entry.data.values())


@pytest.fixture(autouse=True)
def _replays(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Replay each decision from a log with the policy and the plan's own entries, and nothing else."""
    if request.module.__name__.endswith("test_histories"):
        return  # it replays whole logs

    def consider_and_replay(case: Case) -> Plan:
        plan = consider(case)
        before = taken_up(case.seen.stage) if case.seen.stage is not None else ()
        log = recorded((*before, *plan.entries, *announced(plan)))
        for again in replay(log):
            if again.verdict is Verdict.CANNOT:
                assert by_digest(log), again.why
            else:
                require_agreement(again)
        return plan

    monkeypatch.setattr("pilot_identity.core.decisions.grants.life.consider", consider_and_replay)
