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
from pilot_identity.clocks import Instant
from pilot_identity.core.audit.archived import Archived
from pilot_identity.core.audit.chain import Chain, Standing
from pilot_identity.core.audit.checkpoint import CheckpointError, LogVerifier
from pilot_identity.core.audit.compacted import Compacted
from pilot_identity.core.audit.entries import RecordedEntry, decode_entry
from pilot_identity.core.audit.groups import BrokenLogError, Group
from pilot_identity.core.audit.growth import Growth
from pilot_identity.core.audit.merkle import Frontier, leaf_hash
from pilot_identity.core.audit.recollection import Recollection, recollect, unpack
from pilot_identity.core.audit.remembered import Remembered
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.ports import Archive

log = logging.getLogger(__name__)

OPEN_ATTEMPTS = 5
"""Another operator may be compacting what is being read."""
UNCERTAIN_SECONDS = 15.0
"""How much less a group may have stood than its time says.

That is in whole seconds, set before it stands by up to what a request may take, and of two groups by two API
servers whose clocks differ.
"""


class Follower:
    """Follows the log of one namespace.

    Attributes:
        chain: what is known of the log that is extended.
        remembered: which steps are recorded, of objects that exist.
        groups, tiles: where they are stored.
        doubtful: groups that are stored and that this process did not find in the chain, by what they extend.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - where the log is stored, whose it is, and whom to tell
        self,
        api: Api,
        namespace: str,
        verifier: LogVerifier,
        on_read: Callable[[RecordedEntry], None],
        growth: Growth | None,
        archive: Archive | None,
        *,
        now: Callable[[], Instant],
    ) -> None:
        self.chain = Chain()
        self.remembered = Remembered()
        self.groups = GroupConfigMaps(api, namespace)
        self.tiles = TileConfigMaps(api, namespace)
        self._archived = ArchivedConfigMaps(api, namespace)
        self._verifier = verifier
        self._on_read = on_read
        self._growth = growth
        self._at_hand: Compacted | None = None
        self._now = now
        self.doubtful: dict[int, StoredGroup] = {}
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
        self.doubtful.clear()
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
        self._at_hand = None

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

    async def archived(self) -> Archived | None:
        """Up to where the log is archived, as its key signed it; `None` where nothing is.

        Raises:
            BrokenLogError, CheckpointError: what is stored was not signed.
        """
        archived = await self._archived.newest()
        if archived is not None:
            archived.require_signed(self._verifier)
        return archived

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
        standing = stored.standing(_tick())
        if await self._is_bundled(group):
            self._absorb(group, standing)
        else:
            # Nobody was told that it counts (`core.audit.chain`), or someone wrote past the API server.
            self._doubt(stored)
        return standing

    async def _is_bundled(self, group: Group) -> bool:
        """Whether what a group and bundles both have is the same."""
        end = min(group.size, self.chain.sealed)
        for first in range(group.extends // WIDTH * WIDTH, end, WIDTH):
            bundle = await self._bundle(first)
            start = max(first, group.extends)
            shared = group.entries[start - group.extends : min(end, first + WIDTH) - group.extends]
            if bundle is None or bundle.entries[start - first :][: len(shared)] != shared:
                return False
        return True

    async def _bundle(self, first: int) -> Compacted | None:
        """Read a bundle; the last is kept at hand, since many groups in a row may be of one."""
        if self._at_hand is None or self._at_hand.first != first:
            self._at_hand = None  # two are never held
            self._at_hand = await self.tiles.read(first)
        return self._at_hand

    def _date(self, groups: Sequence[tuple[Standing, dt.datetime]]) -> None:
        """Tell how long each group stands, by the API server's clock alone: at least since the last came."""
        newest = max((created for _, created in groups), default=None)
        for standing, created in groups:
            if newest is not None:
                age = (newest - created).total_seconds() - UNCERTAIN_SECONDS
                self.chain.date(standing, since=_tick() - max(age, 0.0))

    async def went_on(self, size: int) -> bool:
        """Whether the log went on at this size, and that is compacted by now, or even archived."""
        return await self.tiles.covers(size) or await self._archived.size() > size

    async def catch_up(self) -> Instant:
        """Read what was added since: by our own write whose answer was lost, or by another writer.

        Returns:
            As of when the head is known.

        Raises:
            BrokenLogError: the head is gone, though nothing goes on from it; or all of it is archived
                already, and this process slept too long to go on.
        """
        while True:
            asked_at, size, head = self._now(), self.chain.size, self.chain.head
            # The head first. Who deletes it by the rules does so after the log went on, and deletes the next
            # one only after a bundle has that: then one of the questions below is answered.
            is_there = head is None or await self._stands(head)
            found = await self.groups.find(size)
            # Asked after the group: where there is no bundle yet, no group of that name was deleted before.
            bundle = await self.tiles.read(size // WIDTH * WIDTH)
            if bundle is not None:
                await self._pass_over(bundle)
            elif found is None and (archived := await self._archived.size()) > size:
                raise BrokenLogError(f"this writer slept at {size}; all up to {archived} is archived")
            elif not is_there and (found is None or not await self.tiles.covers(size - 1)):
                raise _hole(head)
            elif found is not None:
                self._absorb(found.group, found.standing(_tick()))
            else:
                return asked_at

    async def is_next(self, group: Standing) -> bool:
        """Whether a group that was just created has its place in the chain; no clock is asked.

        Raises:
            BrokenLogError: the head that it extends is gone.
        """
        head = self.chain.head
        is_there = head is None or await self._stands(head)
        if await self.went_on(group.extends):
            return False
        if not is_there:
            raise _hole(head)
        return True

    async def is_foreign(self, group: Group) -> bool | None:
        """Whether a stored group is no part of the chain: bundles have its place, and other entries.

        What is archived was deleted long ago, so what stands in its place is foreign, whatever it says.

        Returns:
            `None` where that cannot be told yet, because no bundle has its place.

        Raises:
            BrokenLogError, CheckpointError: a bundle is not what the log's key signed.
        """
        end = min(group.size, self.chain.sealed)
        if group.extends >= end:
            return None
        if await self._archived.size() >= group.size:
            return True
        for first in range(group.extends // WIDTH * WIDTH, end, WIDTH):
            before, bundle = await self._tree_at(first), await self.tiles.read(first)
            if bundle is None or before is None:
                return None
            bundle.require_signed(before, self._verifier)
            start = max(first, group.extends)
            there = group.entries[start - group.extends : min(end, bundle.size) - group.extends]
            if bundle.entries[start - first :][: len(there)] != there:
                return True
        return False

    async def _tree_at(self, size: int) -> Frontier | None:
        """The tree at a multiple of 256, as the log's key signed it; `None` where nothing stored has it.

        Raises:
            BrokenLogError, CheckpointError: what is stored there is not signed.
        """
        if not size:
            return Frontier()
        chain = Chain()
        if (bundle := await self.tiles.read(size - WIDTH)) is not None:
            chain.begin_at(bundle, self._verifier)
            return chain.frontier
        archived = await self._archived.newest()
        if archived is None or archived.size != size:
            return None
        archived.require_signed(self._verifier)
        return Frontier(size, archived.edge)

    def leave_to_compaction(self, stored: StoredGroup) -> None:
        """Take a group for one that stands, all of whose entries bundles have: it is to be deleted."""
        self.chain.add(stored.group, stored.standing(_tick()))

    async def require_head(self) -> None:
        """Make sure that what this process knows of the log is still stored.

        Raises:
            BrokenLogError: the head is gone.
        """
        head = self.chain.head
        if head is not None and not await self._stands(head):
            await self.catch_up()

    async def inspect(self) -> None:
        """Hold all groups that are known to stand against those that are stored, and note unknown ones.

        Raises:
            BrokenLogError: one is gone whose entries are in no bundle.
        """
        known = {one.extends: one for one in self.chain.standing}
        stored = await self.groups.uids()
        for one in known.values():
            if stored.get(one.extends) == one.uid or one.is_stray or not self.chain.has(one):
                continue
            if not await self._stands(one) and not await self.went_on(one.size - 1):
                raise _hole(one)
        for extends in stored.keys() - known.keys():
            if extends < self.chain.size and (found := await self.groups.find(extends)) is not None:
                self._doubt(found)

    def _doubt(self, stored: StoredGroup) -> None:
        if stored.group.extends not in self.doubtful:
            log.error("%s is stored and was not found in the log", stored.group.name)
        self.doubtful[stored.group.extends] = stored

    async def _stands(self, one: Standing) -> bool:
        """Whether a group is stored, or was put back as it was."""
        if await self.groups.uid(one.extends) == one.uid:
            return True
        found = await self.groups.find(one.extends)
        if found is None or found.group.digest() != one.digest:
            return False
        log.warning("%s was lost and is put back", one.name)
        self.chain.put_back(one, found.uid)
        return True

    async def _pass_over(self, bundle: Compacted) -> None:
        """Go on over a bundle, and the group that has entries of it and of the next."""
        first = self.chain.size
        new = self.chain.pass_over(bundle, self._verifier)
        for entry in self.remember(first, new):
            self._on_read(entry)
        async for stored in self.groups.all():
            if stored.group.extends >= bundle.size:
                return  # the next look finds it by its name
            if stored.group.size >= bundle.size:
                await self._absorb_or_pass(stored)

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


def _hole(lost: Standing | None) -> BrokenLogError:
    """A group went whose entries are nowhere else."""
    name = lost.name if lost is not None else "the newest group"
    return BrokenLogError(
        f"{name} is gone, or was replaced, and no bundle has its entries: the log has a hole"
    )


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
