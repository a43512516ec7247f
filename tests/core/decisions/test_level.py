"""Decisions look at what is: what a plan leads to needs nothing more, and a kill anywhere heals."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any

import pytest

from pilot_identity.core.decisions.announced import ABANDON_AFTER
from pilot_identity.core.decisions.pilots import TAKEN_RECHECK
from pilot_identity.core.resources import Phase
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import Revocation
from tests.core.builders import NOW, grant, pilot, stage, tool
from tests.core.decisions.world import Secret, World, started

PILOT = Key("PilotIdentity", "team-a", "triage")
GRANT = Key("TaskGrant", "team-a", "task-1")
REFUSED_ACCESS = pilot(access=[{**tool("tickets"), "dataClass": "personal"}]).spec.access
GOOD_ACCESS = pilot().spec.access


def world(**policy: Any) -> World:
    """One stage, and a pilot in it that has its identity."""
    made = started(stage("pilot", 5, **policy))
    made.put(pilot(stage="pilot"))
    made.settle()
    return made


def with_grant(**spec: Any) -> World:
    """And a grant that was issued."""
    made = world()
    made.put(grant(**spec))
    made.settle()
    assert made.grant().status.phase is Phase.ACTIVE
    return made


def add_sandbox(made: World) -> None:
    """A stage below appears, and gets its keys."""
    made.put(stage("sandbox", 0, status={}, dataClasses=["synthetic-low"]))
    made.settle()


def fall(made: World) -> None:
    """The pilot asks for the stage below."""
    add_sandbox(made)
    made.edit(PILOT, stage="sandbox", access=())


def later(made: World, by: dt.timedelta) -> None:
    """Time goes by."""
    made.now += by


def take_the_pilots_secret() -> World:
    """Somebody's own Secret stands where the pilot's would."""
    made = started(stage("pilot", 5))
    made.secrets["team-a", "pilot-svid-triage"] = Secret("u", "", "", NOW)
    made.put(pilot(stage="pilot"))
    return made


def take_the_grants_secret() -> World:
    """Somebody's own Secret stands where the grant's would."""
    made = world()
    made.secrets["team-a", "task-1"] = Secret("u", "", "", NOW)
    made.put(grant())
    return made


def displace(made: World, name: str) -> None:
    """Somebody deletes one of our Secrets, and puts one of their own in its place."""
    made.secrets["team-a", name] = Secret("u", "", "", NOW)


Change = Callable[[World], object]
Scene = tuple[Callable[[], World], Change]


def in_turn(*changes: Change) -> Change:
    """Several changes, one after another."""

    def make_all(made: World) -> None:
        for change in changes:
            change(made)

    return make_all


SCENES: Mapping[str, Scene] = {
    "a pilot registers": (lambda: started(stage("pilot", 5)), lambda it: it.put(pilot(stage="pilot"))),
    "a pilot names its account": (
        lambda: started(stage("pilot", 5)),
        lambda it: it.put(pilot(stage="pilot", workload={"serviceAccountName": "bot"})),
    ),
    "a pilot in an unknown stage": (
        lambda: started(stage("pilot", 5)),
        lambda it: it.put(pilot(stage="nowhere")),
    ),
    "a pilot is refused its data class": (world, lambda it: it.edit(PILOT, access=REFUSED_ACCESS)),
    "a pilot is edited": (world, lambda it: it.edit(PILOT, access=GOOD_ACCESS, purpose="other")),
    "a pilot changes materially": (world, lambda it: it.edit(PILOT, access=())),
    "a pilot renews": (world, lambda it: later(it, dt.timedelta(minutes=40))),
    "a pilot is suspended": (world, lambda it: it.edit(PILOT, suspend=True)),
    "a pilot falls": (world, fall),
    "a pilot falls where its data is refused": (
        world,
        in_turn(add_sandbox, lambda it: it.edit(PILOT, stage="sandbox")),
    ),
    "a pilot is deleted": (world, lambda it: it.delete(PILOT)),
    "a pilot with a grant is deleted": (with_grant, lambda it: it.delete(PILOT)),
    "a pilot's Secret is somebody's": (take_the_pilots_secret, lambda _: None),
    "a pilot's Secret became somebody's before its renewal": (
        world,
        in_turn(
            lambda it: displace(it, "pilot-svid-triage"),
            lambda it: later(it, dt.timedelta(minutes=40)),
        ),
    ),
    "a stage is frozen": (
        with_grant,
        lambda it: it.edit(Key("StagePolicy", "", "pilot"), freeze=True),
    ),
    "a grant is issued": (world, lambda it: it.put(grant())),
    "a grant is denied": (world, lambda it: it.put(grant(duration="2h"))),
    "a grant waits for its pilot": (world, lambda it: it.put(grant(pilot="nobody"))),
    "a grant waits for approval": (
        lambda: world(approvals={"grant": {"required": 1}}),
        lambda it: it.put(grant()),
    ),
    "a grant waits for its turn": (
        lambda: world(limits={"activeGrants": 1}),
        in_turn(lambda it: it.put(grant("task-0")), World.settle, lambda it: it.put(grant())),
    ),
    "a grant's Secret is somebody's": (take_the_grants_secret, lambda _: None),
    "a grant's Secret became somebody's before its renewal": (
        with_grant,
        in_turn(lambda it: displace(it, "task-1"), lambda it: later(it, dt.timedelta(minutes=4))),
    ),
    "a grant renews": (with_grant, lambda it: later(it, dt.timedelta(minutes=4))),
    "a grant lapses": (
        with_grant,
        in_turn(
            lambda it: it.edit(PILOT, access=()),
            lambda it: later(it, dt.timedelta(minutes=4)),
        ),
    ),
    "a grant expires": (with_grant, lambda it: later(it, dt.timedelta(minutes=15))),
    "a grant is completed": (with_grant, lambda it: it.edit(GRANT, completed=True)),
    "a grant is revoked": (with_grant, lambda it: it.edit(GRANT, revoke=Revocation("enough", "ana"))),
    "a grant is deleted": (with_grant, lambda it: it.delete(GRANT)),
    "a grant's pilot is suspended": (with_grant, lambda it: it.edit(PILOT, suspend=True)),
    "a grant's pilot falls": (with_grant, fall),
}


@pytest.mark.parametrize("begin, act", SCENES.values(), ids=SCENES)
def test_what_a_plan_leads_to_needs_nothing_more(
    begin: Callable[[], World], act: Callable[[World], object]
) -> None:
    """Deciding again on the state that the plans led to gives an empty plan, also after a restart."""
    made = begin()
    act(made)
    made.settle()
    made.check_rest()
    written = made.effects
    made.restart()
    made.check_rest()
    made.settle()
    assert made.effects == written


@pytest.mark.parametrize("forget", [True, False], ids=["killed", "stopped by a conflict"])
@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("begin, act", SCENES.values(), ids=SCENES)
def test_a_pass_that_ends_early_is_made_good(
    begin: Callable[[], World], act: Callable[[World], object], steps: int, *, forget: bool
) -> None:
    """Stopped after any step, the next passes come to the same end, and issue nothing twice."""
    smooth, rough = begin(), begin()
    act(smooth)
    smooth.settle()
    act(rough)
    for key in list(rough.objects):
        if key in rough.objects:
            rough.make_pass(key, steps=steps)
    if forget:
        rough.restart()
    rough.now += ABANDON_AFTER
    rough.settle()
    rough.check_rest()
    assert rough.objects.keys() == smooth.objects.keys()
    for key, found in rough.objects.items():
        assert [(one.type, one.status, one.reason) for one in found.status.conditions] == [
            (one.type, one.status, one.reason) for one in smooth.objects[key].status.conditions
        ], key


Detour = tuple[Callable[[], World], Key, Change, Change, Change]
DETOURS: Mapping[str, Detour] = {
    "a first SVID, then an unknown stage and back": (
        lambda: started(stage("pilot", 5)),
        PILOT,
        lambda it: it.put(pilot(stage="pilot")),
        lambda it: it.edit(PILOT, stage="nowhere"),
        lambda it: it.edit(PILOT, stage="pilot"),
    ),
    "a first SVID, then refused access and back": (
        lambda: started(stage("pilot", 5)),
        PILOT,
        lambda it: it.put(pilot(stage="pilot")),
        lambda it: it.edit(PILOT, access=REFUSED_ACCESS),
        lambda it: it.edit(PILOT, access=GOOD_ACCESS),
    ),
    "a first SVID, then suspended and back": (
        lambda: started(stage("pilot", 5)),
        PILOT,
        lambda it: it.put(pilot(stage="pilot")),
        lambda it: it.edit(PILOT, suspend=True),
        lambda it: it.edit(PILOT, suspend=False),
    ),
    "a renewed SVID, then refused access and back": (
        world,
        PILOT,
        lambda it: later(it, dt.timedelta(minutes=40)),
        lambda it: it.edit(PILOT, access=REFUSED_ACCESS),
        lambda it: it.edit(PILOT, access=GOOD_ACCESS),
    ),
    "a renewal in whose place somebody's Secret is, until it is taken away": (
        world,
        PILOT,
        in_turn(
            lambda it: displace(it, "pilot-svid-triage"),
            lambda it: later(it, dt.timedelta(minutes=40)),
        ),
        lambda it: later(it, TAKEN_RECHECK),
        lambda it: it.secrets.pop(("team-a", "pilot-svid-triage")),
    ),
    "a fall, then the stage before": (
        world,
        PILOT,
        fall,
        lambda it: it.edit(PILOT, stage="pilot"),
        lambda it: later(it, dt.timedelta(minutes=40)),
    ),
    "a suspension, taken back": (
        world,
        PILOT,
        lambda it: it.edit(PILOT, suspend=True),
        lambda it: it.edit(PILOT, suspend=False),
        lambda it: later(it, dt.timedelta(minutes=40)),
    ),
    "a renewed grant, whose pilot is refused and accepted again": (
        with_grant,
        GRANT,
        lambda it: later(it, dt.timedelta(minutes=4)),
        lambda it: it.edit(PILOT, access=()),
        lambda it: it.edit(PILOT, access=GOOD_ACCESS),
    ),
    "a first grant, whose pilot is suspended": (
        world,
        GRANT,
        lambda it: it.put(grant()),
        lambda it: it.edit(PILOT, suspend=True),
        lambda it: it.edit(PILOT, suspend=False),
    ),
}


@pytest.mark.parametrize("forget", [True, False], ids=["killed", "stopped by a conflict"])
@pytest.mark.parametrize("steps", range(1, 8))
@pytest.mark.parametrize("detour", DETOURS.values(), ids=DETOURS)
def test_a_change_of_mind_after_a_pass_that_ended_early_is_made_good(
    detour: Detour, steps: int, *, forget: bool
) -> None:
    """What was announced or released in the pass that was cut short is adopted, abandoned or withdrawn."""
    begin, key, first, *changes = detour
    made = begin()
    first(made)
    made.make_pass(key, steps=steps)
    if forget:
        made.restart()
    for change in changes:
        change(made)
        made.settle()
        made.check_rest()
