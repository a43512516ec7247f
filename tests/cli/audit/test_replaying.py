"""`audit replay` on logs in directories; on a real API server `e2e/stories/replay` tells the same."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from typer.testing import Result

from pilot_identity import __version__
from pilot_identity.cli.audit import replaying
from pilot_identity.cli.audit.replaying import TemporaryShelf
from pilot_identity.core.audit.entries import Entry, encode_entry
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.resources import PilotIdentity
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import NAME, write
from tests.core.builders import CA_END, TOOL, grant, moment, ready_pilot, stage, tool
from tests.core.decisions.conftest import taken_up

POLICY = stage(rules=[{"name": "short", "expression": "duration(grant.spec.duration) <= duration('20m')"}])


def decided(name: str, duration: str, pilot: PilotIdentity | None = None) -> list[Entry]:
    """What the log is told of one decision."""
    asked = grant(name, duration=duration)
    plan = decide_grant(GrantSeen(asked, pilot or ready_pilot(), POLICY, ca_not_after=CA_END), moment())
    return [*plan.entries, *([plan.release.announce("ab" * 32)] if plan.release is not None else [])]


def turned(entries: Sequence[Entry]) -> list[Entry]:
    """The same, but the last says that the rule did not object."""
    *before, last = entries
    decision = {**last.data["decision"], "allowed": True, "reason": ""}
    data = {**last.data, "decision": decision}
    return [*before, Entry(last.id, last.type, last.subject, last.subject_uid, last.time, data)]


def unobserved(entries: Sequence[Entry]) -> list[Entry]:
    """The same, as a version wrote it that recorded no observation."""
    *before, last = entries
    data = {name: value for name, value in last.data.items() if name != "observation"}
    return [*before, Entry(last.id, last.type, last.subject, last.subject_uid, last.time, data)]


def place(directory: Path, *told: Sequence[Entry]) -> str:
    """A log with the policy and what was told, each id once."""
    entries = {entry.id: entry for some in (taken_up(POLICY), *told) for entry in some}
    return str(write(directory, [encode_entry(entry, NAME) for entry in entries.values()]))


def lines(result: Result) -> list[dict[str, object]]:
    """What was printed for programs."""
    return [json.loads(line) for line in result.stdout.splitlines()]


def test_a_decision_is_shown_beside_todays(run: Run, tmp_path: Path) -> None:
    """Each check in a line, both answers, the outcome and the verdict."""
    log = place(tmp_path / "log", decided("allowed", "15m"), decided("denied", "21m"))
    told = run("replay", "denied", "--from", log)
    assert told.exit_code == 0
    assert "grant.denied of TaskGrant team-a/denied" in told.stdout
    assert f"NOW ({__version__})" in told.stdout
    rule, word, outcome, then, now, verdict = told.stdout.splitlines()[-6:]
    assert rule.split() == ["rule/short", "failed", "failed"]
    assert word.startswith("on the word of")
    assert outcome.count("not allowed: RuleRefused") == 2
    assert then.startswith("then: rule 'short' of stage 'sandbox'")
    assert now.removeprefix("now: ") == then.removeprefix("then: ")
    assert verdict == "agrees: the same is decided today"


def test_an_entry_is_named_by_its_index_or_its_grant_by_name_and_namespace(run: Run, tmp_path: Path) -> None:
    """A grant whose name is a number needs its namespace."""
    log = place(tmp_path / "log", decided("allowed", "15m"), decided("7", "15m"))
    (first,) = lines(run("replay", "team-a/allowed", "--from", log, "-o", "json"))
    (again,) = lines(run("replay", str(first["index"]), "--from", log, "-o", "json"))
    assert first == again
    (other,) = lines(run("replay", "team-a/7", "--from", log, "-o", "json"))
    assert other["subject"] == "TaskGrant team-a/7"
    for nothing in ("0", "99", "team-b/allowed", "nobody"):
        told = run("replay", nothing, "--from", log)
        assert told.exit_code == 1
        assert f"the log has no decision {nothing}" in told.stderr
        assert ("hint: entry 0 is " in told.stderr) == (nothing == "0")
    both = run("replay", "--all", "11", "--from", log)
    assert (both.exit_code, "--all is every decision, 11 is one" in both.stderr) == (2, True)


def test_a_difference_is_an_error_and_both_results_are_shown(run: Run, tmp_path: Path) -> None:
    """Of one decision and of all."""
    log = place(tmp_path / "log", decided("allowed", "15m"), turned(decided("denied", "21m")))
    told = run("replay", "denied", "--from", log)
    assert told.exit_code == 1
    assert "outcome" in told.stdout
    assert told.stdout.splitlines()[-1] == "DIFFERS: something else is decided today"
    told = run("replay", "--all", "--from", log)
    assert told.exit_code == 1
    assert told.stdout.splitlines()[-1].endswith("1 agree, 1 differ, 0 cannot be replayed")
    differing, counts = lines(run("replay", "--all", "--from", log, "-o", "json"))
    assert (differing["verdict"], counts["differ"]) == ("differs", 1)


def test_what_the_entry_is_not_about_is_named(run: Run, tmp_path: Path) -> None:
    """For people and for programs."""
    *before, last = decided("allowed", "15m")
    other = Entry(last.id, last.type, "TaskGrant team-a/other", last.subject_uid, last.time, last.data)
    log = place(tmp_path / "log", [*before, other])
    told = run("replay", "other", "--from", log)
    mismatch = "subject: the entry says TaskGrant team-a/other, looked at was TaskGrant team-a/allowed"
    assert told.exit_code == 1
    assert told.stdout.splitlines()[-2:] == [
        f"mismatch: {mismatch}",
        "DIFFERS: it does not agree with what the log says besides, or with what follows from it",
    ]
    (data,) = lines(run("replay", "other", "--from", log, "-o", "json"))
    assert (data["verdict"], data["mismatches"]) == ("differs", [mismatch])


def test_what_cannot_be_replayed_says_why_and_is_no_difference(run: Run, tmp_path: Path) -> None:
    """Asked for by itself it is an error; among all it is counted, and not all could be checked."""
    log = place(tmp_path / "log", unobserved(decided("old", "21m")))
    told = run("replay", "old", "--from", log)
    assert told.exit_code == 1
    assert "cannot be replayed: its version did not record what the checks looked at" in told.stdout
    told = run("replay", "--all", "--from", log)
    assert told.exit_code == 4
    assert told.stdout.splitlines()[-1].endswith("0 agree, 0 differ, 1 cannot be replayed")
    told = run("replay", "--all", "--from", log, "-o", "json")
    assert told.exit_code == 4
    assert [one.get("unfounded") for one in lines(told)] == [False, 0]


UNFOUNDED: Mapping[str, tuple[Callable[[dict[str, Any]], object], str, int]] = {
    "no checks": (
        lambda data: data.update(decision={**data["decision"], "checks": []}),
        "not checks decided this, but what was found after them: ",
        1,
    ),
    "no observation": (
        lambda data: data.pop("observation"),
        "its version did not record what the checks looked at",
        1,
    ),
    "no decision": (lambda data: data.pop("decision"), "its decision cannot be read: ", 1),
    "only the digest of an observation": (
        lambda data: data.update(observation={"sha256": "0" * 64, "bytes": 99_999}),
        "what the checks looked at was too large for its entry",
        4,
    ),
}


@pytest.mark.parametrize("change, why, code", UNFOUNDED.values(), ids=UNFOUNDED)
def test_a_grant_that_was_issued_upon_nothing_fails_the_whole(
    run: Run, tmp_path: Path, change: Callable[[dict[str, Any]], object], why: str, code: int
) -> None:
    """Where the entry has the digest of what was looked at, at least not all could be checked."""
    *before, last = decided("task", "15m")
    data = dict(last.data)
    change(data)
    stripped = Entry(last.id, last.type, last.subject, last.subject_uid, last.time, data)
    log = place(tmp_path / "log", decided("sound", "15m"), [*before, stripped])
    told = run("replay", "--all", "--from", log)
    assert told.exit_code == code
    assert f"cannot be replayed: {why}" in told.stdout
    assert ("UNFOUNDED: it was issued, and its entry does not say upon what" in told.stdout) is (code == 1)
    assert "1 agree, 0 differ, 1 cannot be replayed" in told.stdout
    assert run("replay", "task", "--from", log).exit_code == 1


def test_a_definition_can_be_brought(run: Run, tmp_path: Path) -> None:
    """As kubectl prints the object; it counts only where its digest is the one that the log has."""
    resources = [f"projects/{number}{'x' * 200}" for number in range(8)]
    wide = [dict(TOOL), *(tool(f"tool-{number}", resources=resources) for number in range(16))]
    large = ready_pilot(access=wide)
    log = place(tmp_path / "log", decided("task", "15m", large))
    told = run("replay", "task", "--from", log)
    assert told.exit_code == 1
    assert "no entry before it has the definition sha256:" in told.stdout
    file = tmp_path / "pilot.json"
    file.write_bytes(manifest(large))
    agrees = run("replay", "task", "--from", log, "--evidence", str(file))
    assert (agrees.exit_code, agrees.stdout.splitlines()[-1]) == (0, "agrees: the same is decided today")
    file.write_bytes(manifest(ready_pilot()))
    told = run("replay", "task", "--from", log, "--evidence", str(file))
    assert told.exit_code == 1
    assert "warning: no decision asked for sha256:" in told.stderr


def manifest(found: PilotIdentity) -> bytes:
    """An object as `kubectl get -o json` prints it."""
    return msgspec.json.encode(msgspec.to_builtins(found, enc_hook=str))


@pytest.mark.parametrize(
    "content, why",
    [("{", "it is no JSON"), ("[]", "a definition is a JSON object"), ('{"kind":"TaskGrant"}', "TaskGrant")],
)
def test_evidence_that_is_none_is_refused(run: Run, tmp_path: Path, content: str, why: str) -> None:
    """Before anything is read."""
    log = place(tmp_path / "log", decided("task", "15m"))
    file = tmp_path / "evidence.json"
    file.write_text(content)
    told = run("replay", "task", "--from", log, "--evidence", str(file))
    assert told.exit_code == 2
    assert why in told.stderr


def test_either_one_or_all(run: Run, tmp_path: Path) -> None:
    """Neither and both are a wrong command line."""
    log = place(tmp_path / "log", decided("task", "15m"))
    for wrong in ((), ("task", "--all")):
        assert run("replay", *wrong, "--from", log).exit_code == 2


def test_a_log_that_does_not_verify_is_not_replayed(run: Run, tmp_path: Path) -> None:
    """What it says is nobody's word."""
    log = place(tmp_path / "log", decided("task", "15m"))
    (bundle,) = (path for path in (tmp_path / "log" / "tile" / "entries").rglob("*") if path.is_file())
    bundle.write_bytes(bundle.read_bytes().replace(b"TICKET-42", b"TICKET-43"))
    told = run("replay", "--all", "--from", log)
    assert (told.exit_code, told.stdout) == (1, "")
    assert "the log does not verify" in told.stderr


def test_of_many_that_differ_the_first_are_shown_and_all_are_counted(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And it says how far it is."""
    monkeypatch.setattr(replaying, "MOST_SHOWN", 2)
    monkeypatch.setattr(replaying, "PROGRESS_EVERY", 5)
    log = place(tmp_path / "log", *(turned(decided(f"task-{number}", "21m")) for number in range(5)))
    told = run("replay", "--all", "--from", log)
    assert told.stdout.count("DIFFERS") == 2
    assert "… and 3 more" in told.stdout
    assert "0 agree, 5 differ, 0 cannot be replayed" in told.stdout
    assert "10 entries read, 3 decisions made again" in told.stderr


def test_entries_of_kinds_to_come_are_passed_over(run: Run, tmp_path: Path) -> None:
    """A later version's entries do not keep an older program from replaying what it knows."""
    entries = [encode_entry(entry, NAME) for entry in (*taken_up(POLICY), *decided("task", "15m"))]
    entries.insert(
        0, entries[0].replace(b"policy-changed", b"policy-dreamt").replace(b"/policy/", b"/dream/")
    )
    log = str(write(tmp_path / "log", entries))
    assert "1 agree, 0 differ, 0 cannot" in run("replay", "--all", "--from", log).stdout


def test_the_shelf_keeps_the_first_and_tells_what_was_not_asked_for() -> None:
    """By digest; what the log has itself needs nobody's file. Of what is noted it keeps the newest."""
    shelf = TemporaryShelf()
    shelf.keep("sha256:a", b"1")
    shelf.keep("sha256:a", b"2")
    shelf.bring("sha256:a", Path("a.json"))
    assert dict(shelf.unused()) == {"sha256:a": Path("a.json")}
    assert (shelf.find("sha256:a"), shelf.find("sha256:b")) == (b"1", None)
    shelf.note("a", b"1")
    shelf.note("a", b"2")
    assert (shelf.noted("a"), shelf.noted("b")) == (b"2", None)
    assert not shelf.unused()
    shelf.close()
