"""kind through pytest-kind: a cluster in Docker, for those who have it.

The path is thin on purpose, and was never run to its end where this project is made: no Docker daemon
answers there. Its own test has a stand-in for the `kind` program.
"""

from __future__ import annotations

import importlib
import os
import subprocess
from contextlib import chdir
from pathlib import Path
from typing import Any, Self

from e2e.controlplane.errors import PickError
from e2e.controlplane.given import GivenCluster
from e2e.controlplane.programs import Programs, on_path
from e2e.controlplane.recipe import cache_directory

KIND_VERSION = (
    "v0.31.0"  # pytest-kind's own default brings Kubernetes 1.25: no ValidatingAdmissionPolicy there
)
DOCKER_WITHIN = 5.0  # seconds


def docker_answers() -> bool:
    """Whether a Docker daemon answers, quickly."""
    docker = on_path("docker")
    if docker is None:
        return False
    try:
        asked = subprocess.run([docker, "info"], capture_output=True, check=False, timeout=DOCKER_WITHIN)
    except subprocess.TimeoutExpired:
        return False
    return asked.returncode == 0


class KindCluster(GivenCluster):
    """A cluster of kind's, made by `start` and deleted by `stop`.

    `$KIND_VERSION` chooses the kind that is downloaded where none is on PATH, `$PILOT_IDENTITY_KIND_IMAGE`
    the node image, and so the Kubernetes version; by default it is the one that belongs to kind's version.

    Args:
        programs: kubectl and helm.
        why: What it is and why it was picked.
    """

    def __init__(self, programs: Programs, *, why: str = "a kind cluster") -> None:
        super().__init__(programs, Path(), why=why)
        self.kubeconfig = self.directory / "kind.kubeconfig"
        self._kind: Any = None

    def start(self) -> Self:
        """Create it, in about a minute.

        Raises:
            PickError: kind cannot be had, or cannot pull its image, or its cluster does not come up.
        """
        if self._kind is not None:
            return self
        version = os.environ.setdefault("KIND_VERSION", KIND_VERSION)  # read when pytest-kind is imported
        cache_directory().mkdir(parents=True, exist_ok=True)
        with chdir(self.directory):  # pytest-kind makes a directory of its own wherever it is
            self._kind = importlib.import_module("pytest_kind.cluster").KindCluster(
                self.directory.name,
                kubeconfig=self.kubeconfig,
                image=os.environ.get("PILOT_IDENTITY_KIND_IMAGE"),
                kind_path=on_path("kind") or cache_directory() / f"kind-{version}",
                kubectl_path=self._programs.kubectl,
            )
        try:
            self._kind.create()
        except (OSError, subprocess.CalledProcessError) as error:  # requests' errors are OSErrors
            self.stop()
            raise PickError(f"kind did not create a cluster: {error}") from error
        return super().start()

    def stop(self) -> None:
        """Delete it."""
        if self._kind is not None and self._kind.kind_path.exists():
            self._kind.delete()
        self._kind = None
        super().stop()
