"""Tells people how it stands with the log's witnesses, where they look: a condition on every stage.

A look costs nothing; a write happens only where what is told changes.
"""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from pilot_identity.control.telling import Teller
from pilot_identity.core.decisions.witnessed import tell_witnessed
from pilot_identity.ports import Clock, LogWitnesses

log = logging.getLogger(__name__)

LOOK_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Witnessed:
    """Looks how it stands, while this replica leads."""

    witnesses: LogWitnesses
    teller: Teller
    clock: Clock

    async def run(self) -> None:
        """Look for ever."""
        while True:
            try:
                await self.look()
            except Exception:
                # A defect here must not stop those who withdraw access.
                log.exception("how it stands with the witnesses could not be told")
            await asyncio.sleep(LOOK_SECONDS)

    async def look(self) -> None:
        """Tell every stage what it is not told yet; what does not go through is told at the next look."""
        standings = self.witnesses.standings()
        for stage in self.teller.store.stages.values():
            telling = tell_witnessed(stage, standings, self.clock())
            if telling is not None and not stage.metadata.is_deleting:
                await self.teller.tell(stage, telling)
