"""Picks a cluster, and says which and why.

In this order: one given on purpose (`--kubeconfig`, `$PILOT_IDENTITY_E2E_KUBECONFIG`, `$KUBECONFIG`); kind,
where Docker answers; `$KUBEBUILDER_ASSETS`; the binary that an earlier run has built; a build. What is asked
for on purpose is taken or is an error: the harness never goes on in silence with another cluster.
`--cluster` or `$PILOT_IDENTITY_E2E_CLUSTER` (given, kind, assets, built) skips the order.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from e2e.controlplane.access import Cluster
from e2e.controlplane.build import build, cached
from e2e.controlplane.cluster import ControlPlane
from e2e.controlplane.errors import BuildError, PickError
from e2e.controlplane.given import GivenCluster
from e2e.controlplane.kind import KindCluster, docker_answers
from e2e.controlplane.programs import Programs, on_path

GIVEN_BY = ("PILOT_IDENTITY_E2E_KUBECONFIG", "KUBECONFIG")
WANTED_BY = "PILOT_IDENTITY_E2E_CLUSTER"
ASSETS_BY = "KUBEBUILDER_ASSETS"


class Source(StrEnum):
    """Where a cluster comes from."""

    GIVEN = "given"
    KIND = "kind"
    ASSETS = "assets"
    BUILT = "built"


@dataclass(frozen=True)
class Choice:
    """A source, why it was chosen, and the file or directory that it needs (given, assets)."""

    source: Source
    reason: str
    path: Path | None = None


@dataclass(frozen=True)
class Circumstances:
    """All that the choice hangs on.

    Attributes:
        environment: The process's.
        kubeconfig: The `--kubeconfig` option.
        wanted: The `--cluster` option.
        docker_answers: Asked only where nothing on purpose comes first: it may take seconds.
    """

    environment: Mapping[str, str]
    kubeconfig: Path | None = None
    wanted: Source | None = None
    docker_answers: Callable[[], bool] = docker_answers


def choices(at_hand: Circumstances) -> Iterator[Choice]:
    """The choices in their order; a later one counts only where the one before could not be had.

    Raises:
        PickError: What is wanted was not told where to find.
    """
    given, assets = _given(at_hand), at_hand.environment.get(ASSETS_BY)
    name = at_hand.wanted or at_hand.environment.get(WANTED_BY)
    if name:
        yield _asked_for(name, given, assets)
    elif given is not None:
        yield given
    else:
        if at_hand.docker_answers():
            yield Choice(Source.KIND, "Docker answers, and no kubeconfig was given")
        if assets:
            yield Choice(Source.ASSETS, f"{ASSETS_BY} is set", Path(assets))
        else:
            reason = f"no kubeconfig was given, there is no cluster in Docker, and {ASSETS_BY} is not set"
            yield Choice(Source.BUILT, reason)


def pick(
    kubeconfig: Path | str | None = None,
    *,
    wanted: Source | None = None,
    say: Callable[[str], None] = print,
) -> Cluster:
    """A cluster that answers; use it in a `with`, or `stop` it.

    Args:
        kubeconfig: The `--kubeconfig` option.
        wanted: The `--cluster` option.
        say: Told which was picked and why, and what it cannot show.

    Raises:
        ClusterError: None can be had; the message is the last one's.
    """
    at_hand = Circumstances(os.environ, Path(kubeconfig) if kubeconfig else None, wanted)
    failure = PickError("there was no choice")
    for choice in choices(at_hand):
        try:
            cluster = _cluster(choice, say).start()
        except PickError as error:
            failure = error
            say(f"cluster: not {choice.source}, though {choice.reason}: {error}")
            continue
        say(f"cluster: {cluster.why}")
        if not cluster.can_control_components:
            say("cluster: its components are not ours: what restarts, pauses or kills them cannot be shown")
        return cluster
    raise failure


def assets_programs(directory: Path, say: Callable[[str], None]) -> Programs:
    """The programs of `KUBEBUILDER_ASSETS`, and helm from elsewhere.

    Raises:
        PickError: etcd or kube-apiserver is missing there.
    """
    programs = Programs.of_directory(directory, _helm(say))
    for name in ("etcd", "kube-apiserver"):
        if name not in programs.by_name():
            raise PickError(f"{ASSETS_BY}={directory} holds no {name}")
    if programs.controller_manager is None:
        say(
            f"cluster: {directory} holds no kube-controller-manager: nothing is garbage collected, namespaces"
            " have no default service account and do not go away; tests of these cannot pass"
        )
    return programs


def _cluster(choice: Choice, say: Callable[[str], None]) -> Cluster:
    match choice:
        case Choice(Source.GIVEN, path=Path() as path):
            return GivenCluster(_clients(), path, why=f"the cluster of {path}: {choice.reason}")
        case Choice(Source.ASSETS, path=Path() as path):
            return ControlPlane(assets_programs(path, say), why=f"the binaries in {path}: {choice.reason}")
        case Choice(Source.KIND):
            return KindCluster(_clients(), why=f"kind, through pytest-kind: {choice.reason}")
        case _:
            found = cached()
            binary = found or build()
            how = "is in the cache" if found else "was built just now"
            return ControlPlane(
                Programs.of_binary(binary), why=f"{binary.name}, which {how}: {choice.reason}"
            )


def _asked_for(name: str, given: Choice | None, assets: str | None) -> Choice:
    reason = f"{name} was asked for"
    if name not in set(Source):
        raise PickError(f"{WANTED_BY}={name}: must be one of {', '.join(Source)}")
    source = Source(name)
    if source is Source.GIVEN:
        if given is None:
            raise PickError(f"{reason}: give --kubeconfig, or set {' or '.join(GIVEN_BY)}")
        return given
    if source is Source.ASSETS:
        if not assets:
            raise PickError(f"{reason}: set {ASSETS_BY} to a directory with etcd and kube-apiserver")
        return Choice(source, reason, Path(assets))
    return Choice(source, reason)


def _given(at_hand: Circumstances) -> Choice | None:
    if at_hand.kubeconfig is not None:
        return Choice(Source.GIVEN, "--kubeconfig was given", at_hand.kubeconfig)
    for variable in GIVEN_BY:
        if value := at_hand.environment.get(variable):
            if os.pathsep in value:
                raise PickError(f"{variable}={value}: must name one file")
            return Choice(Source.GIVEN, f"{variable} is set", Path(value))
    return None


def _clients() -> Programs:
    """Clients for a cluster that is not of our binary: the caller's own first."""
    kubectl, helm = on_path("kubectl"), on_path("helm")
    if kubectl and helm:
        return Programs(kubectl=kubectl, helm=helm)
    binary = build()
    return Programs(kubectl=kubectl or binary, helm=helm or binary)


def _helm(say: Callable[[str], None]) -> Path | None:
    if found := on_path("helm"):
        return found
    try:
        return build()
    except BuildError as error:
        say(f"cluster: no helm, so no chart can be installed: {error}")
        return None
