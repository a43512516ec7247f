"""A blockage: work behind the scenes that does not go on, told once for each cause and counted for alerts."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import NoReturn

from pilot_identity.core.audit.checkpoint import CheckpointError
from pilot_identity.core.audit.entries import EntryError
from pilot_identity.core.audit.groups import BrokenLogError
from pilot_identity.ports import PortError

log = logging.getLogger(__name__)


class Blockage:
    """What keeps some work from going on, if something does.

    Attributes:
        cause: in words; empty where the work goes on.
    """

    def __init__(self, what: str) -> None:
        """Begin unblocked; `what` begins each line of the log, such as "the log cannot be archived"."""
        self._what = what
        self.cause = ""

    @property
    def is_there(self) -> bool:
        """Whether the last try failed."""
        return bool(self.cause)

    def note(self, error: Exception) -> None:
        """Note that a try failed; the log has a line where the cause is another than before."""
        cause = str(error) or type(error).__name__
        if cause != self.cause:
            log.error("%s: %s", self._what, cause)
        self.cause = cause

    def clear(self) -> None:
        """Note that a try succeeded."""
        if self.cause:
            log.info("%s: this is over", self._what)
        self.cause = ""

    async def keep_working(
        self,
        work: Callable[[], Awaitable[bool]],
        *,
        look_seconds: float,
        retry_seconds: float,
        is_behind: Callable[[], bool] = lambda: False,
    ) -> NoReturn:
        """Do some work on the log for ever, at rest as long as at work; note what blocks it.

        Args:
            work: does one piece; returns whether there was any.
            look_seconds: until the next look where there was none.
            retry_seconds: until the next try after a failure.
            is_behind: whether so much is left to do that there is no rest before the next piece.
        """
        now = asyncio.get_running_loop().time
        while True:
            began = now()
            try:
                worked = await work()
            except (PortError, BrokenLogError, CheckpointError, EntryError) as error:
                self.note(error)
                await asyncio.sleep(retry_seconds)
                continue
            self.clear()
            if worked and is_behind():
                continue
            await asyncio.sleep(now() - began if worked else look_seconds)
