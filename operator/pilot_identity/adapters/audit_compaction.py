"""Compaction: behind the head full bundles become tiles, one at a time, and their groups go.

`core.audit.chain` says when, and why no writer that slept can fork the log by it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from pilot_identity.adapters.audit_groups import GroupConfigMaps
from pilot_identity.adapters.audit_tiles import TileConfigMaps
from pilot_identity.adapters.blockage import Blockage
from pilot_identity.core.audit.chain import Chain, Standing
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import compact

RETRY_SECONDS = 10.0
LOOK_SECONDS = 1.0
"""How often it looks whether a bundle has become old enough."""


class Compactor:
    """Compacts what is old enough.

    Attributes:
        blockage: what keeps it from that.
        bundles_written: how many this process made.
    """

    def __init__(
        self, chain: Chain, groups: GroupConfigMaps, tiles: TileConfigMaps, signer: LogSigner
    ) -> None:
        self._chain = chain
        self._groups = groups
        self._tiles = tiles
        self._signer = signer
        self.blockage = Blockage("the audit log cannot be compacted")
        self.bundles_written = 0

    async def run(self) -> None:
        """Compact for ever: one request at a time, at rest as long as at work."""
        await self.blockage.keep_working(
            self.compact_next, look_seconds=LOOK_SECONDS, retry_seconds=RETRY_SECONDS
        )

    async def compact_next(self) -> bool:
        """Compact the next bundle and delete what is compacted; returns whether there was anything to do.

        A crash at any point leaves what a later call finishes: the bundle is committed by one write, and made
        again it is the same; groups are deleted after it, the oldest first, the newest never.

        Raises:
            BrokenLogError: what is stored is not what was committed.
        """
        now = asyncio.get_running_loop().time
        groups = self._chain.next_bundle(now())
        if groups:
            await self._seal(groups)
        spent = self._chain.spent(now())
        for standing in spent:
            await self._groups.delete(standing)
            self._chain.gone(standing)
        return bool(groups or spent)

    async def _seal(self, groups: Sequence[Standing]) -> None:
        first, edge = self._chain.sealed, self._chain.edge
        bundle = await self._tiles.read(first)
        if bundle is None:
            entries = await self._groups.entries(groups, first)
            bundle = await asyncio.to_thread(compact, first, edge, entries, self._signer)
            if self._chain.sealed != first:
                return  # another writer made it meanwhile, and this process's writer passed over it
            self._chain.require(bundle)
            await self._tiles.write(bundle, self._signer)
            self.bundles_written += 1
        if self._chain.sealed == first:
            self._chain.seal(bundle)
