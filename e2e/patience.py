"""Patience: waits that look, and that have an end."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

LOOK_S = 0.05
"""Between two looks, as long as nobody has waited for long."""
MOST_LOOK_S = 0.25
LATE = 0.05
"""How much later than it is so it may be seen, as a part of the wait: each look costs the API server."""
WITHIN_S = 20.0
"""Far more than anything takes on a machine that others use too."""

Found = TypeVar("Found")


class TooLateError(AssertionError):
    """What was waited for did not come; the message says what, and what was there instead."""


def until(
    look: Callable[[], Found | None], what: str, *, seconds: float = WITHIN_S, instead: object = ""
) -> Found:
    """Look until something is found; returns it.

    Args:
        look: returns something false until it is so.
        what: what is waited for, for the message.
        seconds: how long at most.
        instead: called at the end where it can be, to tell what is there instead.

    Raises:
        TooLateError: it was not so in time.
    """
    began = time.monotonic()
    while not (found := look()):
        waited = time.monotonic() - began
        if waited > seconds:
            there = instead() if callable(instead) else instead
            raise TooLateError(f"not within {seconds:.0f} s: {what} {there}")
        time.sleep(min(max(LOOK_S, LATE * waited), MOST_LOOK_S))
    return found
