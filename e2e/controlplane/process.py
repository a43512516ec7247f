"""Processes that are not our children: whether they are still the same, and their end."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from e2e.controlplane.component import POLL_SECONDS, STOP_SECONDS
from e2e.controlplane.errors import ComponentError


def born(pid: int) -> str | None:
    """When a process started, as the kernel tells it; None where there is none, or only a zombie.

    Ids are used again, so an id alone names no process; the id and this do.
    """
    if Path("/proc/self/stat").exists():
        try:
            fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            return None
        return None if fields[0] == "Z" else fields[19]
    ask = ["ps", "-o", "lstart=", "-p", str(pid)]
    return subprocess.run(ask, capture_output=True, text=True, check=False).stdout.strip() or None


def end(pid: int, birth: str | None) -> None:
    """SIGKILL a process, paused or not, and wait until it is gone; a later bearer of its id is not touched.

    Raises:
        ComponentError: It is still there seconds later.
    """
    deadline = time.monotonic() + STOP_SECONDS
    while birth is not None and born(pid) == birth:
        try:
            os.kill(pid, signal.SIGKILL)
        except ProcessLookupError:
            return
        if time.monotonic() > deadline:
            raise ComponentError(f"process {pid} survives SIGKILL")
        time.sleep(POLL_SECONDS)  # between two looks
