"""Rotation: when the next generation of keys is made, signs and goes, and that nobody could notice."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.decisions.announced import ABANDON_AFTER
from pilot_identity.core.decisions.key_rotation import (
    LONGEST_LIFE,
    STRAGGLING_HINTS,
    Activate,
    Prepare,
    Rest,
    Retire,
    Step,
    keys_of,
    next_step,
)
from pilot_identity.core.decisions.plan import Outcome, Plan, RetireKeys
from pilot_identity.core.decisions.stage_keys import Generation, bundle_sequence, facts_of
from pilot_identity.core.decisions.stages import StageSeen, decide_stage, is_ready
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.stage_policy import KeyPhase, KeyStatus, StagePolicyStatus
from pilot_identity.core.spiffe.rotation import Publication, publication_violations
from tests.core.builders import NOW, moment, stage

DAY, HOUR, MINUTE = dt.timedelta(days=1), dt.timedelta(hours=1), dt.timedelta(minutes=1)
HINT = 5 * MINUTE
NOBODY = frozenset[str]()
SOMEBODY = frozenset({"team-a"})
HOUR_LONG = Duration(hours=1)


def generation(
    number: int, *, age: dt.timedelta = DAY, left: dt.timedelta = 365 * DAY, **other: Any
) -> Generation:
    """A generation of the sandbox that is so old and has so much left."""
    return Generation(number, "sandbox.example.org", NOW - age, NOW + left, f"key-{number}", **other)


def told(
    number: int, phase: str, since: dt.timedelta = dt.timedelta(0), *, life: Duration | None = HOUR_LONG
) -> KeyStatus:
    """What the status says of a generation that came into its phase so long ago."""
    return KeyStatus(
        number, KeyPhase(phase), f"key-{number}", NOW + 365 * DAY, NOW - since, longest_life=life
    )


def prepared(number: int, *, published: dt.timedelta | None, since: dt.timedelta = HOUR) -> KeyStatus:
    """What the status says of a generation that is in every bundle for so long."""
    at = NOW - published if published is not None else None
    return msgspec.structs.replace(told(number, "Prepared", since, life=None), published_at=at)


def step_of(
    generations: tuple[Generation, ...],
    *statuses: KeyStatus,
    behind: frozenset[str] = NOBODY,
    **keys: Any,
) -> Step:
    """The next step in a stage whose status says this."""
    policy = stage(keys=keys)
    status = msgspec.structs.replace(policy.status, keys=statuses)
    return next_step(keys_of(msgspec.structs.replace(policy, status=status), generations, behind, NOW))


ONE, TWO, THREE = generation(1), generation(2), generation(3)
ASKED = generation(2, rotate="incident")
EXPIRING = generation(1, age=335 * DAY, left=30 * DAY)
DUE = generation(1, age=358 * DAY, left=7 * DAY)
EXPIRED = generation(1, age=365 * DAY, left=dt.timedelta(0))
ACTIVE = told(1, "Active", DAY)
LAPSED = HOUR + ABANDON_AFTER

STEPS: Mapping[str, tuple[Step, str]] = {
    "a young generation signs alone": (step_of((ONE,), ACTIVE), "rest"),
    "30 days of a year are left": (step_of((EXPIRING,), ACTIVE), "prepare age"),
    "half of a short life is left": (
        step_of((generation(1, age=5 * DAY, left=5 * DAY),), ACTIVE),
        "prepare age",
    ),
    "a little more than half of it is left": (
        step_of((generation(1, age=5 * DAY, left=5 * DAY + MINUTE),), ACTIVE),
        "rest",
    ),
    "an admin says a word": (step_of((ONE,), ACTIVE, rotate="incident"), "prepare asked"),
    "it was made under that word": (step_of((ASKED,), told(2, "Active"), rotate="incident"), "rest"),
    "the word is taken away": (step_of((ASKED,), told(2, "Active")), "rest"),
    "another word follows": (step_of((ASKED,), told(2, "Active"), rotate="next"), "prepare asked"),
    "the word comes while the next is prepared": (
        step_of((ONE, ASKED), ACTIVE, prepared(2, published=MINUTE), rotate="again"),
        "rest",
    ),
    "the word comes while an older one stands": (
        step_of((ONE, ASKED), told(1, "Old"), told(2, "Active"), rotate="again"),
        "prepare asked",
    ),
    "three stand already": (
        step_of((ONE, TWO, THREE), told(1, "Old"), told(2, "Old"), told(3, "Active"), rotate="again"),
        "rest",
    ),
    "its keys are not trusted": (step_of((ONE,), ACTIVE, distrusted=[1]), "prepare distrusted"),
    "the one that will sign is not trusted": (
        step_of((ONE, TWO), ACTIVE, prepared(2, published=None), distrusted=[2]),
        "activate distrusted",
    ),
    "an older one is in the way of one that is not trusted": (
        step_of((ONE, TWO), told(1, "Old"), told(2, "Active"), distrusted=[2]),
        "retire distrusted",
    ),
    "one that is gone was not trusted": (step_of((TWO,), told(2, "Active"), distrusted=[1]), "rest"),
    "others are not trusted": (step_of((ONE,), ACTIVE, distrusted=[2, 3]), "rest"),
    "the next is in every bundle for five hints, and not for the life of a credential": (
        step_of((ONE, ASKED), ACTIVE, prepared(2, published=5 * HINT)),
        "rest",
    ),
    "the next is in every bundle for the life of a credential": (
        step_of((ONE, ASKED), ACTIVE, prepared(2, published=HOUR)),
        "activate asked",
    ),
    "the life of a credential is shorter than five hints": (
        step_of(
            (ONE, ASKED),
            told(1, "Active", DAY, life=Duration(minutes=1)),
            prepared(2, published=5 * HINT - MINUTE),
        ),
        "rest",
    ),
    "the hint before was longer": (
        step_of((generation(1, refresh_hint=HOUR), ASKED), ACTIVE, prepared(2, published=5 * HOUR - MINUTE)),
        "rest",
    ),
    "a bundle does not have the next": (
        step_of((ONE, ASKED), ACTIVE, prepared(2, published=None), behind=SOMEBODY),
        "rest",
    ),
    "a bundle cannot be written for an hour": (
        step_of(
            (ONE, ASKED), ACTIVE, prepared(2, published=None, since=STRAGGLING_HINTS * HINT), behind=SOMEBODY
        ),
        "rest",
    ),
    "the next is prepared for its age, long before": (
        step_of((EXPIRING, TWO), ACTIVE, prepared(2, published=2 * DAY)),
        "rest",
    ),
    "7 days of a year are left": (
        step_of((DUE, TWO), ACTIVE, prepared(2, published=2 * DAY)),
        "activate age",
    ),
    "the word comes when the next is prepared for its age": (
        step_of((EXPIRING, TWO), ACTIVE, prepared(2, published=2 * DAY), rotate="incident"),
        "activate asked",
    ),
    "the one that signs is not trusted": (
        step_of((ONE, TWO), ACTIVE, prepared(2, published=None), behind=SOMEBODY, distrusted=[1]),
        "activate distrusted",
    ),
    "the one that signs has expired": (
        step_of((EXPIRED, TWO), ACTIVE, prepared(2, published=None), behind=SOMEBODY),
        "activate expired",
    ),
    "something that it signed may be alive": (
        step_of((ONE, TWO), told(1, "Old", LAPSED - MINUTE), told(2, "Active")),
        "rest",
    ),
    "all that it signed has lapsed": (
        step_of((ONE, TWO), told(1, "Old", LAPSED), told(2, "Active")),
        "retire lapsed",
    ),
    "a list is by its keys yet": (
        step_of((ONE, TWO), told(1, "Old", LAPSED), told(2, "Active"), behind=SOMEBODY),
        "rest",
    ),
    "a list cannot be written for an hour": (
        step_of((ONE, TWO), told(1, "Old", LAPSED + 12 * HINT), told(2, "Active"), behind=SOMEBODY),
        "retire lapsed",
    ),
    "its life is not known": (
        step_of((ONE, TWO), told(1, "Old", DAY - MINUTE, life=None), told(2, "Active")),
        "rest",
    ),
    "its keys are old and not trusted": (
        step_of((ONE, TWO), told(1, "Old"), told(2, "Active"), behind=SOMEBODY, distrusted=[1]),
        "retire distrusted",
    ),
    "of two old ones the older has lapsed": (
        step_of((ONE, TWO, THREE), told(1, "Old", DAY), told(2, "Old"), told(3, "Active")),
        "retire lapsed",
    ),
}


@pytest.mark.parametrize("step, expected", STEPS.values(), ids=STEPS)
def test_the_next_step_where(step: Step, expected: str) -> None:
    """One at a time, and none too early."""
    match step:
        case Prepare(number, why):
            assert number >= 2
            found = f"prepare {why}"
        case Activate(after, before, why):
            assert (after.phase, after.since, before.generation) == (
                KeyPhase.ACTIVE,
                NOW,
                after.generation - 1,
            )
            found = f"activate {why}"
        case Retire(gone, why):
            assert gone.generation == 1
            found = f"retire {why}"
        case Rest(until):
            assert until > NOW, "it never spins"
            found = "rest"
    assert found == expected


def test_a_lost_status_makes_a_rotation_late_never_early() -> None:
    """The older generation is taken to sign, and to have signed for as long as a stage may allow."""
    policy = msgspec.structs.replace(stage(), status=StagePolicyStatus())
    keys = keys_of(policy, (ONE, TWO), NOBODY, NOW)
    assert [one.phase for one in keys.phases] == [KeyPhase.ACTIVE, KeyPhase.PREPARED]
    assert keys.phases[0].longest_life == LONGEST_LIFE
    assert isinstance(next_step(keys), Rest)


def test_the_first_keys_of_a_new_stage_have_signed_nothing_yet() -> None:
    """So their longest life is what the stage allows now."""
    fresh = msgspec.structs.replace(stage(), status=StagePolicyStatus())
    new = generation(1, age=dt.timedelta(0))
    (known,) = keys_of(fresh, (new,), NOBODY, NOW).phases
    assert known.longest_life == HOUR


def test_a_longer_life_is_remembered_when_the_stage_allows_less_again() -> None:
    """What was issued under the longer one is still out."""
    known = told(1, "Active", life=Duration(hours=20))
    policy = stage()
    policy = msgspec.structs.replace(policy, status=msgspec.structs.replace(policy.status, keys=(known,)))
    assert keys_of(policy, (ONE,), NOBODY, NOW).signing.longest_life == Duration(hours=20)


MISSING: Mapping[str, tuple[tuple[Generation, ...], tuple[KeyStatus, ...], str]] = {
    "the one that signs": ((TWO,), (ACTIVE, prepared(2, published=HOUR)), "generation 1"),
    "the one that will sign": ((ONE,), (ACTIVE, prepared(2, published=HOUR)), "generation 2"),
    "one in the middle": ((ONE, THREE), (told(1, "Old"), told(2, "Old"), told(3, "Active")), "only [1, 3]"),
}


@pytest.mark.parametrize("generations, statuses, message", MISSING.values(), ids=MISSING)
def test_a_stage_stops_where_keys_are_lost(
    generations: tuple[Generation, ...], statuses: tuple[KeyStatus, ...], message: str
) -> None:
    """They are not replaced in silence: verifiers hold them."""
    policy = stage()
    policy = msgspec.structs.replace(policy, status=msgspec.structs.replace(policy.status, keys=statuses))
    plan = decide_stage(StageSeen(policy, (), generations, NOW), moment())
    assert plan.status is not None
    status = plan.status(Outcome())
    assert isinstance(status, StagePolicyStatus)
    ready = find(status.conditions, ConditionType.READY)
    assert ready is not None
    assert (ready.status, ready.reason) == ("False", Reason.KEYS_MISSING)
    assert message in ready.message
    assert plan.make_keys is None
    assert status.keys == statuses


@dataclass
class Room:
    """One stage, its keys, its log, and one namespace with a bundle; a pass can be cut off after any step.

    Attributes:
        bundles: what the namespace's bundle had, since when.
        out: what was signed: by which generation, and when it lapses.
        known: since when each generation is in the namespace's bundle.
    """

    policy: StagePolicy
    now: dt.datetime = NOW
    stored: tuple[Generation, ...] = ()
    bundle: tuple[int, ...] = ()
    sequence: int = 0
    known: dict[int, dt.datetime] = field(default_factory=dict)
    out: list[tuple[int, dt.datetime]] = field(default_factory=list)
    entries: dict[str, tuple[EntryType, int]] = field(default_factory=dict)
    signers: list[int] = field(default_factory=list)
    effects: int = 0

    def pass_(self, *, steps: int) -> Plan:
        """Make a pass, at most so many of its steps."""
        facts = facts_of(self.stored, self.policy.status.signing)
        behind = NOBODY
        if facts is not None and self.bundle and self.sequence != facts.sequence:
            behind = SOMEBODY
        self.effects += 1
        at = moment(self.now, self.effects)
        plan = decide_stage(StageSeen(self.policy, (), self.stored, self.now, behind), at)
        for step in (self._make, self._record, self._retire, self._tell)[:steps]:
            step(plan)
        return plan

    def _make(self, plan: Plan) -> None:
        order = plan.make_keys
        if order is not None:
            number = order.generation
            self.entries[order.announce({}).id] = (EntryType.STAGE_KEYS_MADE, number)
            made = Generation(
                number,
                order.trust_domain.name,
                self.now,
                order.not_after,
                f"key-{number}",
                order.rotate,
                order.refresh_hint,
            )
            assert number not in {one.number for one in self.stored}
            self.stored = (*self.stored, made)

    def _record(self, plan: Plan) -> None:
        for entry in plan.entries:
            if entry.type in {EntryType.STAGE_KEYS_ROTATED, EntryType.STAGE_KEYS_RETIRED}:
                self.entries.setdefault(entry.id, (entry.type, entry.data["generation"]))

    def _retire(self, plan: Plan) -> None:
        if plan.retire_keys is not None:
            _, number = plan.retire_keys.stage, plan.retire_keys.generation
            assert (EntryType.STAGE_KEYS_RETIRED, number) in self.entries.values(), "recorded first"
            self.stored = tuple(one for one in self.stored if one.number != number)

    def _tell(self, plan: Plan) -> None:
        if plan.status is not None:
            status = plan.status(Outcome())
            assert isinstance(status, StagePolicyStatus)
            if status.signing > 1:
                assert (EntryType.STAGE_KEYS_ROTATED, status.signing) in self.entries.values()
            self.policy = msgspec.structs.replace(self.policy, status=status)

    def publish(self) -> None:
        """Bring the namespace's bundle up to date."""
        numbers = tuple(one.number for one in self.stored)
        if not numbers or numbers == self.bundle:
            return
        sequence = bundle_sequence(self.stored)
        assert sequence > self.sequence, "spiffe_sequence rises with every change"
        self.bundle, self.sequence = numbers, sequence
        for number in numbers:
            self.known.setdefault(number, self.now)
        for number, lapses in self.out:
            assert number in numbers or lapses <= self.now, "what is out verifies with the bundle"

    def issue(self, life: dt.timedelta) -> None:
        """Issue a credential of that life, if the stage would."""
        facts = facts_of(self.stored, self.policy.status.signing)
        if not is_ready(self.policy) or facts is None or not self.bundle:
            return
        number = self.policy.status.signing
        hints = [one.refresh_hint for one in self.stored]
        if number > 1:
            used = Publication(self.known[number], self.now, max(hints))
            assert publication_violations(used) == (), "no key signs that was not published long enough"
        self.out.append((number, min(self.now + life, facts.not_after)))
        if self.signers[-1:] != [number]:
            self.signers.append(number)

    def edit(self, **keys: Any) -> None:
        """An admin changes how the stage's keys are rotated."""
        spec = msgspec.structs.replace(
            self.policy.spec, keys=msgspec.structs.replace(self.policy.spec.keys, **keys)
        )
        number = self.policy.metadata.generation + 1
        metadata = msgspec.structs.replace(self.policy.metadata, generation=number)
        self.policy = msgspec.structs.replace(self.policy, spec=spec, metadata=metadata)


ACTS = st.one_of(
    st.tuples(st.just("pass"), st.integers(0, 4)),
    st.tuples(st.just("settle"), st.integers(2, 8)),
    st.tuples(st.just("wait"), st.integers(1, 3600)),
    st.tuples(st.just("days"), st.integers(1, 4)),
    st.tuples(st.just("rotate"), st.integers(0, 3)),
)


@settings(max_examples=150)
@given(st.lists(ACTS, max_size=120), st.sampled_from(["168h", "43800h"]))
def test_nobody_could_notice_a_rotation(acts: list[tuple[str, int]], lifetime: str) -> None:
    """No key signs that was not published long enough; no bundle is without keys of what is out."""
    fresh = stage(keys={"lifetime": lifetime})
    room = Room(msgspec.structs.replace(fresh, status=StagePolicyStatus()))
    for act, number in [("settle", 3), *acts]:
        match act:
            case "pass":
                room.pass_(steps=number)
            case "settle":
                for _ in range(number):
                    room.pass_(steps=4)
                    room.publish()
            case "wait":
                room.now += dt.timedelta(seconds=number)
            case "days":
                # Nothing stays unwritten for an hour; what becomes of that is told elsewhere.
                for _ in range(3):
                    room.pass_(steps=4)
                    room.publish()
                room.now += number * DAY
            case _:
                room.edit(rotate=f"word-{number}" if number else "")
        room.issue(HOUR)
        if act != "wait":
            # Nobody is slower than this: what cannot be written for an hour holds nothing up for longer.
            room.publish()
    for _ in range(30):
        room.pass_(steps=4)
        room.publish()
        room.issue(HOUR)
        room.now += HOUR
    assert room.signers == sorted(set(room.signers)), "each signs once, in order"
    retired = [number for kind, number in room.entries.values() if kind is EntryType.STAGE_KEYS_RETIRED]
    assert retired == sorted(set(retired))
    assert room.policy.status.keys
    assert {one.number for one in room.stored} == {one.generation for one in room.policy.status.keys}


def test_an_expired_authority_is_told_and_replaced() -> None:
    """The stage says that it issues nothing, makes the next keys, and signs with them at once."""
    policy = stage()
    policy = msgspec.structs.replace(policy, status=msgspec.structs.replace(policy.status, keys=(ACTIVE,)))
    room = Room(policy, stored=(EXPIRED,))
    room.pass_(steps=4)
    ready = find(room.policy.status.conditions, ConditionType.READY)
    assert ready is not None
    assert ready.reason == Reason.CA_EXPIRED
    for _ in range(4):
        room.pass_(steps=4)
    assert is_ready(room.policy)
    assert room.policy.status.signing == 2
    assert room.policy.status.ca_not_after is not None
    assert room.policy.status.ca_not_after > NOW


@pytest.mark.parametrize("named", [(1, 2), (2,), (2, 7, 1_000_000)])
def test_what_is_not_trusted_is_gone_at_once_and_no_more_than_that(named: tuple[int, ...]) -> None:
    """Signer and successor are replaced within a few passes, and then it rests, whatever else is named."""
    policy = stage()
    statuses = (ACTIVE, prepared(2, published=MINUTE))
    policy = msgspec.structs.replace(policy, status=msgspec.structs.replace(policy.status, keys=statuses))
    room = Room(policy, stored=(ONE, TWO), bundle=(1, 2), sequence=2)
    room.edit(distrusted=named)
    for _ in range(20):
        room.pass_(steps=4)
        room.publish()
    assert [(one.generation, one.phase) for one in room.policy.status.keys] == [(3, KeyPhase.ACTIVE)]
    assert [one.number for one in room.stored] == [3]
    assert room.pass_(steps=4).status is None


def test_the_word_is_recorded_under_the_name_of_who_said_it() -> None:
    """Policy first, then the keys that it asks for."""
    policy = stage(keys={"rotate": "incident"}, meta={"annotations": {"pilotidentity.dev/changed-by": "ada"}})
    policy = msgspec.structs.replace(
        policy, status=msgspec.structs.replace(policy.status, observed_generation=0, keys=(ACTIVE,))
    )
    seen = StageSeen(policy, (), (ONE,), NOW)
    first = decide_stage(seen, moment())
    assert [entry.type for entry in first.entries] == [EntryType.STAGE_POLICY_CHANGED]
    assert first.make_keys is None
    assert first.status is not None
    status = first.status(Outcome())
    assert isinstance(status, StagePolicyStatus)
    then = decide_stage(replace(seen, stage=msgspec.structs.replace(policy, status=status)), moment())
    assert then.make_keys is not None
    entry = then.make_keys.announce({"jwtKeyID": "k"})
    assert entry.type is EntryType.STAGE_KEYS_MADE
    assert (entry.data["generation"], entry.data["why"], entry.data["rotate"]) == (2, "asked", "incident")
    assert entry.data["changedBy"] == "ada"


def test_what_is_retired_is_deleted_after_its_entry_and_then_told() -> None:
    """A crash between the two finds the same entry again."""
    policy = stage()
    statuses = (told(1, "Old", DAY), told(2, "Active", DAY))
    policy = msgspec.structs.replace(policy, status=msgspec.structs.replace(policy.status, keys=statuses))
    room = Room(policy, stored=(ONE, TWO), bundle=(1, 2), sequence=2)
    room.entries["rotated"] = (EntryType.STAGE_KEYS_ROTATED, 2)
    room.pass_(steps=4)
    plan = room.pass_(steps=2)
    assert plan.retire_keys == RetireKeys("sandbox", 1)
    again = room.pass_(steps=3)
    assert [entry.id for entry in again.entries] == [entry.id for entry in plan.entries]
    assert room.stored == (TWO,)
    after = room.pass_(steps=4)
    assert plan.entries[0].id in {entry.id for entry in after.entries}
    assert [one.generation for one in room.policy.status.keys] == [2]
