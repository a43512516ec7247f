"""What a replay says: agreement, difference, and exactly why a decision cannot be made again.

That every decision agrees which any test of this folder makes, `conftest` and `test_histories` see to.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import msgspec
import pytest

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry
from pilot_identity.core.decisions.approvals import ApprovalSeen, decide_approval
from pilot_identity.core.decisions.grants import deciding
from pilot_identity.core.decisions.grants.case import Case
from pilot_identity.core.decisions.grants.checks.table import checks_of
from pilot_identity.core.decisions.grants.considering import consider
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen, Request
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.plan import Outcome
from pilot_identity.core.decisions.replaying import Comparison, Replay, Replayed, Verdict
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.digests import digest_json
from pilot_identity.core.resources.task_grant import CheckResult, DecisionStatus
from tests.core.builders import CA_END, NOW, approval, grant, moment, ready_pilot, stage
from tests.core.decisions.conftest import taken_up
from tests.core.decisions.replayed import Kept, announced, recorded, replay

RULE = {"name": "short", "expression": "duration(grant.spec.duration) <= duration('20m')"}


def log_of(case: GrantSeen) -> list[RecordedEntry]:
    """All that a log has of a decision; the decision comes last."""
    plan = decide_grant(case, moment())
    assert case.stage is not None
    return recorded((*taken_up(case.stage), *plan.entries, *announced(plan)))


def issued(policy: StagePolicy | None = None, **asked: Any) -> list[RecordedEntry]:
    """The log of a grant that the policy lets through."""
    seen = GrantSeen(grant(**asked), ready_pilot(), policy or stage(rules=[RULE]), ca_not_after=CA_END)
    return log_of(seen)


def changed(log: list[RecordedEntry], change: Callable[[dict[str, Any]], object]) -> list[RecordedEntry]:
    """A log whose last entry says something else."""
    data = copy.deepcopy(log[-1].data)
    change(data)
    return [*log[:-1], msgspec.structs.replace(log[-1], data=data)]


def only(log: list[RecordedEntry], shelf: Kept | None = None) -> Replayed:
    """The one decision of a log, made again."""
    (again,) = replay(log, shelf)
    return again


def objects(_: Request) -> Objection | None:
    """A check that is against everything."""
    return Objection(Reason.RULE_REFUSED, "not any more")


def asks(monkeypatch: pytest.MonkeyPatch, check: Check[Request]) -> None:
    """Let today's code ask one thing more, or in the place of a check of that name."""

    def today(policy: StagePolicy) -> tuple[Check[Request], ...]:
        known = checks_of(policy)
        if check.name in {one.name for one in known}:
            return tuple(check if one.name == check.name else one for one in known)
        return (*known, check)

    monkeypatch.setattr(deciding, "checks_of", today)


def test_the_same_code_decides_the_same() -> None:
    """Allowed or denied, to the word, and it is told which entry it was."""
    for log in (issued(), issued(duration="21m")):
        again = only(log)
        assert (again.verdict, again.index) == (Verdict.AGREES, len(log) - 1)
        assert again.now == again.then


class TestDifference:
    """What is told as one, and what is not."""

    @pytest.mark.parametrize("name", ["duration-within-stage", "rule/short", "new"])
    def test_a_check_that_objects_today(self, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        """Whether it was asked then or not; both answers are shown."""
        log = issued()
        asks(monkeypatch, Check(name, objects))
        again = only(log)
        assert again.verdict is Verdict.DIFFERS
        (told,) = [one for one in again.checks() if one.name == name]
        assert (told.then is None) is (name == "new")
        assert told.now == CheckResult(name, passed=False, message="not any more")
        assert again.now is not None
        assert (again.then.allowed, again.now.allowed) == (True, False)

    def test_a_check_that_objects_no_more(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """What was denied then is allowed today."""
        log = issued(duration="21m")
        asks(monkeypatch, Check("rule/short", lambda _: None))
        again = only(log)
        assert again.verdict is Verdict.DIFFERS
        assert again.now is not None
        assert (again.then.reason, again.now.reason) == ("RuleRefused", "")

    RECORDED: ClassVar[Mapping[str, Callable[[dict[str, Any]], object]]] = {
        "another outcome": lambda data: data["decision"].update(allowed=False, reason="StageFrozen"),
        "another reason": lambda data: data["decision"].update(reason="StageFrozen"),
        "another answer": lambda data: data["decision"]["checks"][3].update(passed=False),
        "other owners": lambda data: data["decision"].update(owners=["eve"]),
        "an approval": lambda data: data["decision"].update(
            approvals=[{"name": "yes", "uid": "u", "approver": "eve"}]
        ),
    }

    @pytest.mark.parametrize("change", RECORDED.values(), ids=RECORDED)
    def test_a_log_that_says(self, change: Callable[[dict[str, Any]], object]) -> None:
        """The record is held to the decision, not believed."""
        assert only(changed(issued(), change)).verdict is Verdict.DIFFERS

    VOUCHED: ClassVar[Mapping[str, tuple[Callable[[dict[str, Any]], object], set[str]]]] = {
        "subject": (
            lambda data: data["observation"]["grant"]["metadata"].update(name="another"),
            {"observation.grant", "credential.secretName", "credential.spiffeID"},
        ),
        "subjectuid": (
            lambda data: data["observation"]["grant"]["metadata"].update(uid="another"),
            {"observation.grant", "id"},
        ),
        "grantDigest": (lambda data: data.update(grantDigest="sha256:" + "ab" * 32), set()),
        "decision.policyDigest": (
            lambda data: data["decision"].update(policyDigest="sha256:" + "ab" * 32),
            set(),
        ),
        "decision.pilotDigest": (lambda data: data["decision"].pop("pilotDigest"), set()),
        "requestedBy": (lambda data: data.update(requestedBy="eve"), set()),
        "parent": (lambda data: data.update(parent={"name": "above", "uid": "uid-of-above"}), set()),
    }

    @pytest.mark.parametrize("field, case", VOUCHED.items(), ids=VOUCHED)
    def test_what_was_looked_at_is_not_what_the_entry_is_about(
        self, field: str, case: tuple[Callable[[dict[str, Any]], object], set[str]]
    ) -> None:
        """Though the same is decided upon it: the field is named, and what else does not agree then."""
        change, others = case
        again = only(changed(issued(), change))
        assert again.verdict is Verdict.DIFFERS
        assert again.mismatches[0].startswith(f"{field}: the entry says ")
        assert {told.partition(":")[0] for told in again.mismatches} == {field, *others}

    def test_an_approval_that_is_not_the_one_it_names(self) -> None:
        """Its spec stands in the observation, and is held to its digest there."""
        policy = stage(approvals={"grant": {"required": 1}})
        own = approval("own", of=grant(), approver="ana")
        log = log_of(GrantSeen(grant(), ready_pilot(), policy, ca_not_after=CA_END, approvals=(own,)))

        def reword(data: dict[str, Any]) -> None:
            data["observation"]["approvals"][0]["spec"]["reason"] = "something else"

        again = only(changed(log, reword))
        assert again.verdict is Verdict.DIFFERS
        (told,) = again.mismatches
        assert told.startswith("observation.approvals: the spec of 'own' is not sha256:")

    def test_other_words_are_none(self) -> None:
        """Nor is a check that passes and was not asked then, or is not asked any more."""

        def reword(data: dict[str, Any]) -> None:
            data["decision"]["checks"][-1]["message"] = "in other words"
            data["decision"]["checks"][0]["name"] = "what it was called once"

        again = only(changed(issued(duration="21m"), reword))
        assert again.verdict is Verdict.AGREES
        gone, *_, new = again.checks()
        assert (gone.name, gone.now) == ("what it was called once", None)
        assert (new.name, new.then) == ("stage-not-frozen", None)


class TestImpossible:
    """A decision that cannot be made again says exactly why not."""

    CASES: ClassVar[Mapping[str, tuple[Callable[[dict[str, Any]], object], str]]] = {
        "an older version wrote it": (
            lambda data: data.pop("observation"),
            "its version did not record what the checks looked at",
        ),
        "what was looked at was too large": (
            lambda data: data.update(observation={"sha256": "ab" * 32, "bytes": 20_000}),
            f"has only the digest sha256:{'ab' * 32} of 20000 bytes",
        ),
        "it does not fit": (
            lambda data: data["observation"].pop("stage"),
            "what the checks looked at cannot be read: Object missing required field `stage`",
        ),
        "it names an obstacle that is none": (
            lambda data: data["observation"].update(
                hindrances=[
                    {
                        "binding": {"namespace": "n", "name": "b", "roleRef": {"kind": "Role", "name": "r"}},
                        "obstacle": "X",
                    }
                ]
            ),
            "what the checks looked at cannot be read: 'X'",
        ),
        "its time is missing": (
            lambda data: data["decision"].pop("decidedAt"),
            "it does not say when it was made",
        ),
        "no check decided it": (
            lambda data: data["decision"].update(checks=[], message="the Secret is someone else's"),
            "not checks decided this, but what was found after them: the Secret is someone else's",
        ),
        "the decision is none": (
            lambda data: data.update(decision={"allowed": "perhaps"}),
            "its decision cannot be read: Expected `bool`, got `str`",
        ),
    }

    @pytest.mark.parametrize("change, why", CASES.values(), ids=CASES)
    def test_it_says_why(self, change: Callable[[dict[str, Any]], object], why: str) -> None:
        """And is no difference."""
        again = only(changed(issued(), change))
        assert (again.verdict, again.now) == (Verdict.CANNOT, None)
        assert why in again.why

    DEFINITIONS: ClassVar[Mapping[EntryType, str]] = {
        EntryType.STAGE_POLICY_CHANGED: "policy",
        EntryType.PILOT_DEFINED: "definition",
        EntryType.GRANT_REQUESTED: "spec",
    }

    @pytest.mark.parametrize("kind, field", DEFINITIONS.items(), ids=DEFINITIONS.values())
    def test_a_definition_is_missing(self, kind: EntryType, field: str) -> None:
        """The log has its digest; whoever has it can bring it, and nothing else in its place."""
        log = issued()
        (told,) = [entry for entry in log if entry.type == kind]
        definition = told.data[field]
        digest = digest_json(definition)
        large = {**told.data, field: {"sha256": digest.removeprefix("sha256:"), "bytes": 20_000}}
        large_log = [
            entry if entry is not told else msgspec.structs.replace(told, data=large) for entry in log
        ]
        again = only(large_log)
        assert again.verdict is Verdict.CANNOT
        assert again.why == f"no entry before it has the definition {digest} in full"
        for brought, verdict in ((definition, Verdict.AGREES), ({**definition, "x": 1}, Verdict.CANNOT)):
            shelf = Kept()
            Replay(shelf).keep(brought)
            assert only(large_log, shelf).verdict is verdict

    @pytest.mark.parametrize("kind, field", DEFINITIONS.items(), ids=DEFINITIONS.values())
    def test_a_definition_that_the_log_was_never_told_cannot_be_brought(
        self, kind: EntryType, field: str
    ) -> None:
        """It was not the one in force, as far as the log says."""
        log = issued()
        (told,) = [entry for entry in log if entry.type == kind]
        rest = [entry for entry in log if entry is not told]
        again = only(rest)
        assert again.verdict is Verdict.CANNOT
        assert again.why == f"no entry before it has the definition {digest_json(told.data[field])} in full"
        shelf = Kept()
        Replay(shelf).keep(told.data[field])
        assert only(rest, shelf).verdict is Verdict.DIFFERS

    def test_what_comes_later_does_not_count(self) -> None:
        """A decision rests on what was there before it."""
        *before, decision = issued()
        again = only([decision, *before])
        assert again.verdict is Verdict.CANNOT


def test_the_version_that_decided_is_told() -> None:
    """The newest start before it names it."""
    started = [
        Entry(
            f"operator/{version}/started",
            EntryType.OPERATOR_STARTED,
            "Namespace system",
            f"operator/{version}",
            NOW,
            {"version": version},
        )
        for version in ("1.0.0", "1.1.0")
    ]
    first, second = recorded(started)
    assert only([first, *issued(), second]).version == "1.0.0"
    assert only([first, second, *issued()]).version == "1.1.0"


def test_what_was_counted_then_is_counted_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not what is counted now: a limit is asked with the figures of then, though it let them pass."""
    case = GrantSeen(grant(), ready_pilot(), stage(), ca_not_after=CA_END, active_grants=3, issued_lately=4)
    log = log_of(case)
    figures: list[tuple[int, int]] = []

    def count(request: Request) -> None:
        figures.append((request.seen.active_grants, request.seen.issued_lately))

    asks(monkeypatch, Check("counts", count))
    assert only(log).verdict is Verdict.AGREES
    assert figures == [(3, 4)]


def test_the_approvals_that_did_not_count_are_asked_again_too() -> None:
    """A word that counts for nothing was looked at as well; the entry has it."""
    policy = stage(approvals={"grant": {"required": 1}})
    own = approval("own", of=grant(), approver="ana")
    log = log_of(GrantSeen(grant(), ready_pilot(), policy, ca_not_after=CA_END, approvals=(own,)))
    assert log[-1].data["observation"]["approvals"][0]["spec"]["approver"] == "ana"
    assert only(log).verdict is Verdict.AGREES


def test_a_word_that_was_refused_before_is_not_told_again() -> None:
    """The entry that said that it counts for nothing has it, with what was said of it."""
    policy = stage(approvals={"grant": {"required": 1}})
    own = approval("own", of=grant(), approver="ana")
    refused = decide_approval(ApprovalSeen(own, grant(), policy), moment())
    assert refused.status is not None
    case = GrantSeen(
        grant(),
        ready_pilot(),
        policy,
        ca_not_after=CA_END,
        approvals=(msgspec.structs.replace(own, status=refused.status(Outcome())),),
    )
    log = recorded((*taken_up(policy), *refused.entries, *consider(Case(case, moment())).entries))
    assert "spec" not in log[-1].data["observation"]["approvals"][0]
    assert only(log).verdict is Verdict.AGREES
    assert only([entry for entry in log if entry.type != EntryType.APPROVAL_VOID]).verdict is Verdict.CANNOT


def test_what_is_too_much_for_an_entry_is_there_by_its_digest() -> None:
    """However much is said about a grant, its decision gets into the log."""
    policy = stage(approvals={"grant": {"required": 1}})
    words = tuple(
        approval(f"word-{number}", of=grant(), approver="ana", reason="x" * 1000) for number in range(40)
    )
    log = log_of(GrantSeen(grant(), ready_pilot(), policy, ca_not_after=CA_END, approvals=words))
    assert log[-1].type == EntryType.GRANT_DECIDED
    again = only(log)
    assert again.verdict is Verdict.CANNOT
    assert "was too large for its entry" in again.why


def test_checks_stand_in_the_order_of_then_and_what_is_new_comes_last() -> None:
    """Side by side: nothing is lost and nothing twice."""
    one, two, three = (CheckResult(name, passed=True) for name in ("one", "two", "three"))
    entry = issued()[-1]
    then, now = (DecisionStatus(allowed=True, checks=checks) for checks in ((one, two), (three, two)))
    told = list(Replayed(0, entry, then, now).checks())
    assert told == [
        Comparison("one", one, None),
        Comparison("two", two, two),
        Comparison("three", None, three),
    ]
