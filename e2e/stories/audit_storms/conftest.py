"""A control plane of the story's own, so that nobody else minds when its parts are killed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from e2e import roles
from e2e.admin import Admin
from e2e.audit import watch_groups
from e2e.controlplane.build import build
from e2e.controlplane.cluster import ControlPlane
from e2e.controlplane.programs import Programs
from e2e.installation import Installation
from e2e.sightings import Sightings
from e2e.stories.audit_log.auditor import Auditor
from e2e.stories.kubelet import Kubelet
from e2e.stories.play import Play


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    """Its storage is ours to kill."""
    with ControlPlane(Programs.of_binary(build())) as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(cluster: ControlPlane) -> Iterator[Admin]:
    """Speaks as the cluster's admin."""
    admin = Admin(cluster)
    yield admin
    admin.close()


@pytest.fixture(scope="module")
def groups(admin: Admin) -> Iterator[Sightings]:
    """Every group of the log, also those that are compacted meanwhile."""
    with watch_groups(admin) as groups:
        yield groups


@pytest.fixture(scope="module")
def operator(cluster: ControlPlane, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The operator under a kubelet, which starts it again whenever it ends."""
    installation = Installation(cluster, directory=tmp_path_factory.mktemp("operator"))
    roles.make(cluster)
    installation.install(*roles.VALUES, "--set", "stages.sandbox.limits.requestsPerMinute=100000")
    installation.start_operator()
    with Kubelet(installation.operator) as kubelet:
        yield installation
        print(f"the operator ended with {kubelet.endings}")
    installation.stop()


_numbers = itertools.count(1)


@pytest.fixture
def namespace(cluster: ControlPlane) -> str:
    """A namespace of the test's own."""
    name = f"storm-{next(_numbers)}"
    cluster.kubectl("create", "namespace", name)
    return name


@pytest.fixture
def play(admin: Admin, groups: Sightings, operator: Installation, namespace: str) -> Iterator[Play]:
    """A namespace of the story's own, under an operator that works."""
    operator.wait_ready(operator.operator)
    play = Play(admin, namespace, groups)
    yield play
    play.end()


@pytest.fixture
def auditor(cluster: ControlPlane, play: Play, groups: Sightings, tmp_path: Path) -> Auditor:
    """Has seen nothing yet."""
    return Auditor(cluster, play.admin, tmp_path, groups)
