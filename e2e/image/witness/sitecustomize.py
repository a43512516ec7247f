"""Python imports this on start: it tells on standard error of every file that is opened to write or made."""

from __future__ import annotations

import os
import sys

WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND
CHANGES = frozenset(
    {"os.mkdir", "os.rename", "os.remove", "os.link", "os.symlink", "os.truncate", "os.chmod"}
)


def _watch(event: str, arguments: tuple[object, ...]) -> None:
    if event == "open":
        path, _, flags = arguments
        if isinstance(flags, int) and flags & WRITES and not str(path).startswith("/dev/"):
            os.write(2, f"WRITES {path}\n".encode())
    elif event in CHANGES:
        os.write(2, f"WRITES {event} {arguments[0]}\n".encode())


sys.addaudithook(_watch)
