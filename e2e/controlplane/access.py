"""What every cluster of the harness can do, wherever it comes from."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import sha256
from pathlib import Path
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

from e2e.controlplane import pki
from e2e.controlplane.component import Component
from e2e.controlplane.errors import ClusterError, UnsupportedError
from e2e.controlplane.programs import Programs

COMMAND_SECONDS = 300.0  # helm's own --timeout default; nothing here is slower


class Cluster(ABC):
    """A cluster that answers, and the two programs to speak to it.

    Attributes:
        why: What it is and why it was picked, in a line.
        kubeconfig: The admin's.
        programs: A directory for a PATH, with kubectl, helm, and what else is known.
        directory: Ours alone, for programs, client caches and users.
        components: The processes that are ours, by name; empty on a foreign cluster.
        audit_log: The API server's audit log, an event a line, where it is ours to read.
        is_lasting: What runs of it, and what is started beside it, goes on when we end.
        can_make_users: Whether `user` works.
    """

    can_make_users = False
    is_lasting = False

    def __init__(self, programs: Programs, *, why: str, kubeconfig: Path, directory: Path) -> None:
        self.why = why
        self.kubeconfig = kubeconfig
        self.directory = directory
        self.programs = directory / "bin"
        self.components: dict[str, Component] = {}
        self.audit_log: Path | None = None
        self._programs = programs

    @property
    def can_control_components(self) -> bool:
        """Whether its components are ours to restart, pause and kill."""
        return bool(self.components)

    @abstractmethod
    def start(self) -> Self:
        """Make it answer; nothing happens where it does already."""

    @abstractmethod
    def stop(self) -> None:
        """Undo what `start` did; nothing happens where that was nothing."""

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def program(self, name: str) -> str:
        """The path of a program, such as kubectl.

        Raises:
            UnsupportedError: The cluster came without, and it is not on PATH.
        """
        found = shutil.which(name, path=self.environment()["PATH"])
        if found is None:
            raise UnsupportedError(f"no {name} here: install it, or Go so that it can be built")
        return found

    def environment(self, kubeconfig: Path | None = None) -> dict[str, str]:
        """The environment for programs that speak to this cluster; as admin, or by the kubeconfig given.

        Client caches go by host and port, which a later cluster may get again: so they lie with this one.
        """
        return {
            **os.environ,
            "PATH": f"{self.programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}",
            "KUBECONFIG": str(kubeconfig or self.kubeconfig),
            "KUBECACHEDIR": str(self.directory / "cache" / "kube"),
            "HELM_CACHE_HOME": str(self.directory / "cache" / "helm"),
            "HELM_CONFIG_HOME": str(self.directory / "cache" / "helm-config"),
            "HELM_DATA_HOME": str(self.directory / "cache" / "helm-data"),
        }

    def run(
        self,
        program: str,
        *arguments: str,
        stdin: str | None = None,
        kubeconfig: Path | None = None,
        check: bool = True,
    ) -> subprocess.CompletedProcess[str]:
        """Run a client program to its end.

        Raises:
            ClusterError: It failed, and `check` was not turned off; the message is its own.
        """
        done = subprocess.run(
            [self.program(program), *arguments],
            env=self.environment(kubeconfig),
            input=stdin or "",  # never the terminal's, nor the test run's
            capture_output=True,
            text=True,
            check=False,
            timeout=COMMAND_SECONDS,
        )
        if check and done.returncode != 0:
            command = " ".join([program, *arguments])
            raise ClusterError(f"`{command}`: {done.stderr.strip() or done.stdout.strip()}")
        return done

    def kubectl(self, *arguments: str, stdin: str | None = None, kubeconfig: Path | None = None) -> str:
        """Run kubectl; returns what it printed.

        Raises:
            ClusterError: It failed; the message is its own.
        """
        return self.run("kubectl", *arguments, stdin=stdin, kubeconfig=kubeconfig).stdout

    def helm(self, *arguments: str) -> str:
        """Run helm; returns what it printed.

        Raises:
            ClusterError: It failed; the message is its own.
        """
        return self.run("helm", *arguments).stdout

    def get(self, *arguments: str) -> Any:
        """Run `kubectl get … -o json`; returns the decoded object."""
        return json.loads(self.kubectl("get", *arguments, "-o", "json"))

    def apply(self, manifest: str | Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> None:
        """Apply manifests: YAML text, an object, or several."""
        if isinstance(manifest, str):
            text = manifest
        elif isinstance(manifest, Mapping):
            text = json.dumps(manifest)
        else:
            text = json.dumps({"apiVersion": "v1", "kind": "List", "items": list(manifest)})
        self.kubectl("apply", "-f", "-", stdin=text)

    def metrics(self) -> str:
        """The API server's own metrics, in Prometheus' text format."""
        return self.kubectl("get", "--raw", "/metrics")

    @property
    def server(self) -> str:
        """The API server's URL."""
        return str(self._connection["server"])

    @property
    def ca(self) -> Path:
        """The certificate of the CA that vouches for the API server.

        Raises:
            UnsupportedError: The kubeconfig names none.
        """
        path = self.directory / "server-ca.crt"
        if not path.exists():
            data = self._connection.get("certificate-authority-data")
            if data is None:
                raise UnsupportedError(f"{self.kubeconfig} names no certificate authority")
            path.write_bytes(base64.b64decode(data))
        return path

    def user(self, name: str, *groups: str) -> Path:
        """A kubeconfig whose client certificate says that its bearer is this user, in these groups.

        Raises:
            UnsupportedError: Nobody who would sign the certificate is at hand.
        """
        groups_digest = sha256("\0".join(groups).encode()).hexdigest()[:8] if groups else "alone"
        path = self.directory / "users" / f"{quote(name, safe='@')}-{groups_digest}.kubeconfig"
        if not path.exists():
            credential = self._certify(name, groups)
            path.parent.mkdir(exist_ok=True)
            pki.write_private(path, pki.kubeconfig(self.server, self.ca.read_bytes(), name, credential))
        return path

    def _certify(self, name: str, groups: Sequence[str]) -> pki.Credential:
        """Have a client certificate made; a cluster that can overrides this."""
        raise UnsupportedError(
            f"this cluster makes no users, so nobody is {name} of {', '.join(groups) or '-'}"
        )

    @cached_property
    def _connection(self) -> dict[str, Any]:
        view = self.kubectl("config", "view", "--raw", "--minify", "--flatten", "--output=json")
        connection: dict[str, Any] = json.loads(view)["clusters"][0]["cluster"]
        return connection
