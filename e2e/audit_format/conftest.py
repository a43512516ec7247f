from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from e2e.audit_format.judges import Judges, judges

Audit = Callable[..., subprocess.CompletedProcess[str]]
PROGRAM = "from pilot_identity.cli.audit.commands import app; app(prog_name='kubectl pilot audit')"


@pytest.fixture(scope="session")
def foreign() -> Judges:
    """Tessera's fsck and Go's packages."""
    return judges()


@pytest.fixture
def audit(tmp_path: Path) -> Audit:
    """`kubectl pilot audit` as a user with a memory of the test's own."""

    def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-c", PROGRAM, *arguments],
            env={**os.environ, "XDG_STATE_HOME": str(tmp_path / "state"), "NO_COLOR": "1", **variables},
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    return run
