"""What is stored of the log, followed: taken up on start, and gone on over where another writer extended it.

All of it is checked: every hash, and every head by the log's own key.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from collections.abc import Callable, Iterable, Sequence

from pilot_identity.adapters.audit_archived import ArchivedConfigMaps
from pilot_identity.adapters.audit_groups import GroupConfigMaps, StoredGroup
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.kubernetes.api import Api
from pilot_identity.core.audit.chain import Chain, Standing
from pilot_identity.core.audit.checkpoint import CheckpointError, LogVerifier
from pilot_identity.core.audit.compacted import Compacted
from pilot_identity.core.audit.entries import RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import BrokenLogError, Group
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.merkle import leaf_hash
from pilot_identity.core.audit.recollection import Recollection, recollect, unpack
from pilot_identity.core.audit.remembered import Remembered
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.ports import Archive

log = logging.getLogger(__name__)

OPEN_ATTEMPTS = 5
"""Another operator may be compacting what is being read."""


class Follower:
    """Follows the log of one namespace.

    Attributes:
        chain: what is known of the log that is extended.
        remembered: which steps are recorded, of objects that exist.
        groups, tiles: where they are stored.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - where it is stored, and whom it tells
        self,
        api: Api,
        namespace: str,
        verifier: LogVerifier,
        on_read: Callable[[RecordedEntry], None],
        growth: Growth | None,
        archive: Archive | None,
    ) -> None:
        self.chain = Chain()
        self.remembered = Remembered()
        self.groups = GroupConfigMaps(api, namespace)
        self.tiles = TileConfigMaps(api, namespace)
        self._archived = ArchivedConfigMaps(api, namespace)
        self._verifier = verifier
        self._on_read = on_read
        self._growth = growth
        self._archive = archive
        self._archived_size = 0

    async def open(self) -> None:
        """Take the log up: the last bundle and what goes on from there.

        Of the bundles before it only their recollections are read, and of the archive nothing.

        Raises:
            BrokenLogError, CheckpointError: what is stored is no log of ours; nothing may be added to it.
        """
        for attempt in itertools.count(1):
            try:
                await self._open()
                break
            except BrokenLogError:
                # Bundles are listed before groups, and what was compacted in between is in neither list. So
                # is what was archived between the record and the bundles.
                is_moving = (
                    await self.tiles.covers(self.chain.size)
                    or await self._archived.size() > self._archived_size
                )
                if attempt == OPEN_ATTEMPTS or not is_moving:
                    raise

    async def _open(self) -> None:
        self.chain.clear()
        self.remembered.clear()
        archived = self._archived_size = await self._open_archived()
        listed = self.tiles.recollections(self._verifier)
        bundles = [found async for found in listed if found[0] >= archived]
        for expected, (first, _) in enumerate(bundles):
            if first != archived + expected * WIDTH:
                # Nothing is appended to it by reading on, but what it revoked would be forgotten.
                raise BrokenLogError(f"the bundle from {archived + expected * WIDTH} on is missing")
        if bundles:
            await self._open_bundles(bundles)
        elif archived:
            raise BrokenLogError(f"the log is archived up to {archived}, and no bundle goes on from there")
        if self._growth is not None:
            self._growth.begin(self.chain.frontier)
        groups = [(await self._absorb_or_pass(stored), stored.created) async for stored in self.groups.all()]
        groups += await self._unlisted()
        if not groups and bundles:
            raise BrokenLogError("there are bundles and no group; the newest group is never deleted")
        self._date(groups)

    async def _unlisted(self) -> list[tuple[Standing, dt.datetime]]:
        """Go on over groups that came since the listing, or were hidden from it by taking their label off."""
        found: list[tuple[Standing, dt.datetime]] = []
        try:
            while (stored := await self.groups.find(self.chain.size)) is not None:
                found.append((await self._absorb_or_pass(stored), stored.created))
        except (BrokenLogError, CheckpointError) as error:
            # What is in the way of the next entry stops entries, when the first is to be written. It must not
            # stop a start: withdrawals never wait for the log.
            log.error("%s", error)  # noqa: TRY400 - what is wrong with the log is said once, in a line
        return found

    async def _open_archived(self) -> int:
        """Take up what is kept of the entries that are archived; returns how many are."""
        archived = await self._archived.verified(self._verifier, self._archive)
        if archived is None:
            return 0
        self.remembered.defer_kept(archived.kept)
        self._tell_revoked(kept.row for kept in archived.kept)
        return archived.size

    async def _open_bundles(self, bundles: Sequence[tuple[int, str]]) -> None:
        last = await self.tiles.read(bundles[-1][0])
        if last is None:
            raise BrokenLogError(f"the bundle from {bundles[-1][0]} on went while it was read")
        self.chain.begin_at(last, self._verifier)
        for first, packed in bundles:
            rows = unpack(packed)
            if rows is None:
                bundle = await self.tiles.read(first)
                if bundle is None:
                    raise BrokenLogError(f"the bundle from {first} on went while it was read")
                rows = [recollect(decode_entry(entry)) for entry in bundle.entries]
                self.remembered.defer(first, rows)
            else:
                self.remembered.defer(first, packed)
            self._tell_revoked(rows)

    def _tell_revoked(self, rows: Iterable[Recollection]) -> None:
        for row in rows:
            if row.revoked is not None:
                self._on_read(_revocation(row))

    async def _absorb_or_pass(self, stored: StoredGroup) -> Standing:
        """Go on over a group that is listed; pass over one whose place a bundle has, and that differs."""
        group = stored.group
        standing = Standing(group.extends, group.size, stored.uid, _tick())
        if await self._is_bundled(group):
            self._absorb(group, standing)
        else:
            # Nobody was told that it counts (`core.audit.chain`), or someone wrote past the API server.
            log.error("%s differs from the bundle that has its place; people must look at it", group.name)
        return standing

    async def _is_bundled(self, group: Group) -> bool:
        """Whether what a group and bundles both have is the same."""
        end = min(group.size, self.chain.sealed)
        for first in range(group.extends // WIDTH * WIDTH, end, WIDTH):
            bundle = await self.tiles.read(first)
            start = max(first, group.extends)
            shared = group.entries[start - group.extends : min(end, first + WIDTH) - group.extends]
            if bundle is None or bundle.entries[start - first :][: len(shared)] != shared:
                return False
        return True

    def _date(self, groups: Sequence[tuple[Standing, dt.datetime]]) -> None:
        """Tell how long each group stands, by the API server's clock alone: at least since the last came."""
        newest = max((created for _, created in groups), default=None)
        for standing, created in groups:
            if newest is not None:
                age = (newest - created).total_seconds() - 1.0  # these times are in whole seconds
                self.chain.date(standing, since=_tick() - max(age, 0.0))

    async def went_on(self, size: int) -> bool:
        """Whether the log went on at this size, and that is compacted by now, or even archived."""
        return await self.tiles.covers(size) or await self._archived.size() > size

    async def catch_up(self) -> float:
        """Read what was added since: by our own write whose answer was lost, or by another writer.

        Returns:
            As of when the head is known, by the loop's clock.

        Raises:
            BrokenLogError: it is archived already; this process slept too long to go on.
        """
        while True:
            asked_at = _tick()
            found = await self.groups.find(self.chain.size)
            # Asked after the group: where there is no bundle yet, no group of that name was deleted before.
            bundle = await self.tiles.read(self.chain.size // WIDTH * WIDTH)
            if bundle is not None:
                await self._pass_over(bundle)
            elif found is not None:
                group = found.group
                self._absorb(group, Standing(group.extends, group.size, found.uid, _tick()))
            elif (archived := await self._archived.size()) > self.chain.size:
                raise BrokenLogError(
                    f"this writer slept at {self.chain.size}; all up to {archived} is archived"
                )
            else:
                return asked_at

    async def _pass_over(self, bundle: Compacted) -> None:
        """Go on over a bundle, and the group that has entries of it and of the next."""
        first = self.chain.size
        new = self.chain.pass_over(bundle, self._verifier)
        for entry in self.remember(first, new):
            self._on_read(entry)
        async for stored in self.groups.all():
            if stored.group.extends > bundle.size:
                return
            if stored.group.size > bundle.size:
                await self._absorb_or_pass(stored)
                return

    def _absorb(self, group: Group, standing: Standing) -> None:
        new = self.chain.add(group, standing, self._verifier)
        for entry in self.remember(group.size - len(new), new):
            self._on_read(entry)

    def remember(self, first: int, entries: Iterable[bytes]) -> list[RecordedEntry]:
        """Take in what later passes ask for; returns the entries."""
        decoded: list[RecordedEntry] = []
        for index, encoded in enumerate(entries, start=first):
            entry = decode_entry(encoded)
            decoded.append(entry)
            self.remembered.take_in(index, recollect(entry), encoded)
            if self._growth is not None:
                self._growth.append(leaf_hash(encoded))
        return decoded


def _revocation(row: Recollection) -> RecordedEntry:
    """An entry that is compacted, as far as it says what was revoked."""
    never = dt.datetime.min.replace(tzinfo=dt.UTC)
    return RecordedEntry(row.id, "", "", row.subject_uid, never, {"revoked": row.revoked})


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
