"""An end that was recorded before a crash: the status says what the log says, and no more than it shows."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Mapping

import msgspec
import pytest

from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.holding import HOLDING_BOUND
from pilot_identity.core.decisions.plan import WITHDRAWN, OnRevocationList, SecretGone
from pilot_identity.core.decisions.proofs import UNPROVEN_AFTER
from pilot_identity.core.resources import Phase, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import Revocation
from tests.core.builders import active_grant, moment
from tests.core.decisions.test_closing import concluded, seen, status_of
from tests.core.decisions.test_level import GRANT, PILOT, with_grant
from tests.core.decisions.world import World

CLOSED, PROVEN = EntryType.GRANT_CLOSED, EntryType.GRANT_PROVEN
BREAKABLE = [SecretGone.name, OnRevocationList.name, WITHDRAWN]
STEPS = range(1, 6)


def ends_of(world: World, uid: str) -> list[tuple[int, RecordedEntry]]:
    """What the log says of a grant's end."""
    return [
        (index, entry)
        for index, entry in enumerate(world.log.entries)
        if entry.subject_uid == uid and entry.type in {CLOSED, PROVEN}
    ]


def require_told(world: World) -> None:
    """Make sure that a status claims of its grant's end what the log has, and nothing else."""
    for found in world.of_kind(TaskGrant):
        closure = found.status.closure
        if closure is None:
            continue
        (index, closed), *later = ends_of(world, found.metadata.uid)
        assert closed.type == CLOSED
        assert closure.audit_index == index
        said = [closed, *(entry for _, entry in later)]
        assert {entry.data["closure"]["outcome"] for entry in said} == {closure.outcome}
        if found.status.phase.is_terminal:
            assert found.status.phase == closure.outcome
            assert said[-1].data["closure"]["provenAt"] == encode(closure.proven_at)
        assert len(said) <= len((CLOSED, PROVEN))


def complete(world: World) -> None:
    """The workload says that its task is done."""
    world.edit(GRANT, completed=True)


@pytest.mark.parametrize("broken", BREAKABLE)
@pytest.mark.parametrize("steps", STEPS)
def test_an_end_that_is_shown_only_after_a_crash(broken: str, steps: int) -> None:
    """The entry of the end does not show it, and stays; another shows it before the status says so."""
    world = with_grant()
    world.broken.add(broken)
    complete(world)
    world.make_pass(GRANT, steps=steps)
    require_told(world)
    was_recorded = bool(ends_of(world, world.grant().metadata.uid))
    world.restart()
    world.mend()
    world.settle()
    require_told(world)
    assert world.grant().status.phase is Phase.COMPLETED
    ends = [entry.type for _, entry in ends_of(world, world.grant().metadata.uid)]
    assert ends == ([CLOSED, PROVEN] if was_recorded else [CLOSED])
    world.check_rest()
    world.now += dt.timedelta(days=8)
    world.settle()
    assert GRANT not in world.objects, "it goes with its retention: the log has its proof"


def test_some_step_of_that_leaves_the_end_recorded_and_not_told() -> None:
    """Else the case above would be none."""
    left = []
    for steps in STEPS:
        world = with_grant()
        world.broken.add(SecretGone.name)
        complete(world)
        world.make_pass(GRANT, steps=steps)
        left.append(bool(ends_of(world, "uid-of-task-1")) and world.grant().status.closure is None)
    assert any(left)


@pytest.mark.parametrize("steps", STEPS)
def test_an_end_that_was_shown_before_a_crash_needs_no_other_entry(steps: int) -> None:
    """The status tells of the proof that the log has."""
    world = with_grant()
    complete(world)
    world.make_pass(GRANT, steps=steps)
    world.restart()
    world.now += dt.timedelta(seconds=3)
    world.settle()
    require_told(world)
    assert [entry.type for _, entry in ends_of(world, "uid-of-task-1")] == [CLOSED]
    world.check_rest()


MEANWHILE: Mapping[str, Callable[[World], object]] = {
    "it was revoked": lambda it: it.edit(GRANT, revoke=Revocation("enough", "ana")),
    "its time was over": lambda it: setattr(it, "now", it.now + dt.timedelta(hours=2)),
    "its pilot was suspended": lambda it: it.edit(PILOT, suspend=True),
    "its pilot was deleted": lambda it: it.delete(PILOT),
    "long ago": lambda it: setattr(it, "now", it.now + UNPROVEN_AFTER),
    "its stage was frozen": lambda it: it.edit(Key("StagePolicy", "", "pilot"), freeze=True),
}


@pytest.mark.parametrize("broken", [*BREAKABLE, ""])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("meanwhile", MEANWHILE.values(), ids=MEANWHILE)
def test_another_cause_does_not_change_how_it_ended(
    meanwhile: Callable[[World], object], steps: int, broken: str
) -> None:
    """The log has said how, and once."""
    world = with_grant()
    if broken:
        world.broken.add(broken)
    complete(world)
    world.make_pass(GRANT, steps=steps)
    world.restart()
    meanwhile(world)
    world.settle()
    require_told(world)
    world.mend()
    world.now += UNPROVEN_AFTER
    world.settle()
    require_told(world)
    assert world.grant().status.phase.is_terminal
    world.check_rest()


@pytest.mark.parametrize("broken", [*BREAKABLE, ""])
@pytest.mark.parametrize("steps", STEPS)
@pytest.mark.parametrize("renews", [False, True])
def test_what_was_issued_after_an_end_that_was_taken_back_is_shown_to_be_gone_too(
    steps: int, broken: str, *, renews: bool
) -> None:
    """A suspension ended its grant, was lifted before the status said so, and the grant went on."""
    world = with_grant(duration="60m")
    if broken:
        world.broken.add(broken)
    world.edit(PILOT, suspend=True)
    world.make_pass(GRANT, steps=steps)
    world.restart()
    world.mend()
    world.edit(PILOT, suspend=False)
    world.settle()
    if renews:
        world.now += dt.timedelta(minutes=4)
        world.settle()
    is_running = world.grant().status.phase is Phase.ACTIVE
    complete(world)
    world.settle()
    require_told(world)
    world.check_rest()
    known = world.grant().status.credential
    assert known is not None
    if is_running:
        withdrawn = [entry.data["withdrawn"]["id"] for _, entry in ends_of(world, "uid-of-task-1")]
        assert withdrawn[-1] == known.id, "the last word is on what was out last"


@pytest.mark.parametrize("steps", STEPS)
def test_a_deleted_grant_goes_with_its_proof_or_its_tombstone(steps: int) -> None:
    """Whatever was recorded of its end before."""
    world = with_grant()
    world.broken.add(SecretGone.name)
    world.delete(GRANT)
    world.make_pass(GRANT, steps=steps)
    world.restart()
    world.now += HOLDING_BOUND
    world.settle()
    assert GRANT not in world.objects


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"closure": "over"},
        {"closure": {"outcome": "Other"}},
        {"closure": {"outcome": "Completed"}, "withdrawn": "all"},
    ],
)
def test_an_end_that_cannot_be_read_hinders_none(data: dict[str, object]) -> None:
    """Access is cut, tested and recorded as ever."""
    world = with_grant()
    known = world.log.entries[-1]
    entry = msgspec.structs.replace(known, type=str(CLOSED), data=data)
    case = seen(active_grant(completed=True), closed=(9, entry))
    plan = decide_grant(case, moment())
    assert plan.withdraw
    assert status_of(concluded(plan)).phase is Phase.COMPLETED
    assert [one.type for one in concluded(plan).entries] == [CLOSED]
