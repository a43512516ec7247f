"""Fixtures of every story: one cluster for the session, the chart on it, the operator running."""

from __future__ import annotations

import itertools
import signal
from collections.abc import Iterator
from contextlib import nullcontext

import pytest

from e2e import places, roles
from e2e.admin import Admin
from e2e.controlplane.cluster import Cluster
from e2e.controlplane.pick import pick
from e2e.installation import Installation

LONG = (
    "own_rights",
    "audit_log",
    "access_seen",
    "leadership",
    "fairness",
    "proof",
    "closing",
    "limits",
    "cli",
    "weather",
)
"""The folders that take a minute and more: busy ones beside those that mostly wait.

First of all the one that wants a control plane that nobody has killed yet: one that starts refuses for a
moment what it allows.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tell the long stories first, so that no worker begins one when the others are done."""

    def turn(item: pytest.Item) -> int:
        folder = item.path.parent.name
        return LONG.index(folder) if folder in LONG else len(LONG)

    items.sort(key=turn)


@pytest.fixture(scope="session", autouse=True)
def _interruptible() -> None:
    """Let what the stories start hear SIGINT: a shell's background job, as CI may be, ignores it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope="session")
def cluster(request: pytest.FixtureRequest) -> Iterator[Cluster]:
    """A real cluster; the line that says which and why is shown.

    `--kubeconfig` names another; the option is pytest-kind's own.
    """
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    with capture.global_and_fixture_disabled() if capture is not None else nullcontext():
        picked = pick(request.config.getoption("kubeconfig"))
        cluster = picked.__enter__()
    try:
        yield cluster
    finally:
        picked.__exit__(None, None, None)


@pytest.fixture(scope="session")
def admin(cluster: Cluster) -> Iterator[Admin]:
    """Speaks as the cluster's admin."""
    admin = Admin(cluster)
    yield admin
    admin.close()


@pytest.fixture(scope="session")
def installed(cluster: Cluster) -> Installation:
    """The chart, installed by helm, with wide limits, and with roles that grants may be bound to."""
    installation = Installation(cluster)
    roles.make(cluster)
    installation.install(*roles.VALUES, "--set", "stages.sandbox.limits.requestsPerMinute=100000")
    return installation


@pytest.fixture(scope="session")
def operator(installed: Installation) -> Iterator[Installation]:
    """The operator, running on the chart's own account."""
    installed.start_operator()
    yield installed
    installed.stop()


_numbers = itertools.count(1)


@pytest.fixture
def namespace(admin: Admin) -> str:
    """A namespace of the test's own."""
    name = f"story-{next(_numbers)}"
    admin.create(places.namespaces(), {"metadata": {"name": name}})
    return name
