"""The clock of this machine."""

from __future__ import annotations

import datetime as dt


def utc_now() -> dt.datetime:
    """The clock: aware, UTC, milliseconds, which is what entries and statuses tell."""
    now = dt.datetime.now(dt.UTC)
    return now.replace(microsecond=now.microsecond // 1000 * 1000)
