"""A control plane of its own: to end 1,500 grants is as much work as to issue them, to drop them is none."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e import roles
from e2e.admin import Admin
from e2e.audit import watch_groups
from e2e.controlplane.build import build
from e2e.controlplane.cluster import Cluster, ControlPlane
from e2e.controlplane.programs import Programs
from e2e.installation import Installation
from e2e.sightings import Sightings


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A control plane that ends with everything in it."""
    with ControlPlane(Programs.of_binary(build())) as plane:
        yield plane


@pytest.fixture(scope="module")
def admin(cluster: Cluster) -> Iterator[Admin]:
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
def operator(cluster: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Installation]:
    """The operator, on the chart's own account."""
    installation = Installation(cluster, directory=tmp_path_factory.mktemp("operator"))
    roles.make(cluster)
    installation.install(*roles.VALUES, "--set", "stages.sandbox.limits.requestsPerMinute=100000")
    installation.start_operator()
    yield installation
    installation.stop()
