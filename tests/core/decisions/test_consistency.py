"""What does not agree with the rest of a log is told, and what only came in another order is not.

In each case the checks would decide the same again: only the entries before it show that what they looked at
was not so, or only what follows from the decision that something else was given.
"""

from __future__ import annotations

import copy
import datetime as dt
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.approvals import ApprovalSeen, decide_approval
from pilot_identity.core.decisions.definitions import defined
from pilot_identity.core.decisions.given import given, used
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.history import ON_ITS_WAY, SETTLED_AFTER
from pilot_identity.core.decisions.replaying import Replayed, Verdict
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.parsing import encode
from tests.core.builders import CA_END, NOW, active_grant, approval, grant, moment, ready_pilot, stage
from tests.core.decisions.conftest import taken_up
from tests.core.decisions.replayed import announced, recorded, replay
from tests.core.decisions.test_approvals import ASKS, waiting, yes
from tests.core.decisions.test_delegation import child, delegating
from tests.core.decisions.test_kubernetes_access import asked as asked_of_cluster
from tests.core.decisions.test_kubernetes_access import pilot as cluster_pilot

SECOND = dt.timedelta(seconds=1)
STRICT = [{"name": "short", "expression": "duration(grant.spec.duration) <= duration('1m')"}]


def decided(
    asked: TaskGrant | None = None,
    pilot: PilotIdentity | None = None,
    policy: StagePolicy | None = None,
    at: dt.datetime = NOW,
    **facts: Any,
) -> list[RecordedEntry]:
    """What a log has of a decision, with the policy; the decision comes last."""
    under = policy or stage()
    seen = GrantSeen(asked or grant(), pilot or ready_pilot(), under, ca_not_after=CA_END, **facts)
    plan = consider(Case(seen, moment(at)))
    return recorded((*taken_up(under), *plan.entries, *announced(plan)))


def put_in(log: Sequence[RecordedEntry], *entries: Entry | RecordedEntry) -> list[RecordedEntry]:
    """The log with entries right before its last one."""
    read = [one if isinstance(one, RecordedEntry) else recorded([one])[0] for one in entries]
    return [*log[:-1], *read, log[-1]]


def without(log: Sequence[RecordedEntry], *kinds: EntryType) -> list[RecordedEntry]:
    """The log without entries of these kinds."""
    return [entry for entry in log if entry.type not in kinds]


def rewritten(
    log: Sequence[RecordedEntry],
    kind: EntryType,
    change: Callable[[dict[str, Any]], object] | None,
    **fields: Any,
) -> list[RecordedEntry]:
    """The log whose entries of a kind say something else."""
    made: list[RecordedEntry] = []
    for entry in log:
        data = copy.deepcopy(entry.data)
        if entry.type == kind and change is not None:
            change(data)
        others = fields if entry.type == kind else {}
        made.append(msgspec.structs.replace(entry, data=data, **others))
    return made


def later(entries: Sequence[Entry], by: dt.timedelta = SECOND) -> list[RecordedEntry]:
    """Entries as a pass told them that began later."""
    return [msgspec.structs.replace(entry, time=entry.time + by) for entry in recorded(entries)]


def told(
    kind: EntryType, data: Mapping[str, Any], *, of: str = "", uid: str = "", at: dt.datetime = NOW
) -> Entry:
    """Another entry of the log."""
    return Entry(f"{uid}/{kind}/{at}", kind, of or "Namespace system", uid or "system", at, data)


def begun(log: Sequence[RecordedEntry]) -> list[RecordedEntry]:
    """The same log, which says that it begins there."""
    return [*recorded([told(EntryType.LOG_STARTED, {})]), *log]


def last(log: Sequence[RecordedEntry], *, first: int = 0) -> Replayed:
    """The last decision of a log, made again."""
    return replay(log, first=first)[-1]


def fields(log: Sequence[RecordedEntry], *, first: int = 0) -> set[str]:
    """The fields that are told to disagree, where the decision itself is the same; none where all agrees."""
    again = last(log, first=first)
    assert not again.is_other, again
    assert (again.verdict is Verdict.DIFFERS) is bool(again.mismatches), again
    return {one.partition(":")[0] for one in again.mismatches}


class TestInForce:
    """Policies and pilots are those of the moment."""

    NEWER: Mapping[str, StagePolicy] = {
        "a stricter policy": stage(meta={"generation": 2}, rules=STRICT),
        "a freeze": stage(meta={"generation": 2}, freeze=True),
        "a stricter policy that says it is of the same generation": stage(rules=STRICT),
        "another stage of that name": stage(meta={"uid": "another"}, rules=STRICT),
    }

    @pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
    def test_a_decision_on_a_policy_that_was_replaced_before(self, newer: StagePolicy) -> None:
        """Though it stands behind the permissive one, too."""
        log = put_in(decided(), *taken_up(newer))
        assert fields(log) == {"observation.stage"}
        (mismatch,) = last(log).mismatches
        assert "looked at was generation 1 of StagePolicy sandbox" in mismatch
        assert f"entry {len(log) - 2} had put generation {newer.metadata.generation} of" in mismatch

    @pytest.mark.parametrize("newer", NEWER.values(), ids=NEWER)
    def test_a_decision_that_was_on_its_way_meanwhile(self, newer: StagePolicy) -> None:
        """It was made before anybody knew of the other."""
        assert fields(put_in(decided(), *later(taken_up(newer)))) == set()

    def test_within_a_millisecond_nobody_knows_the_order(self) -> None:
        """Entries' times are cut to it."""
        newer = recorded(taken_up(stage(meta={"generation": 2}, rules=STRICT)))
        for microseconds, expected in ((0, {"observation.stage"}), (1, set()), (999, set())):
            log = put_in(decided(at=NOW + dt.timedelta(microseconds=microseconds)), *newer)
            assert fields(log) == expected

    def test_what_was_on_its_way_for_too_long_was_not(self) -> None:
        """A decision is not dated back behind whatever it wants."""
        newer = taken_up(stage(meta={"generation": 2}, rules=STRICT))
        on_time, too_late = (later(newer, by) for by in (ON_ITS_WAY, ON_ITS_WAY + SECOND))
        assert fields(put_in(decided(), *on_time)) == set()
        assert fields(put_in(decided(), *too_late)) == {"time"}

    def test_a_pilot_that_was_defined_anew_before(self) -> None:
        """Its owners had suspended it."""
        newer = ready_pilot(meta={"generation": 2}, suspend=True)
        log = put_in(decided(), defined(newer, NOW))
        assert fields(log) == {"observation.pilot"}
        assert fields(put_in(decided(), *later([defined(newer, NOW)]))) == set()

    def test_an_earlier_definition_that_is_told_later_replaces_nothing(self) -> None:
        """Whoever was on his way with it tells it when he arrives."""
        before = ready_pilot(purpose="what it was for once")
        log = decided(pilot=ready_pilot(meta={"generation": 2}))
        assert fields(put_in(log, defined(before, NOW - SECOND))) == set()

    def test_another_version_that_reads_more_of_one_spec_replaces_nothing(self) -> None:
        """It went, and the one before decides again; but one program reads one spec in one way."""
        wider = taken_up(stage(rules=STRICT))
        for versions, expected in (("1.1.0", "1.0.0"), set()), (("1.0.0", "1.0.0"), {"observation.stage"}):
            first, second = (told(EntryType.OPERATOR_STARTED, {"version": one}, uid=one) for one in versions)
            start = told(EntryType.OPERATOR_STARTED, {"version": "1.0.0"}, uid="first")
            log = put_in([*recorded([start]), *decided()], first, *wider, second)
            assert fields(log) == expected

    FOREIGN: Mapping[EntryType, str] = {
        EntryType.STAGE_POLICY_CHANGED: "stage",
        EntryType.PILOT_DEFINED: "pilot",
        EntryType.GRANT_REQUESTED: "grant",
    }

    @pytest.mark.parametrize("kind, field", FOREIGN.items(), ids=FOREIGN.values())
    def test_a_definition_that_is_known_only_of_something_else(self, kind: EntryType, field: str) -> None:
        """Of another UID, or of another name."""
        log = decided()
        assert fields(rewritten(log, kind, None, subject="Kind evil/x", subject_uid="evil")) == {
            f"observation.{field}"
        }
        assert fields(rewritten(log, kind, None, subject="Kind evil/x")) == {f"observation.{field}"}
        assert fields(rewritten(log, kind, None, subject_uid="evil")) == {f"observation.{field}"}

    def test_a_policy_of_another_stage(self) -> None:
        """The pilot is where its status says, and where the log says."""
        log = decided(pilot=ready_pilot(stage="pilot"))
        assert fields(log) == {"observation.stage"}


class TestPlaced:
    """A pilot is where the log says that it is."""

    def moved(self, *, generation: int = 1) -> Entry:
        """The log says that the pilot fell out of the stage, by that definition."""
        data = {"stage": "bottom", "stageBefore": "sandbox", "generation": generation}
        uid = "uid-of-triage"
        return told(EntryType.STAGE_CHANGED, data, uid=uid, at=NOW - ON_ITS_WAY)

    def test_a_stage_that_it_had_left(self) -> None:
        """The status follows the entry at once."""
        assert fields(put_in(decided(), self.moved())) == {"observation.pilot"}

    def test_a_stage_that_it_is_leaving(self) -> None:
        """Not before it does, or somebody took the move back after a crash."""
        on_its_way = later([self.moved()])
        assert fields(put_in(decided(), *on_its_way)) == set()
        taken_back = decided(pilot=ready_pilot(meta={"generation": 2}))
        assert fields(put_in(taken_back, self.moved())) == set()
        restarted = told(EntryType.OPERATOR_STARTED, {}, at=NOW - SECOND)
        assert fields(put_in(decided(), self.moved(), restarted)) == set()

    def test_a_stage_in_which_it_never_was(self) -> None:
        """Its identity is one of another."""
        renewed = told(EntryType.PILOT_RENEWED, {"stage": "bottom"}, uid="uid-of-triage")
        assert fields(put_in(decided(), renewed)) == {"observation.pilot"}
        renewed = told(EntryType.PILOT_RENEWED, {"stage": "sandbox"}, uid="uid-of-triage")
        assert fields(put_in(decided(), self.moved(), renewed)) == set()

    def test_it_was_retired(self) -> None:
        """Nothing is decided for it then, but what was on its way."""
        retired = [told(EntryType.PILOT_RETIRED, {}, uid="uid-of-triage")]
        assert fields(put_in(decided(), *retired)) == {"observation.pilot"}
        assert fields(put_in(decided(), *later(retired))) == set()

    def test_a_review_that_nobody_made(self) -> None:
        """A log that was read from its beginning has every review."""
        at = encode(NOW - SECOND)
        said = {"name": "fine", "uid": "uid-of-fine", "approver": "rita", "at": at}
        log = decided(pilot=ready_pilot(status={"reviewed": said}))
        assert fields(log) == set()
        assert fields(begun(log)) == {"observation.pilot"}
        reviewed = told(EntryType.PILOT_REVIEWED, {"approval": said}, uid="uid-of-triage")
        assert fields(put_in(begun(log), reviewed)) == set()

    def test_a_review_that_is_owed(self) -> None:
        """The status says so soon after the log does, whatever befalls the operator."""
        uses = [{"name": "task-9", "uid": "uid-of-task-9", "requestedBy": "eve"}]
        for age, expected in ((ON_ITS_WAY, {"observation.pilot"}), (SECOND, set())):
            owed = told(EntryType.REVIEW_OWED, {"owed": {"grants": uses}}, uid="uid-of-triage", at=NOW - age)
            log = put_in(decided(), owed)
            assert fields(log) == expected
            restarted = told(EntryType.OPERATOR_STARTED, {}, at=NOW - SETTLED_AFTER + SECOND)
            assert fields(put_in(decided(), owed, restarted)) == expected
            reviewed = told(EntryType.PILOT_REVIEWED, {"approval": {}}, uid="uid-of-triage")
            assert fields(put_in(log, reviewed)) == set()

    def test_an_emergency_whose_review_is_not_owed(self) -> None:
        """The log says that it is, before anything is issued."""
        policy = stage(emergency={"maxDuration": "20m", "reviewWithin": "2h"})
        uses = [{"name": "task-1", "uid": "uid-of-task-1", "requestedBy": "ana"}]
        owes = {"grants": uses, "since": encode(NOW), "dueAt": encode(NOW + dt.timedelta(hours=2))}
        pilot = ready_pilot(status={"reviewOwed": owes})
        log = decided(grant(emergency=True), pilot, policy)[:-1]  # what breaks the glass follows the issue
        log = [*without(log, EntryType.GRANT_EMERGENCY), decided(grant(emergency=True), pilot, policy)[-1]]
        assert fields(begun(log)) == {"observation.pilot"}
        owed = told(EntryType.REVIEW_OWED, {"owed": owes}, uid="uid-of-triage")
        assert fields(put_in(begun(log), owed)) == set()


class TestKindAndTime:
    """An entry's type and time are those of its decision."""

    def test_a_denial_recorded_as_an_issue(self) -> None:
        """What was issued upon it is nobody's decision."""
        log = decided(duration_of("21m"), policy=stage(rules=STRICT))
        assert fields(rewritten(log, EntryType.GRANT_DENIED, None, type=str(EntryType.GRANT_ISSUED))) == {
            "type"
        }

    def test_an_allowance_recorded_as_a_denial(self) -> None:
        """Whoever asked was refused without a reason."""
        log = rewritten(decided(), EntryType.GRANT_ISSUED, None, type=str(EntryType.GRANT_DENIED))
        assert fields(log) == {"type"}

    def test_a_denial_recorded_as_a_wait(self) -> None:
        """And the reverse: what waits is not over."""
        for log, kind in (
            (decided(duration_of("21m"), policy=stage(rules=STRICT)), EntryType.GRANT_DECIDED),
            (decided(policy=ASKS), EntryType.GRANT_DENIED),
        ):
            assert fields([*log[:-1], msgspec.structs.replace(log[-1], type=str(kind))]) == {"type"}

    def test_a_denial_of_nothing_is_no_issue(self) -> None:
        """Where the checks are gone, too."""
        log = decided(duration_of("21m"), policy=stage(rules=STRICT))

        def strip(data: dict[str, Any]) -> None:
            data["decision"]["checks"] = []

        bare = rewritten(log, EntryType.GRANT_DENIED, strip, type=str(EntryType.GRANT_ISSUED))
        again = last(bare)
        assert (again.verdict, again.now, again.is_unfounded) == (Verdict.DIFFERS, None, True)

    def test_a_time_that_is_not_the_decisions(self) -> None:
        """Two years after it, or a second."""
        for apart in (dt.timedelta(days=730), SECOND, -SECOND):
            assert fields(rewritten(decided(), EntryType.GRANT_ISSUED, None, time=NOW + apart)) == {"time"}

    def test_a_decision_that_is_dated_back(self) -> None:
        """Both its times; but each tenure has a clock of its own."""
        hour = dt.timedelta(hours=1)
        log = decided(at=NOW + hour)
        data = {"stage": "sandbox"}
        renewed = told(EntryType.PILOT_RENEWED, data, uid="uid-of-triage", at=NOW + 2 * hour)
        assert fields(put_in(log, renewed)) == {"time"}
        restarted = told(EntryType.OPERATOR_STARTED, {}, at=NOW + hour)
        assert fields(put_in(log, renewed, restarted)) == set()


def duration_of(duration: str) -> TaskGrant:
    """A grant for so long."""
    return grant(duration=duration)


class TestGiven:
    """No more is given than was decided."""

    CHANGES: Mapping[str, tuple[Callable[[dict[str, Any]], object], str]] = {
        "for ten years": (lambda data: data.update(expiresAt="2036-01-01T00:00:00Z"), "expiresAt"),
        "in another stage": (lambda data: data.update(stage="production"), "stage"),
        "with other access": (lambda data: data.update(access=[{"name": "everything"}]), "access"),
        "below another": (lambda data: data.update(delegation=[{"grant": "other"}]), "delegation"),
        "as somebody else": (
            lambda data: data["credential"].update(spiffeID="spiffe://sandbox.example.org/admin"),
            "credential.spiffeID",
        ),
        "an identity for longer": (
            lambda data: data["credential"].update(notAfter="2036-01-01T00:00:00Z"),
            "credential.notAfter",
        ),
        "to be renewed late": (
            lambda data: data["credential"].update(renewAt="2026-06-01T12:05:59Z"),
            "credential.renewAt",
        ),
        "in another Secret": (
            lambda data: data["credential"].update(secretName="theirs"),
            "credential.secretName",
        ),
        "for another audience": (
            lambda data: data["credential"]["tokens"][0].update(audience="https://bank.example.org"),
            "credential.tokens",
        ),
        "a token for longer": (
            lambda data: data["credential"]["tokens"][0].update(notAfter="2036-01-01T00:00:00Z"),
            "credential.tokens",
        ),
        "one token more": (
            lambda data: data["credential"]["tokens"].append(data["credential"]["tokens"][0]),
            "credential.tokens",
        ),
        "with a number that is not the entry's": (lambda data: data["credential"].update(issuance=2), "id"),
        "without a credential": (lambda data: data.pop("credential"), "credential"),
        "with a serial that is none": (lambda data: data["credential"].update(serial="x"), "credential"),
    }

    @pytest.mark.parametrize("change, field", CHANGES.values(), ids=CHANGES)
    def test_what_does_not_follow(self, change: Callable[[dict[str, Any]], object], field: str) -> None:
        """It is named."""
        again = rewritten(decided(), EntryType.GRANT_ISSUED, change)
        assert field in fields(again)

    def test_both_are_named(self) -> None:
        """What the entry says, and what follows."""
        late = rewritten(
            decided(), EntryType.GRANT_ISSUED, lambda data: data.update(expiresAt="2036-01-01T00:00:00Z")
        )
        assert last(late).mismatches == (
            "expiresAt: the entry says 2036-01-01T00:00:00Z, from the request follows 2026-06-01T12:15:00Z",
        )

    def test_kubernetes_access_that_nobody_asked_for(self) -> None:
        """An account that is bound to everything."""
        binding = {
            "namespace": "kube-system",
            "name": "b",
            "roleRef": {"kind": "ClusterRole", "name": "cluster-admin"},
        }
        access = {"serviceAccountName": "x", "bindings": [binding]}
        log = rewritten(
            decided(), EntryType.GRANT_ISSUED, lambda data: data["credential"].update(kubernetes=access)
        )
        assert fields(log) == {
            "credential.kubernetes.serviceAccountName",
            "credential.kubernetes.bindings",
        }

    def test_more_kubernetes_access_than_was_asked_for(self) -> None:
        """Another role, or a token that outlives the task by more than clocks are apart."""
        log = decided(asked_of_cluster(), cluster_pilot())
        assert fields(log) == set()

        def widen(data: dict[str, Any]) -> None:
            data["credential"]["kubernetes"]["bindings"][0]["roleRef"]["name"] = "cluster-admin"

        def lengthen(data: dict[str, Any]) -> None:
            data["credential"]["kubernetes"]["notAfter"] = "2036-01-01T00:00:00Z"

        assert fields(rewritten(log, EntryType.GRANT_ISSUED, widen)) == {"credential.kubernetes.bindings"}
        assert "credential.kubernetes.notAfter" in fields(rewritten(log, EntryType.GRANT_ISSUED, lengthen))

    def test_it_is_given_once(self) -> None:
        """Unless what was announced before was abandoned."""
        log = decided()
        before = msgspec.structs.replace(log[-1], id="before", time=NOW - SECOND)
        assert fields(put_in(log, before)) == {"type"}
        name = before.data["credential"]["id"]
        dropped = told(EntryType.CREDENTIAL_ABANDONED, {"abandoned": {"id": name}}, uid="uid-of-task-1")
        assert fields(put_in(log, before, dropped)) == set()


class TestSaid:
    """People said what they are said to have said."""

    def approved(self) -> list[RecordedEntry]:
        """A grant that was issued on Bob's word."""
        log = decided(waiting(), policy=ASKS, approvals=(yes(),))
        assert log[-1].type == EntryType.GRANT_ISSUED
        assert fields(log) == set()
        return log

    def inlined(self, log: list[RecordedEntry], word: Approval) -> list[RecordedEntry]:
        """The operator says itself what was said."""
        spec = encode(word.spec)
        return rewritten(
            log,
            EntryType.GRANT_ISSUED,
            lambda data: data["observation"]["approvals"][0].update(spec=spec),
        )

    def test_an_approval_that_nobody_gave(self) -> None:
        """It is nowhere but in the observation."""
        log = without(self.approved(), EntryType.APPROVAL_GIVEN, EntryType.GRANT_APPROVED)
        invented = self.inlined(log, yes())
        assert fields(invented) == {"decision.approvals"}
        assert last(invented).mismatches == (
            "decision.approvals: no entry before says that 'yes' was given",
            "decision.approvals: no entry before says that all have agreed who had to",
        )

    def test_an_approval_that_was_only_found_void(self) -> None:
        """That is not that it was given."""
        log = without(self.approved(), EntryType.APPROVAL_GIVEN)
        policy_gone = decide_approval(ApprovalSeen(yes(), None), moment(NOW + dt.timedelta(hours=1)))
        (void,) = (entry for entry in policy_gone.entries if entry.type is EntryType.APPROVAL_VOID)
        assert fields(put_in(log, recorded([void])[0])) == {"decision.approvals", "time"}

    def test_an_approval_that_was_void_for_a_while(self) -> None:
        """It names a grant that was seen only later, and counts then."""
        gone = decide_approval(ApprovalSeen(yes(), None), moment(NOW + dt.timedelta(hours=1)))
        (void,) = (
            msgspec.structs.replace(entry, time=NOW)
            for entry in recorded(gone.entries)
            if entry.type == EntryType.APPROVAL_VOID
        )
        assert fields([void, *self.approved()]) == set()

    def test_an_approval_that_was_used_before(self) -> None:
        """Each counts once."""
        spent = used(yes(), "TaskGrant team-a/other", 0, NOW)
        log = put_in(self.approved(), spent)
        assert fields(log) == {"decision.approvals"}
        assert last(log).mismatches == (
            f"decision.approvals: entry {len(log) - 2} says that 'yes' was used before",
        )

    def test_an_approval_in_other_words_than_it_was_given(self) -> None:
        """What a person said does not change."""
        other = yes(reason="in other words")
        log = self.approved()
        reworded = [
            recorded([given(other, NOW)])[0] if entry.type == EntryType.APPROVAL_GIVEN else entry
            for entry in log
        ]
        assert fields(self.inlined(reworded, yes())) == {"observation.approvals"}

    def test_a_word_on_another_grant(self) -> None:
        """The store would not have found it."""
        other = yes(decision="Deny", subject={"kind": "TaskGrant", "name": "task-1", "uid": "another"})
        log = decided(waiting(), policy=ASKS, approvals=(other,))
        assert log[-1].type == EntryType.GRANT_DENIED
        assert fields(log) == {"observation.approvals"}


class TestAbove:
    """What is passed on is passed on by who had it."""

    def passed_on(self) -> list[RecordedEntry]:
        """A child of a grant that runs for ten minutes more."""
        above = active_grant("task-0")
        return decided(child(), ready_pilot("helper"), ancestors=(above,), ancestor_pilots=(delegating(),))

    def parent(self, **data: Any) -> Entry:
        """The log says what the parent was issued."""
        until = encode(active_grant("task-0").status.expires_at)
        said = {"stage": "sandbox", "expiresAt": until, "credential": {"id": "c"}, **data}
        at = NOW - dt.timedelta(minutes=5)
        return told(EntryType.GRANT_ISSUED, said, uid="uid-of-task-0", at=at)

    def issued(self, log: Sequence[RecordedEntry], **data: Any) -> list[RecordedEntry]:
        """The log with the parent's issue; that is a decision of nothing, which is not asked for."""
        return put_in(log, self.parent(**data))

    def test_a_parent_as_it_was_issued(self) -> None:
        """Or of which a part of the log does not tell."""
        assert fields(self.passed_on()) == set()
        assert fields(self.issued(begun(self.passed_on()))) == set()

    def test_a_parent_that_was_never_issued(self) -> None:
        """Or whose credential was abandoned."""
        log = begun(self.passed_on())
        assert fields(log) == {"observation.ancestors"}
        dropped = told(EntryType.CREDENTIAL_ABANDONED, {"abandoned": {"id": "c"}}, uid="uid-of-task-0")
        assert fields(put_in(self.issued(log), dropped)) == {"observation.ancestors"}

    def test_a_parent_that_was_issued_something_else(self) -> None:
        """In another stage, or for less long."""
        for change in ({"stage": "bottom"}, {"expiresAt": encode(NOW)}):
            assert fields(self.issued(self.passed_on(), **change)) == {"observation.ancestors"}

    @pytest.mark.parametrize("outcome, field", [("Completed", "observation.ancestors"), ("Revoked", "")])
    def test_a_parent_that_had_ended(self, outcome: str, field: str) -> None:
        """For a cause that nobody takes back; of another it may go on after a crash."""
        closed = [told(EntryType.GRANT_CLOSED, {"closure": {"outcome": outcome}}, uid="uid-of-task-0")]
        assert fields(put_in(self.passed_on(), *closed)) == {field} - {""}
        assert fields(put_in(self.passed_on(), *later(closed))) == set()


class TestPart:
    """A log whose older part was not read does not say what it did not have."""

    def test_what_is_not_there_may_be_in_the_part_before(self) -> None:
        """Requests, approvals and definitions were told there; whoever has the definitions brings them."""
        log = decided(waiting(), policy=ASKS, approvals=(yes(),))
        kinds = (EntryType.APPROVAL_GIVEN, EntryType.GRANT_APPROVED, EntryType.GRANT_REQUESTED)
        assert last(without(log, *kinds), first=256).verdict is Verdict.CANNOT
        shelf_log = rewritten(
            without(log, *kinds[:2]),
            EntryType.GRANT_ISSUED,
            lambda data: data["observation"]["approvals"][0].update(spec=encode(yes().spec)),
        )
        assert fields(shelf_log, first=256) == set()
        assert fields(shelf_log) == {"decision.approvals"}

    def test_what_is_there_is_held_against_it(self) -> None:
        """A policy that was replaced was replaced."""
        newer = taken_up(stage(meta={"generation": 2}, rules=STRICT))
        assert fields(put_in(decided(), *newer), first=256) == {"observation.stage"}


def test_a_log_of_odd_entries_is_read() -> None:
    """Whatever their data are, they are no reason to stop; nothing rests on them."""
    odd: list[Mapping[str, Any]] = [
        {},
        {"credential": 1, "closure": 1, "owed": 1, "approval": 1, "abandoned": 1, "generation": "x"},
        {"owed": {"grants": [1, {}]}, "policy": 1, "definition": [], "spec": None, "stage": 1},
    ]
    entries = [
        told(kind, data, of="Kind x/y", uid=f"uid-{number}")
        for kind in EntryType
        for number, data in enumerate(odd)
        if kind is not EntryType.OPERATOR_STARTED
    ]
    assert fields(put_in(decided(), *entries)) == set()


def test_an_observation_that_cannot_have_been_so_cannot_be_replayed() -> None:
    """Times without a zone are not the operator's."""

    def unzone(data: dict[str, Any]) -> None:
        data["observation"]["approvals"] = [
            {
                **data["observation"]["approvals"][0],
                "metadata": {
                    **data["observation"]["approvals"][0]["metadata"],
                    "creationTimestamp": "2026-06-01T12:00:00",
                },
            }
        ]

    log = decided(waiting(), policy=ASKS, approvals=(yes(),))
    again = last(rewritten(log, EntryType.GRANT_ISSUED, unzone))
    assert again.verdict is Verdict.CANNOT
    assert "what the checks looked at cannot have been so" in again.why


def test_a_word_that_counts_for_nothing_needs_no_entry() -> None:
    """It was looked at, and is in the observation alone."""
    own = approval("own", of=grant(), approver="ana")
    seen = GrantSeen(grant(), ready_pilot(), ASKS, ca_not_after=CA_END, approvals=(own,))
    log = recorded((*taken_up(ASKS), *consider(Case(seen, moment())).entries))
    assert fields(begun(log)) == set()
