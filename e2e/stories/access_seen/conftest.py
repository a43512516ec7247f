"""A control plane of the story's own: its API server posts to the operator's audit webhook."""

from __future__ import annotations

import http.client
import itertools
import json
import ssl
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from e2e import roles
from e2e.admin import Admin
from e2e.controlplane import flags, pki
from e2e.controlplane.build import build
from e2e.controlplane.cluster import Cluster, ControlPlane, free_ports
from e2e.controlplane.programs import Programs
from e2e.installation import Installation
from e2e.stories.play import Play

LOCALHOST = "localhost"


@dataclass(frozen=True, slots=True)
class Doors:
    """The operator's HTTPS endpoints, and who may knock.

    Attributes:
        directory: certificates and keys.
    """

    directory: Path
    authority: pki.Authority
    webhook_port: int
    activity_port: int

    @property
    def config(self) -> Path:
        """The API server's kubeconfig for the webhook."""
        return self.directory / "webhook.kubeconfig"

    def arguments(self) -> list[str]:
        """The operator's."""
        return [
            f"--tls-certificate={self.directory / 'operator.crt'}",
            f"--tls-key={self.directory / 'operator.key'}",
            f"--webhook-port={self.webhook_port}",
            f"--webhook-client-ca={self.directory / 'ca.crt'}",
            "--webhook-client-name=kube-apiserver",
            f"--activity-port={self.activity_port}",
        ]

    def trust(self, client: tuple[Path, Path] | None = None) -> ssl.SSLContext:
        """A client's TLS, with its own certificate and key where it has them."""
        context = ssl.create_default_context(cafile=str(self.directory / "ca.crt"))
        if client is not None:
            context.load_cert_chain(*client)
        return context

    def post(
        self,
        port: int,
        path: str,
        body: Any,
        *,
        token: str = "",
        client: tuple[Path, Path] | None = None,
    ) -> tuple[int, str]:
        """Post JSON; returns the status and the text."""
        headers = {"Content-Type": "application/json"}
        if token:
            headers["Authorization"] = f"Bearer {token}"
        connection = http.client.HTTPSConnection(LOCALHOST, port, context=self.trust(client), timeout=10)
        try:
            connection.request("POST", path, json.dumps(body), headers)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def report(
        self, *activities: Mapping[str, Any], token: str = "", client: tuple[Path, Path] | None = None
    ) -> tuple[int, Any]:
        """Report activities; returns the status and the decoded answer."""
        body = {"activities": activities}
        status, text = self.post(self.activity_port, "/v1/activities", body, token=token, client=client)
        return status, json.loads(text)


class Listening(Installation):
    """An installation whose operator is given more arguments."""

    def __init__(self, cluster: Cluster, arguments: Sequence[str], directory: Path) -> None:
        super().__init__(cluster, directory=directory)
        self._arguments = list(arguments)

    def _container(self) -> dict[str, Any]:
        container = super()._container()
        return {**container, "args": [*container["args"], *self._arguments]}


@pytest.fixture(scope="module")
def doors(tmp_path_factory: pytest.TempPathFactory) -> Doors:
    """Certificates for both sides, made before either starts."""
    directory, now = tmp_path_factory.mktemp("doors"), datetime.now(UTC)
    authority = pki.Authority("pilot-identity endpoints", now)
    authority.credential.write(directory, "ca")
    authority.server("operator", [LOCALHOST], [pki.LOOPBACK], now).write(directory, "operator")
    made = Doors(directory, authority, *free_ports(2))
    client = authority.user("kube-apiserver", (), now)
    url = f"https://{LOCALHOST}:{made.webhook_port}/v1/audit-events"
    pki.write_private(made.config, pki.kubeconfig(url, authority.certificate, "kube-apiserver", client))
    return made


@pytest.fixture(scope="module")
def cluster(doors: Doors) -> Iterator[Cluster]:
    """A control plane that posts its audit events."""
    more = {"kube-apiserver": flags.audit_webhook(doors.config)}
    with ControlPlane(Programs.of_binary(build()), more_flags=more) as plane:
        yield plane


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, doors: Doors, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The operator, listening."""
    installation = Listening(cluster, doors.arguments(), tmp_path_factory.mktemp("operator"))
    roles.make(cluster)
    installation.install(*roles.VALUES, "--set", "stages.sandbox.limits.requestsPerMinute=100000")
    installation.start_operator()
    yield installation
    installation.stop()


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Admin]:
    """Speaks as the cluster's admin."""
    admin = Admin(cluster)
    yield admin
    admin.close()


_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: Cluster) -> str:
    """A namespace of the test's own."""
    name = f"seen-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def play(admin: Admin, operator: Installation, namespace: str) -> Iterator[Play]:
    """A namespace of the story's own, under an operator that works."""
    operator.wait_ready(operator.operator)
    play = Play(admin, namespace)
    yield play
    play.end()
