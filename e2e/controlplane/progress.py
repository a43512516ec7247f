"""What a person sees while the binary is built."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

LINE_EVERY = 15.0  # seconds, where the screen is a log
REDRAW_EVERY = 0.5  # seconds, where it is a terminal


class Progress:
    """Counts modules and packages, and tells: a line redrawn on a terminal, now and then one in a log.

    Args:
        now: A monotonic clock in seconds.
        screen: Where to write; standard error by default, since standard output belongs to the caller.
    """

    def __init__(self, now: Callable[[], float], screen: TextIO | None = None) -> None:
        self._now = now
        self._screen = screen or sys.stderr
        self._is_terminal = self._screen.isatty()
        self._start = self._told = now()
        self._modules = self._packages = self._total = 0

    @property
    def elapsed(self) -> float:
        """Seconds since this was made."""
        return self._now() - self._start

    def fetched(self) -> None:
        """One more module is being downloaded."""
        self._modules += 1

    def to_compile(self, total: int) -> None:
        """Fetching is over; this many packages are to be compiled."""
        self._total = total

    def compiled(self) -> None:
        """One more package is compiled."""
        self._packages += 1

    def __str__(self) -> str:
        minutes, seconds = divmod(int(self.elapsed), 60)
        if self._total == 0:
            what = f"fetched {self._modules} modules"
        elif self._packages < self._total:
            what = f"compiled {self._packages} of {self._total} packages"
        else:
            what = f"all {self._total} packages compiled, linking"
        return f"{minutes}:{seconds:02} {what}"

    def tick(self) -> None:
        """Tell, if it is time to."""
        if self._now() - self._told < (REDRAW_EVERY if self._is_terminal else LINE_EVERY):
            return
        self._told = self._now()
        if self._is_terminal:
            self._write(f"\r\x1b[2Kcontrol plane: {self}")
        else:
            self.say(str(self))

    def end(self) -> None:
        """Clear the line that was redrawn."""
        if self._is_terminal:
            self._write("\r\x1b[2K")

    def say(self, text: str) -> None:
        """A line of its own."""
        self.end()
        self._write(f"control plane: {text}\n")

    def _write(self, text: str) -> None:
        self._screen.write(text)
        self._screen.flush()
