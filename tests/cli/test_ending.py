import pytest

from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run


def test_several_are_shown_as_one_list_and_the_worst_code_counts(api: FakeApi, run: Run) -> None:
    """Programs get one document; a grant that does not end in time makes it 3."""
    api.put("taskgrants", things.grant("slow"))
    api.put("taskgrants", things.grant("done", "Completed", uid="uid-done"))
    result = run("complete", "done", "nowhere", "slow", "--timeout", "1s", "-o", "yaml")
    assert result.exit_code == 3
    assert "no grant nowhere" in result.stderr
    assert "2 of 3 failed" in result.stderr
    assert "phase: Completed" in result.stdout
    assert api.of("taskgrants")[1]["spec"]["completed"] is True


def test_no_wait_does_not_watch(api: FakeApi, run: Run) -> None:
    """The word is given; the operator's work goes on without us."""
    api.put("taskgrants", things.grant("task"))
    result = run("revoke", "task", "--reason", "leaked", "--no-wait", "-o", "name")
    assert result.exit_code == 0
    assert result.stdout == "taskgrant.pilotidentity.dev/task\n"
    assert api.of("taskgrants")[0]["spec"]["revoke"] == {"reason": "leaked", "by": "alice@example.org"}
    assert not api.asked("GET")


def test_the_wait_for_an_end_is_over_when_the_grant_is_gone(api: FakeApi, run: Run) -> None:
    """Whoever deleted it has ended it too."""
    grant = api.put("taskgrants", things.grant("task"))
    api.scripts.put({"type": "DELETED", "object": grant})
    assert run("complete", "task").exit_code == 0


def test_a_copy_that_could_still_pass_is_told(api: FakeApi, run: Run) -> None:
    """Who revokes after a leak must know for how long an offline check still believes."""
    closure = {"outcome": "Revoked", "withdrawnAt": things.at(), "residualUntil": things.at(minutes=4)}
    api.put("taskgrants", things.grant("task", "Revoked", status={"closure": closure}))
    assert "a copy could pass an offline check until" in run("revoke", "task", "--reason", "leaked").stdout


def test_who_may_not_is_told_by_the_api_server(api: FakeApi, run: Run) -> None:
    """The refusal is not taken for a grant that has ended already."""
    api.put("taskgrants", things.grant("task", "Completed"))
    api.forbidden = "PATCH"
    result = run("revoke", "task", "--reason", "leaked")
    assert result.exit_code == 1
    assert "forbidden" in result.stderr


@pytest.mark.parametrize("verb, is_suspended", [("suspend", True), ("resume", False)])
def test_a_pilot_that_is_so_already_is_not_written(
    api: FakeApi, run: Run, verb: str, is_suspended: bool
) -> None:
    """So that the record of who did it stays that of who did."""
    pilot = things.pilot(suspend=is_suspended)
    if is_suspended:
        pilot["status"]["conditions"][0] |= {"status": "False", "reason": "Suspended"}
    api.put("pilotidentities", pilot)
    result = run(verb, "triage")
    assert result.exit_code == 0, result.output
    assert not api.asked("PATCH")


def test_a_suspension_is_waited_for_in_the_status_of_this_generation(api: FakeApi, run: Run) -> None:
    """A Ready condition from before the change says nothing of it."""
    pilot = api.put("pilotidentities", things.pilot(suspend=False))
    pilot["metadata"]["generation"] = 3
    later = things.pilot(suspend=True)
    later["metadata"]["generation"] = 3
    later["status"]["conditions"] = [
        {"type": "Ready", "status": "False", "reason": "Suspended", "observedGeneration": 3}
    ]
    api.scripts.put({"type": "MODIFIED", "object": later})
    result = run("suspend", "triage")
    assert result.exit_code == 0, result.output
    assert result.stdout == "pilot triage is suspended\n"
    assert [path for path, _ in api.asked("PATCH")], "and it was written"


def test_a_pilot_that_is_not_there(api: FakeApi, run: Run) -> None:
    """Exit code 1, with where to look."""
    del api
    result = run("suspend", "nobody")
    assert result.exit_code == 1
    assert "no pilot nobody in namespace team-a" in result.stderr


@pytest.mark.parametrize("verb", [("complete",), ("revoke", "--reason", "too late")])
def test_a_grant_that_had_ended_is_said_to_have(api: FakeApi, run: Run, verb: tuple[str, ...]) -> None:
    """It is no error, and it is not to look as if this word had ended it."""
    api.put("taskgrants", things.grant("task", "Expired"))
    result = run(verb[0], "task", *verb[1:])
    assert result.exit_code == 0
    assert "had ended before: nothing was done" in result.stderr
