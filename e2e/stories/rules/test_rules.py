"""A stage's own rules, in CEL: what they refuse and say, and what happens where they cannot be read."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e import places
from e2e.admin import Document
from e2e.stories.cast import change, policy
from e2e.stories.play import Play
from pilot_identity.core.audit.entries import EntryType

DESCRIBED = {
    "name": "task-described",
    "expression": "has(grant.spec.task.description)",
    "message": "say in task.description what is done",
}
SHORT = {"name": "short", "expression": "duration(grant.spec.duration) <= duration('20m')"}
GUESSES = {"name": "guesses", "expression": "grant.spec.parent != 'x'"}
BROKEN = {"name": "broken", "expression": "grant.spec."}
NO_ANSWER = {"name": "counts", "expression": "1 + 1"}


@pytest.fixture(autouse=True)
def rules(play: Play) -> Iterator[None]:
    """Two rules in the sandbox."""
    with policy(play.admin, play, rules=[DESCRIBED, SHORT]):
        yield


def _task(description: str = "") -> Document:
    return {"id": "T-1", **({"description": description} if description else {})}


def test_a_rule_refuses_with_its_own_message(play: Play) -> None:
    """The denial names rule and stage; every rule is a check of its own in the decision and the log."""
    play.ready_pilot("triage")
    play.ask("mute", "triage")
    grant = play.phase("mute", "Denied")
    decision = grant["status"]["decision"]
    assert decision["reason"] == "RuleRefused"
    assert (
        decision["message"]
        == "rule 'task-described' of stage 'sandbox': say in task.description what is done"
    )
    assert decision["checks"][-1]["name"] == "rule/task-described"
    *_, line = play.trail().of(grant["metadata"]["uid"])
    assert line.kind == EntryType.GRANT_DENIED
    assert line.entry.data["decision"]["checks"] == decision["checks"]

    play.ask("told", "triage", task=_task("sorts the invoices of May"))
    decision = play.phase("told", "Active")["status"]["decision"]
    passed = {check["name"] for check in decision["checks"] if check["passed"]}
    assert {"rule/task-described", "rule/short"} <= passed


def test_the_second_rule_counts_too(play: Play) -> None:
    """A rule without a message of its own is told by its expression."""
    play.ready_pilot("triage")
    play.ask("long", "triage", task=_task("sorts"), duration="30m")
    decision = play.phase("long", "Denied")["status"]["decision"]
    assert decision["message"] == f"rule 'short' of stage 'sandbox': {SHORT['expression']}"


def test_a_rule_without_an_answer_refuses(play: Play) -> None:
    """What runs into an error is no yes."""
    change(play.admin, play, rules=[GUESSES])
    play.ready_pilot("triage")
    play.ask("task", "triage")
    decision = play.phase("task", "Denied")["status"]["decision"]
    assert decision["reason"] == "RuleFailed"
    assert 'Key not found in map : "parent"' in decision["message"]


@pytest.mark.parametrize(
    "spec, says",
    [
        pytest.param({"rules": [DESCRIBED, BROKEN]}, "rule 'broken' does not compile", id="no expression"),
        pytest.param({"rules": [NO_ANSWER]}, "must give true or false", id="no yes or no"),
        pytest.param(
            {"approvals": {"grant": {"required": 1, "when": "grants.spec.emergency"}}},
            "undeclared reference to 'grants.spec",
            id="a when that names nothing",
        ),
    ],
)
def test_a_rule_that_does_not_compile_stops_the_stage(play: Play, spec: Document, says: str) -> None:
    """The StagePolicy says what and where; nothing is issued under it until it is put right."""
    play.ready_pilot("triage")
    change(play.admin, play, reason="RuleInvalid", **spec)
    stalled = play.condition(places.stages("sandbox"), "Stalled", reason="RuleInvalid")
    assert says in stalled["message"]
    play.ask("task", "triage", task=_task("sorts"))
    told = play.condition(play.grants("task"), "Ready", reason="PilotNotReady")
    assert told["status"] == "False"
    assert play.admin.find(play.secrets("task")) is None
    change(play.admin, play, rules=[DESCRIBED], approvals={"grant": {"required": 0, "when": None}})
    play.phase("task", "Active")


def test_a_rule_is_asked_again_when_credentials_are_renewed(play: Play) -> None:
    """A rule that came after the decision, and would have refused, lets nothing be renewed."""
    change(play.admin, play, credentials={"x509TTL": "5s", "jwtTTL": "5s"})
    try:
        play.ready_pilot("triage")
        play.ask("task", "triage", task=_task("sorts"))
        play.phase("task", "Active")
        refuses = {"name": "no-more", "expression": "false", "message": "the sorting season is over"}
        change(play.admin, play, rules=[refuses])
        told = play.condition(play.grants("task"), "Ready", reason="RuleRefused")
        assert "the sorting season is over" in told["message"]
    finally:
        change(play.admin, play, credentials={"x509TTL": "1h", "jwtTTL": "15m"})
