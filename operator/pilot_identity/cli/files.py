"""Files that a person names: read once, at most so much, and not a word of them in an error."""

from __future__ import annotations

import sys
from pathlib import Path

from pilot_identity.cli.failures import UsageError

STDIN = Path("-")


def read_bounded(path: Path, limit: int, what: str) -> str:
    """Read a text file, or stdin for `-`.

    Raises:
        UsageError: it cannot be read, is larger than `limit` bytes, or is no text.
    """
    try:
        if path == STDIN:
            content = sys.stdin.buffer.read(limit + 1)
        else:
            with path.open("rb") as file:
                content = file.read(limit + 1)
    except OSError as error:
        raise UsageError(f"{what}: {path} cannot be read: {error.strerror}") from error
    if len(content) > limit:
        raise UsageError(f"{what}: {path} is larger than {limit} bytes")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError:
        # Not chained: the error holds what was read.
        raise UsageError(f"{what}: {path} is no UTF-8 text") from None
