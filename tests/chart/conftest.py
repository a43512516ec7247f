"""Helm for the chart's tests: the one on the PATH, else the cached control plane binary, which has it too."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "charts" / "pilot-identity"
Document = dict[str, Any]


def _helm_command() -> list[str]:
    if on_path := shutil.which("helm"):
        return [on_path]
    home = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    cache = Path(os.environ.get("PILOT_IDENTITY_CACHE") or Path(home) / "pilot-identity")
    built = [path for path in cache.glob("controlplane-*") if path.is_file() and os.access(path, os.X_OK)]
    if not built:
        pytest.skip("no helm: put one on the PATH, or build the control plane with `make cluster`")
    return [str(max(built, key=lambda path: path.stat().st_mtime)), "helm"]


@pytest.fixture(scope="session")
def helm() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run helm with these arguments; its answer, whatever the exit code."""
    command = _helm_command()

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*command, *arguments], text=True, capture_output=True, check=False)  # noqa: S603 - the helm found above

    return run


@pytest.fixture(scope="session")
def render(helm: Callable[..., subprocess.CompletedProcess[str]]) -> Callable[..., list[Document]]:
    """Render the chart into its documents: `render("--set", "replicas=2")`."""

    def run(*arguments: str) -> list[Document]:
        place = ("--namespace", "pilot-identity-system", "--include-crds")
        answer = helm("template", "pilot-identity", str(CHART), *place, *arguments)
        assert answer.returncode == 0, answer.stderr
        return [document for document in yaml.safe_load_all(answer.stdout) if document]

    return run
