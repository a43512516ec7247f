"""The shelf: bundles as the static files of an archive, and what shows that they stand there as logged.

The layout is C2SP tlog-tiles.md's. An archive of `size` entries, a multiple of 256, is by itself a whole log
of that size: full bundles, their tiles, the tiles above with the partial ones on the right edge, and the head
that was signed over just these entries. No file is ever replaced but `checkpoint`: the name of a partial tile
says its width, so a wider one is another file.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from pilot_identity.core.audit.checkpoint import LogVerifier
from pilot_identity.core.audit.compacted import Compacted
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.tiles import (
    ENTRIES,
    HEIGHT,
    WIDTH,
    Tile,
    TileError,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    hashes_at,
    tile_root,
)

VKEY = "vkey"
"""The file with the log's verifier key, beside its `checkpoint`."""


@dataclass(frozen=True, slots=True)
class Shelf:
    """An archive's right edge: how many entries it has, and the tiles of it that are not full.

    Attributes:
        partial: the hashes of each level's partial tile, from level 1 on; none where it ends with a full one.
    """

    size: int
    partial: tuple[tuple[bytes, ...], ...] = ()

    @classmethod
    def at(cls, size: int, edge: Sequence[bytes], read: Callable[[str], bytes | None]) -> Shelf:
        """Find an archive's right edge, and make sure that it is the log's.

        Args:
            size: how many entries it has, a multiple of 256.
            edge: the log's right edge at that size.
            read: returns one of the archive's files.

        Raises:
            BrokenLogError: it is another log's archive, or not whole.
        """
        partial: list[tuple[bytes, ...]] = []
        for tile in edge_tiles(size):
            content = read(tile.path) if tile.width else b""
            try:
                partial.append(decode_tile(content if content is not None else b"", tile.width))
            except TileError as error:
                raise BrokenLogError(f"the archive's {tile.path}: {error}") from error
        shelf = cls(size, tuple(partial))
        if shelf.edge() != tuple(edge):
            raise BrokenLogError(f"the archive's tiles at size {size} are not those of this log")
        return shelf

    def edge(self) -> tuple[bytes, ...]:
        """The roots of the perfect subtrees, the largest first."""
        roots: list[bytes] = []
        for hashes in reversed(self.partial):
            at = 0
            for bit in reversed(range(HEIGHT)):
                if len(hashes) >> bit & 1:
                    roots.append(tile_root(hashes[at : at + (1 << bit)]))
                    at += 1 << bit
        return tuple(roots)

    def put(self, bundles: Sequence[Compacted], verifier: LogVerifier) -> tuple[Shelf, dict[str, bytes]]:
        """Put the log's next bundles behind these; returns the edge then, and the new files.

        Raises:
            BrokenLogError: one is not what the log's key signed.
            CheckpointError: a head is not signed by the log's key.
        """
        frontier = Frontier(self.size, self.edge())
        levels = [list(hashes) for hashes in self.partial]
        files: dict[str, bytes] = {}
        for bundle in bundles:
            if bundle.first != frontier.size:
                raise BrokenLogError(f"the bundle from {frontier.size} on is missing")
            require_signed(frontier, bundle.entries, bundle.leaves, bundle.note, verifier)
            number = bundle.first // WIDTH
            files[Tile(ENTRIES, number).path] = encode_bundle(bundle.entries)
            files[Tile(0, number).path] = encode_tile(bundle.leaves)
            files |= _grow(levels, tile_root(bundle.leaves), frontier.size)
        shelf = Shelf(frontier.size, tuple(map(tuple, levels)))
        for tile, hashes in zip(edge_tiles(shelf.size), shelf.partial, strict=True):
            if hashes:
                files[tile.path] = encode_tile(hashes)
        return shelf, files


def edge_tiles(size: int) -> list[Tile]:
    """The tile at the right edge of each level from 1 on; of width 0 where it ends with a full one."""
    tiles: list[Tile] = []
    level = 1
    while hashes := hashes_at(level, size):
        tiles.append(Tile(level, hashes // WIDTH, hashes % WIDTH))
        level += 1
    return tiles


def require_signed(
    frontier: Frontier, entries: Sequence[bytes], leaves: Sequence[bytes], note: str, verifier: LogVerifier
) -> None:
    """Make sure that entries are what the key signed, and go on with `frontier` over them.

    Raises:
        BrokenLogError: they are not what their tile says, or make another root than the signed head's.
        CheckpointError: the head is not signed by the log's key.
    """
    first = frontier.size
    hashed = tuple(leaf_hash(entry) for entry in entries)
    if hashed != tuple(leaves):
        raise BrokenLogError(f"the entries from {first} on are not those of their tile")
    for leaf in hashed:
        frontier.append(leaf)
    head = verifier.open(note)
    if (head.size, head.root) != (frontier.size, frontier.root()):
        raise BrokenLogError(
            f"the entries from {first} on make root {frontier.root().hex()} at size {frontier.size}, "
            f"signed is {head.root.hex()} at size {head.size}"
        )


def require_shelved(bundle: Compacted, read: Callable[[str], bytes | None]) -> None:
    """Make sure that the archive has a bundle's entries, byte for byte, and their tile.

    Raises:
        BrokenLogError: it does not.
    """
    number = bundle.first // WIDTH
    path = Tile(ENTRIES, number).path
    try:
        entries = decode_bundle(read(path) or b"")
        leaves = decode_tile(read(Tile(0, number).path) or b"", WIDTH)
    except TileError as error:
        raise BrokenLogError(f"the archive's {path}: {error}") from error
    if (entries, leaves) != (bundle.entries, bundle.leaves) or leaves != tuple(map(leaf_hash, entries)):
        raise BrokenLogError(f"the archive's {path} is not the bundle that the log has")


def proof_files(first: int, size: int) -> list[str]:
    """The files of an archive of `size` entries that show its bundle from `first` on to be the log's."""
    wanted = [Tile(ENTRIES, first // WIDTH).path]
    number, level = first // WIDTH // WIDTH, 1
    while number < hashes_at(level, size) // WIDTH:
        wanted.append(Tile(level, number).path)
        number, level = number // WIDTH, level + 1
    return wanted + [tile.path for tile in edge_tiles(size) if tile.width]


def proven(
    first: int, size: int, edge: Sequence[bytes], read: Callable[[str], bytes | None]
) -> tuple[bytes, ...]:
    """The entries of an archived bundle, shown to be the log's: hashed, from tile to tile, up to its edge.

    Args:
        first: the bundle's first entry.
        size: how many entries the archive has, more than `first`.
        edge: the log's right edge at that size, from where the archive's keeper cannot write.
        read: returns one of the archive's files.

    Raises:
        BrokenLogError: a file is missing, cut or changed.
    """
    path, shelf = Tile(ENTRIES, first // WIDTH).path, Shelf.at(size, edge, read)
    try:
        entries = decode_bundle(read(path) or b"")
        if len(entries) != WIDTH:
            raise BrokenLogError(f"the archive's {path} has {len(entries)} of {WIDTH} entries")
        node = tile_root([leaf_hash(entry) for entry in entries])
        place, level = first // WIDTH, 1
        while True:
            number, position = divmod(place, WIDTH)
            is_full = number < hashes_at(level, size) // WIDTH
            tile = Tile(level, number)
            hashes = decode_tile(read(tile.path) or b"", WIDTH) if is_full else shelf.partial[level - 1]
            if not hmac.compare_digest(hashes[position], node):
                raise BrokenLogError(f"the archive's {path} is not what was logged: its tiles say otherwise")
            if not is_full:
                return entries
            node, place, level, path = tile_root(hashes), number, level + 1, tile.path
    except TileError as error:
        raise BrokenLogError(f"the archive's {path}: {error}") from error


def _grow(levels: list[list[bytes]], root: bytes, size: int) -> dict[str, bytes]:
    """Add the root of a full tile of level 0, with which there are `size` entries; returns what it fills."""
    filled: dict[str, bytes] = {}
    level = 1
    while True:
        if len(levels) < level:
            levels.append([])
        hashes = levels[level - 1]
        hashes.append(root)
        if len(hashes) < WIDTH:
            return filled
        filled[Tile(level, hashes_at(level, size) // WIDTH - 1).path] = encode_tile(hashes)
        root = tile_root(hashes)
        hashes.clear()
        level += 1
