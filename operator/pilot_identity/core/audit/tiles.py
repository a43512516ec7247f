"""Tiles: the tree cut into static files, 256 hashes wide (C2SP tlog-tiles.md).

A tile at level 0 holds leaf hashes, one at level L+1 holds the roots of full tiles at level L, and beside
each tile of level 0 stands the bundle of the entries that it hashes. A full file never changes, so a log is
copied, cached and served as plain files. A tile on the right edge is partial; its width is in its name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.merkle import node_hash

WIDTH = 256
"""Hashes in a full tile and entries in a full bundle."""
HEIGHT = 8
"""Levels of the tree that a tile spans."""
HASH_BYTES = 32
ENTRIES = -1
"""The level of entry bundles; in their path it is the word `entries`."""
_LENGTH_BYTES = 2
_TOP_LEVEL = 63
_PATH = re.compile(r"tile/(entries|0|[1-9][0-9]?)/((?:x[0-9]{3}/)*[0-9]{3})(?:\.p/([1-9][0-9]{0,2}))?")


class TileError(ValueError):
    """A tile or bundle is not what it must be; the message is the rule that it breaks."""


@dataclass(frozen=True, slots=True, order=True)
class Tile:
    """Names a tile, or at level `ENTRIES` an entry bundle: the `index`-th of its level, `width` wide."""

    level: int
    index: int
    width: int = WIDTH

    @property
    def is_full(self) -> bool:
        """Whether it is as wide as a tile gets, and so final."""
        return self.width == WIDTH

    @property
    def path(self) -> str:
        """Where it is served below the log's prefix.

        >>> Tile(0, 1234067).path, Tile(ENTRIES, 0, 17).path
        ('tile/0/x001/x234/067', 'tile/entries/000.p/17')
        """
        level = "entries" if self.level == ENTRIES else str(self.level)
        groups, rest = [f"{self.index % 1000:03d}"], self.index // 1000
        while rest:
            groups.append(f"x{rest % 1000:03d}")
            rest //= 1000
        suffix = "" if self.is_full else f".p/{self.width}"
        return f"tile/{level}/{'/'.join(reversed(groups))}{suffix}"

    @classmethod
    def from_path(cls, path: str) -> Tile:
        """Parse a path; the inverse of `path`.

        Raises:
            TileError: no tile has this path.
        """
        match = _PATH.fullmatch(path)
        if match is None:
            raise TileError(f"a tile's path is tile/<level>/<index>[.p/<width>], got {path!r}")
        level = ENTRIES if match[1] == "entries" else int(match[1])
        tile = cls(level, int(match[2].replace("x", "").replace("/", "")), int(match[3] or WIDTH))
        if level > _TOP_LEVEL or tile.path != path:
            raise TileError(f"a level is at most {_TOP_LEVEL}, and numbers have one form, got {path!r}")
        return tile


def tiles_of(size: int) -> Iterator[Tile]:
    """Every tile of a tree of `size` entries: level by level from the leaves, left to right.

    >>> [tile.path for tile in tiles_of(257)]
    ['tile/0/000', 'tile/0/001.p/1', 'tile/1/000.p/1']
    """
    level, hashes = 0, size
    while hashes:
        yield from row(level, hashes)
        level, hashes = level + 1, hashes // WIDTH


def row(level: int, hashes: int) -> Iterator[Tile]:
    """The tiles of one level that has so many hashes; at level `ENTRIES`, the bundles of so many entries."""
    full, rest = divmod(hashes, WIDTH)
    for index in range(full):
        yield Tile(level, index)
    if rest:
        yield Tile(level, full, rest)


def hashes_at(level: int, size: int) -> int:
    """How many hashes a tree of `size` entries has in its tiles of this level."""
    return size >> (HEIGHT * level)


def encode_tile(hashes: Sequence[bytes]) -> bytes:
    """Concatenate a tile's hashes."""
    return b"".join(hashes)


def decode_tile(encoded: bytes, width: int) -> tuple[bytes, ...]:
    """Split a tile into its hashes.

    Raises:
        TileError: it is not `width` hashes long.
    """
    if len(encoded) != width * HASH_BYTES:
        raise TileError(f"a tile of width {width} has {width * HASH_BYTES} bytes, got {len(encoded)}")
    return tuple(encoded[at : at + HASH_BYTES] for at in range(0, len(encoded), HASH_BYTES))


def tile_root(hashes: Sequence[bytes]) -> bytes:
    """The root over a full tile's hashes (or over any power of two of them)."""
    if not hashes or len(hashes) & (len(hashes) - 1):
        raise TileError(f"only a power of two of hashes has a perfect tree, got {len(hashes)}")
    nodes = list(hashes)
    while len(nodes) > 1:
        nodes = [node_hash(nodes[at], nodes[at + 1]) for at in range(0, len(nodes), 2)]
    return nodes[0]


def encode_bundle(entries: Iterable[bytes]) -> bytes:
    """Frame each entry with its length, 16 bits, big-endian.

    Raises:
        TileError: an entry is longer than its frame can say.
    """
    framed = bytearray()
    for entry in entries:
        if len(entry) > MAX_ENTRY_BYTES:
            raise TileError(f"an entry in a bundle has at most {MAX_ENTRY_BYTES} bytes, got {len(entry)}")
        framed += len(entry).to_bytes(_LENGTH_BYTES, "big")
        framed += entry
    return bytes(framed)


def decode_bundle(encoded: bytes) -> tuple[bytes, ...]:
    """Take the entries out of their frames; how many there must be is for the caller to check.

    Raises:
        TileError: the last frame is cut short, or there are more than a bundle holds.
    """
    entries: list[bytes] = []
    at = 0
    while at < len(encoded):
        start = at + _LENGTH_BYTES
        end = start + int.from_bytes(encoded[at:start], "big")
        if start > len(encoded) or end > len(encoded):
            raise TileError(f"a bundle ends with a whole entry; entry {len(entries)} of it is cut short")
        if len(entries) == WIDTH:
            raise TileError(f"a bundle has at most {WIDTH} entries")
        entries.append(encoded[start:end])
        at = end
    return tuple(entries)
