"""A control plane of this folder's own, to be hurt: the session's cluster is other stories'."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from e2e.controlplane.build import build
from e2e.controlplane.cluster import ControlPlane
from e2e.controlplane.programs import Programs


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    """A control plane from the cached build."""
    with ControlPlane(Programs.of_binary(build())) as started:
        yield started
