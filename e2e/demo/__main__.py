"""`python -m e2e.demo`: sets up all that it needs, tells the story, and leaves nothing running."""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from e2e.controlplane.access import Cluster
from e2e.controlplane.errors import ClusterError
from e2e.controlplane.given import GivenCluster
from e2e.controlplane.pick import pick
from e2e.demo.screen import Screen, StoryError
from e2e.demo.story import TEAM, Story
from e2e.installation import NAMESPACE, RELEASE, Installation

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130


def _terminate(number: int, _: FrameType | None) -> None:
    """End as on Ctrl-C, so that everything is put away."""
    raise KeyboardInterrupt(signal.Signals(number).name)


@contextmanager
def _installed(cluster: Cluster, screen: Screen) -> Iterator[Installation]:
    """The chart, and the operator running on its account; both are taken away where the cluster stays."""
    stays = isinstance(cluster, GivenCluster)
    if stays:
        _require_free(cluster)
    with tempfile.TemporaryDirectory(prefix="pilot-identity-demo-") as directory:
        installation = Installation(cluster, directory=Path(directory))
        try:
            started = time.monotonic()
            installation.install()
            screen.step(f"helm installed charts/pilot-identity in {NAMESPACE} ({_since(started)})")
            started = time.monotonic()
            operator = installation.start_operator()
            screen.step(
                f"the operator runs on the chart's own ServiceAccount, process {operator.pid} "
                f"({_since(started)})"
            )
            yield installation
        finally:
            if stays:
                _take_away(cluster, screen)
            installation.stop()


def _since(started: float) -> str:
    return f"{time.monotonic() - started:.1f} s"


def _require_free(cluster: Cluster) -> None:
    """Make sure that nobody's installation is touched."""
    here = cluster.run("kubectl", "get", "crd", "taskgrants.pilotidentity.dev", check=False)
    team = cluster.run("kubectl", "get", "namespace", TEAM, check=False)
    if here.returncode == 0 or team.returncode == 0:
        raise ClusterError(
            f"This cluster has pilot-identity or a namespace {TEAM!r} already; the demo would disturb it. "
            "Unset KUBECONFIG to get a control plane of its own."
        )


def _take_away(cluster: Cluster, screen: Screen) -> None:
    """Undo what the demo did to a cluster that goes on; pilots first, while the operator can withdraw."""
    screen.step("takes away what it made on this cluster")
    gone = ("--ignore-not-found", "--timeout=60s")
    cluster.run("kubectl", "delete", "namespace", TEAM, *gone, check=False)
    cluster.run("helm", "uninstall", RELEASE, "--namespace", NAMESPACE, "--ignore-not-found", check=False)
    crds = [f"crd/{kind}.pilotidentity.dev" for kind in _KINDS]
    cluster.run("kubectl", "delete", *crds, *gone, check=False)
    cluster.run("kubectl", "delete", "namespace", NAMESPACE, *gone, check=False)


_KINDS = ("stagepolicies", "pilotidentities", "taskgrants", "approvals")


def _play(kubeconfig: str | None, screen: Screen) -> None:
    with pick(kubeconfig) as cluster, tempfile.TemporaryDirectory(prefix="demo-") as scratch:
        environment = {**cluster.environment(), "dir": scratch}
        screen.speak_to(environment)
        with _installed(cluster, screen):
            started = time.monotonic()
            Story(cluster, screen, Path(scratch)).tell()
            screen.step(f"the story took {_since(started)}")
    screen.step("everything that was started is stopped")
    screen.say("To play on: make cluster. The manifests are in docs/examples.")


def main() -> int:
    """Run the program; returns its exit code."""
    parser = argparse.ArgumentParser(prog="python -m e2e.demo", description=__doc__)
    parser.add_argument("--kubeconfig", help="play on this cluster; by default one is started")
    chosen = parser.parse_args()
    signal.signal(signal.SIGTERM, _terminate)
    screen = Screen()
    try:
        _play(chosen.kubeconfig, screen)
    except KeyboardInterrupt:
        screen.fail("It was interrupted.")
        return EXIT_INTERRUPTED
    except (ClusterError, StoryError, subprocess.TimeoutExpired) as error:
        screen.fail(str(error))
        return EXIT_FAILED
    return 0


if __name__ == "__main__":
    sys.exit(main())
