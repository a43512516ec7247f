"""What the tests of this folder share: kubectl as an admin or as anyone."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from subprocess import CompletedProcess

import pytest

from e2e.controlplane.cluster import Cluster


@pytest.fixture(scope="session")
def kubectl(cluster: Cluster) -> Callable[..., CompletedProcess[str]]:
    """Run kubectl as an admin: `kubectl("get", "pods", stdin=…, check=False)`."""
    return partial(cluster.run, "kubectl")
