"""Durations as the API writes them: `15m`, `1h30m`, `720h`."""

from __future__ import annotations

import datetime as dt
import re

_FORMAT = re.compile(r"(?:(\d{1,6})h)?(?:(\d{1,6})m)?(?:(\d{1,6})s)?")


class Duration(dt.timedelta):
    """A positive length of time, whole seconds, parsed from hours, minutes and seconds.

    >>> Duration.parse("1h30m")
    Duration('1h30m')
    >>> Duration.parse("90m") == Duration.parse("1h30m")
    True
    >>> Duration.parse("soon")
    Traceback (most recent call last):
    ...
    ValueError: a duration is hours, minutes and seconds such as 1h30m or 45s, got 'soon'
    """

    @classmethod
    def parse(cls, text: str) -> Duration:
        """Parse `text`.

        Raises:
            ValueError: it is no duration, or not a positive one.
        """
        match = _FORMAT.fullmatch(text)
        if match is None or not any(match.groups()):
            raise ValueError(f"a duration is hours, minutes and seconds such as 1h30m or 45s, got {text!r}")
        hours, minutes, seconds = (int(group or 0) for group in match.groups())
        parsed = cls(hours=hours, minutes=minutes, seconds=seconds)
        if not parsed:
            raise ValueError(f"a duration is longer than zero, got {text!r}")
        return parsed

    def __str__(self) -> str:
        """The shortest form that parses back to the same duration."""
        minutes, seconds = divmod(int(self.total_seconds()), 60)
        hours, minutes = divmod(minutes, 60)
        parts = ((hours, "h"), (minutes, "m"), (seconds, "s"))
        return "".join(f"{count}{unit}" for count, unit in parts if count) or "0s"

    def __repr__(self) -> str:
        """As one would write it in code."""
        return f"Duration({str(self)!r})"


def format_duration(span: dt.timedelta) -> str:
    """Write any span as the API does, whole seconds, for messages.

    >>> format_duration(dt.timedelta(minutes=90))
    '1h30m'
    """
    return str(Duration(seconds=int(span.total_seconds())))
