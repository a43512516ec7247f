"""The installation: the chart, installed by helm, and the operator running on the chart's own account.

No image can run here, so the operator is a process beside the cluster. All else is what a cluster would do:
it runs the command of the chart's Deployment, in the environment that kubelet would make, on a token of the
chart's ServiceAccount, and is started again when it ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from e2e.controlplane.cluster import Cluster, ClusterError, free_ports
from e2e.controlplane.component import Component

ROOT = Path(__file__).parent.parent
CHART = ROOT / "charts" / "pilot-identity"
NAMESPACE = "pilot-identity-system"
RELEASE = "pilot-identity"
READY_SECONDS = 60.0


def _probes(user: str) -> dict[str, Any]:
    """One object of each kind whose admission is waited for; `user` asks, where nothing stamps that."""
    return {
        "apiVersion": "v1",
        "kind": "List",
        "items": [
            {
                "apiVersion": "pilotidentity.dev/v1alpha1",
                "kind": "PilotIdentity",
                "metadata": {"name": "probe", "namespace": "default"},
                "spec": {
                    "workflow": "probe",
                    "purpose": "Shows that the API server takes this kind",
                    "owners": {"business": "probe", "technical": "probe"},
                    "stage": "sandbox",
                },
            },
            {
                "apiVersion": "pilotidentity.dev/v1alpha1",
                "kind": "TaskGrant",
                "metadata": {"name": "probe", "namespace": "default"},
                "spec": {
                    "pilot": "probe",
                    "requestedBy": user,
                    "task": {"id": "probe"},
                    "access": [{"name": "probe"}],
                },
            },
        ],
    }


class Installation:
    """One installation of the chart on a cluster.

    Attributes:
        account: where the operator's CA and token are once a replica was made, as kubelet would mount them.
    """

    def __init__(self, cluster: Cluster, *, directory: Path | None = None) -> None:
        self.cluster = cluster
        self._directory = directory or cluster.ca.parent / "operator"
        self._directory.mkdir(parents=True, exist_ok=True)
        self.account = self._directory / "serviceaccount"
        self._replicas: list[Component] = []
        self._ports: dict[str, int] = {}

    def install(self, *arguments: str) -> None:
        """Install or upgrade the chart with real helm; `arguments` are helm's, such as `--set`."""
        where = ("--namespace", NAMESPACE, "--create-namespace")
        self.cluster.run(
            "helm", "upgrade", "--install", RELEASE, str(CHART), *where, "--set", "replicas=0", *arguments
        )
        self.cluster.kubectl("wait", "--for=condition=Established", "crd", "--all", "--timeout=30s")
        # The API server takes new kinds and policies into use a moment after it has stored them.
        probes = json.dumps(_probes(self._user()))
        self._until(lambda: self._takes_kinds(probes), "the API server does not take the new kinds")
        self._until(self._policies_bite, "the admission policies are not in force")

    def _user(self) -> str:
        told = json.loads(self.cluster.kubectl("auth", "whoami", "-o", "json"))
        return str(told["status"]["userInfo"]["username"])

    def _takes_kinds(self, probes: str) -> bool:
        """Whether objects of every kind can be written: admission learns of a kind later than storage."""
        create = ("create", "--dry-run=server", "-f", "-")
        done = self.cluster.run("kubectl", *create, stdin=probes, check=False)
        return done.returncode == 0

    def _policies_bite(self) -> bool:
        """Whether even an admin is refused an entry of the audit log."""
        create = ("create", "configmap", "audit-group-probe", "--dry-run=server")
        done = self.cluster.run("kubectl", "-n", NAMESPACE, *create, check=False)
        return done.returncode != 0

    def _until(self, is_so: Callable[[], bool], otherwise: str) -> None:
        deadline = time.monotonic() + READY_SECONDS
        while not is_so():
            if time.monotonic() > deadline:
                raise ClusterError(f"{otherwise} after {READY_SECONDS:.0f} s")
            time.sleep(0.1)  # between two looks

    @property
    def operator(self) -> Component:
        """The first replica."""
        return self._replicas[0]

    def replica(self, name: str = "pilot-identity-0", *, identity: str = "") -> Component:
        """Make one replica's process, not started yet; `name` is its pod's."""
        port = free_ports(1)[0]
        container = self._container()
        account = self._service_account_directory()
        address = urlsplit(self.cluster.server)
        # Replicas on one machine cannot share a port; of two the last one counts.
        command = [*self._python(), "pilot_identity", *container["args"], f"--http-port={port}"]
        component = Component(
            name,
            command,
            self._directory / f"{name}.log",
            lifeline=not self.cluster.is_lasting,
            environment={
                # kubelet makes these in a pod. No KUBECONFIG is there: the account is the only way in.
                "KUBECONFIG": "",
                "KUBERNETES_SERVICE_HOST": address.hostname or "",
                "KUBERNETES_SERVICE_PORT": str(address.port),
                "PILOT_IDENTITY_SERVICE_ACCOUNT_DIR": str(account),
                "POD_NAME": identity or name,
                "POD_NAMESPACE": NAMESPACE,
                "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}",
            },
        )
        self._ports[name] = port
        return component

    def _python(self) -> list[str]:
        """How to run a module: on a cluster that ends with us, so that the operator does too."""
        return [sys.executable, "-m"] if self.cluster.is_lasting else [sys.executable, "-m", "e2e.lifeline"]

    def start_operator(self) -> Component:
        """Start one replica and wait until it works."""
        if not self._replicas:
            self._replicas.append(self.replica())
        self.operator.start()
        self.wait_ready(self.operator)
        return self.operator

    def wait_ready(self, replica: Component, seconds: float = READY_SECONDS) -> float:
        """Wait until a replica's readiness probe passes; returns how long that took, in seconds."""
        started = time.monotonic()
        while True:
            replica.require_running()
            if self.answers(replica, "/readyz"):
                return time.monotonic() - started
            if time.monotonic() - started > seconds:
                raise ClusterError(
                    f"{replica.name} is not ready after {seconds:.0f} s:\n{replica.log_tail()}"
                )
            time.sleep(0.02)  # between two looks

    def answers(self, replica: Component, path: str) -> bool:
        """Whether a replica answers a probe with 200."""
        try:
            return self._fetch(replica, path) is not None
        except (urllib.error.URLError, OSError):
            return False

    def metrics(self, replica: Component) -> dict[str, float]:
        """A replica's own figures, those without labels."""
        figures: dict[str, float] = {}
        for line in (self._fetch(replica, "/metrics") or "").splitlines():
            name, _, value = line.partition(" ")
            if not line.startswith("#") and "{" not in name:
                figures[name] = float(value)
        return figures

    def kinds(self, replica: Component, name: str) -> dict[str, float]:
        """A replica's figures of one name, by their label `kind`."""
        lines = (self._fetch(replica, "/metrics") or "").splitlines()
        prefix = f'{name}{{kind="'
        told = [line.removeprefix(prefix).split('"} ') for line in lines if line.startswith(prefix)]
        return {kind: float(value) for kind, value in told}

    def _fetch(self, replica: Component, path: str) -> str | None:
        url = f"http://127.0.0.1:{self._ports[replica.name]}{path}"
        with urllib.request.urlopen(url, timeout=5) as answer:
            return str(answer.read().decode()) if answer.status == 200 else None

    def stop(self) -> None:
        """End every replica."""
        for replica in self._replicas:
            replica.stop()

    def _container(self) -> dict[str, Any]:
        deployment = self.cluster.get("-n", NAMESPACE, "deployment", RELEASE)
        container: dict[str, Any] = deployment["spec"]["template"]["spec"]["containers"][0]
        return container

    def _service_account_directory(self) -> Path:
        """What kubelet would mount: the CA and a token of the chart's own account."""
        directory = self.account
        directory.mkdir(exist_ok=True)
        (directory / "ca.crt").write_bytes(self.cluster.ca.read_bytes())
        token = self.cluster.kubectl("-n", NAMESPACE, "create", "token", RELEASE, "--duration=24h")
        path = directory / "token"
        path.touch(mode=0o600)
        path.write_text(token)
        return directory
