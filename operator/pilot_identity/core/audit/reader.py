"""Readers: how a stored log becomes the parts that `verify` takes.

Two layouts are read: static files as C2SP tlog-tiles.md lays them out, in a directory or on a web server, and
the operator's ConfigMaps. Getting the bytes is the caller's; so a new place is a function, not a reader.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO

from pilot_identity.core.audit.archived import NAME_PREFIX as ARCHIVED_PREFIX
from pilot_identity.core.audit.archived import Archived, ArchivedName, Stored
from pilot_identity.core.audit.checkpoint import Checkpoint, CheckpointError
from pilot_identity.core.audit.compacted import NAME_PREFIX as TILE_PREFIX
from pilot_identity.core.audit.compacted import Compacted, TileName
from pilot_identity.core.audit.entries import MAX_ENTRY_BYTES
from pilot_identity.core.audit.groups import NAME_PREFIX as GROUP_PREFIX
from pilot_identity.core.audit.groups import BrokenLogError, Group, group_name
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.parts import (
    Beginning,
    Headless,
    Part,
    Segment,
    StoredHead,
    StoredTile,
    Unlike,
    Unlisted,
    Unreadable,
)
from pilot_identity.core.audit.recollection import ANNOTATION
from pilot_identity.core.audit.tiles import (
    ENTRIES,
    HASH_BYTES,
    WIDTH,
    Tile,
    TileError,
    decode_bundle,
    decode_tile,
    row,
    tiles_of,
)
from pilot_identity.core.resources.metadata import GROUP

CHECKPOINT = "checkpoint"
NDJSON = "entries.ndjson"
"""The entries one a line, for whoever wants to search an export; no part of tlog-tiles."""
_LINE_BYTES = MAX_ENTRY_BYTES + 2
LABEL = f"{GROUP}/audit"
_MOST_MISSES = 16
"""In a row: a head of any size is easily forged, and must not make anybody ask for millions of files."""
Fetch = Callable[[str], bytes | None]
"""Returns the file at a path below the log's prefix; `None` where there is none."""


@dataclass(frozen=True, slots=True)
class TiledLog:
    """A log in the layout of tlog-tiles.

    Attributes:
        fetch: reads one file.
        fetch_all: reads many, in order; where that pays, ahead of their use.
        most: no more entries than these are read, whatever the head says: it is not yet verified.
        lines: opens the copy of the entries that is made to be searched; `None` where there is none.
    """

    fetch: Fetch
    fetch_all: Callable[[Iterable[str]], Iterator[bytes | None]]
    most: int = 100_000_000
    lines: Callable[[], BinaryIO | None] = lambda: None

    def parts(self) -> Iterator[Part]:
        """Yield the head, the higher tiles, and then each bundle with its tile; last how the copy differs."""
        note = self.fetch(CHECKPOINT)
        if note is None:
            yield Unreadable(CHECKPOINT, "there is no file of this name")
            return
        try:
            text = note.decode()
            size = Checkpoint.parse_body(text.rpartition("\n\n")[0] + "\n").size
        except (UnicodeDecodeError, CheckpointError) as error:
            yield Unreadable(CHECKPOINT, str(error))
            return
        yield StoredHead(CHECKPOINT, text)
        copy = self.lines()
        if copy is None:
            yield from self.parts_before(size, CHECKPOINT)
            return
        with copy:
            unlike: Unlike | None = None
            at = 0
            for part in self.parts_before(size, CHECKPOINT):
                if isinstance(part, Segment) and unlike is None:
                    for _ in range(at, part.first):
                        copy.readline(_LINE_BYTES)  # of a bundle that could not be read
                    unlike = _unlike(copy, part)
                    at = part.first + max(len(part.entries), len(part.leaves))
                yield part
            if unlike is None and copy.read(1):
                unlike = Unlike(NDJSON, size, f"it goes on behind the {size} entries")
        if unlike is not None:
            yield unlike

    def parts_before(self, size: int, where: str) -> Iterator[Part]:
        """Yield the higher tiles and the bundles of the first `size` entries; `where` says how many."""
        if size > self.most:
            yield Unreadable(where, f"its size is {size}, at most {self.most} entries are read")
            return
        yield from self._upper(size)
        yield from self._segments(size)

    def _upper(self, size: int) -> Iterator[Part]:
        tiles = [tile for tile in tiles_of(size) if tile.level]
        for tile, encoded in zip(tiles, self.fetch_all(tile.path for tile in tiles), strict=True):
            hashes = self._hashes(tile, encoded)
            yield hashes if isinstance(hashes, Unreadable) else StoredTile(tile.path, tile, hashes)

    def _segments(self, size: int) -> Iterator[Part]:
        tiles = list(row(0, size))
        paths = (path for tile in tiles for path in (tile.path, Tile(ENTRIES, tile.index, tile.width).path))
        files, misses = self.fetch_all(paths), 0
        for tile in tiles:
            if misses == _MOST_MISSES:
                yield Unreadable(
                    tile.path, f"{misses} bundles before it are not there; no more are looked for"
                )
                return
            bundle = Tile(ENTRIES, tile.index, tile.width)
            hashes = self._hashes(tile, next(files))
            entries = self._entries(bundle, next(files))
            if isinstance(hashes, Unreadable):
                yield hashes
            if isinstance(entries, Unreadable):
                yield entries  # what follows will begin too late, and that is found as a gap
                misses += 1
                continue
            misses = 0
            leaves = () if isinstance(hashes, Unreadable) else hashes
            yield Segment(bundle.path, tile.index * WIDTH, entries, leaves, tile.path)

    def _hashes(self, tile: Tile, encoded: bytes | None) -> tuple[bytes, ...] | Unreadable:
        encoded = self._or_wider(tile, encoded)
        if encoded is None:
            return Unreadable(tile.path, "there is no file of this name")
        try:
            return decode_tile(encoded[: tile.width * HASH_BYTES], tile.width)
        except TileError as error:
            return Unreadable(tile.path, str(error))

    def _entries(self, bundle: Tile, encoded: bytes | None) -> tuple[bytes, ...] | Unreadable:
        wider = encoded is None and not bundle.is_full
        encoded = self._or_wider(bundle, encoded)
        if encoded is None:
            return Unreadable(bundle.path, "there is no file of this name")
        try:
            entries = decode_bundle(encoded)
        except TileError as error:
            return Unreadable(bundle.path, str(error))
        return entries[: bundle.width] if wider else entries

    def _or_wider(self, tile: Tile, encoded: bytes | None) -> bytes | None:
        """A partial file may be gone once the full one is there; then that has it (tlog-tiles.md)."""
        if encoded is None and not tile.is_full:
            return self.fetch(Tile(tile.level, tile.index).path)
        return encoded


@dataclass(frozen=True, slots=True)
class ConfigMapLog:
    """A log as the operator keeps it: ConfigMaps of groups, and of bundles once they are compacted.

    Attributes:
        items: the ConfigMaps as the API server tells them, in the order of their names.
        archive: has the oldest entries where these have left the cluster; `None` where it was not named.
        find: reads one by its name; `None` where there is none. They are listed by a label, which whoever may
            change metadata can take off.
    """

    items: Callable[[], Iterable[Mapping[str, Any]]]
    archive: TiledLog | None = None
    find: Callable[[str], Mapping[str, Any] | None] = lambda _: None

    def parts(self) -> Iterator[Part]:
        """Yield what is archived, the compacted bundles, the groups, and what hides or is missing behind.

        The names sort so: `audit-archived-`, `audit-group-`, `audit-tile-`.
        """
        sealed, grouped, is_read = 0, 0, True
        for part in self._listed():
            yield part
            if isinstance(part, Beginning):
                sealed = max(sealed, part.archived.size)
            elif isinstance(part, Segment) and part.leaves:
                sealed = max(sealed, part.first + len(part.leaves))
            elif isinstance(part, Segment):
                grouped = max(grouped, part.first + len(part.entries))
            elif isinstance(part, Unreadable):
                is_read = False
        hidden = [end for end in sorted({grouped, max(grouped, sealed)}) if self._is_hidden(end)]
        for end in hidden:
            yield Unlisted(group_name(end), end)
        if is_read and not hidden and grouped < sealed:
            yield Headless(sealed)

    def _is_hidden(self, size: int) -> bool:
        """Whether a group that goes on from here lacks its label; with it, it came since the listing."""
        found = self.find(group_name(size))
        return found is not None and (found["metadata"].get("labels") or {}).get(LABEL) != "group"

    def _listed(self) -> Iterator[Part]:
        groups, tiles, archived = list[Part](), list[Mapping[str, Any]](), list[Mapping[str, Any]]()
        left = 0
        for item in self.items():
            name = _name(item)
            if name.startswith(ARCHIVED_PREFIX):
                archived.append(item)
                continue
            if archived:
                left = yield from self._archived(archived)
                archived.clear()
            if name.startswith(GROUP_PREFIX):
                groups.append(group_part(item))
            elif name.startswith(TILE_PREFIX) and not _is_left(name, left):
                if tiles and not _are_of_one_bundle(name, _name(tiles[0])):
                    yield tile_part(tiles)
                    tiles.clear()
                tiles.append(item)
        if archived:
            yield from self._archived(archived)
        if tiles:
            yield tile_part(tiles)
        yield from groups

    def _archived(self, items: Iterable[Mapping[str, Any]]) -> Generator[Part, None, int]:
        """Yield where the newest of these says that the log begins, or what is before; returns that size."""
        newest: Archived | None = None
        stored: list[Stored] = []
        for item in items:
            try:
                name = ArchivedName.parse(_name(item))
                stored.append((name, item.get("data") or {}, item.get("binaryData") or {}))
                if not name.part and (newest is None or name.size > newest.size):
                    newest = Archived.from_data(name, stored[-1][1])
            except BrokenLogError as error:
                yield Unreadable(_name(item), str(error))
        if newest is None:
            return 0  # its last part was not written: what it tells of has not left
        where, size = str(ArchivedName(newest.size)), newest.size
        with suppress(BrokenLogError):  # what it keeps cannot be read; so its seal will not be good
            newest = Archived.from_config_maps([one for one in stored if one[0].size == size])
        yield Beginning(where, newest, is_read=self.archive is not None)
        if self.archive is not None:
            yield from self.archive.parts_before(size, where)
        return size


def _unlike(copy: BinaryIO, segment: Segment) -> Unlike | None:
    """How the next lines of a copy differ from both the entries of a segment and what their tile tells."""
    for at in range(max(len(segment.entries), len(segment.leaves))):
        line = copy.readline(_LINE_BYTES)
        is_entry = at < len(segment.entries) and line == segment.entries[at] + b"\n"
        is_leaf = at < len(segment.leaves) and line[-1:] == b"\n"
        if not is_entry and not (is_leaf and leaf_hash(line[:-1]) == segment.leaves[at]):
            index = segment.first + at
            return Unlike(NDJSON, index, f"its line {index + 1} is not entry {index}, or it ends there")
    return None


def _is_left(name: str, size: int) -> bool:
    """Whether a tile is of entries that are archived: it is about to be deleted, and may be so in part."""
    try:
        return TileName.parse(name).first < size
    except BrokenLogError:
        return False


def _are_of_one_bundle(name: str, other: str) -> bool:
    length = len(str(TileName(0)))
    return name[:length] == other[:length]


def group_part(item: Mapping[str, Any]) -> Part:
    """A group's ConfigMap as a part."""
    name = _name(item)
    try:
        group = Group.from_data(name, item.get("data") or {})
    except BrokenLogError as error:
        return Unreadable(name, str(error))
    return Segment(name, group.extends, group.entries, note=group.note)


def tile_part(items: list[Mapping[str, Any]]) -> Part:
    """The ConfigMaps of one compacted bundle as a part."""
    name = _name(items[0])
    try:
        stored = [
            (TileName.parse(_name(item)), item.get("data") or {}, item.get("binaryData") or {})
            for item in items
        ]
        bundle = Compacted.from_config_maps(stored)
    except BrokenLogError as error:
        return Unreadable(name, str(error))
    kept = (items[0]["metadata"].get("annotations") or {}).get(ANNOTATION, "")
    return Segment(name, bundle.first, bundle.entries, bundle.leaves, name, bundle.note, bundle.edge, kept)


def _name(item: Mapping[str, Any]) -> str:
    return str(item["metadata"]["name"])
