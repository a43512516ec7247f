"""`approve --exception` and `deny --exception`: what is shown, and what the word is bound to."""

from __future__ import annotations

import datetime as dt

import pytest

from pilot_identity.cli.reading import as_pilot, as_stage
from pilot_identity.core.decisions.exceptions import exception_digest
from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run
from tests.cli.test_approving import tells

SINCE = dt.datetime(2026, 11, 20, 12, tzinfo=dt.UTC)
UNTIL = things.at(days=2, hours=1)
RULE = {"name": "no-night", "expression": "false", "message": "nothing runs at night"}


@pytest.fixture
def digest(api: FakeApi) -> str:
    """A pilot whose exception from a rule waits; returns its digest."""
    pilot = things.pilot(
        exceptions=[
            {"rule": "no-night", "reason": "month end", "until": UNTIL, "requestedBy": "tessa@example.org"}
        ]
    )
    stage = things.stage()
    stage["spec"]["rules"] = [RULE]
    known = as_pilot(pilot)
    found = exception_digest(known, as_stage(stage), known.spec.exceptions[0], SINCE)
    pilot["status"] |= {
        "observedGeneration": 2,
        "exceptions": [
            {
                "rule": "no-night",
                "digest": found,
                "since": SINCE.isoformat(),
                "until": UNTIL,
                "state": "Waiting",
                "message": "waits for approvals: 0 of 2",
                "ruleText": RULE,
                "required": 2,
            }
        ],
    }
    api.put("pilotidentities", pilot)
    api.put("stagepolicies", stage)
    tells(api, "Waiting", "it counts; 0 of 2 people have approved")
    return found


@pytest.mark.parametrize("verb, decision", [("approve", "Approve"), ("deny", "Deny")])
def test_the_word_is_bound_to_the_exception_that_was_shown(
    api: FakeApi, run: Run, digest: str, verb: str, decision: str
) -> None:
    """By the digest in the pilot's status, made again from what is on the screen."""
    result = run(verb, "triage", "--exception", "no-night", "--reason", "agreed", stdin="y\n")
    assert result.exit_code == 0, result.output
    assert "the exception of pilot triage from rule no-night" in result.stdout
    (made,) = api.of("approvals")
    assert made["spec"] == {
        "subject": {"kind": "PilotIdentity", "name": "triage", "uid": "uid-triage"},
        "purpose": "Exception",
        "digest": digest,
        "decision": decision,
        "reason": "agreed",
        "approver": "alice@example.org",
        "approverGroups": ["team-a", "system:authenticated"],
    }


def test_a_person_sees_what_they_approve(api: FakeApi, run: Run, digest: str) -> None:
    """The rule's words and its expression, why, until when, for whom, and who asks."""
    shown = run("approve", "triage", "--exception", "no-night", "-r", "fine", stdin="n\n").stderr
    for told in (
        "from rule no-night of stage sandbox",
        "nothing runs at night",
        "Expression   false",
        "month end",
        "in 2d",
        "tessa@example.org",
        "bea@example.org (business), tom@example.org (technical)",
        "tickets=read,comment",
        "Waiting; approvals 0 of 2",
        digest,
    ):
        assert told in shown, told
    assert api.of("approvals") == []


def test_who_may_not_see_the_stage_reads_the_operators_word(api: FakeApi, run: Run, digest: str) -> None:
    """The rule stands in the pilot's status, and the screen says whose word that is."""
    api.forbidden = "GET .*/stagepolicies"
    shown = run("approve", "triage", "--exception", "no-night", "-r", "fine", "--yes")
    assert shown.exit_code == 0, shown.output
    assert "nothing runs at night" in shown.stderr
    assert "rule and digest are the operator's word" in shown.stderr
    assert api.of("approvals")[0]["spec"]["digest"] == digest


@pytest.mark.usefixtures("digest")
def test_nothing_is_approved_that_was_not_shown(api: FakeApi, run: Run) -> None:
    """A change that the operator has not looked at, another rule, one that is over: no word is said."""

    def refused(rule: str = "no-night") -> str:
        result = run("approve", "triage", "--exception", rule, "-r", "fine", "--yes")
        assert result.exit_code == 1
        assert api.of("approvals") == []
        return result.stderr

    pilot, (stage,) = api.of("pilotidentities")[0], api.of("stagepolicies")
    assert "asks for no exception from rule other; it asks for: no-night" in refused("other")
    stage["spec"]["rules"] = [{**RULE, "expression": "true"}]
    assert "pilot triage or stage sandbox just changed" in refused()
    pilot["metadata"]["generation"] = 3
    assert "has not looked at pilot triage as it is now" in refused()
    pilot["metadata"]["generation"] = 2
    pilot["status"]["exceptions"][0] |= {"state": "Denied", "message": "denied by ralf: no"}
    assert "is Denied: denied by ralf: no" in refused()
