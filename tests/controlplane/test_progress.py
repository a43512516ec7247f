from __future__ import annotations

import io
from collections.abc import Callable

from e2e.controlplane.progress import Progress


class Terminal(io.StringIO):
    """A screen that says of itself that it is one."""

    def isatty(self) -> bool:
        """Whether a person watches."""
        return True


def clock() -> tuple[Callable[[], float], Callable[[float], None]]:
    """A clock, and a way to move it on."""
    now = [100.0]

    def advance(seconds: float) -> None:
        now[0] += seconds

    return lambda: now[0], advance


def test_a_log_gets_a_line_now_and_then() -> None:
    """Every fifteen seconds, however often something happens."""
    now, advance = clock()
    screen = io.StringIO()
    progress = Progress(now, screen)
    progress.to_compile(3000)
    for _ in range(60):
        advance(1)
        progress.compiled()
        progress.tick()
    lines = screen.getvalue().splitlines()
    assert len(lines) == 4
    assert lines[0] == "control plane: 0:15 compiled 15 of 3000 packages"


def test_a_terminal_gets_one_line_redrawn() -> None:
    """No scrolling, and the line is cleared at the end."""
    now, advance = clock()
    screen = Terminal()
    progress = Progress(now, screen)
    progress.fetched()
    advance(61)
    progress.tick()
    assert screen.getvalue().endswith("control plane: 1:01 fetched 1 modules")
    progress.end()
    assert "\n" not in screen.getvalue()
    assert screen.getvalue().endswith("\r\x1b[2K")


def test_the_linker_is_named_when_only_it_is_left() -> None:
    """It is silent for up to a minute; a person should know."""
    now, _ = clock()
    progress = Progress(now, io.StringIO())
    progress.to_compile(1)
    progress.compiled()
    assert str(progress) == "0:00 all 1 packages compiled, linking"
