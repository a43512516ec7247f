"""What is printed where the reader takes ASCII only: in the locale C, or as PYTHONIOENCODING says."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

import pilot_identity
from pilot_identity.cli.audit.chaining import SHOWN_LINES
from pilot_identity.cli.main import app
from pilot_identity.core.audit.entries import EntryType, encode_entry
from pilot_identity.core.audit.receipt import Receipt
from tests.cli import things
from tests.cli.api import FakeApi, serving
from tests.cli.audit.logs import NAME, SIGNER, write
from tests.cli.audit.test_chaining import about

STRANGE = "größer — und so weiter … 工"
SHOWN_AS = r"gr\xf6\xdfer -- und so weiter ... \u5de5"


@pytest.fixture
def log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A log in which people wrote what they like, of more entries than are drawn."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    said = about(EntryType.GRANT_REQUESTED, task={"id": "T-1", "description": STRANGE})
    renewals = [
        about(EntryType.GRANT_RENEWED, credential={"issuance": number}) for number in range(SHOWN_LINES + 1)
    ]
    decision = {
        "allowed": True,
        "checks": [{"name": "stage-not-frozen", "passed": True}],
        "policyDigest": "sha256:" + "ab" * 32,
    }
    too_large = {"sha256": "cd" * 32, "bytes": 60_000}
    issued = about(EntryType.GRANT_ISSUED, decision=decision, observation=too_large)
    return str(write(tmp_path / "log", [encode_entry(each, NAME) for each in (said, issued, *renewals)]))


def in_ascii(*arguments: str, encoding: str = "ascii") -> Result:
    """Run the program where stdout and stderr take that."""
    result = CliRunner(charset=encoding).invoke(app, list(arguments))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


VERBS = {
    "verify": ((), 0),
    "tail": (("--lines", "100"), 0),
    "tail -o json": (("--lines", "100"), 0),
    "show 0": ((), 0),
    "for grant root": ((), 0),
    "for owner nobody": ((), 1),
    "chain root": ((), 0),
    "chain root -o json": ((), 0),
    "replay --all": ((), 4),
    "replay 1": ((), 1),
}


@pytest.mark.parametrize("encoding", ["ascii", "latin-1"])
@pytest.mark.parametrize("verb", VERBS)
def test_what_is_printed_of_a_log_is_legible(log: str, verb: str, encoding: str) -> None:
    """Nothing fails on a character that the output cannot show, and none comes out as another."""
    arguments, code = VERBS[verb]
    result = in_ascii("audit", *verb.split(), *arguments, "--from", log, encoding=encoding)
    assert result.exit_code == code, result.stderr
    for printed in (result.stdout_bytes, result.stderr_bytes):
        if encoding == "ascii":
            assert printed.isascii()
        assert "工".encode() not in printed


def test_a_story_is_drawn_in_ascii(log: str) -> None:
    """The tree with plain lines, what is left out with three dots, the rest as escapes."""
    drawn = in_ascii("audit", "chain", "root", "--from", log).stdout
    assert f"task T-1, {SHOWN_AS}" in drawn
    assert "... 2 more; -o json has all" in drawn
    assert "`-- as of entry" in drawn
    assert "sha256:abababababababab..." in drawn
    assert STRANGE in in_ascii("audit", "chain", "root", "--from", log, encoding="utf-8").stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "utf-8"])
def test_a_receipt_is_the_same_bytes_everywhere(log: str, encoding: str) -> None:
    """Its signature lines begin with a dash that neither ASCII nor Latin-1 has."""
    printed = in_ascii("audit", "receipt", "0", "--from", log, encoding=encoding).stdout_bytes
    assert Receipt.parse(printed.decode()).verify(SIGNER.verifier()).size == SHOWN_LINES + 3


def test_the_grants_of_a_cluster_are_listed_in_ascii(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """People's words stand in the table as escapes."""
    api = FakeApi()
    api.put("taskgrants", things.grant(spec={"task": {"id": STRANGE}}))
    api.put("pilotidentities", things.pilot())
    with serving(api) as url:
        kubeconfig = tmp_path / "kubeconfig"
        kubeconfig.write_text(
            '{"kind":"Config","current-context":"a","users":[{"name":"a","user":{"token":"t"}}],'
            f'"clusters":[{{"name":"a","cluster":{{"server":"{url}"}}}}],'
            '"contexts":[{"name":"a","context":{"cluster":"a","user":"a","namespace":"team-a"}}]}',
            encoding="utf-8",
        )
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
        for output in ("table", "wide", "json", "yaml", "name"):
            result = in_ascii("grants", "-o", output)
            assert (result.exit_code, result.stdout_bytes.isascii()) == (0, True), result.output


EVERY_VERB = [
    *("request", "approve", "deny", "review", "complete", "revoke", "suspend", "resume", "grants", "trace"),
    *(
        f"audit {verb}"
        for verb in (
            *("verify", "tail", "show", "for", "chain", "replay", "export", "receipt", "reconcile"),
            "check-receipt",
        )
    ),
]


@pytest.mark.parametrize("verb", EVERY_VERB)
def test_help_is_ascii(verb: str) -> None:
    """Whoever needs it may have the plainest of terminals."""
    result = in_ascii(*verb.split(), "--help")
    assert (result.exit_code, result.stdout_bytes.isascii()) == (0, True)


def test_the_program_itself_prints_to_a_file_in_the_locale_c(log: str, tmp_path: Path) -> None:
    """With the streams that the interpreter makes, not a test's."""
    target = tmp_path / "drawn"
    environment = {
        "PATH": os.environ["PATH"],
        "LC_ALL": "C",
        "PYTHONIOENCODING": "ascii",
        "PYTHONPATH": str(Path(pilot_identity.__file__).parents[1]),
        "XDG_STATE_HOME": str(tmp_path),
    }
    with target.open("wb") as file:
        done = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "pilot_identity.cli", "audit", "chain", "root", "--from", log],
            stdout=file,
            stderr=subprocess.PIPE,
            env=environment,
            check=False,
            timeout=60,
        )
    assert (done.returncode, done.stderr) == (0, b"")
    assert f"task T-1, {SHOWN_AS}".encode() in target.read_bytes()
    assert target.read_bytes().isascii()
