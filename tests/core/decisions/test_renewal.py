"""Renewal rests on the decision: it stops as soon as that would not be made again."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest

from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import Outcome, Plan
from pilot_identity.core.resources import Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.digests import pilot_digest, policy_digest
from pilot_identity.core.resources.task_grant import TaskGrantStatus
from tests.core.builders import CA_END, NOW, TOOL, active_grant, moment, ready, ready_pilot, stage, tool

RENEW_AT = NOW + dt.timedelta(minutes=1)
DUE = NOW + dt.timedelta(minutes=2)
ASKED: Mapping[str, Any] = {"access": [{"name": "tickets", "actions": ["comment"]}]}


def seen(
    asked: TaskGrant | None = None, pilot: PilotIdentity | None = None, policy: StagePolicy | None = None
) -> GrantSeen:
    """An active grant in good order, but for what the case changes."""
    return GrantSeen(asked or active_grant(**ASKED), pilot or ready_pilot(), policy or stage(), CA_END)


def status_of(plan: Plan) -> TaskGrantStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, TaskGrantStatus)
    return status


def decided(pilot: PilotIdentity, policy: StagePolicy, *approvers: str) -> TaskGrant:
    """An active grant that was decided upon with a pilot and a policy as they are here."""
    decision = {
        "allowed": True,
        "pilotDigest": pilot_digest(pilot),
        "policyDigest": policy_digest(policy),
        "approvals": [{"name": f"by-{who}", "uid": f"uid-{who}", "approver": who} for who in approvers],
    }
    return active_grant(status={"decision": decision})


STRICT: Mapping[str, Any] = {"approvals": {"grant": {"required": 1}}}
GLASS: Mapping[str, Any] = {**STRICT, "emergency": {"maxDuration": "15m", "reviewWithin": "24h"}}


def broken(policy: StagePolicy) -> TaskGrant:
    """An active emergency grant that was decided upon with a policy."""
    return msgspec.structs.replace(
        decided(ready_pilot(), policy), spec=active_grant(emergency=True, **ASKED).spec
    )


CHANGED = ready_pilot(material={"model": "another"})

STOPPED: Mapping[str, tuple[GrantSeen, str, str]] = {
    "its access was narrowed": (
        seen(pilot=ready_pilot(access=[tool("tickets", actions=["read"])])),
        "ActionOutsidePilot",
        "allows the actions read",
    ),
    "its data is no longer the stage's": (
        seen(policy=stage(dataClasses=["public"])),
        "DataClassOutsideStage",
        "which stage 'sandbox' does not allow",
    ),
    "the stage got a rule that refuses it": (
        seen(policy=stage(rules=[{"name": "none", "expression": "false", "message": "nothing at all"}])),
        "RuleRefused",
        "nothing at all",
    ),
    "the pilot changed materially since people approved it": (
        seen(decided(ready_pilot(), stage(**STRICT), "bob"), CHANGED, stage(**STRICT)),
        "DecisionOutdated",
        "pilot 'triage' changed materially since the grant was approved",
    ),
    "pilot and stage changed materially since people approved it": (
        seen(decided(ready_pilot(), stage(**STRICT), "bob"), CHANGED, stage()),
        "DecisionOutdated",
        "pilot 'triage' and stage 'sandbox' changed materially since the grant was approved",
    ),
    "the pilot changed materially since somebody broke the glass": (
        seen(broken(stage(**GLASS)), CHANGED, stage(**GLASS)),
        "DecisionOutdated",
        "pilot 'triage' changed materially since the grant was issued without approvals, in an emergency",
    ),
    "the stage has no emergencies any more": (
        seen(broken(stage(**GLASS)), policy=stage(**STRICT)),
        "EmergencyNotAllowed",
        "has no emergency grants",
    ),
    "the stage allows a task less time": (
        seen(policy=stage(credentials={"x509TTL": "1h", "jwtTTL": "5m", "maxTaskDuration": "1m"})),
        "DurationTooLong",
        "allows a task 1m",
    ),
    "the stage asks for approvals since": (
        seen(decided(ready_pilot(), stage()), policy=stage(**STRICT)),
        "DecisionOutdated",
        "stage 'sandbox' changed materially since the grant was issued without the approval",
    ),
}


@pytest.mark.parametrize("case, reason, message", STOPPED.values(), ids=STOPPED)
@pytest.mark.parametrize("now", [NOW, DUE], ids=["before it is due", "when it is due"])
def test_nothing_is_renewed_where(case: GrantSeen, reason: str, message: str, now: dt.datetime) -> None:
    """It is told as soon as it is seen, once; what is out lapses by itself."""
    plan = decide_grant(case, moment(now))
    assert (plan.release, plan.withdraw, plan.entries) == (None, (), ())
    status = status_of(plan)
    assert (status.phase, status.conditions[0].reason) == (Phase.ACTIVE, reason)
    assert status.conditions[0].message.startswith("not renewed: ")
    assert message in status.conditions[0].message
    assert len(plan.notices) == 1


HELD: Mapping[str, GrantSeen] = {
    "nothing changed since people approved it": seen(
        decided(ready_pilot(), stage(**STRICT), "bob"), policy=stage(**STRICT)
    ),
    "the pilot changed, and nobody had to approve it": seen(decided(ready_pilot(), stage()), CHANGED),
    "the stage was thawed": seen(
        decided(ready_pilot(), stage(freeze=True, **STRICT), "bob"), policy=stage(**STRICT)
    ),
    "nothing changed since somebody broke the glass": seen(broken(stage(**GLASS)), policy=stage(**GLASS)),
    "its pilot's purpose was reworded": seen(
        decided(ready_pilot(), stage(**STRICT), "bob"), ready_pilot(purpose="sorts"), stage(**STRICT)
    ),
}


@pytest.mark.parametrize("case", HELD.values(), ids=HELD)
def test_it_is_renewed_where(case: GrantSeen) -> None:
    """Nothing that people agreed to changed."""
    assert decide_grant(case, moment()) == Plan(recheck_at=RENEW_AT)
    assert decide_grant(case, moment(DUE)).release is not None


def test_what_passes_by_itself_is_waited_out() -> None:
    """A pilot whose edit is not looked at yet stops a renewal that is due, and is not told before."""
    edited = ready_pilot(meta={"generation": 2}, status={"observedGeneration": 1})
    assert decide_grant(seen(pilot=edited), moment()) == Plan(recheck_at=RENEW_AT)
    assert status_of(decide_grant(seen(pilot=edited), moment(DUE))).conditions[0].reason == "PilotNotReady"


def test_what_comes_back_is_told_at_once() -> None:
    """The condition does not wait for the renewal either."""
    lapsed = active_grant(status={"conditions": [ready("ActionOutsidePilot", is_true=False)]}, **ASKED)
    plan = decide_grant(seen(lapsed, ready_pilot(access=[dict(TOOL)])), moment())
    assert status_of(plan).conditions[0].reason == "Issued"
    assert (plan.release, plan.recheck_at) == (None, RENEW_AT)
