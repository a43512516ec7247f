from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.proofs import Tree
from pilot_identity.core.audit.tiles import (
    ENTRIES,
    WIDTH,
    Tile,
    TileError,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    hashes_at,
    tile_root,
    tiles_of,
)

HASHES = tuple(leaf_hash(bytes([number])) for number in range(WIDTH))
tiles = st.builds(Tile, st.integers(ENTRIES, 63), st.integers(0, 10**15), st.integers(1, WIDTH))


def test_paths_are_those_of_the_specification() -> None:
    """The examples of tlog-tiles.md."""
    assert Tile(0, 1234067).path == "tile/0/x001/x234/067"
    assert Tile(ENTRIES, 1234067, 8).path == "tile/entries/x001/x234/067.p/8"
    assert Tile(2, 0, 1).path == "tile/2/000.p/1"


def test_the_tiles_of_a_tree_are_those_of_the_specification() -> None:
    """tlog-tiles.md: 70,000 entries are 273 full tiles and one of 112, one full and one of 17, one of 1."""
    found = list(tiles_of(70_000))
    assert [tile.path for tile in found if not tile.is_full] == [
        "tile/0/273.p/112",
        "tile/1/001.p/17",
        "tile/2/000.p/1",
    ]
    assert sum(tile.is_full and tile.level == 0 for tile in found) == 273
    assert sum(tile.is_full and tile.level == 1 for tile in found) == 1
    assert [tile.path for tile in tiles_of(256)] == ["tile/0/000", "tile/1/000.p/1"]
    assert list(tiles_of(0)) == []


@given(st.integers(1, 10**9), st.integers(0, 3))
def test_partial_widths_are_those_of_the_formula(size: int, level: int) -> None:
    """floor(s / 256**l) mod 256 hashes are in the partial tile."""
    assert hashes_at(level, size) == size // 256**level


@given(tiles)
def test_writing_and_reading_a_path_are_inverse(tile: Tile) -> None:
    """Each tile has one path."""
    assert Tile.from_path(tile.path) == tile


@pytest.mark.parametrize(
    "path",
    [
        "tile/0/1",
        "tile/00/001",
        "tile/0/x000/001",
        "tile/0/001.p/0",
        "tile/0/001.p/256",
        "tile/0/001.p/07",
        "tile/64/001",
        "tile/0/001/",
        "/tile/0/001",
        "tile/data/001",
        "tile/0/001/002",
        "../tile/0/001",
        "",
    ],
)
def test_a_path_has_one_form(path: str) -> None:
    """Another way to write a tile's name is no name of it."""
    with pytest.raises(TileError):
        Tile.from_path(path)


@given(st.lists(st.binary(max_size=300), max_size=WIDTH))
def test_framing_and_unframing_are_inverse(entries: list[bytes]) -> None:
    """Any entries survive the way into a bundle and back."""
    assert decode_bundle(encode_bundle(entries)) == tuple(entries)


def test_the_frame_is_a_length_in_two_bytes() -> None:
    """Big-endian, before each entry."""
    assert encode_bundle([b"a", b"", b"b" * 258]) == b"\x00\x01a\x00\x00\x01\x02" + b"b" * 258


@pytest.mark.parametrize("encoded", [b"\x00", b"\x00\x02a", b"\x00\x01a\x00", b"\x00\x00" * 257])
def test_a_bundle_that_is_cut_or_too_long_is_refused(encoded: bytes) -> None:
    """Never a shorter entry than was framed, never more entries than a bundle has."""
    with pytest.raises(TileError):
        decode_bundle(encoded)


def test_an_entry_too_long_for_its_frame_is_refused() -> None:
    """A length of 65,536 would be written as 0."""
    assert len(encode_bundle([b"x" * 65_535])) == 65_537
    with pytest.raises(TileError, match="at most 65535 bytes, got 65536"):
        encode_bundle([b"x" * 65_536])


def test_a_tile_is_its_hashes() -> None:
    """A full one has 8,192 bytes."""
    assert len(encode_tile(HASHES)) == 8_192
    assert decode_tile(encode_tile(HASHES), WIDTH) == HASHES
    with pytest.raises(TileError, match="of width 255 has 8160 bytes, got 8192"):
        decode_tile(encode_tile(HASHES), 255)


def test_the_root_over_a_tile_is_the_trees() -> None:
    """What the tile above has of it."""
    assert tile_root(HASHES) == Tree(HASHES).root()
    for count in (0, 3, 255):
        with pytest.raises(TileError, match="power of two"):
            tile_root(HASHES[:count])
