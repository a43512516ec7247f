"""Every phase with every event: what may follow what, and that decisions keep to it."""

from __future__ import annotations

import datetime as dt
import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.lifecycle import (
    TRANSITIONS,
    Happening,
    IllegalTransitionError,
    follow,
)
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import Outcome
from pilot_identity.core.resources import Phase, TaskGrant
from pilot_identity.core.resources.metadata import FINALIZER
from pilot_identity.core.resources.task_grant import Proof, Revocation, TaskGrantStatus
from tests.core.builders import CA_END, NOW, active_grant, grant, moment, ready_pilot, stage

PENDING, AWAITING, ACTIVE, CLOSING = Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.ACTIVE, Phase.CLOSING
ENDS = {
    Happening.COMPLETED: Phase.COMPLETED,
    Happening.TIME_UP: Phase.EXPIRED,
    Happening.REVOKED: Phase.REVOKED,
    Happening.UNPROVEN: Phase.CLOSING,
}
EXPECTED: dict[tuple[Phase, Happening], Phase] = {
    (PENDING, Happening.ALLOWED): ACTIVE,
    (PENDING, Happening.NEEDS_APPROVAL): AWAITING,
    (PENDING, Happening.DENIED): Phase.DENIED,
    (AWAITING, Happening.ALLOWED): ACTIVE,
    (AWAITING, Happening.DENIED): Phase.DENIED,
    **{
        (phase, happening): after
        for phase in (PENDING, AWAITING, ACTIVE, CLOSING)
        for happening, after in ENDS.items()
    },
}


@pytest.mark.parametrize("phase, happening", list(itertools.product(Phase, Happening)))
def test_each_happening_in_each_phase(phase: Phase, happening: Happening) -> None:
    """Every pair is either a known transition or an error that names both."""
    after = EXPECTED.get((phase, happening))
    if after is None:
        with pytest.raises(IllegalTransitionError, match=f"{phase} cannot be {happening}"):
            follow(phase, happening)
    else:
        assert follow(phase, happening) is after


def test_terminal_is_final() -> None:
    """No phase that is terminal has an exit, and every other one has."""
    assert {phase for phase in Phase if not TRANSITIONS[phase]} == {
        phase for phase in Phase if phase.is_terminal
    }


def test_every_phase_can_be_reached_and_left_to_an_end() -> None:
    """From Pending every phase can come to be, and from every phase an end."""
    reached = {PENDING}
    while new := {after for phase in reached for after in TRANSITIONS[phase].values()} - reached:
        reached |= new
    assert reached == set(Phase)
    for phase in Phase:
        assert phase.is_terminal or set(TRANSITIONS[phase].values()) & {Phase.EXPIRED}


def seen(asked: TaskGrant) -> GrantSeen:
    """A grant with all that it needs."""
    return GrantSeen(asked, ready_pilot(), stage(), ca_not_after=CA_END)


def with_spec(asked: TaskGrant, **spec: Any) -> TaskGrant:
    """A grant of which somebody changed what may be changed."""
    return msgspec.structs.replace(asked, spec=msgspec.structs.replace(asked.spec, **spec))


EVENTS: dict[str, Callable[[TaskGrant], GrantSeen]] = {
    "nothing": seen,
    "it is revoked": lambda asked: seen(with_spec(asked, revoke=Revocation("enough"))),
    "it is completed": lambda asked: seen(with_spec(asked, completed=True)),
    "it is deleted": lambda asked: seen(
        msgspec.structs.replace(
            asked, metadata=msgspec.structs.replace(asked.metadata, deletion_timestamp=NOW)
        )
    ),
    "its pilot is gone": lambda asked: replace(seen(asked), pilot=None, stage=None),
    "its pilot is suspended": lambda asked: replace(seen(asked), pilot=ready_pilot(suspend=True)),
    "its pilot has other owners": lambda asked: replace(
        seen(asked), pilot=ready_pilot(owners={"business": "eve", "technical": "eve"})
    ),
    "its pilot moved": lambda asked: replace(
        seen(asked), pilot=ready_pilot(stage="pilot"), stage=stage("pilot", 5)
    ),
    "its stage is frozen": lambda asked: replace(seen(asked), stage=stage(freeze=True)),
    "its access is unknown": lambda asked: replace(seen(asked), pilot=ready_pilot(access=[])),
    "its stage wants approvals": lambda asked: replace(
        seen(asked), stage=stage(approvals={"grant": {"required": 1}})
    ),
}
"""All that can happen to a grant; time passing is one more, see below."""


def in_phase(phase: Phase) -> TaskGrant:
    """A grant in a phase, with what a grant in it has."""
    held = {"finalizers": [FINALIZER]}
    decision = {"allowed": True, "owners": ["ana", "tom"]}
    match phase:
        case Phase.PENDING | Phase.AWAITING_APPROVAL | Phase.DENIED:
            return grant(meta=held, status={"phase": phase})
        case Phase.ACTIVE:
            return active_grant(status={"decision": decision})
        case _:
            closure = {"outcome": "Revoked", "reason": "Revoked", "message": "enough"}
            return active_grant(status={"phase": phase, "decision": decision, "closure": closure})


@pytest.mark.parametrize("later", [NOW, NOW + dt.timedelta(hours=1)], ids=["at once", "after its time"])
@pytest.mark.parametrize("is_shown", [True, False], ids=["shown", "not shown"])
@pytest.mark.parametrize("event", EVENTS.values(), ids=EVENTS)
@pytest.mark.parametrize("phase", Phase)
def test_each_event_in_each_phase_follows_the_table(
    phase: Phase, event: Callable[[TaskGrant], GrantSeen], later: dt.datetime, *, is_shown: bool
) -> None:
    """Whatever happens, a decision keeps the phase or takes a known transition; nothing leaves an end."""
    plan = decide_grant(event(in_phase(phase)), moment(later))
    if plan.prove is not None:
        assert not phase.is_terminal, "an end is not made twice"
        plan = plan.prove.conclude(tuple(Proof(one.name, proven=is_shown) for one in plan.prove.tests))
    after = phase
    if plan.status is not None:
        status = plan.status(Outcome(9, "uid-of-secret"))
        assert isinstance(status, TaskGrantStatus)
        after = status.phase
    assert after is phase or after in TRANSITIONS[phase].values()
    assert plan.release is None or phase in {PENDING, AWAITING, ACTIVE}
    if phase.is_terminal:
        assert (plan.entries, plan.release, plan.status) == ((), None, None)
