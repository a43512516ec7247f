"""Daily work without YAML: real people run the real program against the real API server."""

from __future__ import annotations

import base64
import json
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from e2e import places
from e2e.controlplane.cluster import Cluster
from e2e.credential import Credential
from e2e.patience import until
from e2e.person import Person, bind
from e2e.stories.cast import APPROVER, EMERGENCY, OWNER, REQUESTER, Cast, policy
from e2e.stories.cli.terminal import Said, Terminal, kept
from e2e.stories.play import Play

ALICE, TOM = "alice@example.org", "tom@example.org"


@pytest.fixture
def cast(play: Play, cluster: Cluster) -> Cast:
    """People, where somebody signs their certificates."""
    if not cluster.can_make_users:
        pytest.skip("nobody here signs certificates of users")
    return Cast(play, cluster)


@pytest.fixture
def alice(cluster: Cluster, cast: Cast) -> Terminal:
    """May ask for grants."""
    return Terminal(cluster, cast.enter("alice", REQUESTER))


@pytest.fixture
def tom(cluster: Cluster, cast: Cast) -> Terminal:
    """Owns the pilot, and reads what is no secret in its namespace, such as the bundle."""
    bind(cast.play.admin, cast.play.namespace, "view", cast.enter("tom"))
    return Terminal(cluster, cast.enter("tom", OWNER))


@pytest.fixture
def admin_terminal(cluster: Cluster, play: Play) -> Terminal:
    """May do everything, read the audit log for one."""
    return Terminal(cluster, Person(cluster, play.namespace, "root@example.org", "system:masters"))


@dataclass(frozen=True, slots=True)
class Story:
    """A play with the people who are in it at their terminals."""

    play: Play
    alice: Terminal
    tom: Terminal
    admin: Terminal


@pytest.fixture
def story(play: Play, alice: Terminal, tom: Terminal, admin_terminal: Terminal) -> Story:
    """All of them."""
    return Story(play, alice, tom, admin_terminal)


def colons(serial: str) -> str:
    """A serial number as browsers and openssl show it."""
    digits = serial if len(serial) % 2 == 0 else f"0{serial}"
    return ":".join(digits[at : at + 2] for at in range(0, len(digits), 2))


def asks(alice: Terminal, name: str, *more: str) -> str:
    """Ask for a grant that is issued; returns its name."""
    alice.does("request", "triage", "--task", f"TASK-{name}", "--access", "tickets", "--name", name, *more)
    return name


def test_a_grant_is_asked_for_and_completed_without_yaml(play: Play, alice: Terminal) -> None:
    """The request waits until the Secret is there; completing waits until it is gone."""
    play.ready_pilot("triage")
    said = alice.does(
        *("request", "triage", "--task", "TASK-1", "--access", "tickets=read@projects/billing/7/**"),
        *("--duration", "10m", "--name", "task", "--secret-name", "for-the-job"),
    )
    assert "active" in said.out
    assert "Secret for-the-job" in said.out
    grant = play.admin.get(play.grants("task"))
    assert grant["spec"]["requestedBy"] == ALICE
    assert grant["spec"]["access"] == [
        {"name": "tickets", "actions": ["read"], "resources": ["projects/billing/7/**"]}
    ]
    token = play.credential("for-the-job").token()
    assert token not in said.out + said.err

    said = alice.does("complete", "task")
    assert "Completed" in said.out
    assert play.admin.get(play.grants("task"))["status"]["phase"] == "Completed"
    play.gone("for-the-job")


def test_a_name_is_made_where_none_is_given(play: Play, alice: Terminal) -> None:
    """From the pilot's, so that two requests in a row do not collide; `-o name` tells it to scripts."""
    play.ready_pilot("triage")
    ask = ("request", "triage", "--task", "TASK-1", "--access", "tickets", "-o", "name")
    first, second = alice.does(*ask).out.strip(), alice.does(*ask).out.strip()
    assert first != second
    for name in (first, second):
        prefix, _, made = name.partition("/")
        assert prefix == "taskgrant.pilotidentity.dev"
        assert made.startswith("triage-")
        assert play.phase(made, "Active")


def test_a_denial_tells_why_and_fails(play: Play, alice: Terminal) -> None:
    """Exit code 1 and the operator's own sentence."""
    play.ready_pilot("triage")
    said = alice.run("request", "triage", "--task", "TASK-1", "--access", "tickets=close", "--name", "wide")
    assert said.code == 1
    assert "Denied" in said.err
    assert play.admin.get(play.grants("wide"))["status"]["decision"]["message"] in said.err


def resume(play: Play) -> None:
    """What the requests below wait for."""
    play.admin.patch(play.pilots("triage"), {"spec": {"suspend": False}})


def test_waiting_has_an_end_and_says_for_what(play: Play, alice: Terminal) -> None:
    """Exit code 3 names what is missing; the grant stays and is issued once that is there."""
    play.declare("triage", suspend=True)
    ask = ("request", "triage", "--task", "TASK-1", "--access", "tickets", "--name", "early")
    said = alice.run(*ask, "--timeout", "3s")
    assert said.code == 3, said
    assert "PilotNotReady" in said.err
    resume(play)
    play.phase("early", "Active")


def test_waiting_ends_with_the_grant_and_not_with_a_clock(play: Play, alice: Terminal) -> None:
    """The program sits in a watch while the pilot is not ready."""
    play.declare("triage", suspend=True)
    process = alice.process("request", "triage", "--task", "TASK-1", "--access", "tickets", "--name", "early")
    try:
        play.condition(play.grants("early"), "Ready", reason="PilotNotReady")
        assert process.poll() is None, "it waits"
        resume(play)
        out, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 0, err
    assert "active" in out
    assert "PilotNotReady" in err


def test_ctrl_c_ends_the_wait_and_nothing_else(play: Play, alice: Terminal) -> None:
    """With the code that shells expect; the grant stays, and is issued once it can be."""
    play.declare("triage", suspend=True)
    process = alice.process("request", "triage", "--task", "TASK-1", "--access", "tickets", "--name", "early")
    try:
        play.condition(play.grants("early"), "Ready", reason="PilotNotReady")
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Traceback" not in err
    resume(play)
    play.phase("early", "Active")


def test_who_may_not_ask_is_told_so(play: Play, cluster: Cluster) -> None:
    """Exit code 1 and the API server's sentence, no traceback."""
    play.ready_pilot("triage")
    stranger = Terminal(cluster, Person(cluster, play.namespace, "eve@example.org"))
    said = stranger.run("request", "triage", "--task", "TASK-1", "--access", "tickets")
    assert said.code == 1
    assert "forbidden" in said.err
    assert "Traceback" not in said.err


def test_the_inventory_tells_who_answers_for_what(play: Play, alice: Terminal, tom: Terminal) -> None:
    """Each outstanding grant with pilot, owner, requester and end; ended ones on demand."""
    play.ready_pilot("triage")
    asks(alice, "kept")
    asks(alice, "done")
    alice.does("complete", "done")
    table = tom.does("grants").out.splitlines()
    line = next(each for each in table if each.startswith("kept"))
    assert {"triage", "sandbox", "Active", TOM, ALICE} <= set(line.split())
    everything = tom.does("grants", "--ended", "-o", "json").json["items"]
    phases = {each["name"]: each["phase"] for each in everything}
    assert phases == {"kept": "Active", "done": "Completed"}
    (kept_,) = tom.does("grants", "--phase", "active", "-o", "json").json["items"]
    status = play.admin.get(play.grants("kept"))["status"]
    assert kept_["credential"]["serial"] == status["credential"]["serial"]
    assert kept_["owners"] == [TOM, "bea@example.org"]
    assert [each["name"] for each in tom.does("grants", "done", "-o", "json").json["items"]] == ["done"]
    assert tom.run("grants", "nowhere").code == 1


def test_a_revocation_says_why_and_by_whom(play: Play, alice: Terminal, tom: Terminal) -> None:
    """It waits until the grant has ended; a second word is told that it has."""
    play.ready_pilot("triage")
    asks(alice, "task")
    said = tom.does("revoke", "task", "--reason", "seen in a wrong place")
    assert "Revoked" in said.out
    closure = play.admin.get(play.grants("task"))["status"]["closure"]
    assert closure["message"] == f"revoked by {TOM}: seen in a wrong place"
    assert "Revoked" in alice.does("revoke", "task", "--reason", "me too").out
    assert tom.run("revoke", "task").code == 2, "a reason is owed"


def test_several_grants_end_in_one_go_past_those_that_are_not_there(play: Play, alice: Terminal) -> None:
    """The others end all the same, and the exit code says that one did not."""
    play.ready_pilot("triage")
    names = [asks(alice, f"task-{number}") for number in range(2)]
    said = alice.run("complete", names[0], "nowhere", names[1])
    assert said.code == 1
    assert "no grant nowhere" in said.err
    for name in names:
        assert play.admin.get(play.grants(name))["status"]["phase"] == "Completed"


def test_a_pilot_is_suspended_and_resumed(play: Play, alice: Terminal, tom: Terminal) -> None:
    """Its grants end with it; it gets its identity back, and the record says who did it."""
    play.ready_pilot("triage")
    asks(alice, "task")
    assert "suspended" in tom.does("suspend", "triage").out
    pilot = play.admin.get(play.pilots("triage"))
    assert pilot["spec"]["suspend"] is True
    assert pilot["metadata"]["annotations"]["pilotidentity.dev/changed-by"] == TOM
    play.phase("task", "Revoked")
    assert alice.run("resume", "triage").code == 1, "only who may change the pilot"
    assert "IdentityIssued" in tom.does("resume", "triage").out
    play.credential("pilot-svid-triage")


FOUND: dict[str, Callable[[Credential, Path], tuple[str, str]]] = {
    "token": lambda leaked, path: (kept(path, leaked.files["token.jwt"]), ""),
    "certificate": lambda leaked, path: (kept(path, leaked.files["tls.crt"]), ""),
    "key": lambda leaked, path: (kept(path, leaked.files["tls.key"]), ""),
    "serial": lambda leaked, _: (leaked.serial.upper(), ""),
    "serial with colons": lambda leaked, _: (colons(leaked.serial), ""),
    "jti": lambda leaked, _: (leaked.claims()["jti"], ""),
    "Secret": lambda _, __: ("secret/task", ""),
    "token on stdin": lambda leaked, _: ("-", leaked.token()),
}
"""What may turn up in a wrong place: what is typed, and what is piped in."""


@pytest.mark.parametrize("found", FOUND)
def test_what_was_found_leads_to_its_grant_and_ends_it(story: Story, tmp_path: Path, found: str) -> None:
    """By any of its traces; nothing of what was given is printed again."""
    play, alice = story.play, story.alice
    play.ready_pilot("triage")
    asks(alice, "task")
    asks(alice, "other")
    leaked = play.credential("task")
    thing, stdin = FOUND[found](leaked, tmp_path / "found")
    # A key is in no status; who looks for one reads the log.
    responder = story.admin if found == "key" else story.tom

    def trace(*more: str) -> Said:
        said = responder.does("trace", thing, *more, stdin=stdin)
        for secret in (leaked.token(), leaked.token().rpartition(".")[2], "PRIVATE"):
            assert secret not in said.out + said.err
        return said

    (grant,) = trace("-o", "json").json["grants"]
    assert (grant["name"], grant["isAlive"], grant["ground"]) == ("task", True, "recorded")
    assert (grant["pilot"], grant["requestedBy"]) == ("triage", ALICE)
    assert "Alive        YES" in trace().out

    assert "Revoked" in trace("--revoke", "--reason", "found on a bus").out
    play.gone("task")
    closure = play.admin.get(play.grants("task"))["status"]["closure"]
    assert closure["message"] == f"revoked by {responder.name}: found on a bus"
    assert play.admin.get(play.grants("other"))["status"]["phase"] == "Active"
    assert trace("-o", "json").json["grants"][0]["isAlive"] is False


def test_a_forged_token_ends_nothing(play: Play, alice: Terminal, tom: Terminal, tmp_path: Path) -> None:
    """Anybody can write a grant's UID into a token; without the stage's signature it is only a claim."""
    play.ready_pilot("triage")
    asks(alice, "task")
    head, body, signature = play.credential("task").token().split(".")
    claims = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    claims["jti"] = "made-up-by-eve"
    forged = base64.urlsafe_b64encode(json.dumps(claims).encode()).rstrip(b"=").decode()
    thing = kept(tmp_path / "token", f"{head}.{forged}.{signature}".encode())
    assert tom.does("trace", thing, "-o", "json").json["grants"][0]["ground"] == "forged"
    said = tom.run("trace", thing, "--revoke")
    assert said.code == 1
    assert "forged" in said.err
    assert play.admin.get(play.grants("task"))["status"]["phase"] == "Active"


def test_a_grant_that_is_no_object_any_more_is_found_in_the_log(
    play: Play, alice: Terminal, tom: Terminal, admin_terminal: Terminal
) -> None:
    """By those who may read it; the others are told whom to ask."""
    play.ready_pilot("triage")
    asks(alice, "task")
    serial = play.credential("task").serial
    play.admin.delete(play.grants("task"))
    until(lambda: play.admin.find(play.grants("task")) is None, "the grant is gone")
    found = admin_terminal.does("trace", serial, "-o", "json").json
    assert found["grants"] == []
    kinds = [each["type"] for each in found["auditEntries"]]
    assert kinds[0].endswith("grant.issued.v1")
    assert all(each["subject"] == f"TaskGrant {play.namespace}/task" for each in found["auditEntries"])
    assert "no object any more" in admin_terminal.does("trace", serial).out
    said = tom.run("trace", serial)
    assert said.code == 1
    assert "audit log" in said.err


def test_a_pilots_own_certificate_is_told_apart(play: Play, tom: Terminal, tmp_path: Path) -> None:
    """It gives no access; ending it means suspending the pilot, which is for a person to say."""
    play.ready_pilot("triage")
    thing = kept(tmp_path / "tls.crt", play.credential("pilot-svid-triage").files["tls.crt"])
    assert "gives no access" in tom.does("trace", thing).out
    said = tom.run("trace", thing, "--revoke")
    assert said.code == 1
    assert "kubectl pilot suspend triage" in said.err


def test_a_colleague_approves_what_is_on_the_screen(
    play: Play, cluster: Cluster, cast: Cast, alice: Terminal
) -> None:
    """The requester waits in a watch, sees what is missing, and has no word in it himself."""
    bob = Terminal(cluster, cast.enter("bob", APPROVER))
    both = Terminal(cluster, cast.enter("alice", APPROVER))
    with policy(play.admin, play, approvals={"grant": {"required": 1}}):
        play.ready_pilot("triage")
        ask = ("request", "triage", "--task", "TASK-1", "--access", "tickets=read", "--name", "task")
        process = alice.process(*ask, "--description", "sort\x1b[2Jmail")
        try:
            cast.awaiting("task")
            own = both.run("approve", "task", "--reason", "mine", "--yes")
            assert own.code == 1
            assert "you asked for this grant yourself" in own.err
            said = bob.does("approve", "task", "--reason", "looked at it", "--ticket", "CHG-7", stdin="y\n")
            out, err = process.communicate(timeout=30)
        finally:
            process.kill()
        assert process.returncode == 0, err
        assert "1 more person must approve" in err
        assert "active" in out
    assert "approved grant task" in said.out
    for told in (ALICE, "tickets=read@projects/billing/**", "synthetic", r"sort\x1b[2Jmail", "0 of 1"):
        assert told in said.err, told
    status = play.admin.get(play.grants("task"))["status"]
    assert status["approval"]["digest"] in said.err
    assert [each["approver"] for each in status["decision"]["approvals"]] == ["bob@example.org"]
    assert "bob@example.org" in alice.does("trace", "grant/task").out


def test_one_denial_ends_a_request(play: Play, cluster: Cluster, cast: Cast, alice: Terminal) -> None:
    """And the requester is told by whom and why; without a yes nothing is said."""
    bob = Terminal(cluster, cast.enter("bob", APPROVER))
    with policy(play.admin, play, approvals={"grant": {"required": 1}}):
        play.ready_pilot("triage")
        process = alice.process("request", "triage", "--task", "T", "--access", "tickets", "--name", "task")
        try:
            cast.awaiting("task")
            assert bob.run("deny", "task", "--reason", "not today").code == 1, "nobody answered"
            assert play.admin.get(places.approvals(play.namespace))["items"] == []
            bob.does("deny", "task", "--reason", "not today", "--yes")
            _, err = process.communicate(timeout=30)
        finally:
            process.kill()
    assert process.returncode == 1
    assert "Denied" in err
    assert "not today" in err


def test_who_may_not_approve_is_told_so(play: Play, cluster: Cluster, cast: Cast, alice: Terminal) -> None:
    """By the API server, when it matters; a requester sees what waits, and has no word in it."""
    del cluster
    with policy(play.admin, play, approvals={"grant": {"required": 1}}):
        play.ready_pilot("triage")
        said = alice.run(
            "request", "triage", "--task", "T", "--access", "tickets", "--name", "task", "--timeout", "3s"
        )
        assert said.code == 3
        assert "1 more person must approve" in said.err
        cast.awaiting("task")
        refused = alice.run("approve", "task", "--reason", "please", "--yes")
    assert refused.code == 1
    assert "forbidden" in refused.err


def test_an_emergency_goes_past_approvals_for_those_who_may(
    play: Play, cluster: Cluster, cast: Cast, alice: Terminal
) -> None:
    """With a right of its own; without it the API server's sentence says which."""
    with policy(play.admin, play, approvals={"grant": {"required": 1}}, emergency={"maxDuration": "5m"}):
        play.ready_pilot("triage")
        ask = (
            "request",
            "triage",
            "--task",
            "INC-1",
            "--access",
            "tickets",
            "--emergency",
            "--duration",
            "5m",
        )
        refused = alice.run(*ask)
        assert refused.code == 1
        assert "request-emergency" in refused.err
        ann = Terminal(cluster, cast.enter("ann", REQUESTER, EMERGENCY))
        assert "active" in ann.does(*ask).out
