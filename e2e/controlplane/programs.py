"""Which program files a cluster is run and spoken to with."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

from e2e.controlplane.errors import ClusterError


@dataclass(frozen=True)
class Programs:
    """A file for each program; None where there is none."""

    kubectl: Path | None = None
    helm: Path | None = None
    etcd: Path | None = None
    apiserver: Path | None = None
    controller_manager: Path | None = None

    @classmethod
    def of_binary(cls, binary: Path) -> Programs:
        """All of them: the binary is whatever it is called by."""
        return cls(binary, binary, binary, binary, binary)

    @classmethod
    def of_directory(cls, directory: Path, helm: Path | None) -> Programs:
        """Those of `KUBEBUILDER_ASSETS`, which has no helm, and as a rule no controller manager."""

        def there(name: str) -> Path | None:
            return executable(directory / name)

        return cls(
            kubectl=there("kubectl") or on_path("kubectl"),
            helm=there("helm") or helm,
            etcd=there("etcd"),
            apiserver=there("kube-apiserver"),
            controller_manager=there("kube-controller-manager"),
        )

    def by_name(self) -> dict[str, Path]:
        """Those that there are, under the names that they answer to."""
        files = {
            "kubectl": self.kubectl,
            "helm": self.helm,
            "etcd": self.etcd,
            "kube-apiserver": self.apiserver,
            "kube-controller-manager": self.controller_manager,
        }
        return {name: file for name, file in files.items() if file is not None}

    def link(self, directory: Path) -> None:
        """Fill a directory with them, under their names, for a PATH."""
        directory.mkdir(parents=True, exist_ok=True)
        for name, file in self.by_name().items():
            entry = directory / name
            entry.unlink(missing_ok=True)
            entry.symlink_to(file.absolute())


def executable(path: Path) -> Path | None:
    """The path, if it can be run."""
    return path if path.is_file() and os.access(path, os.X_OK) else None


def on_path(name: str) -> Path | None:
    """A program on the caller's PATH."""
    found = shutil.which(name)
    return Path(found).absolute() if found else None


def kubernetes_version(apiserver: Path) -> tuple[int, int]:
    """The major and minor version that an API server calls itself.

    Raises:
        ClusterError: It does not run, or does not answer as an API server does.
    """
    answer = subprocess.run([apiserver, "--version"], capture_output=True, text=True, check=False)
    found = re.match(r"Kubernetes v(\d+)\.(\d+)\.", answer.stdout)
    if found is None:
        raise ClusterError(f"`{apiserver} --version` does not tell a version: {answer.stdout}{answer.stderr}")
    return int(found[1]), int(found[2])
