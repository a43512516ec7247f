from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from pilot_identity.control.store import Store
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW
from pilot_identity.core.decisions.stage_keys import OLDEST
from pilot_identity.core.resources import Approval, PilotIdentity, Resource, StagePolicy, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.parsing import parse
from tests.fakes import manifests
from tests.fakes.clock import START

STAGE = Key("StagePolicy", "", "sandbox")
OTHER_STAGE = Key("StagePolicy", "", "production")
PILOT = Key("PilotIdentity", "team-a", "triage")
SHARER = Key("PilotIdentity", "team-a", "sharer")
ACTIVE, WAITING, ENDED = (Key("TaskGrant", "team-a", name) for name in ("active", "waiting", "ended"))
APPROVAL = Key("Approval", "team-a", "yes")
READY = {
    "type": "Ready",
    "status": "True",
    "reason": "KeysReady",
    "message": "",
    "lastTransitionTime": "2026-06-01T12:00:00Z",
}


def seen(body: dict[str, Any], version: int, *, uid: str = "", **status: Any) -> Resource:
    """An object as the watch tells it."""
    name = body["metadata"]["name"]
    metadata = {
        **body["metadata"],
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(version),
        "generation": 1,
    }
    return parse({**body, "metadata": metadata, "status": status})


def grant(name: str, version: int, phase: str = "Pending", **spec: Any) -> TaskGrant:
    """A grant in a phase."""
    found = seen(manifests.grant(name, **spec), version, phase=phase)
    assert isinstance(found, TaskGrant)
    return found


def pilot(name: str, version: int, **rest: Any) -> PilotIdentity:
    """A pilot whose workload is the account `shared`."""
    body = manifests.pilot(name, workload={"serviceAccountName": rest.pop("account", "shared")})
    body["spec"].update(rest.pop("spec", {}))
    found = seen(body, version, **rest)
    assert isinstance(found, PilotIdentity)
    return found


def approval(version: int, *, of: str = "waiting", **rest: Any) -> Approval:
    """An approval of a grant."""
    found = seen(manifests.approval(of=of, **rest.pop("spec", {})), version, **rest)
    assert isinstance(found, Approval)
    return found


@pytest.fixture
def store() -> Store:
    """Two stages, two pilots that share an account, and a grant of each sort."""
    filled = Store()
    for resource in (
        seen(manifests.stage(), 1),
        seen(manifests.stage("production", rank=9), 2),
        pilot("triage", 3),
        pilot(
            "sharer", 4, bundle={"stage": "sandbox", "configMapName": "pilot-bundle-sandbox", "sequence": 1}
        ),
        grant("active", 5, "Active"),
        grant("waiting", 6),
        grant("ended", 7, "Expired"),
    ):
        filled.put(resource)
    return filled


def test_a_newer_version_replaces_an_older_never_the_reverse(store: Store) -> None:
    """Events and list pages may arrive in any order."""
    newer = grant("active", 20, "Expired")
    assert store.put(newer)
    for stale in (5, 19, 20):
        assert store.put(grant("active", stale, "Active")) == frozenset()
    assert store.get(ACTIVE) == newer


def test_a_deletion_that_is_older_than_what_is_held_is_passed_over(store: Store) -> None:
    """An object that was made anew under the same name is not lost to the first one's deletion."""
    again = seen(manifests.grant("active"), 30, uid="another")
    store.put(again)
    assert store.drop(ACTIVE, version=29) == frozenset()
    assert store.get(ACTIVE) == again
    assert ACTIVE in store.drop(ACTIVE, version=30)
    assert store.get(ACTIVE) is None


def test_what_was_deleted_does_not_come_back_with_an_older_version(store: Store) -> None:
    """A page of a list, or our own write's answer, may arrive after the deletion that came later."""
    store.drop(PILOT, version=50)
    assert store.put(pilot("triage", 49)) == frozenset()
    assert store.get(PILOT) is None


def test_a_name_that_was_deleted_can_be_used_again(store: Store) -> None:
    """What comes after the deletion is another object."""
    store.drop(PILOT, version=50)
    again = pilot("triage", 51, uid="another")
    assert PILOT in store.put(again)
    assert store.pilot(PILOT) == again


def test_an_unknown_object_can_be_dropped(store: Store) -> None:
    """A deletion of what was never seen marks nothing."""
    assert store.drop(Key("TaskGrant", "team-a", "unknown"), version=99) == frozenset()


def test_the_indexes_follow_an_object_through_its_life(store: Store) -> None:
    """Grants count while they are open, accounts and bundles while their pilot is there."""
    triage, waiting = pilot("triage", 3), grant("waiting", 6)
    assert store.open_grants(triage) == 1
    assert store.active_grants(waiting) == 1
    assert store.active_grants(grant("active", 5, "Active")) == 0, "a grant does not count itself"
    store.put(grant("active", 21, "Closing"))
    assert store.open_grants(triage) == 1
    store.put(grant("active", 22, "Revoked"))
    assert (store.open_grants(triage), store.active_grants(waiting)) == (0, 0)
    assert [found.key for found in store.sharers(triage)] == [SHARER]
    store.put(pilot("sharer", 23, account="its-own"))
    assert store.sharers(triage) == ()
    bundle = {"stage": "sandbox", "configMapName": "pilot-bundle-sandbox", "sequence": 1}
    store.put(pilot("sharer", 24, bundle=bundle))
    assert store.neighbours_stages(triage.key) == {"sandbox"}
    store.drop(SHARER, version=25)
    assert (store.sharers(triage), store.neighbours_stages(triage.key)) == ((), frozenset())


def test_keys_and_stages_can_be_told(store: Store) -> None:
    """By kind, and stages by name; a deleted stage is gone."""
    assert set(store.keys("TaskGrant")) == {ACTIVE, WAITING, ENDED}
    assert set(store.stages) == {"sandbox", "production"}
    store.drop(OTHER_STAGE, version=60)
    assert set(store.stages) == {"sandbox"}
    assert len(store) == 6
    assert store.pilot(ACTIVE) is None


def test_issuing_counts_before_the_status_says_so(store: Store) -> None:
    """Passes side by side see each other, and the rate is counted over one minute."""
    waiting, other = grant("waiting", 6), grant("other", 61)
    store.note_issuing(waiting, START)
    assert store.active_grants(other) == 2
    assert store.issued_lately(other, START) == (1, START)
    assert store.issued_lately(other, START + RATE_WINDOW - dt.timedelta(seconds=1)) == (1, START)
    assert store.issued_lately(other, START + RATE_WINDOW) == (0, None)


def test_the_oldest_issue_of_the_last_minute_is_told(store: Store) -> None:
    """That is when there is room again; a grant does not count itself, however often it is tried."""
    first, second, other = grant("first", 60), grant("second", 61), grant("other", 62)
    later = START + dt.timedelta(seconds=20)
    assert store.issued_lately(other, START) == (0, None)
    store.note_issuing(first, START)
    store.note_issuing(second, later)
    assert store.issued_lately(other, later) == (2, START)
    assert store.issued_lately(first, later) == (1, later)
    assert store.issued_lately(second, later) == (1, START)
    assert store.issued_lately(other, START + RATE_WINDOW) == (1, later)
    store.note_issuing(second, START + RATE_WINDOW)
    assert store.issued_lately(other, START + RATE_WINDOW) == (1, START + RATE_WINDOW)


FROZEN = seen(manifests.stage(freeze=True), 100)
assert isinstance(FROZEN, StagePolicy)

KEYS = [
    {
        "generation": 2,
        "phase": "Active",
        "jwtKeyID": "k",
        "caNotAfter": "2030-01-01T00:00:00Z",
        "since": "2026-06-01T12:00:00Z",
    }
]

DEPENDENTS = [
    pytest.param(FROZEN, {STAGE, OTHER_STAGE, PILOT, SHARER, ACTIVE, WAITING}, id="a stage that changed"),
    pytest.param(
        seen(manifests.stage(), 100, conditions=[READY], observedGeneration=1),
        {STAGE, OTHER_STAGE, PILOT, SHARER, ACTIVE, WAITING},
        id="a stage that became ready",
    ),
    pytest.param(seen(manifests.stage(), 100, digest="sha256:0"), {STAGE}, id="a stage's digest"),
    pytest.param(seen(manifests.stage(), 100, keys=KEYS), {STAGE, SHARER}, id="a stage's keys"),
    pytest.param(
        pilot("triage", 100, spec={"suspend": True}), {PILOT, SHARER, ACTIVE, WAITING}, id="a suspended pilot"
    ),
    pytest.param(
        pilot("triage", 100, stage="production"), {PILOT, SHARER, ACTIVE, WAITING}, id="a moved pilot"
    ),
    pytest.param(pilot("triage", 100, issuances=7), {PILOT}, id="a pilot that was renewed"),
    pytest.param(
        pilot("triage", 100, account="its-own"),
        {PILOT, SHARER, ACTIVE, WAITING},
        id="a pilot that gave up an account",
    ),
    pytest.param(grant("active", 100, "Expired"), {ACTIVE, PILOT}, id="a grant that ended"),
    pytest.param(grant("waiting", 100, "Active"), {WAITING}, id="a grant that was issued"),
    pytest.param(grant("ended", 100, "Expired", completed=True), {ENDED}, id="a grant that had ended before"),
]


@pytest.mark.parametrize("change, dirty", DEPENDENTS)
def test_a_change_marks_those_whose_decision_rests_on_it(
    store: Store, change: Resource, dirty: set[Key]
) -> None:
    """Itself, and whoever reads what changed; nobody else is bothered."""
    assert store.put(change) == dirty


@pytest.mark.parametrize(
    "key, dirty",
    [
        pytest.param(STAGE, {STAGE, OTHER_STAGE, PILOT, SHARER, ACTIVE, WAITING}, id="a stage"),
        pytest.param(PILOT, {PILOT, SHARER, ACTIVE, WAITING}, id="a pilot"),
        pytest.param(ACTIVE, {ACTIVE, PILOT}, id="an open grant"),
        pytest.param(ENDED, {ENDED}, id="a grant that ended"),
    ],
)
def test_a_deletion_marks_those_whose_decision_rested_on_it(store: Store, key: Key, dirty: set[Key]) -> None:
    """As a change does."""
    assert store.drop(key, version=100) == dirty


class TestApprovals:
    """An approval marks what it is about, and what it is about marks its approvals."""

    def test_an_approval_is_found_by_the_uid_that_it_names(self, store: Store) -> None:
        """A grant made anew under the same name has none of them."""
        said = approval(20)
        assert store.put(said) == {APPROVAL, WAITING}
        assert store.approvals("uid-waiting") == (said,)
        assert store.subject(said) == store.grant(WAITING)
        store.put(seen(manifests.grant("waiting"), 21, uid="uid-another"))
        assert store.subject(said) is None
        assert store.drop(APPROVAL, version=22) == {APPROVAL, WAITING}
        assert store.approvals("uid-waiting") == ()

    def test_its_own_conditions_mark_nobody(self, store: Store) -> None:
        """What it is told is not what its subject reads of it."""
        store.put(approval(20))
        assert store.put(approval(21, conditions=[{**READY, "reason": "Waiting"}])) == {APPROVAL}
        assert store.put(approval(22, used=True)) == {APPROVAL, WAITING}

    def test_what_a_grant_asks_marks_its_approvals(self, store: Store) -> None:
        """Asked, asked anew, decided, gone."""
        store.put(approval(20))
        wait: dict[str, Any] = {"digest": "sha256:ab", "required": 1, "expiresAt": "2026-06-02T12:00:00Z"}
        asks: dict[str, Any] = {"phase": "AwaitingApproval", "approval": wait}
        assert APPROVAL in store.put(seen(manifests.grant("waiting"), 21, **asks))
        assert APPROVAL not in store.put(seen(manifests.grant("waiting"), 22, **asks, conditions=[READY]))
        decided: dict[str, Any] = {"phase": "Denied", "approval": wait, "decision": {"allowed": False}}
        assert APPROVAL in store.put(seen(manifests.grant("waiting"), 23, **decided))
        assert APPROVAL in store.drop(WAITING, version=24)

    def test_a_review_is_about_a_pilot(self, store: Store) -> None:
        """Marked by what the pilot owes."""
        said = approval(20, of="triage", spec={"kind": "PilotIdentity"})
        assert store.put(said) == {APPROVAL, PILOT}
        owed = {"grants": [], "since": "2026-06-01T12:00:00Z", "dueAt": "2026-06-01T13:00:00Z"}
        assert APPROVAL in store.put(pilot("triage", 21, reviewOwed=owed))

    def test_a_stage_is_the_clusters(self, store: Store) -> None:
        """An approval of one is in some namespace, the stage in none."""
        said = approval(20, of="sandbox", spec={"kind": "StagePolicy", "purpose": "Exception"})
        assert store.put(said) == {APPROVAL, STAGE}
        assert store.subject(said) == store.get(STAGE)


def test_an_emergency_marks_its_pilot_until_its_review_is_recorded(store: Store) -> None:
    """And is told to the pilot's pass."""
    unrecorded = {**READY, "status": "False", "reason": "ReviewUnrecorded"}
    waits = seen(manifests.grant("waiting", emergency=True), 20, phase="Pending", conditions=[unrecorded])
    assert PILOT in store.put(waits)
    triage = store.pilot(PILOT)
    assert triage is not None
    assert store.unrecorded_emergencies(triage) == (waits,)
    store.put(seen(manifests.grant("waiting", emergency=True), 21, phase="Active", conditions=[READY]))
    assert store.unrecorded_emergencies(triage) == ()


def limited(name: str, version: int, **rest: Any) -> TaskGrant:
    """A grant that waits for room."""
    reached = {**READY, "status": "False", "reason": "LimitReached"}
    found = seen(manifests.grant(name), version, phase="Pending", conditions=[reached], **rest)
    assert isinstance(found, TaskGrant)
    return found


class TestLines:
    """Who waits for room is looked at in turn, not all at once."""

    @pytest.fixture
    def line(self, store: Store) -> list[TaskGrant]:
        """Five in line, behind one that is active."""
        waiting = [limited(f"in-line-{number}", 20 + number) for number in range(5)]
        for one in waiting:
            store.put(one)
        return waiting

    def test_room_is_for_the_head_of_the_line(self, store: Store, line: list[TaskGrant]) -> None:
        """Neither for all, nor for those who wait for something else."""
        assert [store.is_next(one) for one in line] == [True, False, False, False, False]
        assert store.put(grant("active", 30, "Revoked")) == {ACTIVE, PILOT, line[0].key}

    @pytest.mark.parametrize("phase", ["Active", "Denied"])
    def test_whoever_leaves_lets_the_next_be_looked_at(
        self, store: Store, line: list[TaskGrant], phase: str
    ) -> None:
        """Issued: there may be room for more. Ended: the room is the next one's."""
        assert store.put(grant("in-line-0", 30, phase)) == {line[0].key, line[1].key}
        assert store.drop(line[1].key, version=31) == {line[1].key, line[2].key}

    def test_nobody_loses_his_place(self, store: Store, line: list[TaskGrant]) -> None:
        """By being told something, or by another's newer version."""
        store.put(limited("in-line-0", 30))
        assert line[0].key in store.put(grant("active", 31, "Revoked"))

    def test_each_is_looked_at_when_it_is_its_turn(self, store: Store, line: list[TaskGrant]) -> None:
        """Two issues a minute: the first two wait for those to lapse, the next for what comes after them."""
        second = dt.timedelta(seconds=1)
        for number in range(2):
            store.note_issuing(grant(f"issued-{number}", 40), START + number * second)
        assert [store.issued_lately(one, START + 2 * second) for one in line] == [
            (2, START),
            (2, START + second),
            (2, START + RATE_WINDOW),
            (2, START + RATE_WINDOW + second),
            (2, START + 2 * RATE_WINDOW),
        ]

    def test_those_who_gave_up_are_not_waited_for(self, store: Store, line: list[TaskGrant]) -> None:
        """The head is never told to wait for anybody but those who were issued."""
        store.note_issuing(grant("issued", 40), START)
        for number in range(4):
            store.put(grant(f"in-line-{number}", 50 + number, "Revoked"))
        assert store.issued_lately(line[4], START) == (1, START)


def test_namespaces_whose_bundle_is_behind_are_told(store: Store) -> None:
    """Of pilots that have one, and stay."""
    assert store.behind("sandbox", 1) == frozenset()
    assert store.behind("sandbox", 2) == {"team-a"}
    assert store.behind("production", 2) == frozenset()


def test_the_generation_that_signs_is_what_the_status_says(store: Store) -> None:
    """Where nothing says so it is the oldest."""
    assert (store.signing("sandbox"), store.signing("nowhere")) == (OLDEST, OLDEST)
    store.put(seen(manifests.stage(), 100, keys=KEYS))
    assert store.signing("sandbox") == 2
