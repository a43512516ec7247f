"""Points in time as the API writes them: RFC 3339 in UTC."""

from __future__ import annotations

import datetime as dt


def format_timestamp(moment: dt.datetime) -> str:
    """Write an aware `moment` as RFC 3339 in UTC, with a fraction only where there is one.

    >>> format_timestamp(dt.datetime(2026, 11, 21, 8, 30, tzinfo=dt.UTC))
    '2026-11-21T08:30:00Z'
    >>> format_timestamp(dt.datetime(2026, 11, 21, 8, 30, 0, 250_000, tzinfo=dt.UTC))
    '2026-11-21T08:30:00.250Z'
    """
    precision = "milliseconds" if moment.microsecond else "seconds"
    return moment.astimezone(dt.UTC).isoformat(timespec=precision).removesuffix("+00:00") + "Z"
