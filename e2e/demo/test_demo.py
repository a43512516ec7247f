"""The demo itself: it tells the whole story, shows no key, and leaves nothing behind."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from e2e.demo.__main__ import EXIT_INTERRUPTED
from e2e.installation import ROOT

DEMO_SECONDS = 180
TOKEN = re.compile(r"eyJ[\w-]+\.[\w-]+\.[\w-]+")


@contextmanager
def demo(directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The demo on a control plane of its own; `directory` has all that it makes."""
    environment = {
        **{name: value for name, value in os.environ.items() if name != "KUBECONFIG"},
        "PILOT_IDENTITY_E2E_CLUSTER": "built",
        "PYTHONUNBUFFERED": "1",
        "TMPDIR": str(directory),
    }
    command = [sys.executable, "-m", "e2e.demo"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def left_running(directory: Path) -> list[str]:
    """Processes that were given anything in `directory`, by argument or environment."""
    mark = os.fsencode(directory)
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            arguments = (process / "cmdline").read_bytes()
            if mark in arguments or mark in (process / "environ").read_bytes():
                found.append(f"{process.name} {arguments.replace(bytes(1), b' ').decode(errors='replace')}")
        except OSError:
            continue
    return found


def test_demo_tells_the_story(tmp_path: Path) -> None:
    """It exits 0, has told each chapter, shows neither key nor token, and nothing is left, run or stored."""
    with demo(tmp_path) as process:
        said, _ = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == 0, said
    assert [int(number) for number in re.findall(r"^(\d+)\. .*─$", said, re.MULTILINE)] == list(range(1, 9))
    for fact in ("set spec.stage to 'sandbox'", "asked for issues:close", "grant.closed.v1", "is gone"):
        assert fact in said
    assert "PRIVATE KEY" not in said
    assert not TOKEN.search(said)
    assert not left_running(tmp_path)
    assert not list(tmp_path.iterdir())


def test_interrupted_demo_puts_everything_away(tmp_path: Path) -> None:
    """Ended in the middle it says so, exits with 130, and nothing is left."""
    with demo(tmp_path) as process:
        assert process.stdout is not None
        said = next(line for line in process.stdout if line.startswith("2. "))
        assert left_running(tmp_path), "the look must see what runs"
        process.terminate()
        rest, _ = process.communicate(timeout=DEMO_SECONDS)
    assert process.returncode == EXIT_INTERRUPTED, said + rest
    assert "It was interrupted" in rest
    assert not left_running(tmp_path)
    assert not list(tmp_path.iterdir())
