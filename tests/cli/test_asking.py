from pathlib import Path

import pytest

from tests.cli import things
from tests.cli.api import FakeApi
from tests.cli.conftest import Run

ASK = ("request", "triage", "--task", "TASK-1", "--access", "tickets=read")
CSR = "-----BEGIN CERTIFICATE REQUEST-----\nMIIB\n-----END CERTIFICATE REQUEST-----\n"
KEY = "-----BEGIN PRIVATE KEY-----\nc2VjcmV0\n-----END PRIVATE KEY-----\n"


@pytest.fixture(autouse=True)
def _pilot(api: FakeApi) -> None:
    """The pilot that is asked for is there."""
    api.put("pilotidentities", things.pilot())


def test_a_pilot_that_is_not_there_is_told_before_anything_is_made(api: FakeApi, run: Run) -> None:
    """A typing error would wait five minutes and leave a grant behind."""
    result = run("request", "traige", "--task", "TASK-1", "--access", "tickets")
    assert result.exit_code == 1
    assert "no pilot traige in namespace team-a" in result.stderr
    assert not api.of("taskgrants")


def test_who_may_not_read_the_pilot_may_still_ask(api: FakeApi, run: Run) -> None:
    """RBAC gives the verb `request` alone, too."""
    api.forbidden = "GET .*/pilotidentities/"
    assert run(*ASK, "--no-wait").exit_code == 0
    assert api.of("taskgrants")


def test_everything_that_can_be_asked_is_in_the_grant(api: FakeApi, run: Run, tmp_path: Path) -> None:
    """Each option has its field; who asks is the API server's word for who we are."""
    csr = tmp_path / "csr.pem"
    csr.write_text(CSR)
    result = run(
        *ASK,
        *("--access", "invoices@2026/**", "--duration", "90m", "--audience", "https://a.example.org"),
        *("--emergency", "--parent", "above", "--csr", str(csr), "--secret-name", "files"),
        *("--description", "why", "--name", "task", "--no-wait", "-o", "name"),
    )
    assert result.exit_code == 0, result.output
    assert result.stdout == "taskgrant.pilotidentity.dev/task\n"
    (made,) = api.of("taskgrants")
    assert made["spec"] == {
        "pilot": "triage",
        "task": {"id": "TASK-1", "description": "why"},
        "access": [
            {"name": "tickets", "actions": ["read"]},
            {"name": "invoices", "resources": ["2026/**"]},
        ],
        "duration": "1h30m",
        "audience": ["https://a.example.org"],
        "parent": "above",
        "secretName": "files",
        "certificateRequest": CSR,
        "emergency": True,
        "requestedBy": "alice@example.org",
    }


def test_it_says_what_it_waits_for_and_ends_when_that_has_come(api: FakeApi, run: Run) -> None:
    """Approvals that are missing, by number and with the command that gives them."""
    wait = {
        "digest": "sha256:1",
        "required": 2,
        "approvedBy": ["bea@example.org"],
        "expiresAt": things.at(hours=1),
    }
    waits = things.grant("task", "AwaitingApproval", status={"approval": wait, "conditions": [_condition()]})
    active = things.grant("task", "Active")

    def made_with_uid(uid: str) -> None:
        for body in (waits, active):
            body["metadata"]["uid"] = uid

    made_with_uid(things.UID)
    api.scripts.put({"type": "BOOKMARK", "object": {}})
    api.scripts.put({"type": "MODIFIED", "object": waits})
    api.scripts.put({"type": "MODIFIED", "object": active})
    _force_uid(api)
    result = run(*ASK, "--name", "task")
    assert result.exit_code == 0, result.output
    assert "1 more person must approve (so far bea@example.org)" in result.stderr
    assert "kubectl pilot approve task" in result.stderr
    assert "Secret task" in result.stdout
    assert len([path for path, _ in api.asked("GET") if path.endswith("taskgrants")]) == 1, "no polling"


def test_a_watch_that_breaks_is_taken_up_again(api: FakeApi, run: Run) -> None:
    """Also one whose version was compacted; what happened between is found by looking."""
    _force_uid(api)
    api.scripts.put({"type": "ERROR", "object": {"code": 410}})
    api.scripts.put({"type": "MODIFIED", "object": things.grant("task", "Active")})
    result = run(*ASK, "--name", "task", "--timeout", "20s")
    assert result.exit_code == 0, result.output


def test_a_grant_that_is_deleted_or_replaced_ends_the_wait(api: FakeApi, run: Run) -> None:
    """A namesake's success is not ours."""
    api.scripts.put({"type": "MODIFIED", "object": things.grant("task", "Active", uid="another")})
    result = run(*ASK, "--name", "task")
    assert result.exit_code == 1
    assert "was deleted while it was waited for" in result.stderr


def test_time_runs_out_with_a_code_of_its_own(api: FakeApi, run: Run) -> None:
    """3, and the grant stays."""
    result = run(*ASK, "--name", "task", "--timeout", "1s")
    assert result.exit_code == 3, result.output
    assert "not within 1s" in result.stderr
    assert len(api.of("taskgrants")) == 1


def test_who_may_not_watch_is_told_what_to_do(api: FakeApi, run: Run) -> None:
    """The grant was asked for all the same."""
    api.forbidden = "^WATCH"
    result = run(*ASK)
    assert result.exit_code == 1
    assert "use --no-wait" in result.stderr
    assert "\x1b" not in result.stderr, "the server's words cannot colour the terminal"


@pytest.mark.parametrize(
    "arguments, because",
    [
        (("request", "triage", "--access", "tickets"), "--task"),
        (("request", "triage", "--task", "T"), "--access"),
        ((*ASK, "--duration", "soon"), "a duration is hours"),
        ((*ASK, "--timeout", "0s"), "longer than zero"),
        ((*ASK, "--access", "a:b"), "begins with the name"),
        ((*ASK, "--csr", "/nowhere"), "cannot be read"),
    ],
)
def test_wrong_usage_sends_nothing(api: FakeApi, run: Run, arguments: tuple[str, ...], because: str) -> None:
    """Exit code 2."""
    result = run(*arguments)
    assert result.exit_code == 2
    assert because in result.stderr
    assert api.requests == []


@pytest.mark.parametrize("content", [KEY, KEY * 400, "\xff\xfe"], ids=["a key", "too large", "no text"])
def test_a_file_that_is_no_request_is_refused_without_a_word_of_it(
    api: FakeApi, run: Run, tmp_path: Path, content: str
) -> None:
    """Somebody will give the key instead; it must not end on a screen."""
    path = tmp_path / "csr.pem"
    path.write_bytes(content.encode("latin-1"))
    result = run(*ASK, "--csr", str(path))
    assert result.exit_code == 2
    assert "c2VjcmV0" not in result.output
    assert api.requests == []


def test_a_denial_fails_with_the_operators_sentence(api: FakeApi, run: Run) -> None:
    """And says that it is final."""
    decision = {"allowed": False, "reason": "DurationTooLong", "message": "ask for at most 1h"}
    _force_uid(api)
    api.scripts.put(
        {"type": "MODIFIED", "object": things.grant("task", "Denied", status={"decision": decision})}
    )
    result = run(*ASK, "--name", "task", "-o", "json")
    assert result.exit_code == 1
    assert "ask for at most 1h" in result.stderr
    assert '"phase": "Denied"' in result.stdout
    assert "managedFields" not in result.stdout


def _condition() -> things.Object:
    return {"type": "Ready", "status": "False", "reason": "ApprovalRequired", "message": "waits"}


def _force_uid(api: FakeApi) -> None:
    """Give what is made the UID of the things that the watch will show."""
    put = api.put

    def with_uid(plural: str, body: things.Object) -> things.Object:
        body["metadata"]["uid"] = things.UID
        return put(plural, body)

    api.put = with_uid  # type: ignore[method-assign]
