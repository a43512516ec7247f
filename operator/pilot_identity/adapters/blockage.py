"""A blockage: work behind the scenes that does not go on, told once for each cause and counted for alerts."""

from __future__ import annotations

import logging

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
