"""A control plane of the story's own: its log will be rewritten, by one whom no policy holds."""

from __future__ import annotations

import itertools
import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from e2e import places, roles
from e2e.admin import Admin
from e2e.controlplane.build import build
from e2e.controlplane.cluster import Cluster, ControlPlane, free_ports
from e2e.controlplane.component import Component
from e2e.controlplane.programs import Programs
from e2e.installation import ROOT, Installation
from e2e.patience import until
from e2e.stories.play import Play
from e2e.stories.witness.forger import Forger

HOME = "pilot-identity-witness"
"""The witness's namespace, its account, its Deployment."""
SECONDS = 60.0


@dataclass
class Witness:
    """The chart's witness as kubelet would run it, on a token of its own account.

    Attributes:
        port: where it takes heads.
        http_port: its probes and metrics.
    """

    cluster: Cluster
    admin: Admin
    directory: Path
    port: int
    http_port: int
    component: Component = field(init=False)

    def __post_init__(self) -> None:
        """Make the process; it is not started yet."""
        deployment = self.cluster.get("-n", HOME, "deployment", HOME)
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        address = urlsplit(self.cluster.server)
        account = self.directory / "witness-account"
        account.mkdir()
        (account / "ca.crt").write_bytes(self.cluster.ca.read_bytes())
        (account / "token").touch(mode=0o600)
        token = self.cluster.kubectl("-n", HOME, "create", "token", HOME, "--duration=24h")
        (account / "token").write_text(token)
        # Of two ports the last one counts.
        own = (f"--port={self.port}", f"--http-port={self.http_port}")
        self.component = Component(
            "witness",
            [sys.executable, "-m", "e2e.lifeline", "pilot_identity", *container["args"], *own],
            self.directory / "witness.log",
            environment={
                "KUBECONFIG": "",
                "KUBERNETES_SERVICE_HOST": address.hostname or "",
                "KUBERNETES_SERVICE_PORT": str(address.port),
                "PILOT_IDENTITY_SERVICE_ACCOUNT_DIR": str(account),
                "POD_NAMESPACE": HOME,
                "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}",
            },
            is_ready=self._is_ready,
        )

    @property
    def url(self) -> str:
        """Its submission prefix, and its monitoring prefix."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def vkey(self) -> str:
        """As it publishes it."""
        state = self.admin.get(places.core("configmaps", HOME, "witness-state"))
        return str(state["data"]["vkey"]).strip()

    def inconsistent(self) -> float:
        """How many heads it saw that its log signed and that do not go on from what it had cosigned."""
        name = "pilot_identity_witness_inconsistent_total "
        lines = self._fetch("/metrics").splitlines()
        return next(float(line.removeprefix(name)) for line in lines if line.startswith(name))

    def _is_ready(self) -> bool:
        try:
            return bool(self._fetch("/readyz"))
        except OSError:
            return False

    def _fetch(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.http_port}{path}", timeout=5) as answer:
            return str(answer.read().decode())


Audit = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane whose log may be rewritten."""
    with ControlPlane(Programs.of_binary(build())) as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Admin]:
    """Speaks as the cluster's admin."""
    admin = Admin(cluster)
    yield admin
    admin.close()


@pytest.fixture(scope="module")
def witness(cluster: Cluster, admin: Admin, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Witness]:
    """The witness, introduced to the log by its key; the operator runs without it until then."""
    alone = Installation(cluster, directory=tmp_path_factory.mktemp("alone"))
    roles.make(cluster)
    alone.install(*roles.VALUES)
    alone.start_operator()
    alone.stop()
    log = admin.get(places.core("configmaps", name="audit-verifier"))["data"]["vkey"].strip()
    watched = {"enabled": True, "logs": [log], "trustOnFirstUse": True}
    alone.install(*roles.VALUES, "--set-json", f"witness={json.dumps(watched)}")
    witness = Witness(cluster, admin, tmp_path_factory.mktemp("witness"), *free_ports(2))
    witness.component.start()
    asked = [{"vkey": witness.vkey, "url": witness.url}]
    alone.install("--reuse-values", "--set-json", f"audit.witnesses={json.dumps(asked)}")
    yield witness
    witness.component.stop()


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, witness: Witness, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The operator with the arguments that the chart gives it once it has a witness."""
    del witness
    installation = Installation(cluster, directory=tmp_path_factory.mktemp("operator"))
    installation.start_operator()
    yield installation
    installation.stop()


_numbers = itertools.count(1)


@pytest.fixture
def play(admin: Admin, cluster: Cluster, operator: Installation) -> Play:
    """A namespace of the story's own, under an operator whose log is witnessed."""
    name = f"witnessed-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    operator.wait_ready(operator.operator)
    return Play(admin, name)


@pytest.fixture
def forger(cluster: Cluster, admin: Admin) -> Forger:
    """Has done nothing yet."""
    return Forger(cluster, admin)


@pytest.fixture
def audit(cluster: Cluster, tmp_path: Path) -> Audit:
    """`kubectl pilot audit` by somebody who never saw the log before."""
    numbers = itertools.count(1)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "pilot_identity.cli", "audit", *arguments],
            env=cluster.environment(cluster.kubeconfig)
            | {
                "PYTHONPATH": f"{ROOT / 'operator'}{os.pathsep}{ROOT}",
                "XDG_STATE_HOME": str(tmp_path / str(next(numbers))),
                "NO_COLOR": "1",
            },
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )

    return run


def cosigned(installation: Installation, beyond: int = 0) -> int:
    """Wait until every entry is cosigned, and more than `beyond`; returns how many."""

    def look() -> int:
        figures = installation.metrics(installation.operator)
        is_done = figures["pilot_identity_log_uncosigned_entries"] == 0
        size = int(figures["pilot_identity_log_cosigned_entries"])
        return size if is_done and size > beyond else 0

    return until(look, "the log's head is cosigned", seconds=SECONDS)
