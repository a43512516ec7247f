"""Archiving: old bundles leave the cluster for the archive, in the log's order.

See `docs/decisions/0018-archive.md`. For each batch, in this order: its files are written to the archive and
read back; the archive's head is replaced; the record of what is archived is written to the cluster; only then
are the bundles deleted there, and the record before. A crash between any two steps is repaired by doing them
again: what was written is found to be equal, and nothing is deleted whose copy was not compared just before.
"""

from __future__ import annotations

import asyncio
import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import msgspec

from pilot_identity.adapters.audit_archived import ArchivedConfigMaps
from pilot_identity.adapters.audit_tiles import StoredTile, TileConfigMaps
from pilot_identity.adapters.blockage import Blockage
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import Compacted
from pilot_identity.core.audit.entries import decode_entry
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.core.audit.reader import CHECKPOINT
from pilot_identity.core.audit.recollection import recollect
from pilot_identity.core.audit.remembered import Kept, Remembered
from pilot_identity.core.audit.shelf import VKEY, Shelf, edge_tiles, require_shelved
from pilot_identity.core.audit.tiles import ENTRIES, WIDTH, Tile
from pilot_identity.core.spiffe.revocation import Revoked
from pilot_identity.ports import Archive, Clock

RETRY_SECONDS = 30.0
LOOK_SECONDS = 60.0
"""How often it looks whether a bundle has become old enough."""
BATCH = 16
"""Bundles at a time: a record of what is archived is written for each batch."""
_LISTED = 40
"""ConfigMaps in a list: a batch, the newest, or one bundle of the most parts with both of the newest."""
NEWEST = 2
"""So many of the newest bundles never leave: a start and every writer go on from the last."""


@dataclass(frozen=True, slots=True)
class Archiving:
    """Where old bundles go, and how old they are then."""

    archive: Archive
    older_than: dt.timedelta


class Archiver:
    """Archives what is old enough; only the replica that leads runs it.

    Attributes:
        blockage: what keeps it from that.
        size: how many entries are archived, as far as this process knows.
    """

    def __init__(  # noqa: PLR0913 - the cluster's side, the archive's side and the rules
        self,
        api: Api,
        namespace: str,
        archiving: Archiving,
        *,
        signer: LogSigner,
        remembered: Remembered,
        clock: Clock,
    ) -> None:
        self._tiles = TileConfigMaps(api, namespace)
        self._records = ArchivedConfigMaps(api, namespace)
        self._archive = archiving.archive
        self._older_than = archiving.older_than
        self._signer, self._verifier = signer, signer.verifier()
        self._remembered = remembered
        self._clock = clock
        self._known: Archived | None = None
        self.blockage = Blockage("the audit log cannot be archived")

    @property
    def size(self) -> int:
        """How many entries are archived, as far as this process knows."""
        return self._known.size if self._known is not None else 0

    async def run(self) -> None:
        """Archive for ever, at rest as long as at work."""
        await self.blockage.keep_working(
            self.archive_next, look_seconds=LOOK_SECONDS, retry_seconds=RETRY_SECONDS
        )

    async def archive_next(self) -> bool:
        """Archive the next batch, and finish what a crash left of one; returns whether there was any.

        Raises:
            BrokenLogError, CheckpointError: the cluster or the archive has other than what was signed.
            NameTaken: the archive has another file under a name of this log.
            PortError: the cluster or the archive cannot be read or written.
        """
        before = await self._record()
        tiles = await self._tiles.oldest(_LISTED)
        left = [tile for tile in tiles if tile.name.first < before.size]
        if left:
            await self._finish(left)
        batch = self._ripe([tile for tile in tiles if tile.name.first >= before.size])
        if batch:
            await self._archive_batch(before, batch)
        cleared = await self._records.delete_before(self.size)
        return bool(left or batch or cleared)

    async def _record(self) -> Archived:
        """What is archived, as the cluster says."""
        size = await self._records.size()
        if not size:
            return Archived(0, (), "")
        if self._known is None or self._known.size != size:
            found = await self._records.verified(self._verifier, self._archive)
            if found is None:
                raise BrokenLogError(f"the record of what is archived went while it was read, at size {size}")
            self._known = found
        return self._known

    def _ripe(self, tiles: Sequence[StoredTile]) -> list[StoredTile]:
        """Of the oldest tiles those that are old enough, but for the newest bundles of the log.

        The list has more than a batch, so what is cut off its end is either newest or for the next batch.
        """
        firsts = sorted({tile.name.first for tile in tiles})
        young = self._clock() - self._older_than
        ripe: list[StoredTile] = []
        for first in firsts[:-NEWEST][:BATCH]:
            bundle = [tile for tile in tiles if tile.name.first == first]
            if any(tile.created > young for tile in bundle):
                break
            ripe += bundle
        return ripe

    async def _archive_batch(self, before: Archived, tiles: Sequence[StoredTile]) -> None:
        bundles = [await self._bundle(first) for first in sorted({tile.name.first for tile in tiles})]
        shelf = await self._shelf(before)
        after, files = await asyncio.to_thread(shelf.put, bundles, self._verifier)
        # First, because it is in the way where the archive is another log's.
        await self._archive.write_once(VKEY, f"{self._verifier}\n".encode())
        for path, content in files.items():
            await self._archive.write_once(path, content)
        await self._require_written(after, bundles)
        last = bundles[-1]
        await self._put_head(last)
        kept = (*self._remembered.kept(before=last.size), *self._revoked(before, bundles))
        archived = Archived(last.size, last.edge, last.note, kept).sealed(self._signer)
        await self._records.write(archived)
        self._known = archived
        await self._delete(tiles)

    async def _put_head(self, last: Compacted) -> None:
        """Replace the archive's head, unless it is that of more: another process got further."""
        found = await self._archive.read(CHECKPOINT)
        if found is None or self._verifier.open(found.decode(errors="replace")).size < last.size:
            await self._archive.replace(CHECKPOINT, last.note.encode())

    async def _finish(self, tiles: Sequence[StoredTile]) -> None:
        """Delete bundles that a record says are archived; each is compared with its copy first."""
        for first in sorted({tile.name.first for tile in tiles if not tile.name.part}):
            bundle = await self._bundle(first)
            await self._require_shelved(bundle)
        await self._delete(tiles)

    async def _delete(self, tiles: Iterable[StoredTile]) -> None:
        """The ConfigMap that commits a bundle goes first: what is left of it then is nothing to anybody."""
        for tile in sorted(tiles, key=lambda one: (one.name.first, one.name.part)):
            await self._tiles.delete(tile)

    async def _bundle(self, first: int) -> Compacted:
        bundle = await self._tiles.read(first)
        if bundle is None:
            raise BrokenLogError(f"the bundle from {first} on went while it was archived")
        return bundle

    async def _shelf(self, before: Archived) -> Shelf:
        """The archive's right edge, which must be this log's."""
        read = await self._read([tile.path for tile in edge_tiles(before.size) if tile.width])
        return Shelf.at(before.size, before.edge, read.get)

    async def _require_written(self, after: Shelf, bundles: Sequence[Compacted]) -> None:
        """Read back what was written, and make sure that it is what was signed."""
        for bundle in bundles:
            await self._require_shelved(bundle)
        read = await self._read([tile.path for tile in edge_tiles(after.size) if tile.width])
        Shelf.at(after.size, bundles[-1].edge, read.get)

    async def _require_shelved(self, bundle: Compacted) -> None:
        number = bundle.first // WIDTH
        read = await self._read([Tile(ENTRIES, number).path, Tile(0, number).path])
        await asyncio.to_thread(require_shelved, bundle, read.get)

    async def _read(self, paths: Iterable[str]) -> dict[str, bytes]:
        found = {path: await self._archive.read(path) for path in paths}
        return {path: content for path, content in found.items() if content is not None}

    def _revoked(self, before: Archived, bundles: Sequence[Compacted]) -> list[Kept]:
        """What these bundles, and those before them, say was revoked and has not lapsed."""
        rows = [one for one in before.kept if one.row.revoked is not None]
        for bundle in bundles:
            for index, entry in enumerate(bundle.entries, start=bundle.first):
                row = recollect(decode_entry(entry))
                if row.revoked is not None:
                    rows.append(Kept(index, row))
        now = self._clock()
        return [one for one in rows if _lapses_after(one, now)]


def _lapses_after(kept: Kept, now: dt.datetime) -> bool:
    lapses_at = msgspec.convert(kept.row.revoked, Revoked).lapses_at
    return lapses_at is not None and lapses_at > now
