"""The verbs on logs in directories; on a real API server `e2e/audit_format` tells the same."""

from __future__ import annotations

import base64
import datetime as dt
import json
import os
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.receipt import Receipt
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import NAME, OTHER, SIGNER, write


def entry(number: int, said: str = "") -> bytes:
    """An entry about one of three pilots' grants."""
    subject = f"TaskGrant team-a/task-{number}"
    text = (
        f'{{"data":{{"pilot":"pilot-{number % 3}","reason":"r{said}"}},"datacontenttype":"application/json",'
        f'"id":"uid/{number}","source":"{NAME}","specversion":"1.0","subject":"{subject}",'
        '"subjectuid":"uid","time":"2026-06-01T12:00:00Z","type":"dev.pilotidentity.grant.closed.v1"}'
    )
    return text.encode()


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A log of ten entries."""
    return str(write(tmp_path / "log", [entry(number) for number in range(10)]))


def swap(log: str, entries: list[bytes], signer: LogSigner = SIGNER) -> None:
    """Put another log where one was."""
    place = Path(log)
    place.rename(place.with_name(f"{place.name}-{len(list(place.parent.iterdir()))}"))
    write(place, entries, signer)


def flaws(run: Run, log: str, *options: str) -> list[str]:
    """What `verify` names."""
    return [
        each["flaw"]
        for each in json.loads(run("verify", "--from", log, "-o", "json", *options).stdout)["findings"]
    ]


def test_a_verdict_says_what_was_not_checked(run: Run, log: str) -> None:
    """For people and for programs alike."""
    told = run("verify", "--from", log)
    assert told.exit_code == 0
    assert "verdict  sound" in told.stdout
    assert "Not checked:\n  - whether everything that happened was logged" in told.stdout
    data = json.loads(run("verify", "--from", log, "-o", "json").stdout)
    assert data["sound"]
    assert data["seen"] == {"size": 10, "goesOn": True}
    assert len(data["checked"]) == 6
    assert len(data["notChecked"]) == 3


def test_what_was_seen_is_kept_for_the_user_alone(run: Run, log: str, state: Path) -> None:
    """The head and the place, in files that others can neither read nor write."""
    run("verify", "--from", log)
    kept = sorted(state.iterdir())
    assert [path.name.split("-")[0] for path in kept] == ["head", "place"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in kept} == {0o600}
    assert stat.S_IMODE(state.stat().st_mode) == 0o700


def test_a_rewritten_log_is_a_fork_even_where_its_key_signed_it(run: Run, log: str) -> None:
    """Whoever holds the key cannot rewrite what somebody saw."""
    assert flaws(run, log) == []
    swap(log, [entry(0, "ewritten"), *(entry(number) for number in range(1, 12))])
    assert flaws(run, log) == ["head-forked"]
    assert flaws(run, log) == ["head-forked"]  # what is broken is not remembered as the new truth


def test_a_cut_log_is_truncated_even_where_its_key_signed_it(run: Run, log: str) -> None:
    """Nor take the newest away."""
    assert flaws(run, log) == []
    swap(log, [entry(number) for number in range(9)])
    assert flaws(run, log) == ["tail-truncated"]


def test_a_grown_log_goes_on(run: Run, log: str) -> None:
    """More is no flaw."""
    assert flaws(run, log) == []
    swap(log, [entry(number) for number in range(700)])
    assert flaws(run, log) == []


def test_the_same_log_elsewhere_is_held_to_the_same_head(run: Run, log: str, tmp_path: Path) -> None:
    """The memory is by the log's key, so a copy that was cut is found, too: it may be an old one."""
    assert flaws(run, log) == []
    elsewhere = write(tmp_path / "elsewhere", [entry(number) for number in range(5)])
    done = run("verify", "--from", str(elsewhere))
    assert done.exit_code == 4
    assert "verdict  sound, but older than the head of 10 entries that was seen on 2" in done.stdout
    rewritten = write(tmp_path / "rewritten", [entry(number, "ewritten") for number in range(10)])
    assert set(flaws(run, str(rewritten))) == {"head-forked"}


def test_an_export_stays_sound_while_the_log_goes_on(run: Run, log: str, tmp_path: Path) -> None:
    """It is known again by its head, and what was seen since goes on from it; the other verbs warn."""
    copy = str(tmp_path / "copy")
    assert run("export", copy, "--from", log).exit_code == 0
    swap(log, [entry(number) for number in range(12)])
    assert run("verify", "--from", log).exit_code == 0
    done = run("verify", "--from", copy)
    assert done.exit_code == 4
    assert "verdict  sound, but older than the head of 12 entries that was seen on 2" in done.stdout
    assert "what was seen since goes on from it" in done.stdout
    told = json.loads(run("verify", "--from", copy, "-o", "json").stdout)
    assert (told["sound"], told["older"], told["entries"], told["findings"]) == (True, True, 10, [])
    shown = run("show", "3", "--from", copy)
    assert (shown.exit_code, json.loads(shown.stdout)) == (0, json.loads(entry(3)))
    assert "warning: this is older than the head of 12 entries" in shown.stderr
    assert run("verify", "--from", log).exit_code == 0  # the newest head is still the one that is remembered


def test_an_old_copy_of_which_nothing_is_known_is_held_against_the_log_later(
    run: Run, log: str, tmp_path: Path
) -> None:
    """Its head is remembered: the log itself tells whether it goes on from it."""
    assert flaws(run, log) == []
    copy = str(write(tmp_path / "copy", [entry(number) for number in range(6)]))
    unknown = "whether what was seen goes on from it: no head of its size was seen here"
    assert unknown in run("verify", "--from", copy).stdout
    assert unknown in run("verify", "--from", copy).stdout
    assert flaws(run, log) == []
    done = run("verify", "--from", copy)
    assert (done.exit_code, unknown in done.stdout) == (4, False)
    assert "what was seen since goes on from it" in done.stdout


def test_an_old_copy_of_another_history_convicts_the_key_s_holder(run: Run, log: str, tmp_path: Path) -> None:
    """Once the log is read, and at once where a head of that size was seen."""
    assert flaws(run, log) == []
    copy = str(write(tmp_path / "copy", [entry(number, "ewritten") for number in range(6)]))
    assert flaws(run, copy) == []
    assert flaws(run, log) == ["head-forked"]
    again = str(write(tmp_path / "again", [entry(number) for number in range(6)]))
    assert flaws(run, again) == ["head-forked"]


def test_a_copy_that_shrinks_was_cut(run: Run, log: str, tmp_path: Path) -> None:
    """An export never changes: what was there once must be there still."""
    copy = str(write(tmp_path / "copy", [entry(number) for number in range(8)]))
    assert flaws(run, copy) == []
    assert flaws(run, log) == []
    swap(copy, [entry(number) for number in range(7)])
    assert flaws(run, copy) == ["tail-truncated"]


@pytest.mark.parametrize(
    "edit",
    [
        lambda text: text.replace(b"task-7", b"task-8"),
        lambda text: text.rpartition(b'{"data"')[0],
        lambda text: text + b"{}\n",
        lambda _: b"",
    ],
    ids=["changed", "cut", "longer", "empty"],
)
def test_the_copy_to_search_is_compared_with_the_entries(
    run: Run, log: str, edit: Callable[[bytes], bytes]
) -> None:
    """Whoever is handed an export greps that file."""
    file = Path(log) / "entries.ndjson"
    file.write_bytes(edit(file.read_bytes()))
    assert flaws(run, log) == ["copy-differs"]
    done = run("verify", "--from", log)
    assert done.exit_code == 1
    assert "Wrong:\n  - copy-differs: entries.ndjson: " in done.stdout
    file.unlink()
    assert flaws(run, log) == []
    assert "entries.ndjson" not in run("verify", "--from", log).stdout


def test_a_report_that_is_kept_says_what_is_wrong(run: Run, log: str) -> None:
    """In the report itself, and on stderr where that goes elsewhere; with what is in order all the same."""
    bundle = Path(log) / "tile" / "entries" / "000.p" / "10"
    bundle.write_bytes(bundle.read_bytes().replace(b"task-7", b"task-8"))
    done = run("verify", "--from", log)
    assert (done.exit_code, "verdict  BROKEN" in done.stdout) == (1, True)
    for told in (done.stdout, done.stderr):
        assert "entry-changed: tile/entries/000.p/10: entry 7" in told
    assert "stored parts were read; what is wrong stands above" in done.stdout


def test_another_log_in_its_place_is_found(run: Run, log: str, tmp_path: Path) -> None:
    """With another key; unless the user says that this is the right one."""
    assert flaws(run, log) == []
    swap(log, [entry(number) for number in range(10)], OTHER)
    done = run("verify", "--from", log)
    assert done.exit_code == 1
    assert "foreign-key: checkpoint" in done.stderr
    assert "warning: the key published in" in done.stderr
    key = tmp_path / "key"
    key.write_text(f"{OTHER.verifier()}\n")
    assert flaws(run, log, "--vkey", str(key)) == []
    assert flaws(run, log) == []


def test_a_memory_that_cannot_be_read_stops_everything(run: Run, log: str, state: Path) -> None:
    """It is not taken for having seen nothing."""
    run("verify", "--from", log)
    for path in state.glob("head-*"):
        path.write_text("{}")
    done = run("verify", "--from", log)
    assert done.exit_code == 1
    assert "cannot be used" in done.stderr
    assert "delete it to begin anew" in done.stderr


def test_nothing_is_passed_on_from_a_log_that_does_not_verify(run: Run, log: str, tmp_path: Path) -> None:
    """No entry, no receipt, no export."""
    bundle = Path(log) / "tile" / "entries" / "000.p" / "10"
    bundle.write_bytes(bundle.read_bytes().replace(b"task-7", b"task-8"))
    target = tmp_path / "target"
    for arguments in (
        ("show", "3"),
        ("tail",),
        ("for", "grant", "task-3"),
        ("chain", "task-3"),
        ("receipt", "3"),
        ("export", str(target)),
    ):
        done = run(*arguments, "--from", log)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "entry-changed: tile/entries/000.p/10: entry 7" in done.stderr
    assert [path.name for path in tmp_path.iterdir() if "target" in path.name] == []


def test_entries_are_found_by_what_they_are_about(run: Run, log: str) -> None:
    """A grant by its name, a pilot with its grants."""
    by_grant = run("for", "grant", "team-a/task-4", "--from", log, "-o", "json")
    assert [json.loads(line)["index"] for line in by_grant.stdout.splitlines()] == [4]
    by_pilot = run("for", "pilot", "pilot-1", "--from", log, "-o", "json")
    assert [json.loads(line)["index"] for line in by_pilot.stdout.splitlines()] == [1, 4, 7]
    assert "grant.closed" in run("for", "pilot", "pilot-1", "--from", log).stdout
    nobody = run("for", "owner", "alice", "--from", log)
    assert (nobody.exit_code, "no entry about owner alice" in nobody.stderr) == (1, True)
    assert "NAME is a user's" in nobody.stderr


def test_a_full_disk_is_told_in_a_sentence(log: str, tmp_path: Path) -> None:
    """No traceback, and nothing that fails once more at the end."""
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(  # noqa: S603 - this very program
            [sys.executable, "-m", "pilot_identity.cli", "audit", "verify", "--from", log],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert (done.returncode, done.stderr) == (
        1,
        "error: the result cannot be written: No space left on device\n",
    )


def test_a_grant_that_is_none_is_told_by_its_form(run: Run, log: str) -> None:
    """What is no name is a usage error; what is none of the log's is told beside what there is."""
    for name in ("", "a/b/c", "/x", "team-a/"):
        done = run("chain", name, "--from", log)
        assert (done.exit_code, "a grant is named GRANT or NAMESPACE/GRANT" in done.stderr) == (2, True)
    done = run("chain", "task-3", "--uid", "123", "--from", log)
    assert (done.exit_code, "no entry about grant task-3 of UID 123" in done.stderr) == (1, True)


def test_the_newest_come_last(run: Run, log: str) -> None:
    """As many as are asked for."""
    told = run("tail", "--lines", "2", "--from", log, "-o", "json")
    assert [json.loads(line)["index"] for line in told.stdout.splitlines()] == [8, 9]
    assert run("tail", "-f", "--from", log).exit_code == 2


def test_an_entry_is_shown_as_it_was_hashed(run: Run, tmp_path: Path) -> None:
    """Indented for people; what could move a cursor, or looks as if it did, is as in JSON."""
    said = "\u202eevil \\\\u000a \u00e4"
    log = str(write(tmp_path / "log", [entry(0, said)]))
    told = run("show", "0", "--from", log).stdout
    assert told.isascii()
    assert json.loads(told) == json.loads(entry(0, said))
    line = run("show", "0", "--from", log, "-o", "json").stdout
    assert json.loads(line) == {"index": 0, "entry": json.loads(entry(0, said))}
    assert line.count("\n") == 1


class TestReceipt:
    """`receipt` and `check-receipt`."""

    def test_it_is_checked_without_the_log(self, run: Run, log: str, tmp_path: Path) -> None:
        """By the key that was seen, or that is given; the whole entry is in it."""
        file = tmp_path / "3.tlog-proof"
        file.write_text(run("receipt", "3", "--from", log).stdout)
        told = run("check-receipt", str(file))
        assert told.exit_code == 0
        assert told.stdout.startswith(f"valid: entry 3 of the log {NAME}, by its head of 10 entries")
        line = run("check-receipt", str(file), "--vkey", str(SIGNER.verifier()), "-o", "json").stdout
        data = json.loads(line)
        assert line.count("\n") == 1
        assert (data["index"], data["entry"]) == (3, json.loads(entry(3)))
        assert (data["log"], data["vkey"], data["vkeyFrom"]) == (NAME, str(SIGNER.verifier()), "given")
        head = SIGNER.verifier().open(data["head"]["note"])
        assert (data["head"]["size"], data["head"]["root"]) == (head.size, head.root.hex())
        assert len(data["notChecked"]) == 3
        again = run("check-receipt", "-", stdin=file.read_text())
        assert again.exit_code == 0
        assert f"key      {SIGNER.verifier()} (remembered)" in again.stdout
        assert "the log's key alone speaks" in again.stdout

    def test_witnesses_may_be_asked_for(self, run: Run, log: str) -> None:
        """Each that is given must have cosigned its head, or as many as are said."""
        text = run("receipt", "3", "--from", log).stdout
        one, other = (
            Cosigner(name, Ed25519PrivateKey.from_private_bytes(bytes([at] * 32)))
            for at, name in enumerate(("one.example", "other.example"))
        )
        cosigned = text + one.cosign(text.partition("\n\n")[2], dt.datetime(2026, 6, 1, 12, tzinfo=dt.UTC))
        told = run("check-receipt", "-", "--witness", str(one.verifier()), stdin=cosigned)
        assert told.exit_code == 0
        assert "witness  one.example (given): cosigned this head on 2026-06-01" in told.stdout
        assert "the log's key alone speaks" not in told.stdout
        both = ("--witness", str(one.verifier()), "--witness", str(other.verifier()))
        missing = run("check-receipt", "-", *both, stdin=cosigned)
        assert (missing.exit_code, missing.stdout.startswith("NOT WITNESSED: entry 3")) == (1, True)
        assert "witness  other.example (given): did not cosign this head" in missing.stdout
        assert run("check-receipt", "-", *both, "--require-witness", "1", stdin=cosigned).exit_code == 0
        line = run("check-receipt", "-", *both, "-o", "json", stdin=text)
        said = json.loads(line.stdout)["witnesses"]
        assert (line.exit_code, said["met"], said["required"]) == (1, False, 2)
        assert [word["time"] for word in said["words"]] == [None, None]
        spoilt = cosigned[:-6] + ("A" if cosigned[-6] != "A" else "B") + cosigned[-5:]
        assert run("check-receipt", "-", "--witness", str(one.verifier()), stdin=spoilt).exit_code == 1
        assert run("check-receipt", "-", "--require-witness", "1", stdin=text).exit_code == 2

    def test_another_entry_in_it_is_refused(self, run: Run, log: str) -> None:
        """The proof is of the one that was logged."""
        text = run("receipt", "3", "--from", log).stdout
        encoded = base64.b64encode(entry(3)).decode()
        forged = text.replace(encoded, base64.b64encode(entry(3, "orged")).decode())
        assert forged != text
        done = run("check-receipt", "-", stdin=forged)
        assert (done.exit_code, done.stdout) == (1, "")
        assert "the receipt is not valid: the path of entry 3 leads to root" in done.stderr

    def test_the_key_of_another_log_is_not_asked(self, run: Run, log: str) -> None:
        """A log that was never seen has no key here."""
        text = run("receipt", "3", "--from", log).stdout.replace(f"\n\n{NAME}\n", "\n\nanother.example/log\n")
        done = run("check-receipt", "-", stdin=text)
        assert (done.exit_code, "give it with --vkey" in done.stderr) == (2, True)

    def test_a_receipt_from_another_history_shows_the_fork(self, run: Run, log: str) -> None:
        """It is valid by itself; beside what was seen it convicts the key's holder."""
        assert flaws(run, log) == []
        entries = [entry(0, "ewritten"), *(entry(number) for number in range(1, 10))]
        tree = Tree(map(leaf_hash, entries))
        note = SIGNER.sign(Checkpoint(NAME, tree.size, tree.root()))
        done = run("check-receipt", "-", stdin=str(Receipt(0, entries[0], tree.inclusion(0, 10), note)))
        assert (done.exit_code, "the log was forked" in done.stderr) == (1, True)

    def test_what_is_no_receipt_is_refused(self, run: Run) -> None:
        """By the rule that it breaks."""
        done = run("check-receipt", "-", stdin="{}")
        assert (done.exit_code, "begins with the line c2sp.org/tlog-proof@v1" in done.stderr) == (1, True)


WRONG = {
    "no such directory": (("verify", "--from", "/nowhere/at/all"), 2, "no such directory"),
    "another scheme": (("verify", "--from", "ftp://example.org/log"), 2, "begins with http"),
    "no key at all": (("verify", "--from", "/proc/self"), 1, "or give the key with --vkey"),
    "nobody answers": (("verify", "--from", "http://127.0.0.1:1"), 1, "/vkey cannot be read: Failed to"),
    "a key that is none": (("verify", "--from", "/proc/self", "--vkey", "a+b"), 2, "--vkey: a vkey is"),
    "a key file that is not there": (
        ("verify", "--from", "/proc/self", "--vkey", "key.pub"),
        2,
        "cannot be read",
    ),
    "an index below none": (("show", "--from", "/proc/self", "--", "-1"), 2, ""),
}


@pytest.mark.parametrize("arguments, code, told", WRONG.values(), ids=WRONG)
def test_what_cannot_be_done_says_why(run: Run, arguments: tuple[str, ...], code: int, told: str) -> None:
    """And what to do."""
    done = run(*arguments)
    assert done.exit_code == code
    assert told in done.stderr
