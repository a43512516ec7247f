"""Compacted bundles: 256 entries that were groups, in one immutable ConfigMap named by where they begin.

See `docs/decisions/0010-audit-tiles.md`. A bundle that is too large for one ConfigMap goes on in others,
`audit-tile-<first>-1` and so forth; the one without a number is written last and commits them.
"""

from __future__ import annotations

import base64
import binascii
import re
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pilot_identity.core.audit.checkpoint import Checkpoint, LogSigner, LogVerifier
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.merkle import Frontier, leaf_hash, node_hash
from pilot_identity.core.audit.proofs import join
from pilot_identity.core.audit.tiles import (
    HASH_BYTES,
    WIDTH,
    TileError,
    decode_bundle,
    decode_tile,
    encode_bundle,
    encode_tile,
    tile_root,
)

NAME_PREFIX = "audit-tile-"
MAX_PART_BYTES = 786_432
"""Of compressed entries in one ConfigMap; a ConfigMap's data is at most 1 MiB, before base64."""
_MAX_BUNDLE_BYTES = WIDTH * (MAX_ENTRY_BYTES + 2)
_MAX_PARTS = 32
_GZIP = 31
"""zlib's window size of 15 bits, and 16 for the gzip format."""
_NAME = re.compile(rf"{NAME_PREFIX}(\d{{16}})(?:-([1-9]\d?))?")


@dataclass(frozen=True, slots=True)
class TileName:
    """What a tile ConfigMap's name says: the first entry, and which part of the bundle it is; 0 commits."""

    first: int
    part: int = 0

    def __str__(self) -> str:
        """The ConfigMap's name.

        >>> str(TileName(512)), str(TileName(512, 1))
        ('audit-tile-0000000000000512', 'audit-tile-0000000000000512-1')
        """
        return f"{NAME_PREFIX}{self.first:016d}" + (f"-{self.part}" if self.part else "")

    @classmethod
    def parse(cls, name: str) -> TileName:
        """Read a name; the inverse of `str`.

        Raises:
            BrokenLogError: it is not a tile's.
        """
        match = _NAME.fullmatch(name)
        if match is None or int(match[1]) % WIDTH:
            raise BrokenLogError(f"{name}: a tile is named by the first of its {WIDTH} entries")
        return cls(int(match[1]), int(match[2] or 0))


@dataclass(frozen=True, slots=True)
class Compacted:
    """A full bundle, its tile of level 0, the tree's right edge behind it and the signed head there."""

    first: int
    entries: tuple[bytes, ...]
    leaves: tuple[bytes, ...]
    edge: tuple[bytes, ...]
    note: str

    @property
    def size(self) -> int:
        """The tree's size behind it."""
        return self.first + WIDTH

    def frontier(self) -> Frontier:
        """The tree behind it; to be checked against the signed head before anything is built on it."""
        return Frontier(self.size, self.edge)

    def require_signed(self, before: Frontier, verifier: LogVerifier) -> None:
        """Make sure that these entries make the tree of the signed head, after those of `before`.

        Raises:
            BrokenLogError: they do not.
            CheckpointError: the head is not signed by the log's key.
        """
        after = before.copy()
        for entry in self.entries:
            after.append(leaf_hash(entry))
        head = verifier.open(self.note)
        if (head.size, head.root) != (after.size, after.root()):
            raise BrokenLogError(f"{TileName(self.first)}: it is not what its signed head says")

    def config_maps(self) -> Sequence[tuple[TileName, Mapping[str, str], Mapping[str, str]]]:
        """Each ConfigMap's name, `data` and `binaryData`, in the order in which they are written."""
        compressor = zlib.compressobj(level=6, wbits=_GZIP)
        packed = compressor.compress(encode_bundle(self.entries)) + compressor.flush()
        pieces = [packed[at : at + MAX_PART_BYTES] for at in range(0, len(packed), MAX_PART_BYTES)]
        first = (
            TileName(self.first),
            {
                "checkpoint": self.note,
                "edge": "".join(f"{node.hex()}\n" for node in self.edge),
                "parts": str(len(pieces)),
            },
            {"entries.gz": _encode(pieces[0]), "leaves": _encode(encode_tile(self.leaves))},
        )
        others: list[tuple[TileName, Mapping[str, str], Mapping[str, str]]] = [
            (TileName(self.first, number), {}, {"entries.gz": _encode(piece)})
            for number, piece in enumerate(pieces[1:], start=1)
        ]
        return [*others, first]

    @classmethod
    def from_config_maps(
        cls, stored: Sequence[tuple[TileName, Mapping[str, str], Mapping[str, str]]]
    ) -> Compacted:
        """Read a bundle back from its ConfigMaps, the inverse of `config_maps`; their order does not matter.

        Raises:
            BrokenLogError: they are not one whole bundle.
        """
        parts = sorted(stored, key=lambda item: item[0].part)
        name, data, binary = parts[0]
        try:
            count = int(data["parts"])
            if (
                name.part
                or not 1 <= count <= _MAX_PARTS
                or [it[0].part for it in parts] != list(range(count))
            ):
                raise BrokenLogError(f"{name}: its parts are 0 to {count - 1}, each once")
            packed = b"".join(base64.b64decode(it[2]["entries.gz"], validate=True) for it in parts)
            leaves = decode_tile(base64.b64decode(binary["leaves"], validate=True), WIDTH)
            edge = tuple(bytes.fromhex(line) for line in data["edge"].splitlines())
            note = data["checkpoint"]
            entries = decode_bundle(_unpack(packed))
        except (KeyError, ValueError, binascii.Error, zlib.error, TileError) as error:
            raise BrokenLogError(
                f"{name}: it is no bundle of entries with its tile and head: {error!r}"
            ) from error
        if any(len(node) != HASH_BYTES for node in edge):
            raise BrokenLogError(f"{name}: a hash of the edge has {HASH_BYTES} bytes")
        return cls(name.first, entries, leaves, edge, note)


def compact(first: int, edge: Sequence[bytes], entries: Sequence[bytes], signer: LogSigner) -> Compacted:
    """Make the bundle of the 256 entries from `first` on.

    The head that it signs is one that the log had been through, so it is consistent with every other.

    Args:
        first: the size of the tree before them, a multiple of 256.
        edge: the tree's right edge there: the last bundle's, or none.
        entries: all of them.
        signer: the log's.
    """
    if first % WIDTH or len(entries) != WIDTH or len(edge) != first.bit_count():
        raise ValueError(f"a bundle is {WIDTH} entries from a multiple of {WIDTH} on, got {len(entries)}")
    leaves = tuple(leaf_hash(entry) for entry in entries)
    after, node, bundles = list(edge), tile_root(leaves), first // WIDTH
    while bundles & 1:  # binary addition's carry, as in `Frontier.append`
        node = node_hash(after.pop(), node)
        bundles >>= 1
    after.append(node)
    note = signer.sign(Checkpoint(signer.name, first + WIDTH, join(after)))
    return Compacted(first, tuple(entries), leaves, tuple(after), note)


def _unpack(packed: bytes) -> bytes:
    """Decompress, but never into more than a bundle can have."""
    decompressor = zlib.decompressobj(wbits=_GZIP)
    unpacked = decompressor.decompress(packed, _MAX_BUNDLE_BYTES)
    if not decompressor.eof or decompressor.unused_data or decompressor.unconsumed_tail:
        raise TileError(f"compressed entries are one gzip stream of at most {_MAX_BUNDLE_BYTES} bytes")
    return unpacked


def _encode(value: bytes) -> str:
    return base64.b64encode(value).decode()
