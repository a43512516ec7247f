"""Text for a terminal: what others wrote cannot move the cursor, hide or colour anything."""

from __future__ import annotations

import datetime as dt
import unicodedata

from pilot_identity.core.resources.durations import Duration

_UNSAFE = frozenset({"Cc", "Cf", "Cs", "Co", "Zl", "Zp"})
"""Control, format (bidirectional overrides are), surrogate and private characters; line separators."""


def plain(text: str) -> str:
    r"""Make characters visible that a terminal would obey.

    >>> plain("all good\x1b[2K\rdenied")
    'all good\\x1b[2K\\rdenied'
    """
    if text.isprintable():
        return text
    return "".join(
        char.encode("unicode_escape").decode("ascii") if unicodedata.category(char) in _UNSAFE else char
        for char in text
    )


_IN_ASCII = str.maketrans({"…": "...", "—": "--"})


def legible(text: str, encoding: str) -> str:
    r"""Write otherwise what an output in this encoding cannot show; where it can show all, nothing changes.

    >>> legible("and so on … größer", "utf-8")
    'and so on … größer'
    >>> legible("and so on … größer", "ascii")
    'and so on ... gr\\xf6\\xdfer'
    """
    try:
        text.encode(encoding)
    except UnicodeEncodeError:
        return text.translate(_IN_ASCII).encode(encoding, "backslashreplace").decode(encoding)
    return text


def ago(moment: dt.datetime | None, now: dt.datetime) -> str:
    """How long ago, to two units, as kubectl writes ages; `-` where it never was.

    >>> noon = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
    >>> ago(noon - dt.timedelta(hours=50, seconds=3), noon)
    '2d2h'
    """
    return "-" if moment is None else _short(now - moment)


def ahead(moment: dt.datetime | None, now: dt.datetime) -> str:
    """How far ahead, or how long over; `-` where there is no such time.

    >>> noon = dt.datetime(2026, 11, 21, 12, tzinfo=dt.UTC)
    >>> ahead(noon + dt.timedelta(minutes=4, seconds=10), noon)
    'in 4m10s'
    >>> ahead(noon - dt.timedelta(seconds=5), noon)
    '5s ago'
    """
    if moment is None:
        return "-"
    return f"in {_short(moment - now)}" if moment >= now else f"{_short(now - moment)} ago"


def _short(span: dt.timedelta) -> str:
    seconds = max(int(span.total_seconds()), 0)
    days, rest = divmod(seconds, 86_400)
    if days:
        return f"{days}d{rest // 3600}h" if rest >= 3600 else f"{days}d"  # noqa: PLR2004 - an hour
    if seconds >= 3600:  # noqa: PLR2004
        rest -= rest % 60
    return str(Duration(seconds=rest))


def clock(moment: dt.datetime | None) -> str:
    """A time of day in UTC to the second, with its date."""
    return "-" if moment is None else moment.astimezone(dt.UTC).strftime("%Y-%m-%d %H:%M:%SZ")
