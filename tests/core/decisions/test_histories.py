"""Random histories: whatever people do, and wherever the operator dies, the promises hold."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from typing import Any, TypeAlias

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from pilot_identity.core.audit.entries import (
    Entry,
    EntryType,
    RecordedEntry,
    decode_entry,
    encode_entry,
)
from pilot_identity.core.decisions.plan import WITHDRAWN, OnRevocationList, SecretGone
from pilot_identity.core.decisions.replaying import Replay
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.metadata import FINALIZER, Key
from pilot_identity.core.resources.pilot_identity import Owners
from pilot_identity.core.resources.stage_policy import ApprovalRules, GrantApprovals
from pilot_identity.core.resources.task_grant import Revocation
from tests.core.builders import grant, pilot, stage, tool
from tests.core.decisions.replayed import Kept, require_agreement
from tests.core.decisions.world import World, started

TICKS = [
    dt.timedelta(seconds=1),
    dt.timedelta(minutes=3),
    dt.timedelta(minutes=10),
    dt.timedelta(hours=1),
    dt.timedelta(days=8),
]
BREAKABLE = [WITHDRAWN, SecretGone.name, OnRevocationList.name, "log"]
PEOPLE = ["ana", "bea", "cai", "system:serviceaccount:team-a:bot"]
"""Ana asks for every grant; the last is nobody."""
PILOTS = ["triage", "helper"]
PILOT_STAGE = Key("StagePolicy", "", "pilot")

REFUSED_ACCESS = pilot(access=[{**tool("tickets"), "dataClass": "personal"}]).spec.access
GOOD_ACCESS = pilot().spec.access

Reaction: TypeAlias = tuple[str, int]
"""What the operator does after somebody did something, and after how many steps it is stopped."""
reactions = st.one_of(
    st.just(("comes to rest", 0)),
    st.just(("is down", 0)),
    st.tuples(st.sampled_from(["is killed", "meets a conflict"]), st.integers(1, 6)),
)
picks = st.integers(0, 3)


class Histories(RuleBasedStateMachine):
    """People, time and crashes, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.world: World = started(stage("pilot", 5, limits={"activeGrants": 2}))
        self.made = 0
        self.ended: dict[str, Phase] = {}
        self.fallen: set[str] = set()
        self.reader = Replay(Kept())
        self.replayed = 0
        self.read = 0
        self.tell_reader(EntryType.LOG_STARTED)
        self.tell_reader(EntryType.OPERATOR_STARTED)

    def one_of(self, kind: str, pick: int) -> Key | None:
        """One object of a kind, if there is any."""
        keys = [key for key in self.world.objects if key.kind == kind]
        return keys[pick % len(keys)] if keys else None

    def react(self, key: Key, reaction: Reaction) -> None:
        """Let the operator answer to what was done to an object."""
        what, steps = reaction
        if what == "comes to rest" and self.world.log.is_down:
            for one in list(self.world.objects):
                if one in self.world.objects:
                    self.world.make_pass(one)
        elif what == "comes to rest":
            self.world.settle()
            self.world.check_trees()
            self.world.check_rest()
        elif what != "is down" and key in self.world.objects:
            self.world.make_pass(key, steps=steps)
        if what == "is killed":
            self.every_decision_can_be_made_again()
            self.world.restart()
            self.tell_reader(EntryType.OPERATOR_STARTED)

    def act(self, kind: str, pick: int, then: Reaction, act: Callable[[Key], None]) -> None:
        """Do something to one object of a kind, and let the operator answer."""
        key = self.one_of(kind, pick)
        if key is not None:
            act(key)
            self.react(key, then)

    # People.

    @initialize(then=reactions)
    def begin(self, then: Reaction) -> None:
        """There is one pilot with one grant to begin with."""
        self.register("triage", held=False, asks_for="pilot", then=then)
        self.ask("triage", held=False, minutes=15, then=then)

    @rule(
        name=st.sampled_from(PILOTS),
        held=st.booleans(),
        asks_for=st.sampled_from(["pilot", "sandbox"]),
        then=reactions,
    )
    def register(self, name: str, *, held: bool, asks_for: str, then: Reaction) -> None:
        """A pilot appears; its finalizer is stamped at creation where the API server can."""
        key = Key("PilotIdentity", "team-a", name)
        if key not in self.world.objects:
            self.made += 1
            meta: dict[str, Any] = {"uid": f"pilot-{self.made}", "finalizers": [FINALIZER] if held else []}
            self.world.put(pilot(name, meta=meta, stage=asks_for, delegation={"maxDepth": 2}))
        self.react(key, then)

    @rule(
        name=st.sampled_from(PILOTS),
        held=st.booleans(),
        minutes=st.sampled_from([1, 15, 60, 61]),
        then=reactions,
    )
    def ask(self, name: str, *, held: bool, minutes: int, then: Reaction) -> None:
        """Someone asks for a grant, for a pilot that may not be there."""
        self.made += 1
        meta: dict[str, Any] = {"finalizers": [FINALIZER] if held else []}
        made = self.world.put(grant(f"task-{self.made}", meta=meta, pilot=name, duration=f"{minutes}m"))
        self.react(made.key, then)

    @rule(pick=picks, minutes=st.sampled_from([1, 15]), then=reactions)
    def delegate(self, pick: int, minutes: int, then: Reaction) -> None:
        """Someone asks for a child of a grant, that may have ended."""
        parent = self.one_of("TaskGrant", pick)
        if parent is not None:
            self.made += 1
            above = self.world.grant(parent.name)
            made = self.world.put(
                grant(
                    f"task-{self.made}",
                    meta={"finalizers": [FINALIZER]},
                    pilot=above.spec.pilot,
                    parent=parent.name,
                    duration=f"{minutes}m",
                )
            )
            self.react(made.key, then)

    @rule(required=st.integers(0, 2), then=reactions)
    def require(self, required: int, then: Reaction) -> None:
        """An admin changes how many people must approve a grant."""
        self.world.edit(PILOT_STAGE, approvals=ApprovalRules(grant=GrantApprovals(required=required)))
        self.react(PILOT_STAGE, then)

    @rule(
        pick=picks,
        who=st.sampled_from(PEOPLE),
        is_current=st.booleans(),
        deny=st.sampled_from([False, False, False, True]),
        then=reactions,
    )
    def say(self, pick: int, who: str, *, is_current: bool, deny: bool, then: Reaction) -> None:
        """Somebody approves or denies a grant, as it is or as it never was."""
        key = self.one_of("TaskGrant", pick)
        if key is not None:
            found = self.world.grant(key.name)
            asked = found.status.approval
            digest = asked.digest if asked is not None and is_current else "sha256:" + "0" * 64
            self.world.say(found, who, digest, deny=deny)
            self.react(key, then)

    @rule(pick=picks, owner=st.sampled_from(["ana", "dora"]), then=reactions)
    def change_owner(self, pick: int, owner: str, then: Reaction) -> None:
        """Someone else answers for a pilot, or the first again."""
        owners = Owners(business=owner, technical="tom")
        self.act("PilotIdentity", pick, then, lambda key: self.world.edit(key, owners=owners))

    @rule(what=st.sampled_from(BREAKABLE))
    def break_down(self, what: str) -> None:
        """Something cannot be withdrawn, tested or recorded any more."""
        if what == "log":
            self.world.log.is_down = True
        else:
            self.world.broken.add(what)

    @rule(then=reactions)
    def mend(self, then: Reaction) -> None:
        """All of it works again."""
        self.world.mend()
        self.react(PILOT_STAGE, then)

    @rule(pick=picks, then=reactions)
    def revoke(self, pick: int, then: Reaction) -> None:
        """An owner revokes a grant."""
        self.act(
            "TaskGrant", pick, then, lambda key: self.world.edit(key, revoke=Revocation("enough", "ana"))
        )

    @rule(pick=picks, then=reactions)
    def complete(self, pick: int, then: Reaction) -> None:
        """A workload says that its task is done."""
        self.act("TaskGrant", pick, then, lambda key: self.world.edit(key, completed=True))

    @rule(pick=picks, suspend=st.booleans(), then=reactions)
    def suspend(self, pick: int, *, suspend: bool, then: Reaction) -> None:
        """An owner suspends a pilot, or lets it go on."""
        self.act("PilotIdentity", pick, then, lambda key: self.world.edit(key, suspend=suspend))

    @rule(pick=picks, stage=st.sampled_from(["pilot", "sandbox", "nowhere"]), then=reactions)
    def move(self, pick: int, stage: str, then: Reaction) -> None:
        """A team asks for another stage, above, below or unknown."""
        self.act("PilotIdentity", pick, then, lambda key: self.world.edit(key, stage=stage))

    @rule(pick=picks, good=st.booleans(), then=reactions)
    def redefine(self, pick: int, *, good: bool, then: Reaction) -> None:
        """A team changes the pilot's access to something that its stage refuses, or back."""
        access = GOOD_ACCESS if good else REFUSED_ACCESS
        self.act("PilotIdentity", pick, then, lambda key: self.world.edit(key, access=access))

    @rule(freeze=st.booleans(), then=reactions)
    def freeze(self, *, freeze: bool, then: Reaction) -> None:
        """An admin stops a stage, or lets it go on."""
        self.world.edit(PILOT_STAGE, freeze=freeze)
        self.react(PILOT_STAGE, then)

    @rule(then=reactions)
    def add_a_lower_stage(self, then: Reaction) -> None:
        """An admin adds a stage below, so that pilots can fall."""
        below = stage("sandbox", 0, status={}, dataClasses=["low"])
        if below.key not in self.world.objects:
            self.world.put(below)
        self.react(below.key, then)

    @rule(kind=st.sampled_from(["PilotIdentity", "TaskGrant"]), pick=picks, then=reactions)
    def delete(self, kind: str, pick: int, then: Reaction) -> None:
        """Someone deletes an object."""
        self.act(kind, pick, then, self.world.delete)

    @rule(
        by=st.sampled_from(TICKS),
        kind=st.sampled_from(["PilotIdentity", "TaskGrant"]),
        pick=picks,
        then=reactions,
    )
    def wait(self, by: dt.timedelta, kind: str, pick: int, then: Reaction) -> None:
        """Time goes by."""
        self.world.now += by
        self.act(kind, pick, then, lambda _: None)

    # What holds at every moment.

    @invariant()
    def an_end_is_final(self) -> None:
        """No grant leaves a terminal phase."""
        for found in self.world.of_kind(TaskGrant):
            before = self.ended.get(found.metadata.uid)
            assert before is None or found.status.phase is before
            if found.status.phase.is_terminal:
                self.ended[found.metadata.uid] = found.status.phase

    @invariant()
    def no_credential_outlives_its_grant(self) -> None:
        """What a grant's Secret holds ends by itself when the task ends, operator up or down."""
        for found in self.world.of_kind(TaskGrant):
            standing = self.world.secret_of(found)
            if standing is not None and found.status.expires_at is not None:
                assert standing.ends <= found.status.expires_at

    @invariant()
    def an_end_is_shown(self) -> None:
        """A grant is ended for good only when every test shows it, and what lives on is on the lists."""
        for found in self.world.of_kind(TaskGrant):
            self.world.check_closure(found)

    @invariant()
    def every_decision_can_be_made_again(self) -> None:
        """From the log alone, and it is the same: whatever was changed since, and wherever a pass stopped."""
        for entry in self.world.log.entries[self.replayed :]:
            again = self.reader.again(self.read, entry)
            self.reader.learn(self.read, entry)
            self.read += 1
            # Where checks were overtaken by what was found after them, there is nothing to ask again.
            if again is not None and again.then.checks:
                require_agreement(again)
            assert again is None or not again.mismatches
        self.replayed = len(self.world.log.entries)

    def tell_reader(self, kind: EntryType) -> None:
        """Tell whoever replays what the process around the decisions tells the log."""
        told = Entry(f"{kind}/{self.read}", kind, "Namespace system", "operator", self.world.now, {})
        self.reader.learn(self.read, decode_entry(encode_entry(told, "log")))
        self.read += 1

    @invariant()
    def an_approval_is_used_once(self) -> None:
        """No approval stands in the decisions of two grants, or twice in one."""
        used = [
            word["uid"]
            for entry in self.world.log.entries
            if entry.type == EntryType.GRANT_ISSUED
            for word in entry.data["decision"].get("approvals", ())
            if not self.was_abandoned(entry)
        ]
        assert len(used) == len(set(used))

    def was_abandoned(self, announcement: RecordedEntry) -> bool:
        """Whether what an entry announces was never released, as another entry says."""
        name = announcement.data["credential"]["id"]
        return any(entry.data.get("abandoned", {}).get("id") == name for entry in self.world.log.entries) or (
            name not in self.world.released
        )

    @invariant()
    def nobody_rises(self) -> None:
        """A pilot that fell to the lower stage never comes back up."""
        for found in self.world.of_kind(PilotIdentity):
            if found.status.stage == "sandbox":
                self.fallen.add(found.metadata.uid)
            assert found.metadata.uid not in self.fallen or found.status.stage == "sandbox"


TestHistories = Histories.TestCase
TestHistories.settings = settings(
    max_examples=200, stateful_step_count=25, suppress_health_check=[HealthCheck.too_slow]
)
