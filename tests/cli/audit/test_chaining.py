"""`audit chain` on logs in directories; `e2e/stories/whole_story` draws one that an operator wrote."""

from __future__ import annotations

import datetime as dt
import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pilot_identity.cli.audit import chapters
from pilot_identity.cli.audit.chaining import SHOWN_LINES
from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import NAME, write

NOON = dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC)
UNTIL = "2026-06-01T12:15:00Z"
DIGEST = "sha256:" + "ab" * 32

Log = Callable[..., str]


@pytest.fixture
def log(tmp_path: Path) -> Log:
    """Writes a log of these entries, one a second; returns where it is."""

    def write_it(*entries: Entry) -> str:
        encoded = [encode_entry(each, NAME) for each in entries]
        return str(write(tmp_path / "log", encoded))

    return write_it


_numbers = iter(range(1_000_000))


def about(
    kind: EntryType, name: str = "team-a/root", uid: str = "", /, *, second: int = 0, **data: Any
) -> Entry:
    """An entry about a grant whose UID is its name, unless that is given."""
    asked = {"pilot": "triage", "requestedBy": "alice", "task": {"id": "T-1"}}
    at = NOON + dt.timedelta(seconds=second)
    own = uid or name.partition("/")[2]
    return Entry(f"{own}/{next(_numbers)}", kind, f"TaskGrant {name}", own, at, {**asked, **data})


def given(approver: str, reason: str) -> Entry:
    """A person's word on the grant `root`."""
    subject = {"kind": "TaskGrant", "name": "root", "uid": "root"}
    data = {
        "subject": subject,
        "approver": approver,
        "decision": "Approve",
        "reason": reason,
        "ticket": "C-7",
    }
    return Entry("a/given", EntryType.APPROVAL_GIVEN, "Approval team-a/word", "a", NOON, data)


CREDENTIAL = {
    "issuance": 1,
    "spiffeID": "spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/root",
    "serial": "c0de",
    "notAfter": UNTIL,
    "secretName": "root",
    "tokens": [{"jti": "token-1", "audience": "https://tickets.example.org", "notAfter": UNTIL}],
    "kubernetes": {
        "serviceAccountName": "pilot-grant-1",
        "credentialID": "JTI=k-1",
        "notAfter": UNTIL,
        "bindings": [
            {"namespace": "team-a", "name": "b", "roleRef": {"kind": "ClusterRole", "name": "view"}}
        ],
    },
}
DECISION = {
    "allowed": True,
    "checks": [{"name": "one", "passed": True}, {"name": "two", "passed": True}],
    "approvals": [{"name": "word", "uid": "a", "approver": "bob"}],
    "policyDigest": DIGEST,
    "pilotDigest": DIGEST,
}
SEEN = {
    "requests": 3,
    "refused": 1,
    "from": "2026-06-01T12:00:01Z",
    "until": "2026-06-01T12:00:02Z",
    "access": [
        {
            "verb": "get",
            "resource": "pods",
            "namespace": "team-a",
            "requests": 2,
            "names": ["web-0", "web-1"],
        },
        {"verb": "delete", "resource": "pods", "namespace": "team-a", "requests": 1, "refused": 1},
    ],
    "tokens": [{"credentialID": "k-1", "requests": 3, "isKnown": True}],
}
CALL = {
    "kind": "tool_call",
    "attributes": {"gen_ai.tool.name": "tickets.search", "gen_ai.tool.call.id": "call-1"},
    "digests": {"gen_ai.tool.call.arguments": DIGEST},
}
SHOWN = {"name": "secret-gone", "proven": True, "message": "no such Secret"}
LATE = {"name": "token-refused", "proven": False, "message": "still cached"}
CLOSURE = {
    "outcome": "Completed",
    "message": "the task was completed",
    "requestedAt": "2026-06-01T12:00:05Z",
    "withdrawnAt": "2026-06-01T12:00:06Z",
}
PARENT = {"parent": {"name": "root", "uid": "root"}}

WHOLE = (
    about(
        EntryType.GRANT_REQUESTED,
        spec={"duration": "15m", "access": [{"name": "tickets", "actions": ["read"]}, {"name": "pods"}]},
    ),
    given("bob", "month-end"),
    about(EntryType.GRANT_ISSUED, decision=DECISION, credential=CREDENTIAL, expiresAt=UNTIL),
    about(EntryType.ACCESS_SEEN, second=2, **SEEN),
    about(
        EntryType.ACTIVITY_RECORDED,
        second=3,
        activities=[CALL],
        authentication={"method": "JWT-SVID", "audience": "https://tickets.example.org"},
    ),
    about(EntryType.GRANT_DENIED, "team-a/piece", second=4, decision={"message": "too wide"}, **PARENT),
    about(EntryType.GRANT_CLOSED, second=6, closure={**CLOSURE, "proofs": [SHOWN, LATE]}),
    about(
        EntryType.GRANT_PROVEN,
        second=16,
        closure={**CLOSURE, "provenAt": "2026-06-01T12:00:16Z", "proofs": [{**LATE, "proven": True}]},
    ),
)

DRAWN = """\
TaskGrant team-a/root  uid root: Completed, proven
├── request
│   └── 0  2026-06-01 12:00:00Z  alice asked for pilot triage: task T-1
│       ├── for 15m
│       └── access: tickets=read pods
├── decision
│   └── 2  2026-06-01 12:00:00Z  allowed (2 of 2 checks passed)
│       ├── at the word of bob
│       ├── policy sha256:abababababababab…
│       └── pilot sha256:abababababababab…
├── approvals
│   └── 1  2026-06-01 12:00:00Z  bob approved it: month-end (C-7)
├── credentials
│   └── 2  2026-06-01 12:00:00Z  issued: number 1, certificate c0de until 2026-06-01 12:15:00Z in Secret root
│       ├── spiffe://sandbox.example.org/ns/team-a/pilot/triage/task/root
│       └── token token-1 for https://tickets.example.org until 2026-06-01 12:15:00Z
├── kubernetes access
│   └── 2  2026-06-01 12:00:00Z  account pilot-grant-1, token JTI=k-1 until 2026-06-01 12:15:00Z
│       └── RoleBinding team-a/b to ClusterRole view
├── seen by the API server: 3 requests, 1 refused
│   └── 3  2026-06-01 12:00:02Z  3 requests, 1 refused, from 2026-06-01 12:00:01Z until 2026-06-01 12:00:02Z
│       ├── get pods in team-a (web-0, web-1): 2
│       └── delete pods in team-a: 1, 1 refused
├── activity: 1 x tool_call
│   └── 4  2026-06-01 12:00:03Z  tool_call tickets.search call-1 gen_ai.tool.call.arguments \
sha256:abababababababab… (by JWT-SVID https://tickets.example.org)
├── delegated: 1 grant, used for nothing
│   └── TaskGrant team-a/piece  uid piece: denied
│       ├── request
│       │   └── 5  2026-06-01 12:00:04Z  alice asked for pilot triage: task T-1
│       │       └── delegated from grant root, uid root
│       └── decision
│           └── 5  2026-06-01 12:00:04Z  denied: too wide
├── end
│   └── 6  2026-06-01 12:00:06Z  Completed: the task was completed
│       └── asked for at 2026-06-01 12:00:05Z, withdrawn at 2026-06-01 12:00:06Z
├── proof
│   ├── 6  2026-06-01 12:00:06Z  not proven yet
│   │   ├── shown: secret-gone (no such Secret)
│   │   └── NOT shown: token-refused (still cached)
│   └── 7  2026-06-01 12:00:16Z  proven at 2026-06-01 12:00:16Z
│       └── shown: token-refused (still cached)
├── left open
│   └── its activity is what agents and tools say themselves; nothing here confirms it
└── as of entry 7, 2026-06-01 12:00:16Z
"""


def test_a_whole_story_is_one_tree(run: Run, log: Log) -> None:
    """Each entry with its index and time, what was delegated before the end."""
    told = run("chain", "team-a/root", "--from", log(*WHOLE))
    assert told.stderr == ""
    assert told.stdout == DRAWN


def test_a_rule_that_was_lifted_is_told(run: Run, log: Log) -> None:
    """A check that passed only by an exception says so, and names the entry that opened that."""
    said = "lifted by an exception until 2026-07-01T00:00:00Z, audit entry 4"
    check = {"name": "rule/short", "passed": True, "message": said}
    decision = {**DECISION, "checks": [check]}
    drawn = run("chain", "root", "--from", log(about(EntryType.GRANT_ISSUED, decision=decision))).stdout
    assert "allowed (1 of 1 checks passed)" in drawn
    assert f"passed, but: rule/short: {said}" in drawn


def test_programs_get_the_same_tree(run: Run, log: Log) -> None:
    """With every entry in full."""
    told = json.loads(run("chain", "root", "--from", log(*WHOLE), "-o", "json").stdout)
    assert (told["uid"], told["standing"], told["outcome"]) == ("root", "ended", "Completed")
    assert told["asOf"] == {"index": 7, "time": "2026-06-01T12:00:16Z"}
    assert {name: [each["index"] for each in lines] for name, lines in told["sections"].items()} == {
        "request": [0],
        "decision": [2],
        "approvals": [1],
        "credentials": [2],
        "kubernetes access": [2],
        "seen by the API server": [3],
        "activity": [4],
        "end": [6],
        "proof": [6, 7],
    }
    assert [each["index"] for each in told["entries"]] == [0, 1, 2, 3, 4, 6, 7]
    assert told["entries"][2]["data"]["credential"] == CREDENTIAL
    assert told["use"]["own"]["activities"] == {"tool_call": 1}
    (child,) = told["children"]
    assert (child["name"], child["standing"], child["parent"]) == ("piece", "denied", PARENT["parent"])


def test_of_namesakes_the_newest_is_told(run: Run, log: Log) -> None:
    """And that there are others, which their UIDs lead to."""
    place = log(
        about(EntryType.GRANT_ISSUED, "team-a/root", "first"),
        about(EntryType.GRANT_ISSUED, "team-a/root", "second"),
        about(EntryType.GRANT_CLOSED, "team-a/root", "first", closure=CLOSURE),
    )
    newest = run("chain", "root", "--from", place)
    assert newest.stdout.startswith("TaskGrant team-a/root  uid second: not ended yet\n")
    assert "1 other grant had this name; a story of theirs is told by --uid: first" in newest.stderr
    first = run("chain", "root", "--uid", "first", "--from", place)
    assert first.stdout.startswith("TaskGrant team-a/root  uid first: Completed, not proven\n")


def test_a_name_that_is_used_in_two_namespaces_is_not_guessed(run: Run, log: Log) -> None:
    """The namespace, or the UID, says which is meant."""
    place = log(
        about(EntryType.GRANT_ISSUED, "team-a/root", "a"), about(EntryType.GRANT_ISSUED, "team-b/root", "b")
    )
    done = run("chain", "root", "--from", place)
    assert (done.exit_code, "namespaces team-a, team-b" in done.stderr) == (2, True)
    assert "uid b:" in run("chain", "team-b/root", "--from", place).stdout
    assert "uid a:" in run("chain", "root", "--uid", "a", "--from", place).stdout


@pytest.mark.parametrize("arguments", [("nobody",), ("team-b/root",), ("root", "--uid", "other")])
def test_a_grant_that_the_log_does_not_know_has_no_story(
    run: Run, log: Log, arguments: tuple[str, ...]
) -> None:
    """Nothing is drawn."""
    done = run("chain", *arguments, "--from", log(*WHOLE))
    assert (done.exit_code, done.stdout) == (1, "")
    assert f"no entry about grant {arguments[0]}" in done.stderr


def test_of_very_many_entries_the_first_and_the_last_are_drawn(run: Run, log: Log) -> None:
    """A task of hours renews its credentials hundreds of times; programs get all of them."""
    renewals = [about(EntryType.GRANT_RENEWED, credential={"issuance": number}) for number in range(1, 51)]
    place = log(*renewals)
    drawn = run("chain", "root", "--from", place).stdout
    assert drawn.count("renewed: number") == SHOWN_LINES
    assert f"… {50 - SHOWN_LINES} more; -o json has all" in drawn
    assert "renewed: number 1," in drawn
    assert "renewed: number 50," in drawn
    assert len(json.loads(run("chain", "root", "--from", place, "-o", "json").stdout)["entries"]) == 50


def test_what_others_wrote_moves_no_cursor(run: Run, log: Log) -> None:
    """Nor is it taken for markup."""
    task = {"id": "T-1", "description": "\x1b[2K[red]\u202eall good"}
    drawn = run("chain", "root", "--from", log(about(EntryType.GRANT_REQUESTED, task=task))).stdout
    assert "task T-1, \\x1b[2K[red]\\u202eall good" in drawn


WORDS: dict[str, tuple[Entry, str]] = {
    "a decision that waits": (
        about(
            EntryType.GRANT_DECIDED,
            decision={
                "message": "2 approvals are missing",
                "checks": [{"name": "approvals", "passed": False}],
            },
        ),
        "waits: 2 approvals are missing (0 of 1 checks passed)",
    ),
    "approvals that are there": (
        about(EntryType.GRANT_APPROVED, required=2, approvals=[{"approver": "bob"}, {"approver": "cleo"}]),
        "of the approvals that it needs all are there (2): bob, cleo",
    ),
    "an emergency": (
        about(EntryType.GRANT_EMERGENCY, reviewDueAt=UNTIL),
        "alice broke the glass: no approvals; the pilot's review is due at 2026-06-01 12:15:00Z",
    ),
    "a credential that never was": (
        about(
            EntryType.CREDENTIAL_ABANDONED,
            abandoned={"id": "c", "issuance": 2},
            secretHolds="no such Secret",
        ),
        "number 2 was announced and never released; in its place is no such Secret",
    ),
    "a renewal": (
        about(EntryType.GRANT_RENEWED, credential={"issuance": 2, "serial": "5", "notAfter": UNTIL}),
        "renewed: number 2, certificate 5 until 2026-06-01 12:15:00Z",
    ),
    "what did not fit": (
        about(EntryType.ACCESS_SEEN, requests=9, otherAccess={"requests": 9, "refused": 4}),
        "other: 9, 4 refused",
    ),
    "a token of nobody's": (
        about(EntryType.ACCESS_SEEN, tokens=[{"credentialID": "x", "requests": 2, "isKnown": False}]),
        "by token x, which is not known: 2",
    ),
    "what came too late": (
        about(EntryType.ACCESS_SEEN, afterEnd={"requests": 2, "allowed": 1}),
        "after the access was withdrawn: 2, of which 1 allowed",
    ),
    "what came about the end": (
        about(
            EntryType.ACCESS_SEEN,
            afterEnd={"requests": 2, "allowed": 1, "about": {"seconds": 15, "requests": 1}},
        ),
        "after the access was withdrawn: 2, of which 1 allowed; 1 within 15 s of it",
    ),
    "whom it acted as": (
        about(EntryType.ACCESS_SEEN, impersonated=[{"user": "system:admin", "requests": 2}]),
        "acting as system:admin: 2",
    ),
    "who acted as it": (
        about(EntryType.ACCESS_SEEN, impersonatedBy={"users": [{"user": "alice", "requests": 1}]}),
        "alice acted as the account: 1 request",
    ),
    "many activities": (
        about(
            EntryType.ACTIVITY_RECORDED,
            activities=[CALL, {"kind": "prompt", "attributes": {}, "digests": {}}],
            authentication={"method": "X509-SVID", "serial": "c0ffee"},
        ),
        "2 activities, by X509-SVID c0ffee",
    ),
    "a tombstone": (
        about(EntryType.GRANT_UNPROVEN, letGo=True, closure={**CLOSURE, "proofs": [LATE]}),
        "not proven, and the object was let go",
    ),
}


@pytest.mark.parametrize("entry, words", WORDS.values(), ids=WORDS)
def test_each_entry_is_told_in_words(run: Run, log: Log, entry: Entry, words: str) -> None:
    """Each kind in its own."""
    drawn = run("chain", "root", "--from", log(entry)).stdout
    assert words in drawn
    assert "other entries" not in drawn


def test_the_review_of_an_emergency_is_told(run: Run, log: Log) -> None:
    """Until when it is owed, and who made it."""
    owed = {"owed": {"grants": [{"uid": "root"}], "dueAt": UNTIL}}
    made = {**owed, "approval": {"approver": "cleo"}, "reason": "looked into it"}
    entries = [
        Entry("p/owed", EntryType.REVIEW_OWED, "PilotIdentity team-a/triage", "p", NOON, owed),
        about(EntryType.GRANT_EMERGENCY),
        Entry("p/made", EntryType.PILOT_REVIEWED, "PilotIdentity team-a/triage", "p", NOON, made),
    ]
    drawn = run("chain", "root", "--from", log(*entries)).stdout
    assert "a review of the pilot is owed until 2026-06-01 12:15:00Z" in drawn
    assert "cleo reviewed the pilot: looked into it" in drawn


def test_each_word_of_a_person_is_told(run: Run, log: Log) -> None:
    """What was said, what it was used for, and that it counts for nothing."""
    subject = {"subject": {"kind": "TaskGrant", "name": "root", "uid": "root"}, "approver": "bob"}
    told: dict[EntryType, dict[str, Any]] = {
        EntryType.APPROVAL_GIVEN: {**subject, "decision": "Deny", "reason": "not now", "ticket": ""},
        EntryType.APPROVAL_USED: {
            "approver": "bob",
            "usedBy": "TaskGrant team-a/root",
            "usedByUID": "root",
            "decidedBy": 7,
        },
        EntryType.APPROVAL_VOID: {**subject, "why": "it was about something else"},
    }
    words = [
        Entry(f"a/{number}", kind, "Approval team-a/word", "a", NOON, data)
        for number, (kind, data) in enumerate(told.items())
    ]
    drawn = run("chain", "root", "--from", log(about(EntryType.GRANT_REQUESTED), *words)).stdout
    assert "bob denied it: not now\n" in drawn
    assert "the word of bob counted, for the decision in entry 7" in drawn
    assert "the word of bob counts for nothing: it was about something else" in drawn


def test_examples_are_true() -> None:
    """Each example in a docstring does what it says."""
    assert doctest.testmod(chapters).failed == 0
