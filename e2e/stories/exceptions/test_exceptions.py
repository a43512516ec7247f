"""An exception from a stage's rule: asked for, approved by somebody else, in force, and over."""

from __future__ import annotations

import datetime as dt
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e.admin import Document
from e2e.controlplane.cluster import Cluster
from e2e.installation import NAMESPACE, ROOT
from e2e.patience import until
from e2e.person import Person, made, take_back
from e2e.stories.cast import APPROVER, OWNER, REQUESTER, Cast, approval, policy
from e2e.stories.cli.terminal import Terminal
from e2e.stories.play import Play, moment
from pilot_identity.core.audit.entries import EntryType
from pilot_identity.core.resources.timestamps import format_timestamp

RULE = {
    "name": "short",
    "expression": "duration(grant.spec.duration) <= duration('20m')",
    "message": "no task takes longer than 20 minutes here",
}
LONG = "30m"
PARTLY = 4
AUDIT_S = 90.0


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Iterator[Cast]:
    """People, where somebody signs their certificates, in a sandbox with a rule."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    with policy(play.admin, play, rules=[RULE]):
        yield Cast(play, cluster)
    take_back(play.admin)


def ahead(**span: float) -> str:
    """A time from now, in whole seconds."""
    return format_timestamp((dt.datetime.now(dt.UTC) + dt.timedelta(**span)).replace(microsecond=0))


def wish(person: Person, until_when: str, reason: str = "the books of May are large") -> None:
    """Write the pilot's one exception, as its team does."""
    one = {"rule": "short", "reason": reason, "until": until_when, "requestedBy": person.name}
    made(person.patch("pilotidentity", "triage", {"spec": {"exceptions": [one]}}))


def exception(play: Play, state: str, *, seconds: float = 20.0) -> Document:
    """Wait until the pilot's one exception is in a state; returns what its status says of it."""

    def look() -> Document | None:
        found = play.status(play.pilots("triage")).get("exceptions", [])
        return found[0] if found and found[0]["state"] == state else None

    return until(
        look,
        f"the exception is {state};",
        seconds=seconds,
        instead=lambda: play.status(play.pilots("triage")).get("exceptions"),
    )


def test_a_rule_is_lifted_only_while_somebody_elses_word_lasts(
    play: Play, cast: Cast, cluster: Cluster, tmp_path: Path
) -> None:
    """Refused; waits; issued until the exception's end and says so; refused again; all of it in the log."""
    tom = cast.enter("tom", OWNER, REQUESTER, APPROVER)
    rita = cast.enter("rita", APPROVER)
    pilot = play.ready_pilot("triage")
    uid = pilot["metadata"]["uid"]
    cast.ask(tom, "before", "triage", duration=LONG)
    assert play.phase("before", "Denied")["status"]["decision"]["reason"] == "RuleRefused"

    wish(tom, ahead(hours=1))
    exception(play, "Waiting")
    assert play.admin.get(play.pilots("triage"))["spec"]["exceptions"][0]["requestedBy"] == tom.name
    cast.ask(tom, "during", "triage", duration=LONG)
    told = play.condition(play.grants("during"), "Ready", reason="ExceptionAwaited")
    assert "no task takes longer than 20 minutes here; waits until people approve" in told["message"]
    himself = Terminal(cluster, tom).run("approve", "triage", "--exception", "short", "-r", "mine", "-y")
    assert himself.code == 1
    assert "you asked for this exception yourself" in himself.err
    exception(play, "Waiting")
    assert play.admin.find(play.secrets("during")) is None

    answer = Terminal(cluster, rita).does("approve", "triage", "--exception", "short", "-r", "May", "-y")
    for shown in (RULE["message"], RULE["expression"], "the books of May are large", tom.name):
        assert shown in answer.err
    first = exception(play, "InForce")
    assert [one["approver"] for one in first["approvals"]] == [rita.name]
    assert _remark(play.phase("during", "Active")) == _lifted(first)

    # Another end is another exception: nobody has approved that. This one is soon over.
    ends = ahead(seconds=18)
    wish(tom, ends)
    second = exception(play, "Waiting")
    _approve(rita, pilot, second)
    second = exception(play, "InForce")
    cast.ask(tom, "capped", "triage", duration=LONG)
    capped = play.phase("capped", "Active")
    assert _remark(capped) == _lifted(second)
    assert moment(capped["status"]["expiresAt"]) == moment(ends), "no longer than what allows it"

    over = exception(play, "Ended", seconds=60)
    assert over["message"] == f"its time was up at {ends}"
    play.phase("capped", "Expired", seconds=30)
    cast.ask(tom, "after", "triage", duration=LONG)
    assert play.phase("after", "Denied")["status"]["decision"]["reason"] == "RuleRefused"

    lines = [line for line in play.trail().of(uid) if "exception" in line.kind]
    assert [line.kind for line in lines] == [EntryType.EXCEPTION_OPENED, EntryType.EXCEPTION_ENDED] * 2
    (opened, changed, _, timed_out) = (line.entry.data for line in lines)
    assert [lines[0].index, lines[2].index] == [first["auditIndex"], second["auditIndex"]]
    assert second["auditIndex"] < capped["status"]["decision"]["auditIndex"]
    assert (opened["requestedBy"], opened["ruleText"]) == (tom.name, RULE)
    assert changed["why"] == "its until was changed, so that it is asked for anew"
    assert (timed_out["wasInForce"], timed_out["openedBy"]) == (True, second["auditIndex"])
    _require_replay(cluster, tmp_path, play)


def _approve(person: Person, pilot: Document, asked: Document) -> None:
    """Approve an exception as its status asks for it."""
    subject = {"kind": "PilotIdentity", **{name: pilot["metadata"][name] for name in ("name", "uid")}}
    said = {"subject": subject, "purpose": "Exception", "digest": asked["digest"]}
    made(person.create(approval(person, pilot, "second", **said)))


def _remark(grant: Document) -> str:
    """What the decision says of the rule."""
    (check,) = [one for one in grant["status"]["decision"]["checks"] if one["name"] == "rule/short"]
    assert check["passed"]
    said: str = check["message"]
    return said


def _lifted(known: Document) -> str:
    return f"lifted by an exception until {known['until']}, audit entry {known['auditIndex']}"


def _require_replay(cluster: Cluster, home: Path, play: Play) -> None:
    """Replay all of the log: every decision of this story agrees."""
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "pilot_identity.cli",
            "audit",
            "replay",
            "--all",
            "-o",
            "json",
            "-n",
            NAMESPACE,
        ],
        env=cluster.environment(cluster.kubeconfig)
        | {"PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}", "XDG_STATE_HOME": str(home)},
        capture_output=True,
        text=True,
        timeout=AUDIT_S,
        check=False,
    )
    *others, counts = (json.loads(line) for line in done.stdout.splitlines())
    assert counts["differ"] == 0, others
    # Of other stories: what no check decided, or what is too large for an entry.
    assert done.returncode == (PARTLY if counts["cannot"] else 0), done.stderr
    assert counts["agree"] >= len(("before", "during waits", "during", "capped", "after"))
    # What cannot be replayed, or differs, is told one by one.
    assert not [one for one in others if one["subject"].startswith(f"TaskGrant {play.namespace}/")]
