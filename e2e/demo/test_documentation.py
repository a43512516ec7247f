"""The commands of the README and of the how-tos work as they stand."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from e2e.demo.story import python
from e2e.installation import ROOT, Installation

PAGES = (ROOT / "README.md", *sorted((ROOT / "docs" / "how-to").glob("*.md")))
BLOCK = re.compile(r"^```sh\n(.*?)^```$", re.MULTILINE | re.DOTALL)
TEAM = "team-a"
PAGE_SECONDS = 120


def commands(page: Path) -> str:
    """Every `sh` block of a page, in its order; blocks marked `console` are to be read, not run."""
    return "\n".join(BLOCK.findall(page.read_text()))


@pytest.mark.parametrize("page", [page for page in PAGES if commands(page)], ids=lambda page: page.stem)
def test_commands_of_a_page(page: Path, operator: Installation) -> None:
    """Each page's commands succeed one after the other, in a namespace of the page's own."""
    own = f"docs-{page.stem.lower()}"
    script = commands(page).replace(TEAM, own).replace(".venv/bin/python", python())
    environment = operator.cluster.environment()
    done = subprocess.run(
        ["sh", "-eux", "-c", script],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**environment, "PYTHONPATH": os.pathsep.join(("operator", "."))},
        timeout=PAGE_SECONDS,
        stdin=subprocess.DEVNULL,
    )
    operator.cluster.run("kubectl", "delete", "namespace", own, "--wait=false", check=False)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_every_example_is_used() -> None:
    """No manifest in docs/examples lies there unused by the README, a how-to or the demo."""
    users = "\n".join(page.read_text() for page in (*PAGES, ROOT / "e2e" / "demo" / "story.py"))
    unused = [path.name for path in (ROOT / "docs" / "examples").iterdir() if path.name not in users]
    assert not unused
