"""A control plane of the story's own, with a log that is old already, and an operator that archives it."""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from e2e import places
from e2e.admin import Admin
from e2e.audit_format.judges import Judges, judges
from e2e.audit_format.logs import Writer
from e2e.controlplane.build import build
from e2e.controlplane.cluster import Cluster, ControlPlane
from e2e.controlplane.programs import Programs
from e2e.installation import NAMESPACE, Installation
from pilot_identity.core.audit.checkpoint import LogSigner
from pilot_identity.core.audit.compacted import compact
from pilot_identity.core.audit.tiles import WIDTH
from pilot_identity.core.resources.metadata import GROUP

BUNDLES = 40
"""Three batches."""
SIZE = BUNDLES * WIDTH + 60
OLDER_THAN = "1s"


class Archives(Installation):
    """An installation whose operator archives into a directory of ours; the chart's is a pod's mount."""

    def __init__(self, cluster: Cluster, archive: Path, directory: Path) -> None:
        super().__init__(cluster, directory=directory)
        self._archive = archive

    def _container(self) -> dict[str, Any]:
        container = super()._container()
        return {**container, "args": [*container["args"], f"--archive-directory={self._archive}"]}


def old_log(writer: Writer) -> Iterator[dict[str, Any]]:
    """The ConfigMaps of a log that is compacted up to its last 60 entries."""
    groups = list(writer.groups(SIZE, of=64))
    entries = [entry for group in groups for entry in group.entries]
    edge: tuple[bytes, ...] = ()
    for first in range(0, BUNDLES * WIDTH, WIDTH):
        bundle = compact(first, edge, entries[first : first + WIDTH], writer.signer)
        edge = bundle.edge
        for name, data, binary in bundle.config_maps():
            metadata = {"name": str(name), "namespace": NAMESPACE, "labels": {f"{GROUP}/audit": "tile"}}
            body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": metadata, "immutable": True}
            yield {**body, "data": dict(data), "binaryData": dict(binary)}
    for group in groups[BUNDLES * WIDTH // 64 :]:
        yield dict(writer.config_map(group, NAMESPACE))


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane in which nobody minds what a cluster admin did before the chart came."""
    with ControlPlane(Programs.of_binary(build())) as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Admin]:
    """Speaks as the cluster's admin."""
    admin = Admin(cluster)
    yield admin
    admin.close()


@pytest.fixture(scope="module")
def entries(admin: Admin) -> Sequence[bytes]:
    """The log as it is before any operator: as if restored from a backup, key and all."""
    key = Ed25519PrivateKey.generate()
    writer = Writer(LogSigner("pilotidentity.dev/log/old", key))
    admin.create("/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
    secret = {
        "metadata": {"name": "audit-log-key"},
        "type": f"{GROUP}/audit-key",
        "data": {
            "origin": base64.b64encode(writer.signer.name.encode()).decode(),
            "ed25519.key": base64.b64encode(key.private_bytes_raw()).decode(),
        },
    }
    admin.create(places.secrets(NAMESPACE), secret)
    for body in old_log(writer):
        admin.create(places.core("configmaps"), body)
    return [writer.entry(number) for number in range(SIZE)]


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The volume."""
    return tmp_path_factory.mktemp("archive")


@pytest.fixture(scope="module")
def operator(
    cluster: Cluster, archive: Path, entries: Sequence[bytes], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Installation]:
    """The chart, told to archive; no operator runs yet."""
    del entries  # they were there before
    installation = Archives(cluster, archive, tmp_path_factory.mktemp("operator"))
    chosen = f"audit.archive.enabled=true,audit.archive.olderThan={OLDER_THAN}"
    installation.install("--set", chosen, "--set-json", 'audit.archive.volume={"emptyDir": {}}')
    yield installation
    installation.stop()


@pytest.fixture(scope="session")
def foreign() -> Judges:
    """Tessera's fsck and Go's packages."""
    return judges()
