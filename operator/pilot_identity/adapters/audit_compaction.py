"""Compaction: behind the head full bundles become tiles, in order, and their groups go.

`core.audit.chain` says when, and why no writer that slept can fork the log by it.

The log may be written faster than one request after another is answered behind it. So there are two paces.
Nearly up to date, it makes one request at a time and rests as long as it works: an idle API server stays so.
Behind, it does not rest, reads the groups of several bundles at once and deletes several groups at a time, at
most at twice the rate at which the log writes them in the long run. So every backlog shrinks, and compaction
never takes more than that from grants.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence

from pilot_identity.adapters.audit_groups import GroupConfigMaps
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.blockage import Blockage
from pilot_identity.adapters.kubernetes.api import NotFound
from pilot_identity.adapters.revocations import Budget
from pilot_identity.core.audit.chain import Chain, Standing
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import compact
from pilot_identity.core.audit.groups import Group, bundle_of
from pilot_identity.core.audit.tiles import WIDTH

RETRY_SECONDS = 10.0
LOOK_SECONDS = 1.0
"""How often it looks whether a bundle has become old enough."""
AT_ONCE = 8
"""Deletes in flight while it is behind, of the client's 32 requests."""
MOST_READ = 32
"""Groups that are read at once while it is behind, unless one bundle has more: each may have 1 MiB."""
MOST_DELETED = 64
"""Groups that are deleted before it looks again; more than that, and it is behind."""


class Compactor:
    """Compacts what is old enough.

    Attributes:
        blockage: what keeps it from that.
        bundles_written: how many this process made.
    """

    def __init__(
        self,
        chain: Chain,
        groups: GroupConfigMaps,
        tiles: TileConfigMaps,
        signer: LogSigner,
        *,
        deletes_per_second: int,
    ) -> None:
        self._chain = chain
        self._groups = groups
        self._tiles = tiles
        self._signer = signer
        self._pace = Budget(AT_ONCE, deletes_per_second)
        self.blockage = Blockage("the audit log cannot be compacted")
        self.bundles_written = 0

    @property
    def is_behind(self) -> bool:
        """Whether there is so much to do that it does not rest."""
        now = _tick()
        return self._chain.is_behind(now) or len(self._chain.spent(now)) > MOST_DELETED

    async def run(self) -> None:
        """Compact for ever, at rest as long as at work unless it is behind."""
        await self.blockage.keep_working(
            self.compact_next,
            look_seconds=LOOK_SECONDS,
            retry_seconds=RETRY_SECONDS,
            is_behind=lambda: self.is_behind,
        )

    async def compact_next(self) -> bool:
        """Delete groups that are spent, else make bundles that are due; returns whether there was any work.

        A crash at any point leaves what a later call finishes: each bundle is committed by one write, in the
        log's order, and made again it is the same; groups are deleted after it, and the newest never.

        Raises:
            BrokenLogError: what is stored is not what was committed.
        """
        is_behind = self.is_behind
        spent = self._chain.spent(_tick())[:MOST_DELETED]
        if spent:
            await self._delete(spent, at_once=AT_ONCE if is_behind else 1)
            return True
        bundles = self._chain.due(_tick(), most=MOST_READ if is_behind else 0)
        if bundles:
            await self._seal(bundles)
        return bool(bundles)

    async def _seal(self, bundles: Sequence[Sequence[Standing]]) -> None:
        """Make the next bundles; the groups are the first in a list, since those before them are deleted."""
        first = self._chain.sealed
        found = await self._tiles.read(first)
        if found is not None:
            if self._chain.sealed == first:
                self._chain.seal(found)
            return
        over_edges_once = dict.fromkeys(one for bundle in bundles for one in bundle)
        try:
            groups = await self._groups.read(list(over_edges_once))
        except NotFound:
            if not await self._tiles.covers(first):
                raise
            return  # another writer made it meanwhile, and deletes its groups; the next look finds it
        for number in range(len(bundles)):
            # Otherwise another writer made it meanwhile, and this process's passed over it.
            if self._chain.sealed == first + number * WIDTH:
                await self._make(self._chain.sealed, groups)

    async def _make(self, first: int, groups: Iterable[Group]) -> None:
        entries = bundle_of(groups, first)
        bundle = await asyncio.to_thread(compact, first, self._chain.edge, entries, self._signer)
        if self._chain.sealed != first:
            return
        self._chain.require(bundle)
        await self._tiles.write(bundle, self._signer)
        self.bundles_written += 1
        if self._chain.sealed == first:
            self._chain.seal(bundle)

    async def _delete(self, spent: Iterable[Standing], *, at_once: int) -> None:
        """Delete groups, the oldest first; of those in flight together any may be gone before any other."""
        waiting = iter(spent)

        async def delete() -> None:
            for standing in waiting:
                await asyncio.sleep(self._pace.take(1))
                await self._groups.delete(standing)
                self._chain.gone(standing)

        # All of them end before an error is told, so that none is left behind.
        ended = await asyncio.gather(*(delete() for _ in range(at_once)), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()
