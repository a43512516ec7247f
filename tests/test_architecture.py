"""The rooms are as the design draws them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent


def test_operator_is_no_package() -> None:
    """The standard library has that name: as a package it would shadow it, or be shadowed."""
    assert not (ROOT / "operator" / "__init__.py").exists()
    assert (ROOT / "operator" / "pilot_identity" / "__init__.py").is_file()


def test_the_contracts_between_rooms_are_kept() -> None:
    """import-linter's, as configured in pyproject.toml."""
    linter = Path(sys.executable).with_name("lint-imports")
    kept = subprocess.run(  # noqa: S603 - a tool of our own environment
        [linter, "--config", "pyproject.toml", "--no-cache"],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": "operator"},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert kept.returncode == 0, kept.stdout + kept.stderr
    assert "0 broken" in kept.stdout


def test_no_module_is_a_drawer_for_anything() -> None:
    """Modules are nouns of the domain."""
    drawers = {"utils", "util", "common", "helpers", "helper", "manager", "misc"}
    names = {path.stem for path in (ROOT / "operator").rglob("*.py")}
    assert not names & drawers
