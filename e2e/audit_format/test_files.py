"""An exported log of 100,000 entries, its receipts and proofs, before judges that share no code with it."""

from __future__ import annotations

import base64
import itertools
import json
import shutil
import threading
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from e2e.audit_format.conftest import Audit
from e2e.audit_format.judges import Judges
from e2e.audit_format.logs import Writer
from pilot_identity.cli.audit.exporting import Export
from pilot_identity.core.audit.checkpoint import Checkpoint
from pilot_identity.core.audit.cosignature import Cosigner
from pilot_identity.core.audit.groups import Group
from pilot_identity.core.audit.parts import Part, Segment
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.receipt import Receipt
from pilot_identity.core.audit.tiles import ENTRIES, Tile
from pilot_identity.core.audit.verify import verify
from pilot_identity.core.audit.witnessed import Word, combined, hear

SIZE = 100_000
SMALL = 700
BAR_SECONDS = 10.0


class Grouped:
    """A log in groups, as the cluster would have it."""

    def __init__(self, groups: list[Group]) -> None:
        self.groups = groups

    def parts(self) -> Iterator[Part]:
        """Each group."""
        for group in self.groups:
            yield Segment(group.name, group.extends, group.entries, note=group.note)


@pytest.fixture(scope="session")
def writer() -> Writer:
    """Whose log it is."""
    return Writer.new()


@pytest.fixture(scope="session")
def groups(writer: Writer) -> list[Group]:
    """100,000 entries in groups of 64, as at concurrency 64."""
    return list(writer.groups(SIZE, of=64))


@pytest.fixture(scope="session")
def exported(writer: Writer, groups: list[Group], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The log in files, with receipts and consistency proofs beside its tiles."""
    places = (0, 1, 255, 256, 4095, 65_535, 65_536, 99_839, 99_840, SIZE - 1)
    return export(writer, groups, tmp_path_factory.mktemp("audit") / "log", places)


@pytest.fixture(scope="session")
def small(writer: Writer, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A log of two full bundles and a partial one, likewise."""
    groups = list(writer.groups(SMALL, of=10))
    return export(writer, groups, tmp_path_factory.mktemp("audit") / "log", (0, 256, SMALL - 1))


def export(writer: Writer, groups: list[Group], directory: Path, places: Sequence[int]) -> Path:
    """Export a log, with a receipt for each place and a consistency proof from there."""
    written, key = Export(directory), writer.signer.verifier()
    report, tree = verify(Grouped(groups), key, observe=lambda _, entry: written.add(entry))
    assert report.is_sound
    words = heard(writer, tree, report.note)
    written.witnessed(words)
    written.finish(tree, combined(report.note, words), str(key))
    entries = list(itertools.chain.from_iterable(group.entries for group in groups))
    for index in places:
        receipt = Receipt(index, entries[index], tree.inclusion(index, tree.size), report.note)
        (directory / f"{index}.tlog-proof").write_text(str(receipt), encoding="utf-8")
        write_consistency(directory, tree, index + 1)
    return directory


def heard(writer: Writer, tree: Tree, note: str) -> list[Word]:
    """What two witnesses cosigned: one the newest head, the other an older one."""
    older = writer.signer.sign(Checkpoint(writer.signer.name, 300, tree.root(300)))
    words: list[Word] = []
    for name, head in (("witness.example.org/new", note), ("witness.example.org/old", older)):
        cosigner = Cosigner(name, Ed25519PrivateKey.generate())
        cosigned = head + cosigner.cosign(head, datetime.now(UTC))
        witness, key = cosigner.verifier(), writer.signer.verifier()
        words.append(hear(witness, [("", cosigned)], key, tree, is_given=True, is_whole=True))
    return words


def write_consistency(directory: Path, tree: Tree, size: int) -> None:
    """The old size and root, and the proof that the log goes on from there."""
    lines = [tree.root(size), *tree.consistency(size, tree.size)]
    text = "".join(f"{base64.b64encode(line).decode()}\n" for line in lines)
    (directory / f"{size}.consistency").write_text(f"{size}\n{text}", encoding="utf-8")


def test_fsck_accepts_the_export(foreign: Judges, exported: Path) -> None:
    """Tessera reads every tile and bundle, and has nothing against any."""
    assert foreign.fsck_objection(exported) == ""


def test_go_accepts_checkpoint_receipts_and_consistency(foreign: Judges, exported: Path) -> None:
    """golang.org/x/mod/sumdb/note and tlog, over all 100,000 entries."""
    assert foreign.go_objection(exported) == ""


BROKEN = {
    "a bundle": Tile(ENTRIES, 1).path,
    "the last bundle": Tile(ENTRIES, 2, SMALL % 256).path,
    "a tile": Tile(0, 1).path,
    "the last tile": Tile(0, 2, SMALL % 256).path,
    "a tile above": Tile(1, 0, 2).path,
    "the head": "checkpoint",
}


@pytest.mark.parametrize("path", BROKEN.values(), ids=BROKEN)
def test_all_judges_agree_on_what_is_broken(
    foreign: Judges, small: Path, tmp_path: Path, audit: Audit, path: str
) -> None:
    """So that what fsck accepts means something, and what we name is what others see."""
    log = tmp_path / "log"
    shutil.copytree(small, log)
    content = bytearray((log / path).read_bytes())
    content[40] ^= 1
    (log / path).write_bytes(content)
    assert foreign.fsck_objection(log)
    assert foreign.go_objection(log)
    done = audit("verify", "--from", str(log), "-o", "json")
    assert done.returncode == 1, done.stderr
    assert {finding["where"] for finding in json.loads(done.stdout)["findings"]} == {path}


def test_verifying_is_fast(writer: Writer, groups: list[Group]) -> None:
    """Bar: 100,000 entries in under 10 s of one core."""
    started = time.process_time()
    report, _ = verify(Grouped(groups), writer.signer.verifier())
    spent = time.process_time() - started
    assert report.is_sound
    assert spent < BAR_SECONDS, f"it took {spent:.1f} s"


def test_a_directory_verifies_and_is_remembered(exported: Path, audit: Audit) -> None:
    """The first time tells that nothing was seen before, the second that it goes on from that."""
    first = audit("verify", "--from", str(exported))
    assert first.returncode == 0, first.stderr
    assert f"head     {SIZE} entries" in first.stdout
    assert "no head was seen here before; this one is remembered" in first.stdout
    assert "(published)" in first.stdout
    second = audit("verify", "--from", str(exported))
    assert second.returncode == 0, second.stderr
    assert f"begins with the {SIZE} entries whose head was seen before" in second.stdout
    assert "(remembered)" in second.stdout


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and says nothing."""

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class names it
        """Say nothing."""


def test_a_web_server_is_as_good_as_a_directory(small: Path, audit: Audit) -> None:
    """Plain files over HTTP: verified, shown and proven from there."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(small)))
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        url = f"http://127.0.0.1:{server.server_port}"
        done = audit("verify", "--from", url)
        assert done.returncode == 0, done.stderr
        given = audit("receipt", "666", "--from", url)
        assert given.returncode == 0, given.stderr
        missing = audit("verify", "--from", f"{url}/nowhere")
        assert missing.returncode == 1
        assert "give the key with --vkey" in missing.stderr
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
    assert str(Receipt.parse(given.stdout)) == given.stdout


def test_an_export_of_an_export_is_the_same(small: Path, audit: Audit, tmp_path: Path) -> None:
    """Every file of it, byte for byte."""
    again = tmp_path / "again"
    done = audit("export", str(again), "--from", str(small))
    assert done.returncode == 0, done.stderr
    files = {path.relative_to(again) for path in again.rglob("*") if path.is_file()}
    assert files == {
        path.relative_to(small)
        for path in small.rglob("*")
        if path.is_file() and path.suffix not in {".tlog-proof", ".consistency"}
    }
    assert all((again / path).read_bytes() == (small / path).read_bytes() for path in files)
    lines = (again / "entries.ndjson").read_text(encoding="utf-8").splitlines()
    assert len(lines) == SMALL
    refused = audit("export", str(again), "--from", str(small))
    assert refused.returncode == 2
    assert "is there already" in refused.stderr
