from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from pilot_identity.core.audit.archived import Archived, ArchivedName
from pilot_identity.core.audit.checkpoint import CheckpointError, LogSigner
from pilot_identity.core.audit.compacted import Compacted, compact
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import ProofError, Tree
from pilot_identity.core.audit.recollection import Recollection
from pilot_identity.core.audit.remembered import Kept
from pilot_identity.core.audit.shelf import Shelf, edge_tiles, proof_files, proven, require_shelved
from pilot_identity.core.audit.tiles import ENTRIES, HEIGHT, WIDTH, encode_tile, row, tiles_of

SIGNER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(32))))
FORGER = LogSigner("pilots.example.org/log", Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33))))
VERIFIER = SIGNER.verifier()
COUNT = 300
"""Bundles: more than a tile of level 1 has."""


def make(count: int) -> list[Compacted]:
    """The first bundles of a log."""
    bundles: list[Compacted] = []
    edge: tuple[bytes, ...] = ()
    for number in range(count):
        entries = [b"%d" % at for at in range(number * WIDTH, (number + 1) * WIDTH)]
        bundles.append(compact(number * WIDTH, edge, entries, SIGNER))
        edge = bundles[-1].edge
    return bundles


BUNDLES = make(COUNT)
TREE = Tree(leaf_hash(b"%d" % at) for at in range(COUNT * WIDTH))


def shelved(*cuts: int) -> dict[str, bytes]:
    """An archive that was written in batches which end at these bundles."""
    files: dict[str, bytes] = {}
    start, edge = 0, tuple[bytes, ...]()
    for end in cuts:
        shelf = Shelf.at(start * WIDTH, edge, files.get)
        _, new = shelf.put(BUNDLES[start:end], VERIFIER)
        assert not [path for path in new if files.get(path, new[path]) != new[path]], "a file was replaced"
        files |= new
        start, edge = end, BUNDLES[end - 1].edge
    return files


@settings(deadline=None, max_examples=12)
@given(st.sets(st.integers(1, COUNT), min_size=1, max_size=6))
def test_an_archive_is_a_whole_log_however_it_grew(cuts: set[int]) -> None:
    """It has every file of a tree of its size, with the very bytes, in whatever batches they came."""
    files = shelved(*sorted(cuts))
    size = max(cuts) * WIDTH
    for tile in tiles_of(size):
        nodes = [TREE.perfect(HEIGHT * tile.level, tile.index * WIDTH + at) for at in range(tile.width)]
        assert files[tile.path] == encode_tile(nodes), tile.path
    assert all(bundle.path in files for bundle in row(ENTRIES, size))


def test_the_edge_of_an_archive_is_the_log_s() -> None:
    """Found again from its partial tiles alone, at every size."""
    files: dict[str, bytes] = {}
    shelf = Shelf(0)
    for number, bundle in enumerate(BUNDLES, start=1):
        shelf, new = shelf.put([bundle], VERIFIER)
        files |= new
        assert Shelf.at(number * WIDTH, bundle.edge, files.get) == shelf
        assert shelf.edge() == bundle.edge


def other_entry(bundle: Compacted) -> Compacted:
    """An entry is another, and so is its tile."""
    entries = (b"other", *bundle.entries[1:])
    return dataclasses.replace(bundle, entries=entries, leaves=tuple(map(leaf_hash, entries)))


def other_tile(bundle: Compacted) -> Compacted:
    """The tile is another bundle's."""
    return dataclasses.replace(bundle, leaves=BUNDLES[5].leaves)


def other_head(bundle: Compacted) -> Compacted:
    """The head is another bundle's."""
    return dataclasses.replace(bundle, note=BUNDLES[5].note)


def other_place(bundle: Compacted) -> Compacted:
    """It is not the next."""
    return dataclasses.replace(bundle, first=bundle.first + WIDTH)


@pytest.mark.parametrize("spoil", [other_entry, other_tile, other_head, other_place])
def test_what_was_not_signed_is_not_shelved(spoil: Callable[[Compacted], Compacted]) -> None:
    """Nothing of the batch is."""
    shelf, _ = Shelf(0).put(BUNDLES[:3], VERIFIER)
    with pytest.raises(BrokenLogError):
        shelf.put([spoil(BUNDLES[3])], VERIFIER)


def test_what_another_key_signed_is_not_shelved() -> None:
    """Whoever holds etcd cannot have its own log archived."""
    forged = compact(0, (), BUNDLES[0].entries, FORGER)
    with pytest.raises(CheckpointError):
        Shelf(0).put([forged], VERIFIER)


@pytest.mark.parametrize(
    "spoil",
    [
        lambda files, path: files.pop(path),
        lambda files, path: files.update({path: files[path][:-1]}),
        lambda files, path: files.update({path: bytes(32) + files[path][32:]}),
    ],
    ids=["gone", "cut", "changed"],
)
def test_another_archive_in_the_place_is_not_gone_on_with(
    spoil: Callable[[dict[str, bytes], str], object],
) -> None:
    """Its right edge must be this log's."""
    files = shelved(3)
    (edge,) = edge_tiles(3 * WIDTH)
    spoil(files, edge.path)
    with pytest.raises(BrokenLogError):
        Shelf.at(3 * WIDTH, BUNDLES[2].edge, files.get)


@pytest.mark.parametrize("path", ["tile/entries/001", "tile/0/001"])
def test_a_copy_that_is_not_whole_is_told(path: str) -> None:
    """Gone, cut short or changed: then nothing is deleted."""
    files = shelved(3)
    require_shelved(BUNDLES[1], files.get)
    for content in (None, files[path][:-1], files[path][:-1] + bytes([files[path][-1] ^ 1])):
        spoilt = (
            {**files, path: content} if content is not None else {k: v for k, v in files.items() if k != path}
        )
        with pytest.raises(BrokenLogError):
            require_shelved(BUNDLES[1], spoilt.get)


@pytest.mark.parametrize("end", [1, 2, 3, 255, 256, 257, 300])
def test_an_archived_bundle_is_proven_up_to_the_edge(end: int) -> None:
    """By the files that are asked for and no others; through full tiles and through partial ones."""
    files, size, edge = shelved(end), end * WIDTH, BUNDLES[end - 1].edge
    for number in {0, end // 2, end - 1, min(255, end - 1)}:
        wanted = {path: files[path] for path in proof_files(number * WIDTH, size)}
        assert proven(number * WIDTH, size, edge, wanted.get) == BUNDLES[number].entries


@pytest.mark.parametrize("end", [3, 300])
def test_an_archived_bundle_is_not_believed_with_one_bit_flipped_anywhere(end: int) -> None:
    """In any file that shows it to be the log's; nor with one of them gone or cut short."""
    files, size, edge = shelved(end), end * WIDTH, BUNDLES[end - 1].edge
    for path in proof_files(WIDTH, size):
        good = files[path]
        flipped = [good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :] for at in range(0, len(good), 97)]
        for content in (*flipped, good[:-1], b"", None):
            read = {**files, path: content}
            with pytest.raises(BrokenLogError, match="the archive's"):
                proven(WIDTH, size, edge, read.get)


def test_another_bundle_of_the_log_does_not_stand_in_for_one() -> None:
    """Nor does another log's edge make it the log's."""
    files = shelved(3)
    moved = {**files, "tile/entries/001": files["tile/entries/000"]}
    with pytest.raises(BrokenLogError, match="tile/entries/001 is not what was logged"):
        proven(WIDTH, 3 * WIDTH, BUNDLES[2].edge, moved.get)
    with pytest.raises(BrokenLogError, match="not those of this log"):
        proven(WIDTH, 3 * WIDTH, (bytes(32), bytes(32)), files.get)


def archived(kept: tuple[Kept, ...] = ()) -> Archived:
    """What is told of an archive of three bundles."""
    return Archived(3 * WIDTH, BUNDLES[2].edge, BUNDLES[2].note, kept)


def test_a_record_is_read_back_as_it_was_written() -> None:
    """In one ConfigMap or in several, in any order."""
    kept = tuple(
        Kept(at, Recollection(f"{leaf_hash(b'%d' % at).hex()}/s", leaf_hash(b"%d" % at).hex(), None))
        for at in range(30_000)
    )
    for rows in ((), kept):
        made = archived(rows)
        stored = made.config_maps()
        assert stored[-1][0] == ArchivedName(made.size)
        found = Archived.from_config_maps(list(reversed(stored)))
        assert sorted(found.kept, key=lambda one: one.index) == list(rows)
        assert dataclasses.replace(found, kept=()) == dataclasses.replace(made, kept=())
    assert len(stored) > 1
    with pytest.raises(BrokenLogError):
        Archived.from_config_maps(stored[1:])


def test_a_record_is_believed_by_its_signed_head() -> None:
    """Not by its name, nor by its edge."""
    archived().require_signed(VERIFIER)
    with pytest.raises(BrokenLogError):
        dataclasses.replace(archived(), edge=BUNDLES[4].edge).require_signed(VERIFIER)
    with pytest.raises(CheckpointError):
        archived().require_signed(FORGER.verifier())


@pytest.mark.parametrize(
    "name", ["audit-archived-1", "audit-archived-0000000000000000", "audit-archived-0000000000000100", "else"]
)
def test_what_is_no_name_of_a_record_is_refused(name: str) -> None:
    """A size is a multiple of 256, and more than nothing."""
    with pytest.raises(BrokenLogError):
        ArchivedName.parse(name)


@given(st.integers(0, 600), st.integers(0, 300), st.data())
def test_a_tree_that_begins_at_its_edge_is_the_same_from_there_on(
    start: int, more: int, data: st.DataObject
) -> None:
    """Every root, every proof and every truncation; what is before is refused, not guessed."""
    size = start + more
    whole = Tree(TREE.leaf(at) for at in range(size))
    tree = Tree((TREE.leaf(at) for at in range(start, size)), start=start, edge=whole.subtrees(0, start))
    old = data.draw(st.integers(start, size))
    assert (tree.size, tree.root(old)) == (size, whole.root(old))
    if old:
        assert tree.consistency(old, size) == whole.consistency(old, size)
    if more:
        index = data.draw(st.integers(start, size - 1))
        assert tree.inclusion(index, size) == whole.inclusion(index, size)
        assert tree.leaf(index) == whole.leaf(index)
    if start > 1:
        with pytest.raises(ProofError):
            tree.leaf(0)
    tree.truncate(old)
    assert tree.root() == whole.root(old)


def test_an_edge_has_as_many_roots_as_its_size_has_bits() -> None:
    """Else it is none."""
    with pytest.raises(ProofError):
        Tree.beginning(3, [bytes(32)])
