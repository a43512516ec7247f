from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES, EntryType, encode_entry
from pilot_identity.core.decisions.announced import ABANDON_AFTER, Holding
from pilot_identity.core.decisions.holding import HOLDING_BOUND
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.pilots import TAKEN_RECHECK, decide_pilot
from pilot_identity.core.decisions.plan import (
    DeleteCredential,
    MakeServiceAccount,
    Outcome,
    Owner,
    Plan,
    PublishBundle,
    RemoveBundle,
)
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.metadata import FINALIZER
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import PilotIdentityStatus
from tests.core.builders import CA_END, NOW, TOOL, deleting, grant, moment, pilot, ready_pilot, stage, tool
from tests.core.decisions.world import World, started
from tests.core.schema import misfits, schema_of

LADDER = {"sandbox": stage(), "pilot": stage("pilot", 10)}
CUT = DeleteCredential("team-a", "pilot-svid-triage", "uid-of-secret")
LEAVING = Owner(pilot().key, "uid-of-triage")
DUE = NOW + dt.timedelta(minutes=2)


def seen(found: PilotIdentity | None = None, **facts: Any) -> PilotSeen:
    """A pilot against which nothing speaks but what the case changes."""
    known = {
        "ca_not_after": dict.fromkeys(LADDER, CA_END),
        "bundle_sequences": dict.fromkeys(LADDER, 1),
        **facts,
    }
    return PilotSeen(found or pilot(), LADDER, **known)


def kinds(plan: Plan) -> list[str]:
    """What the entries of a plan tell: the types' middle words, in order."""
    return [".".join(entry.type.split(".")[2:-1]) for entry in plan.entries]


def status_of(plan: Plan) -> PilotIdentityStatus:
    """The status that a plan writes."""
    assert plan.status is not None
    status = plan.status(Outcome(9, "uid-of-secret"))
    assert isinstance(status, PilotIdentityStatus)
    return status


def test_a_pilot_gets_its_identity() -> None:
    """Held first, its account and bundle beside it, announced, and told with what applying it told."""
    plan = decide_pilot(seen(), moment())
    owner = Owner(pilot().key, "uid-of-triage")
    assert plan.hold
    assert set(plan.prepare) == {
        PublishBundle("team-a", "sandbox"),
        MakeServiceAccount(owner, "pilot-workload-triage"),
    }
    assert plan.release is not None
    assert (plan.release.secret, plan.release.replaces, plan.release.order.tokens) == (
        "pilot-svid-triage",
        "",
        (),
    )
    entry = plan.release.announce("ab" * 32)
    assert (entry.id, entry.type.value) == (
        "uid-of-triage/credential/1",
        "dev.pilotidentity.pilot.registered.v1",
    )
    (defined,) = plan.entries
    assert defined.type is EntryType.PILOT_DEFINED
    assert defined.data["definition"]["owners"] == {"business": "ana", "technical": "tom"}
    status = status_of(plan)
    assert status.spiffe_id == "spiffe://sandbox.example.org/ns/team-a/pilot/triage"
    assert (status.stage, status.issuances) == ("sandbox", 1)
    assert status.credential is not None
    assert (status.credential.audit_index, status.credential.secret_uid) == (9, "uid-of-secret")


@pytest.mark.parametrize("jitter, minutes", [(0.0, 24), (0.5, 30), (1.0, 36)])
def test_a_renewal_is_due_at_half_the_lifetime_give_or_take(jitter: float, minutes: int) -> None:
    """A fleet does not renew at once."""
    start = NOW.replace(microsecond=0)
    assert decide_pilot(seen(), moment(jitter=jitter)).recheck_at == start + dt.timedelta(minutes=minutes)


def test_a_held_pilot_is_not_held_again() -> None:
    """A finalizer that was stamped at creation costs no write."""
    assert not decide_pilot(seen(pilot(meta={"finalizers": [FINALIZER]})), moment()).hold


def test_a_named_account_is_not_made() -> None:
    """What the team names is the team's."""
    plan = decide_pilot(seen(pilot(workload={"serviceAccountName": "bot"})), moment())
    assert plan.prepare == (PublishBundle("team-a", "sandbox"),)
    assert status_of(plan).service_account_name == "bot"


OLDER = pilot("other", meta={"creationTimestamp": "2026-05-01T00:00:00Z"})
YOUNGER = pilot("other", meta={"creationTimestamp": "2026-06-01T11:59:00Z"})
REFUSED: Mapping[str, tuple[PilotSeen, str, str, bool]] = {
    "its stage is unknown": (seen(pilot(stage="nowhere")), "UnknownStage", "named 'nowhere'", True),
    "it starts too high": (seen(pilot(stage="pilot")), "StageAboveEntry", "rises on evidence", True),
    "its data class is not the stage's": (
        seen(pilot(access=[{**TOOL, "dataClass": "personal"}])),
        "DataClassOutsideStage",
        "access 'tickets' has data class 'personal'; stage 'sandbox' allows synthetic",
        True,
    ),
    "an older pilot has its account": (
        seen(sharers=(OLDER,)),
        "ServiceAccountShared",
        "already the workload of pilot 'other'",
        True,
    ),
    "its account is somebody's": (
        seen(account_is_free=False),
        "ServiceAccountTaken",
        "'pilot-workload-triage' exists that was not made for this pilot",
        True,
    ),
    "its stage has no keys": (
        seen(ca_not_after={}),
        "StageNotReady",
        "kubectl describe stage sandbox",
        False,
    ),
    "its Secret's name is taken": (
        seen(holding=Holding.FOREIGN),
        "SecretNameTaken",
        "a Secret 'pilot-svid-triage' exists that does not hold this pilot's identity",
        True,
    ),
}


@pytest.mark.parametrize("case, reason, message, final", REFUSED.values(), ids=REFUSED)
def test_a_pilot_is_refused_because(case: PilotSeen, reason: str, message: str, final: bool) -> None:
    """Nothing is issued; the condition says what to change, and the log has it where it is final."""
    plan = decide_pilot(case, moment())
    status = status_of(plan)
    assert (plan.release, plan.withdraw, status.credential) == (None, (), None)
    assert status.conditions[0].reason == reason
    assert message in status.conditions[0].message
    assert [one.type for one in status.conditions] == (["Ready", "Stalled"] if final else ["Ready"])
    assert kinds(plan) == ["pilot.defined", *["pilot.refused"] * final]
    assert [entry.data["reason"] for entry in plan.entries[1:]] == ([reason] if final else [])
    taken = reason in {"ServiceAccountTaken", "SecretNameTaken"}
    assert plan.recheck_at == (NOW + TAKEN_RECHECK if taken else None)


def test_a_younger_pilot_takes_no_account_away() -> None:
    """Of two the elder keeps it."""
    assert decide_pilot(seen(sharers=(YOUNGER,)), moment()).release is not None


def test_a_refused_edit_cuts_nothing() -> None:
    """What the pilot had lapses by itself."""
    plan = decide_pilot(seen(ready_pilot(access=[{**TOOL, "dataClass": "personal"}])), moment())
    assert plan.withdraw == ()
    assert status_of(plan).credential is not None


def test_nothing_happens_before_a_renewal_is_due() -> None:
    """A pilot in order costs nothing but a look at the right time."""
    settled = status_of(decide_pilot(seen(ready_pilot()), moment()))
    rested = ready_pilot(status=encode(settled))
    assert decide_pilot(seen(rested), moment()) == Plan(
        recheck_at=dt.datetime(2026, 6, 1, 12, 1, 0, 250_000, tzinfo=dt.UTC)
    )


def test_a_due_svid_is_replaced() -> None:
    """In place of exactly the one before, under the next number."""
    plan = decide_pilot(seen(ready_pilot()), moment(DUE))
    assert plan.release is not None
    assert plan.release.replaces == "credential-1"
    entry = plan.release.announce("ab" * 32)
    assert (entry.id, entry.type.value) == (
        "uid-of-triage/credential/2",
        "dev.pilotidentity.pilot.renewed.v1",
    )


def test_a_material_change_is_recorded_once() -> None:
    """What is declared now, then the digests before and after."""
    plan = decide_pilot(seen(ready_pilot(status={"digest": "sha256:before"})), moment())
    assert kinds(plan) == ["pilot.defined", "pilot.changed"]
    entry = plan.entries[1]
    assert entry.data["before"] == "sha256:before"
    assert status_of(plan).digest == entry.data["after"]


def test_each_definition_is_in_the_log_once_material_or_not() -> None:
    """Who only rewords the purpose is told, too, and who takes it back; nobody else is told twice."""
    made = started(stage())
    made.put(pilot())
    made.settle()
    for purpose in ("sorts invoices, quickly", "sorts invoices"):
        made.edit(pilot().key, purpose=purpose)
        made.settle()
    made.restart()
    made.now += dt.timedelta(hours=1)
    made.settle()
    told = [one for one in made.log.entries if one.type == EntryType.PILOT_DEFINED]
    assert [one.data["definition"]["purpose"] for one in told] == [
        "sorts invoices",
        "sorts invoices, quickly",
        "sorts invoices",
    ]
    assert [one.data["generation"] for one in told] == [1, 2, 3]
    assert EntryType.PILOT_CHANGED not in {one.type for one in made.log.entries}
    assert EntryType.PILOT_RENEWED in {one.type for one in made.log.entries}


def test_a_new_bundle_is_published() -> None:
    """A sequence that went on is written out again."""
    plan = decide_pilot(seen(ready_pilot(), bundle_sequences={"sandbox": 2}), moment())
    assert plan.prepare == (PublishBundle("team-a", "sandbox"),)
    bundle = status_of(plan).bundle
    assert bundle is not None
    assert bundle.sequence == 2


BEHIND: Mapping[str, PilotIdentity] = {
    "it is suspended": ready_pilot(suspend=True),
    "its service account is shared": ready_pilot(workload={"serviceAccountName": "shared"}),
}


@pytest.mark.parametrize("found", BEHIND.values(), ids=BEHIND)
def test_a_new_bundle_is_published_beside_a_pilot_that_gets_nothing(found: PilotIdentity) -> None:
    """Others of the namespace read it: once the pilot's own matter is settled, it follows."""
    sharers = (pilot("elder", meta={"uid": "a", "creationTimestamp": "2026-01-01T00:00:00Z"}),)
    facts = {"bundle_sequences": {"sandbox": 2}, "sharers": sharers}
    first = decide_pilot(seen(found, **facts), moment())
    assert PublishBundle("team-a", "sandbox") not in first.prepare
    settled = msgspec.structs.replace(found, status=status_of(first))
    plan = decide_pilot(seen(settled, **facts), moment())
    assert plan.prepare == (PublishBundle("team-a", "sandbox"),)
    after = msgspec.structs.replace(settled, status=status_of(plan))
    assert after.status.bundle is not None
    assert after.status.bundle.sequence == 2
    assert decide_pilot(seen(after, **facts), moment()).status is None


class TestFall:
    """A move to a lower stage: one pass ends what was, the next begins anew."""

    @staticmethod
    def fallen(found: PilotIdentity) -> PilotIdentity:
        """The pilot after the pass that cut it, as it is read back."""
        return msgspec.structs.replace(found, status=status_of(decide_pilot(seen(found), moment())))

    def test_it_takes_effect_at_once(self) -> None:
        """The old stage's credential is cut, the log and the condition say so, and nothing is issued yet."""
        plan = decide_pilot(seen(ready_pilot(stage="pilot", asks_for="sandbox")), moment())
        assert plan.withdraw == (CUT,)
        assert (plan.release, plan.prepare) == (None, ())
        assert kinds(plan) == ["pilot.defined", "pilot.stage-asked", "pilot.stage-changed"]
        asked, entry = plan.entries[1:]
        assert (asked.data["stage"], asked.data["asked"]) == ("pilot", "sandbox")
        assert (entry.type.value, entry.data["stageBefore"], entry.data["stage"]) == (
            "dev.pilotidentity.pilot.stage-changed.v1",
            "pilot",
            "sandbox",
        )
        status = status_of(plan)
        assert (status.stage, status.stage_since) == ("sandbox", NOW)
        assert (status.credential, status.spiffe_id, status.issuances) == (None, "", 1)
        assert [(one.type, one.status, one.reason) for one in status.conditions] == [
            ("Ready", "False", "StageChanged")
        ]
        assert plan.recheck_at == NOW

    def test_the_next_pass_gives_an_identity_of_the_new_stage(self) -> None:
        """Of another trust domain, under the next number, in place of nothing; the old bundle goes."""
        fallen = self.fallen(ready_pilot(stage="pilot", asks_for="sandbox"))
        plan = decide_pilot(seen(fallen), moment(number=2))
        assert plan.withdraw == (RemoveBundle(LEAVING, "pilot"),)
        assert PublishBundle("team-a", "sandbox") in plan.prepare
        assert plan.release is not None
        assert (plan.release.replaces, plan.release.order.spiffe_id.trust_domain.name) == (
            "",
            "sandbox.example.org",
        )
        entry = plan.release.announce("ab" * 32)
        assert (entry.id, entry.type.value) == (
            "uid-of-triage/credential/2",
            "dev.pilotidentity.pilot.admitted.v1",
        )
        status = status_of(plan)
        assert (status.stage, status.stage_since, status.issuances) == ("sandbox", NOW, 2)
        assert status.spiffe_id == "spiffe://sandbox.example.org/ns/team-a/pilot/triage"
        assert status.bundle is not None
        assert (status.bundle.stage, status.bundle.config_map_name) == ("sandbox", "pilot-bundle-sandbox")

    def test_a_bundle_that_a_neighbour_needs_stays(self) -> None:
        """It is the namespace's, not the pilot's."""
        neighbours = frozenset({"pilot"})
        falling = ready_pilot(stage="pilot", asks_for="sandbox")
        assert decide_pilot(seen(falling, stages_of_neighbours=neighbours), moment()).withdraw == (CUT,)
        case = seen(self.fallen(falling), stages_of_neighbours=neighbours)
        plan = decide_pilot(case, moment(number=2))
        assert plan.release is not None
        assert plan.withdraw == ()

    def test_a_fall_into_refusal_still_falls(self) -> None:
        """The access is cut though the lower stage gives none; the pass after says why it gives none."""
        falling = ready_pilot(stage="pilot", asks_for="sandbox", access=[{**TOOL, "dataClass": "of-pilot"}])
        plan = decide_pilot(seen(falling), moment())
        status = status_of(plan)
        assert CUT in plan.withdraw
        assert (status.stage, status.credential, status.spiffe_id) == ("sandbox", None, "")
        assert kinds(plan) == ["pilot.defined", "pilot.stage-asked", "pilot.stage-changed"]
        assert plan.recheck_at == NOW
        refusal = decide_pilot(seen(self.fallen(falling)), moment(number=2))
        assert (refusal.release, refusal.withdraw) == (None, ())
        assert kinds(refusal) == ["pilot.defined", "pilot.refused"]
        status = status_of(refusal)
        assert (status.stage, status.credential, status.spiffe_id) == ("sandbox", None, "")
        assert status.conditions[0].reason == "DataClassOutsideStage"


def test_a_rise_is_held_and_told() -> None:
    """The pilot keeps its identity where it is; log and condition say what is missing."""
    plan = decide_pilot(seen(ready_pilot(asks_for="pilot")), moment())
    assert (plan.release, plan.withdraw) == (None, ())
    assert kinds(plan)[:3] == ["pilot.defined", "pilot.stage-asked", "pilot.stage-held"]
    assert plan.entries[1].data["asked"] == "pilot"
    status = status_of(plan)
    assert status.stage == "sandbox"
    assert [(one.type, one.status) for one in status.conditions] == [("Ready", "True"), ("Promoted", "False")]


def test_a_hold_with_a_long_story_is_told_once() -> None:
    """A message longer than a condition takes is no news each time the pilot is looked at."""
    made = started(stage())
    made.put(pilot(access=[]))
    made.settle()
    claims = [f"{number:02}-{'x' * 60}" for number in range(16)]
    made.put(stage("pilot", 10, status={}, dataClasses=["p"], entry={"claims": claims}))
    made.edit(pilot().key, stage="pilot")
    made.settle()
    made.check_rest()


class TestSuspension:
    """An owner's word."""

    def test_everything_is_cut_and_recorded(self) -> None:
        """The number that was used stays used."""
        plan = decide_pilot(seen(ready_pilot(suspend=True)), moment())
        assert plan.withdraw == (CUT,)
        assert kinds(plan) == ["pilot.defined", "pilot.suspended"]
        status = status_of(plan)
        assert (status.credential, status.issuances, status.conditions[0].reason) == (None, 1, "Suspended")

    def test_it_is_not_looked_at_before_its_stage(self) -> None:
        """A suspended pilot in an unknown stage is suspended."""
        plan = decide_pilot(seen(ready_pilot(suspend=True, asks_for="nowhere")), moment())
        assert plan.withdraw == (CUT,)


class TestRetirement:
    """A deleted pilot."""

    def test_it_is_cut_recorded_and_let_go(self) -> None:
        """With its bundle, where nobody else needs it."""
        plan = decide_pilot(seen(ready_pilot(meta=deleting())), moment())
        assert plan.withdraw == (CUT, RemoveBundle(LEAVING, "sandbox"))
        assert [entry.id for entry in plan.entries] == ["uid-of-triage/retired"]
        assert (plan.status, plan.let_go) == (None, True)

    def test_it_waits_for_its_grants(self) -> None:
        """Its own access is cut at once; it goes when they are closed."""
        plan = decide_pilot(seen(ready_pilot(meta=deleting()), open_grants=2), moment())
        assert plan.withdraw == (CUT,)
        assert (plan.entries, plan.let_go, plan.recheck_at) == ((), False, NOW + HOLDING_BOUND)

    def test_it_waits_within_bounds(self) -> None:
        """A grant that does not close cannot hold a pilot for ever."""
        case = seen(ready_pilot(meta=deleting()), open_grants=2)
        plan = decide_pilot(case, moment(NOW + HOLDING_BOUND))
        assert plan.let_go
        assert plan.entries[0].data["openGrants"] == 2

    def test_one_that_we_never_held_is_left(self) -> None:
        """Nothing was issued for it."""
        assert decide_pilot(seen(pilot(meta=deleting(held=False))), moment()) == Plan()


def largest_access(entries: int, width: int) -> list[dict[str, Any]]:
    """As many access entries, each as wide, as the CRD admits."""
    actions = [f"{number:03}{'a' * 125}" for number in range(width)]
    resources = [f"{number:03}/{'r' * 252}" for number in range(width)]
    return [
        tool(f"tool-{number}", audience=f"https://{number}.example.org", actions=actions, resources=resources)
        for number in range(entries)
    ]


class TestTheLargest:
    """Whatever the API server admits can be decided: its entry fits the log, and its status the CRD."""

    @staticmethod
    def admitted(made: PilotIdentity | TaskGrant, plural: str) -> None:
        """Make sure that the case is one that the CRD lets through."""
        assert list(misfits(schema_of(plural)["properties"]["spec"], encode(made.spec))) == []

    @pytest.mark.parametrize(
        "access", [largest_access(32, 32), [{**TOOL, "dataClass": "x"}, *largest_access(31, 32)]]
    )
    def test_pilot_is_answered(self, access: list[dict[str, Any]]) -> None:
        """It is registered, or refused in a condition."""
        largest = pilot(access=access)
        self.admitted(largest, "pilotidentities")
        plan = decide_pilot(seen(largest), moment())
        entries = [*plan.entries, *([plan.release.announce("ab" * 32)] if plan.release else [])]
        assert all(len(encode_entry(entry, "log")) <= MAX_ENTRY_BYTES for entry in entries)

    def world(self, **spec: Any) -> World:
        """A stage, a wide pilot and the grant that asks for `spec`."""
        made = started(stage(dataClasses=["synthetic"]))
        made.put(pilot(access=largest_access(4, 8)))
        made.settle()
        asked = grant(**spec)
        self.admitted(asked, "taskgrants")
        made.put(asked)
        return made

    def test_grant_of_an_action_too_many_is_denied(self) -> None:
        """What it may and what it asked for does not overflow the status."""
        made = self.world(access=[{"name": "tool-0", "actions": [f"{n:03}{'z' * 125}" for n in range(32)]}])
        made.settle()
        made.check_rest()

    def test_grant_of_resources_beyond_is_denied(self) -> None:
        """Nor do the patterns."""
        made = self.world(access=[{"name": "tool-0", "resources": [f"{n:03}{'z' * 252}" for n in range(32)]}])
        made.settle()
        made.check_rest()

    def test_grant_of_much_is_issued(self) -> None:
        """All that it asks for is in its entry, or in a digest there."""
        made = started(stage(dataClasses=["synthetic"]))
        access = largest_access(16, 4)
        made.put(pilot(access=access))
        made.settle()
        finer = access[0]["tool"]["resources"]
        made.put(grant(access=[{"name": one["name"], "resources": finer} for one in access]))
        made.settle()
        made.check_rest()


def test_what_a_pilot_looks_like_does_not_depend_on_its_neighbours_order() -> None:
    """Two of the same second: the UID decides, the same way for both."""
    one, two = pilot("one"), pilot("two")
    first = decide_pilot(replace(seen(one), sharers=(two,)), moment()).release
    second = decide_pilot(replace(seen(two), sharers=(one,)), moment()).release
    assert (first is None) != (second is None)


class TestSharedBundle:
    """A verifier reads the bundle for as long as a credential of its stage lives in the namespace."""

    def world(self) -> tuple[World, PilotIdentity]:
        """A pilot with an identity, and its neighbour, which nobody has looked at."""
        world = started(stage("pilot", 5))
        world.put(pilot("triage", stage="pilot"))
        world.settle()
        assert world.bundles == {("team-a", "pilot")}
        return world, world.put(pilot("helper", stage="pilot"))

    def require_bundle(self, world: World) -> None:
        """Make sure that whoever has a credential has its stage's bundle beside it."""
        for secret in world.secrets.values():
            issued = [one for one in world.log.entries if one.data.get("credential", {}).get("id")]
            (stage_name,) = (
                one.data["stage"] for one in issued if one.data["credential"]["id"] == secret.credential
            )
            assert ("team-a", stage_name) in world.bundles

    @pytest.mark.parametrize("steps", range(1, 7))
    @pytest.mark.parametrize("leaves", ["deleted", "moved"])
    def test_a_pilot_leaves_whose_neighbour_was_just_coming(self, leaves: str, steps: int) -> None:
        """The operator was killed at any step of giving the neighbour an identity."""
        world, helper = self.world()
        world.make_pass(helper.key, steps=steps)
        world.restart()
        triage = world.pilot("triage").key
        if leaves == "deleted":
            world.delete(triage)
        else:
            bottom = world.put(stage("bottom", 0, status={}, dataClasses=["low"]))
            while world.make_pass(bottom.key):
                pass
            world.edit(triage, stage="bottom")
        for _ in range(10):
            if triage in world.objects:
                world.make_pass(triage)
                self.require_bundle(world)
        world.now += 2 * ABANDON_AFTER
        world.settle()
        self.require_bundle(world)
        world.check_rest()

    @pytest.mark.parametrize("steps", range(1, 7))
    def test_a_bundle_goes_with_the_last_pilot(self, steps: int) -> None:
        """Wherever the operator was killed meanwhile."""
        world, helper = self.world()
        world.settle()
        for key in (world.pilot("triage").key, helper.key):
            world.delete(key)
            world.make_pass(key, steps=steps)
            world.restart()
        world.settle()
        assert helper.key not in world.objects
        assert world.bundles == set()

    def test_what_was_announced_and_never_released_keeps_a_bundle_no_longer_than_it_is_open(self) -> None:
        """Its neighbour falls, gets its identity elsewhere, and leaves nothing behind."""
        world, helper = self.world()
        assert "commit" in world.carry_out(helper, world.decide(helper.key))
        world.restart()
        triage = world.pilot("triage").key
        world.delete(triage)
        world.make_pass(triage)
        world.now += 2 * ABANDON_AFTER
        world.settle()
        world.delete(helper.key)
        world.settle()
        assert world.bundles == set()
