"""Whom a reader believes beside the log's own key; `e2e/stories/witness` tells it with a real one."""

from __future__ import annotations

import datetime as dt
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from pilot_identity.core.audit.cosignature import Cosigner, join_notes
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.receipt import Receipt
from pilot_identity.core.resources.timestamps import format_timestamp
from pilot_identity.core.witness.request import origin_hash
from tests.cli.audit.conftest import Run
from tests.cli.audit.logs import SIGNER, write
from tests.cli.audit.test_commands import entry

WITNESS = Cosigner("witness.example.org/w1", Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))))
OTHER = Cosigner("witness.example.org/w2", Ed25519PrivateKey.from_private_bytes(bytes(range(3, 35))))
VKEY = str(WITNESS.verifier())
HOUR = dt.timedelta(hours=1)


def cosigned(
    size: int, *, by: Cosigner = WITNESS, said: str = "", ago: dt.timedelta = dt.timedelta(0)
) -> str:
    """The head of the log's first entries, signed and cosigned."""
    tree = Tree(leaf_hash(entry(number, said)) for number in range(size))
    note = SIGNER.sign(Checkpoint(SIGNER.name, size, tree.root()))
    return note + by.cosign(note, dt.datetime.now(dt.UTC) - ago)


def publish(log: str, *notes: str, by: tuple[Cosigner, ...] = (WITNESS,)) -> None:
    """Put cosigned heads and witnesses' keys beside a log."""
    (Path(log) / "cosigned").write_text(join_notes(notes), encoding="utf-8")
    vkeys = "".join(f"{each.verifier()}\n" for each in by)
    (Path(log) / "witnesses").write_text(vkeys, encoding="utf-8")


@pytest.fixture
def log(tmp_path: Path) -> str:
    """A log of ten entries."""
    return str(write(tmp_path / "log", [entry(number) for number in range(10)]))


def told(run: Run, log: str, *options: str) -> tuple[int, dict[str, Any]]:
    """The exit code of `verify`, and what it says of witnesses."""
    result = run("verify", "--from", log, "-o", "json", *options)
    said: dict[str, Any] = json.loads(result.stdout)
    return result.exit_code, said


def test_a_log_that_a_given_witness_stands_for(run: Run, log: str) -> None:
    """With how many entries came since."""
    publish(log, cosigned(8))
    code, said = told(run, log, "--witness", VKEY)
    assert (code, said["sound"]) == (0, True)
    (word,) = said["witnesses"]["words"]
    assert (word["size"], word["beyond"], word["counts"]) == (8, 2, True)
    shown = run("verify", "--from", log, "--witness", VKEY).stdout
    assert "witness.example.org/w1 (given): 8 entries" in shown
    assert "2 entries came since" in shown
    assert "begins with what was cosigned by 1 of the witnesses given" in shown


def test_keys_that_are_published_count_for_nothing(run: Run, log: str) -> None:
    """They are told, and the log is held to what they cosigned; but the log's keeper wrote them."""
    publish(log, cosigned(8))
    code, said = told(run, log)
    assert code == 0
    assert said["witnesses"]["cosigned"] == 0
    assert any("the word of any witness of yours" in each for each in said["notChecked"])
    refused = run("verify", "--from", log, "--require-witness", "1")
    assert refused.exit_code == 2
    assert "do not count" in refused.stderr


QUORUMS = {
    "every one that is given must stand for it": ((), 1),
    "one of two is enough where that is said": (("--require-witness", "1"), 0),
    "none must, where that is said": (("--require-witness", "0"), 0),
    "both must, where that is said": (("--require-witness", "2"), 1),
}


@pytest.mark.parametrize("options, code", QUORUMS.values(), ids=QUORUMS)
def test_a_quorum_that_is_not_there_fails(run: Run, log: str, options: tuple[str, ...], code: int) -> None:
    """Closed: without a number all are meant."""
    publish(log, cosigned(8))
    both = ("--witness", VKEY, "--witness", str(OTHER.verifier()))
    assert told(run, log, *both, *options)[0] == code


def test_a_witness_that_is_given_twice_is_one(run: Run, log: str) -> None:
    """So no quorum is made of one."""
    publish(log, cosigned(8))
    twice = run("verify", "--from", log, "--witness", VKEY, "--witness", VKEY, "--require-witness", "2")
    assert (twice.exit_code, "1 witnesses are given" in twice.stderr) == (2, True)


def test_a_log_that_nobody_stands_for_is_not_remembered(run: Run, log: str, state: Path) -> None:
    """Its head must not be what later logs are held to."""
    code, said = told(run, log, "--witness", VKEY)
    assert (code, said["sound"], said["findings"]) == (1, False, [])
    assert not list(state.glob("head-*"))
    assert (
        "NOT WITNESSED: 0 of the witnesses given stand for it, 1 must"
        in run("verify", "--from", log, "--witness", VKEY).stdout
    )


@pytest.mark.parametrize("options", [(), ("--witness", VKEY)], ids=["published", "given"])
def test_a_log_that_is_not_what_was_cosigned_is_broken(
    run: Run, log: str, options: tuple[str, ...], state: Path
) -> None:
    """Cut, or rewritten: by its name; whoever's the key is, the log's own key signed it too."""
    publish(log, cosigned(12))
    code, said = told(run, log, *options)
    assert (code, [each["flaw"] for each in said["findings"]]) == (1, ["tail-truncated"])
    publish(log, cosigned(8, said="otherwise"))
    code, said = told(run, log, *options)
    assert (code, [each["flaw"] for each in said["findings"]]) == (1, ["head-forked"])
    assert "THIS LOG IS NOT THE ONE THAT IT SAW" in run("verify", "--from", log, *options).stdout
    assert run("receipt", "0", "--from", log).stdout == ""
    assert not list(state.glob("head-*"))


def test_a_word_may_be_too_old(run: Run, log: str) -> None:
    """An old cosigned head shows nothing of what was cut since."""
    publish(log, cosigned(10, ago=2 * HOUR))
    assert told(run, log, "--witness", VKEY)[0] == 0
    assert told(run, log, "--witness", VKEY, "--witnessed-within", "3h")[0] == 0
    code, said = told(run, log, "--witness", VKEY, "--witnessed-within", "1h")
    assert (code, said["witnesses"]["met"]) == (1, False)
    assert run("verify", "--from", log, "--witness", VKEY, "--witnessed-within", "soon").exit_code == 2
    publish(log, cosigned(10, ago=-2 * HOUR))
    assert told(run, log, "--witness", VKEY, "--witnessed-within", "1h")[0] == 1
    ahead = run("verify", "--from", log, "--witness", VKEY, "--witnessed-within", "1h").stdout
    assert "ITS CLOCK IS AHEAD OF THIS MACHINE'S" in ahead


def test_a_bound_in_time_is_for_witnesses_that_are_given(run: Run, log: str) -> None:
    """Without one nothing would be held to it."""
    refused = run("verify", "--from", log, "--witnessed-within", "1h")
    assert (refused.exit_code, "no witness is given" in refused.stderr) == (2, True)


def dated(number: int, ago: dt.timedelta) -> bytes:
    """An entry that says it was so long ago."""
    time = format_timestamp((dt.datetime.now(dt.UTC) - ago).replace(microsecond=0))
    return entry(number).replace(b"2026-06-01T12:00:00Z", time.encode())


def head_of(entries: list[bytes]) -> str:
    """The head of these, cosigned now."""
    note = SIGNER.sign(Checkpoint(SIGNER.name, len(entries), Tree(map(leaf_hash, entries)).root()))
    return note + WITNESS.cosign(note, dt.datetime.now(dt.UTC))


MINUTE = dt.timedelta(minutes=1)
WITHIN = ("--witness", VKEY, "--witnessed-within", "1h")


@pytest.mark.parametrize("behind, code", [((5, 4), 0), ((70, 4), 1), ((5, 70), 1), ((5, -70), 1)])
def test_an_old_head_that_is_dated_anew_does_not_cover_what_came_since(
    run: Run, tmp_path: Path, behind: tuple[int, int], code: int
) -> None:
    """What stands beyond it must be no older than the bound, however new the time on the cosignature is."""
    under = [dated(number, 90 * MINUTE) for number in range(8)]
    since = [dated(8 + number, minutes * MINUTE) for number, minutes in enumerate(behind)]
    log = str(write(tmp_path / "log", [*under, *since]))
    publish(log, head_of(under))
    found, said = told(run, log, *WITHIN)
    assert (found, said["witnesses"]["met"], said["witnesses"]["within"]) == (code, code == 0, "1h")
    assert (said["witnesses"]["overdue"] is None) is (code == 0)
    if code:
        assert said["witnesses"]["overdue"]["index"] == 8
        shown = run("verify", "--from", log, *WITHIN).stdout
        assert "2 entries came since, NOT ALL OF THEM LATELY" in shown
        assert "entry 8 is the oldest that no witness saw in time" in shown


def test_what_was_seen_here_is_not_new_whatever_it_says(run: Run, tmp_path: Path, state: Path) -> None:
    """The keeper of the log dates its entries; when this machine saw them is not his to say."""
    under = [dated(number, 90 * MINUTE) for number in range(8)]
    log = str(write(tmp_path / "log", [*under, dated(8, 0 * MINUTE)]))
    publish(log, head_of(under))
    assert told(run, log, *WITHIN)[0] == 0
    (head,) = state.glob("head-*")
    kept = json.loads(head.read_text(encoding="utf-8"))
    assert [each["size"] for each in kept["sightings"]] == [9]
    kept["sightings"][0]["at"] = (dt.datetime.now(dt.UTC) - 2 * HOUR).isoformat()
    head.write_text(json.dumps(kept), encoding="utf-8")
    code, said = told(run, log, *WITHIN)
    assert (code, said["witnesses"]["overdue"]["index"]) == (1, 8)
    assert said["witnesses"]["overdue"]["because"] == "for a head of 9 entries was seen here then"


def test_of_several_witnesses_as_many_as_are_wanted_must_have_seen_it(run: Run, tmp_path: Path) -> None:
    """The oldest entry that is named is the one beyond the last head that enough of them cosigned."""
    entries = [dated(number, (90 - number) * MINUTE) for number in range(10)]
    log = str(write(tmp_path / "log", entries))
    note = SIGNER.sign(Checkpoint(SIGNER.name, 4, Tree(map(leaf_hash, entries[:4])).root()))
    publish(log, head_of(entries), note + OTHER.cosign(note, dt.datetime.now(dt.UTC)))
    both = ("--witness", VKEY, "--witness", str(OTHER.verifier()), "--witnessed-within", "1h")
    assert told(run, log, *both, "--require-witness", "1")[0] == 0
    code, said = told(run, log, *both)
    assert (code, said["witnesses"]["overdue"]["index"]) == (1, 4)
    shown = run("verify", "--from", log, *both).stdout
    assert "entry 4 is the oldest that fewer than 2 witnesses saw in time" in shown


def test_what_is_not_the_witnesss_or_not_of_this_log_is_passed_over(run: Run, log: str) -> None:
    """A forged cosignature, another log's head, and nonsense in the list of keys."""
    imposter = Cosigner(WITNESS.name, Ed25519PrivateKey.generate())
    elsewhere = LogSigner(SIGNER.name, Ed25519PrivateKey.generate())
    note = elsewhere.sign(Checkpoint(SIGNER.name, 99, bytes(32)))
    foreign = note + WITNESS.cosign(note, dt.datetime.now(dt.UTC))
    publish(log, cosigned(8, by=imposter), foreign)
    code, said = told(run, log, "--witness", VKEY)
    assert (code, said["findings"], said["witnesses"]["words"][0]["size"]) == (1, [], None)
    (Path(log) / "witnesses").write_text("nonsense\n", encoding="utf-8")
    (Path(log) / "cosigned").write_text("nonsense\n", encoding="utf-8")
    shown = run("verify", "--from", log)
    assert shown.exit_code == 0
    assert "'nonsense': a vkey is a name" in shown.stdout
    assert "cosigned: cosigned checkpoints stand one after another" in shown.stdout


class Answering(BaseHTTPRequestHandler):
    """A witness's monitoring endpoint."""

    answers: dict[str, tuple[int, str]]

    def do_GET(self) -> None:
        """Answer with what is set."""
        status, text = self.answers.get(self.path, (404, ""))
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - likewise
        """Say nothing."""


@pytest.fixture
def monitored() -> Iterator[tuple[str, dict[str, tuple[int, str]]]]:
    """A witness's URL, and what it answers by path."""
    answers: dict[str, tuple[int, str]] = {}
    handler = type("Handler", (Answering,), {"answers": answers})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", answers
    server.shutdown()
    thread.join()
    server.server_close()


def test_the_witness_itself_knows_what_is_held_back(
    run: Run, log: str, monitored: tuple[str, dict[str, tuple[int, str]]]
) -> None:
    """An old head that stands is published; the witness tells of a newer one, which does not."""
    url, answers = monitored
    publish(log, cosigned(8))
    asked = ("--witness", VKEY, "--witness-url", url)
    assert told(run, log, *asked)[0] == 0
    path = f"/{origin_hash(SIGNER.name)}/checkpoint"
    answers[path] = (200, cosigned(12))
    code, said = told(run, log, *asked)
    assert (code, [(each["flaw"], each["where"]) for each in said["findings"]]) == (
        1,
        [("tail-truncated", url)],
    )
    answers[path] = (500, "")
    failed = run("verify", "--from", log, *asked)
    assert (failed.exit_code, "the witness answers 500" in failed.stderr) == (1, True)


def open_points(said: dict[str, Any]) -> list[str]:
    """What is said of heads that may be held back, and of URLs that told nothing."""
    return [
        each for each in said["notChecked"] if "larger head" in each or each.startswith("the word of http")
    ]


def imposters_head() -> str:
    """A head that the witness cosigned, of a log of this name with another key."""
    imposter = LogSigner(SIGNER.name, Ed25519PrivateKey.generate())
    note = imposter.sign(Checkpoint(SIGNER.name, 9, bytes(32)))
    return note + WITNESS.cosign(note, dt.datetime.now(dt.UTC))


TELLING_NOTHING = {
    "it knows no such log": (404, ""),
    "it tells nothing": (200, ""),
    "another witness cosigned it": (200, cosigned(9, by=OTHER)),
    "it is of a log with another key": (200, imposters_head()),
}


@pytest.mark.parametrize("answer", TELLING_NOTHING.values(), ids=TELLING_NOTHING)
def test_a_url_that_tells_nothing_counts_as_not_asked(
    run: Run, log: str, monitored: tuple[str, dict[str, tuple[int, str]]], answer: tuple[int, str]
) -> None:
    """It is named, and what the log's keeper may hold back stays open until it tells a head."""
    url, answers = monitored
    publish(log, cosigned(8))
    path = f"/{origin_hash(SIGNER.name)}/checkpoint"
    answers[path] = answer
    code, said = told(run, log, "--witness", VKEY, "--witness-url", url)
    held_back, silent = open_points(said)
    assert (code, said["witnesses"]["silent"]) == (0, [url])
    assert held_back.startswith(f"whether {WITNESS.name} cosigned a larger head than is published")
    assert silent.startswith(f"the word of {url}: it told no head of this log")
    answers[path] = (200, cosigned(9))
    _, said = told(run, log, "--witness", VKEY, "--witness-url", url)
    assert (open_points(said), said["witnesses"]["silent"]) == ([], [])


def test_a_witness_that_no_url_told_of_may_be_held_back(
    run: Run, log: str, monitored: tuple[str, dict[str, tuple[int, str]]]
) -> None:
    """One witness's URL does not speak for another."""
    url, answers = monitored
    publish(log, cosigned(8), cosigned(8, by=OTHER))
    answers[f"/{origin_hash(SIGNER.name)}/checkpoint"] = (200, cosigned(9))
    both = ("--witness", VKEY, "--witness", str(OTHER.verifier()))
    _, said = told(run, log, *both, "--witness-url", url)
    (held_back,) = open_points(said)
    assert held_back.startswith(f"whether {OTHER.name} cosigned a larger head than is published")


def test_a_witness_that_cannot_be_asked_is_told(run: Run, log: str) -> None:
    """What it would have said is not left out silently."""
    failed = run("verify", "--from", log, "--witness", VKEY, "--witness-url", "http://127.0.0.1:1")
    assert (failed.exit_code, "cannot be read" in failed.stderr) == (1, True)


def test_an_export_takes_the_cosignatures_along(run: Run, log: str, tmp_path: Path) -> None:
    """On the head itself, and those of older heads beside it."""
    publish(log, cosigned(10), cosigned(4, by=OTHER), by=(WITNESS, OTHER))
    target = tmp_path / "export"
    assert run("export", str(target), "--from", log).exit_code == 0
    assert WITNESS.verifier().cosigned_at((target / "checkpoint").read_text(encoding="utf-8"))
    both = ("--witness", VKEY, "--witness", str(OTHER.verifier()))
    code, said = told(run, str(target), *both)
    assert (code, [word["size"] for word in said["witnesses"]["words"]]) == (0, [10, 4])


@pytest.mark.parametrize("size, taken", [(10, 10), (8, 8), (5, 10)])
def test_a_receipt_bears_a_cosigned_head_where_one_covers_the_entry(
    run: Run, log: str, size: int, taken: int
) -> None:
    """An older one that a witness stands for rather than the newest, which the log's key alone signed."""
    publish(log, cosigned(size))
    receipt = Receipt.parse(run("receipt", "6", "--from", log).stdout)
    head = receipt.verify(LogVerifier.parse(str(SIGNER.verifier())))
    assert head.size == taken
    assert (WITNESS.name in receipt.note) is (size > 6)


@pytest.mark.parametrize("vkey", ["nonsense+00+x", str(SIGNER.verifier())], ids=["no vkey", "a log's vkey"])
def test_a_key_that_is_no_witnesss_is_refused(run: Run, log: str, vkey: str) -> None:
    """Before anything is read."""
    refused = run("verify", "--from", log, "--witness", vkey)
    assert (refused.exit_code, "--witness: " in refused.stderr) == (2, True)


def test_a_key_may_be_in_a_file(run: Run, log: str, tmp_path: Path) -> None:
    """As the log's may."""
    publish(log, cosigned(8))
    file = tmp_path / "w1.vkey"
    file.write_text(f"{VKEY}\n", encoding="utf-8")
    assert told(run, log, "--witness", str(file))[0] == 0
