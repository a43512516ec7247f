"""Which stage a pilot is in: down at once, up only on evidence, which nobody collects yet."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.placement import place
from pilot_identity.core.decisions.promotion import PromotionSeen, missing_evidence
from pilot_identity.core.resources import PilotIdentity
from tests.core.builders import NOW, pilot, ready_pilot, stage

LADDER = {"sandbox": stage("sandbox", 0), "pilot": stage("pilot", 10), "production": stage("production", 20)}
names = st.sampled_from(list(LADDER))


def seen(found: PilotIdentity) -> PilotSeen:
    """A pilot before the three stages."""
    return PilotSeen(found, LADDER)


@pytest.mark.parametrize("name", ["pilot", "production"])
def test_a_first_appearance_above_the_lowest_is_refused(name: str) -> None:
    """The message names the stage to begin in."""
    placed = place(seen(pilot(stage=name)), NOW)
    assert placed.stage is None
    assert placed.objection is not None
    assert placed.objection.reason == "StageAboveEntry"
    assert "set spec.stage to 'sandbox'" in placed.objection.message


def test_a_first_appearance_in_the_lowest_is_placed() -> None:
    """And said to be where it asked to be."""
    placed = place(seen(pilot()), NOW)
    assert (placed.stage, placed.objection) == (LADDER["sandbox"], None)
    assert placed.promoted is not None
    assert placed.promoted.status


@given(names, names)
def test_nothing_rises(current: str, wanted: str) -> None:
    """From any stage to any other: down or level takes effect at once, up is held where the pilot is."""
    placed = place(seen(ready_pilot(stage=current, asks_for=wanted)), NOW)
    rises = LADDER[wanted].spec.rank > LADDER[current].spec.rank
    assert placed.stage is LADDER[current if rises else wanted]
    assert placed.promoted is not None
    assert placed.promoted.status is not rises
    assert placed.objection is None


@pytest.mark.parametrize("current", ["", "sandbox", "pilot"])
def test_an_unknown_stage_is_refused_with_the_known_ones(current: str) -> None:
    """In the order of their ranks; the pilot stays where it is."""
    found = ready_pilot(stage=current, asks_for="nowhere") if current else pilot(stage="nowhere")
    placed = place(seen(found), NOW)
    assert placed.stage is LADDER.get(current)
    assert placed.objection is not None
    assert placed.objection.message == (
        "no StagePolicy is named 'nowhere'; there are: sandbox, pilot, production"
    )


def test_a_pilot_whose_stage_is_gone_is_nowhere() -> None:
    """Nobody knows whether the stage asked for is above or below one that is gone: it fails closed."""
    placed = place(seen(ready_pilot(stage="gone", asks_for="sandbox")), NOW)
    assert placed.stage is None
    assert placed.objection is not None
    assert "'gone'" in placed.objection.message


def test_before_any_stage_nothing_is_placed() -> None:
    """Manifests arrive in any order."""
    placed = place(PilotSeen(pilot(), {}), NOW)
    assert placed.objection is not None
    assert placed.objection.message.endswith("there are: none yet")


MISSING: Mapping[str, tuple[dict[str, Any], str]] = {
    "time": ({"soak": "48h"}, "48h in stage 'sandbox' (there since 2026-05-31T12:00:00.250Z)"),
    "tasks": ({"minimumTasks": 20}, "evidence of 20 completed tasks"),
    "a drill": ({"drills": {"within": "168h", "maxTimeToRevoke": "5s"}}, "a passed revocation drill"),
    "claims": ({"claims": ["owned", "reviewed"]}, "proof of owned, reviewed"),
}


def missing(
    wanted: str = "pilot", *, promotion: int = 0, next_rank: int = 10, **entry: Any
) -> tuple[str, ...]:
    """What a pilot that was a day in the sandbox lacks for a stage with these demands."""
    demanding = stage(
        wanted, LADDER[wanted].spec.rank, entry=entry, approvals={"promotion": {"required": promotion}}
    )
    return missing_evidence(PromotionSeen(ready_pilot(), LADDER["sandbox"], demanding, next_rank, NOW))


@pytest.mark.parametrize("entry, phrase", MISSING.values(), ids=MISSING)
def test_what_is_missing_is_told(entry: dict[str, Any], phrase: str) -> None:
    """Each demand that is not met has its phrase, and no other is told but the last."""
    assert missing(**entry)[:-1] == (phrase,)


def test_every_rise_is_held() -> None:
    """A stage that asks for nothing opens no way around: the last check always speaks."""
    assert missing() == ("promotion by evidence itself, which this version does not decide yet",)


def test_what_is_met_is_not_told() -> None:
    """A day in the sandbox is enough where a day is asked for, and a second less is not."""
    assert len(missing(soak="24h")) == 1
    assert len(missing(soak="24h0m1s")) == 2


def test_approvals_are_counted_in_words() -> None:
    """One approval, two approvals."""
    assert "1 approval of the promotion" in missing(promotion=1)
    assert "2 approvals of the promotion" in missing(promotion=2)


def test_no_rank_is_skipped() -> None:
    """From the sandbox the pilot stage is next, whatever production asks for."""
    placed = place(seen(ready_pilot(asks_for="production")), NOW + dt.timedelta(days=999))
    assert placed.promoted is not None
    assert "stage 'production' is more than one rank up" in placed.promoted.message
    assert placed.promoted.message.startswith("stays in 'sandbox'; to enter 'production' it still needs: ")
