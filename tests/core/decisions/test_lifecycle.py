from __future__ import annotations

import itertools

import pytest

from pilot_identity.core.decisions.grants.lifecycle import (
    TRANSITIONS,
    Happening,
    IllegalTransitionError,
    follow,
)
from pilot_identity.core.resources import Phase

PENDING, AWAITING, ACTIVE, CLOSING = Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.ACTIVE, Phase.CLOSING
ENDS = {
    Happening.COMPLETED: Phase.COMPLETED,
    Happening.TIME_UP: Phase.EXPIRED,
    Happening.REVOKED: Phase.REVOKED,
    Happening.WITHDRAWAL_FAILED: Phase.CLOSING,
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
