"""A log whose beginning is archived: read from the cluster alone, and with the archive."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.entries import Entry, EntryType, encode_entry
from pilot_identity.core.audit.findings import Flaw, Report
from pilot_identity.core.audit.groups import Group, extend
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.parts import Beginning, Unreadable
from pilot_identity.core.audit.proofs import Tree, join
from pilot_identity.core.audit.reader import ConfigMapLog, TiledLog
from pilot_identity.core.audit.shelf import Shelf
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.audit.verify import Verification, verify
from tests.fakes.clock import START

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
FORGER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
VERIFIER = SIGNER.verifier()
SIZE = 5 * WIDTH + 30
CUT = 3 * WIDTH
"""So much is archived."""

Item = Mapping[str, Any]


def entry(number: int) -> bytes:
    """One of a log's entries."""
    made = Entry(f"uid-{number}/closed", EntryType.GRANT_CLOSED, "TaskGrant a/b", f"uid-{number}", START, {})
    return encode_entry(made, SIGNER.name)


ENTRIES = [entry(number) for number in range(SIZE)]
TREE = Tree(map(leaf_hash, ENTRIES))


def bundles(entries: list[bytes], signer: LogSigner = SIGNER) -> list[Compacted]:
    """All full bundles of a log."""
    made: list[Compacted] = []
    edge: tuple[bytes, ...] = ()
    for first in range(0, len(entries) // WIDTH * WIDTH, WIDTH):
        made.append(compact(first, edge, entries[first : first + WIDTH], signer))
        edge = made[-1].edge
    return made


BUNDLES = bundles(ENTRIES)
FILES = Shelf(0).put(BUNDLES[: CUT // WIDTH], VERIFIER)[1]


def item(name: object, data: Mapping[str, str], binary: Mapping[str, str] | None = None) -> Item:
    """A ConfigMap."""
    return {"metadata": {"name": str(name)}, "data": data, "binaryData": binary or {}}


def tail() -> Group:
    """The group behind the last bundle."""
    frontier = Frontier()
    for one in ENTRIES[: 5 * WIDTH]:
        frontier.append(leaf_hash(one))
    return extend(frontier, ENTRIES[5 * WIDTH :], SIGNER)[0]


def record(size: int = CUT, made: list[Compacted] = BUNDLES) -> list[Item]:
    """What tells of the archive."""
    last = made[size // WIDTH - 1]
    return [item(*stored) for stored in Archived(size, last.edge, last.note).sealed(SIGNER).config_maps()]


def stored(*records: Item, first: int = CUT) -> list[Item]:
    """The ConfigMaps of a log whose bundles before `first` are gone."""
    tiles = [item(*part) for one in BUNDLES if one.first >= first for part in one.config_maps()]
    group = tail()
    return sorted([*records, item(group.name, group.data()), *tiles], key=lambda one: one["metadata"]["name"])


def tiled(files: Mapping[str, bytes]) -> TiledLog:
    """An archive."""

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        return map(files.get, paths)

    return TiledLog(files.get, fetch_all)


def read(
    items: list[Item], files: Mapping[str, bytes] | None = None, seen: int | None = None
) -> tuple[Report, dict[int, bytes], Tree]:
    """The verdict, the entries by index, and the tree."""
    entries: dict[int, bytes] = {}
    head = Checkpoint(VERIFIER.name, seen, TREE.root(seen)) if seen is not None else None
    source = ConfigMapLog(lambda: items, tiled(files) if files is not None else None)
    report, tree = verify(source, VERIFIER, head, entries.__setitem__)
    return report, entries, tree


def test_the_cluster_alone_is_proven_from_the_signed_edge_on() -> None:
    """It says where that begins; proofs of what is there are those of the whole log."""
    report, entries, tree = read(stored(*record()))
    assert (report.is_sound, report.is_whole, report.first, report.entries) == (True, False, CUT, SIZE)
    assert entries == dict(list(enumerate(ENTRIES))[CUT:])
    assert tree.root() == TREE.root()
    assert tree.inclusion(CUT + 7, SIZE) == TREE.inclusion(CUT + 7, SIZE)


@pytest.mark.parametrize("first", [CUT, CUT - WIDTH, 0])
def test_with_the_archive_it_is_whole(first: int) -> None:
    """However much of what is archived was not deleted yet."""
    report, entries, tree = read(stored(*record(), first=first), FILES)
    assert (report.findings, report.is_whole, report.entries) == ((), True, SIZE)
    assert entries == dict(enumerate(ENTRIES))
    assert tree.root() == TREE.root()


@pytest.mark.parametrize("first", [CUT - WIDTH, 0])
def test_what_is_about_to_be_deleted_is_passed_over(first: int) -> None:
    """It may be there in part only, and the record was written after the archive was."""
    report, _, _ = read(stored(*record(), first=first))
    assert (report.is_sound, report.first) == (True, CUT)


def test_the_newest_record_counts() -> None:
    """The one before is deleted after it."""
    report, _, _ = read(stored(*record(WIDTH), *record(CUT)))
    assert (report.is_sound, report.first) == (True, CUT)


def test_an_archive_that_no_record_tells_of_is_not_asked() -> None:
    """All is in the cluster still."""
    report, entries, _ = read(stored(first=0), {})
    assert (report.is_sound, report.is_whole, len(entries)) == (True, True, SIZE)


def test_bundles_that_are_gone_with_no_record_are_a_gap() -> None:
    """Deleting is not archiving."""
    report, _, _ = read(stored())
    assert [finding.flaw for finding in report.findings] == [Flaw.GAP]


@pytest.mark.parametrize(
    "seen, goes_on, is_sound",
    [(CUT - 10, None, True), (CUT, True, True), (CUT + 300, True, True), (SIZE, True, True)],
)
def test_a_head_that_was_seen_is_held_against_what_is_there(
    seen: int, *, goes_on: bool | None, is_sound: bool
) -> None:
    """Of one before the edge nothing can be told, and that is said; with the archive it can."""
    report, _, _ = read(stored(*record()), seen=seen)
    assert (report.goes_on, report.is_sound) == (goes_on, is_sound)
    assert read(stored(*record()), FILES, seen)[0].goes_on is True


def forged_edge() -> list[Item]:
    """The edge is another's; the head is the log's own."""
    last = BUNDLES[CUT // WIDTH - 1]
    archived = Archived(CUT, BUNDLES[3].edge[:1] * 2, last.note).sealed(SIGNER)
    return [item(*one) for one in archived.config_maps()]


def forged_head() -> list[Item]:
    """Somebody else signed another beginning."""
    return record(made=bundles([*reversed(ENTRIES[:CUT]), *ENTRIES[CUT:]], FORGER))


def unlike_its_parts() -> list[Item]:
    """It says that what it keeps goes on elsewhere."""
    ((name, data, binary),) = Archived(CUT, BUNDLES[2].edge, BUNDLES[2].note).sealed(SIGNER).config_maps()
    return [item(name, {**data, "parts": "7"}, binary)]


def another_beginning() -> list[Item]:
    """The log's own key signed another beginning: its holder rewrites what is archived."""
    return record(made=bundles([*reversed(ENTRIES[:CUT]), *ENTRIES[CUT:]]))


@pytest.mark.parametrize(
    "items, flaw",
    [
        (forged_edge(), Flaw.EDGE_REPLACED),
        (forged_head(), Flaw.FOREIGN_KEY),
        (another_beginning(), Flaw.ROOT_MISMATCH),
        (unlike_its_parts(), Flaw.RECOLLECTION_REPLACED),
        ([item("audit-archived-0000000000000768", {"edge": "xx"})], Flaw.UNREADABLE),
        ([item("audit-archived-0000000000000100", {})], Flaw.UNREADABLE),
    ],
    ids=["edge", "foreign head", "rewritten", "parts", "unreadable", "name"],
)
def test_a_record_is_no_way_to_take_entries_away(items: list[Item], flaw: Flaw) -> None:
    """It is signed, and what follows is signed over it."""
    report, _, _ = read(stored(*items))
    assert not report.is_sound
    assert flaw in {finding.flaw for finding in report.findings}


@pytest.mark.parametrize(
    "path, flaw",
    [
        ("tile/entries/001", Flaw.ENTRY_CHANGED),
        ("tile/0/001", Flaw.TILE_REPLACED),
        ("tile/1/000.p/3", Flaw.TILE_REPLACED),
    ],
)
def test_a_changed_archive_is_found_and_located(path: str, flaw: Flaw) -> None:
    """A flipped bit, by the file and the flaw."""
    content = FILES[path]
    spoilt = content.replace(b"TaskGrant", b"TaskGrind", 1) if "entries" in path else bytes(32) + content[32:]
    report, _, _ = read(stored(*record()), {**FILES, path: spoilt})
    assert (flaw, path) in {(finding.flaw, finding.where) for finding in report.findings}


def test_an_archive_without_a_bundle_is_not_whole() -> None:
    """The gap is told by the file."""
    files = {path: content for path, content in FILES.items() if path != "tile/entries/001"}
    report, _, _ = read(stored(*record()), files)
    assert {finding.flaw for finding in report.findings} >= {Flaw.UNREADABLE, Flaw.GAP}


def test_a_size_beyond_all_measure_is_not_followed_into_the_archive() -> None:
    """A ConfigMap's name can say anything before its head is verified; no file is asked for."""
    size = 2**50
    note = SIGNER.sign(Checkpoint(SIGNER.name, CUT, TREE.root(CUT)))
    asked: list[str] = []

    def fetch_all(paths: Iterable[str]) -> Iterator[bytes | None]:
        asked.extend(paths)
        return iter(())

    (named,) = Archived(size, (bytes(32),), note).config_maps()
    parts = list(ConfigMapLog(lambda: [item(*named)], TiledLog(lambda _: None, fetch_all)).parts())
    assert asked == []
    assert parts[-1] == Unreadable(str(named[0]), f"its size is {size}, at most 100000000 entries are read")


def test_a_log_that_is_listed_again_is_the_same_log() -> None:
    """Whoever follows it and must list anew meets the beginning a second time."""
    source = ConfigMapLog(lambda: stored(*record()))
    verification = Verification(VERIFIER)
    for _ in range(2):
        for part in source.parts():
            verification.absorb(part)
    assert verification.report().is_sound


def test_a_follower_meets_a_later_beginning() -> None:
    """More was archived since it began: what it knows is held against that head."""
    verification = Verification(VERIFIER)
    for part in ConfigMapLog(lambda: stored(first=0)).parts():
        verification.absorb(part)
    for part in ConfigMapLog(lambda: stored(*record())).parts():
        verification.absorb(part)
    report = verification.report()
    assert (report.is_sound, report.is_whole) == (True, True)
    forked = Archived(CUT, bundles([*reversed(ENTRIES[:CUT])])[-1].edge, "")
    note = SIGNER.sign(Checkpoint(SIGNER.name, CUT, join(forked.edge)))
    verification.absorb(Beginning("later", dataclasses.replace(forked, note=note).sealed(SIGNER)))
    assert [finding.flaw for finding in verification.report().findings] == [Flaw.HEAD_FORKED]
