"""Parts: what a stored log is read as, wherever it is stored. Nothing of it is believed."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.tiles import Tile


@dataclass(frozen=True, slots=True)
class Segment:
    """A run of entries as it lies in one place.

    Attributes:
        where: the ConfigMap or file.
        first: the index of its first entry, as its name says.
        leaves: their hashes as a tile of level 0 tells them; empty where none is stored.
        tile: where that tile is.
        note: the signed head stored beside the entries; empty where none is.
        edge: the tree's right edge behind a bundle of the cluster; `None` for what has none beside it.
        recollection: what such a bundle keeps of its entries for a start; empty where it keeps nothing.
    """

    where: str
    first: int
    entries: tuple[bytes, ...]
    leaves: tuple[bytes, ...] = ()
    tile: str = ""
    note: str = ""
    edge: tuple[bytes, ...] | None = None
    recollection: str = ""


@dataclass(frozen=True, slots=True)
class StoredHead:
    """A signed head that stands by itself."""

    where: str
    note: str


@dataclass(frozen=True, slots=True)
class Beginning:
    """The record of what is archived: where what is read begins, if the archive was not asked for.

    Attributes:
        is_read: whether the entries before are read all the same, from the archive.
    """

    where: str
    archived: Archived
    is_read: bool = False


@dataclass(frozen=True, slots=True)
class StoredTile:
    """A tile of level 1 or higher."""

    where: str
    tile: Tile
    hashes: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Unlisted:
    """A group that goes on from the end of what was listed, and lacks the label by which it would be."""

    where: str
    first: int


@dataclass(frozen=True, slots=True)
class Headless:
    """No group reaches the end of the bundles in the cluster, which is at `size`; the newest must."""

    size: int


@dataclass(frozen=True, slots=True)
class Unlike:
    """A copy of the entries, made to be searched, that is not what was read from the tiles.

    Attributes:
        index: the first entry that differs.
    """

    where: str
    index: int
    message: str


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A part that is there but is not what its name says."""

    where: str
    message: str


Part = Beginning | Headless | Segment | StoredHead | StoredTile | Unlike | Unlisted | Unreadable


class LogSource(Protocol):
    """Where a log is stored: ConfigMaps, a directory, a web server."""

    def parts(self) -> Iterator[Part]:
        """Yield every part: the beginning, lone heads, then higher tiles, then segments in their order."""
        ...
