"""`python -m e2e.controlplane up|down|status|user|prepare`: a control plane for a person to play with.

`up` writes one line on standard output, the `export` line, so that `eval "$(… up)"` does what one hopes.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from e2e.controlplane.build import build
from e2e.controlplane.cluster import ControlPlane
from e2e.controlplane.component import Component
from e2e.controlplane.errors import ClusterError
from e2e.controlplane.given import GivenCluster
from e2e.controlplane.lasting import Lasting, export_line
from e2e.controlplane.pick import ASSETS_BY, Circumstances, Source, assets_programs, choices
from e2e.controlplane.programs import Programs, on_path
from e2e.controlplane.recipe import cache_directory
from e2e.installation import Installation

NOT_RUNNING = 3  # as `systemctl status` has it
INTERRUPTED = 130  # as shells have it


def main(arguments: Sequence[str] | None = None) -> int:
    """Do as told; the exit code."""
    options = _parser().parse_args(arguments)
    try:
        return _do(options, Lasting(cache_directory()))
    except ClusterError as error:
        tell(str(error))
        return 1
    except KeyboardInterrupt:
        tell("interrupted: nothing is left running")
        return INTERRUPTED


def _do(options: argparse.Namespace, lasting: Lasting) -> int:
    match options.command:
        case "up":
            return up(lasting, options.kubeconfig)
        case "down":
            stopped = lasting.down()
            tell(f"stopped {', '.join(sorted(stopped))}" if stopped else "nothing was running")
            return 0
        case "prepare":
            return prepare()
        case "user":
            return user(lasting, options.name, options.group)
        case _:
            return status(lasting)


def up(lasting: Lasting, kubeconfig: Path | None) -> int:
    """Start one with the operator on it, or find the running one; or only check the one that was given."""
    if kubeconfig is not None:
        with GivenCluster(Programs(kubectl=on_path("kubectl") or build()), kubeconfig):
            tell(f"the cluster of {kubeconfig} answers: nothing is started")
        print(f"export KUBECONFIG={kubeconfig.absolute()}")
        return 0
    state, is_new = lasting.up(_programs, _operator)
    tell(f"a control plane with the operator {'runs' if is_new else 'runs already'}, at {state.server}")
    tell("then for example: kubectl get stage; kubectl explain pilotidentity.spec")
    tell(f"the operator's log: {state.logs['operator']}\nto stop it: make cluster-down\nin your shell:")
    print(export_line(state.kubeconfig, state.programs))
    return 0


def status(lasting: Lasting) -> int:
    """Tell what runs; 3 where not all of it does."""
    state = lasting.status()
    if state is None:
        tell("nothing runs; start one with: make cluster")
        return NOT_RUNNING
    tell(f"{state.server} in {state.directory}, since {state.started}")
    for name, (pid, _) in state.processes.items():
        tell(f"{name}: {f'process {pid}' if name in state.living else 'not running'}")
    print(export_line(state.kubeconfig, state.programs))
    return 0 if state.is_whole else NOT_RUNNING


def user(lasting: Lasting, name: str, groups: Sequence[str]) -> int:
    """Make a kubeconfig for a user of the running cluster, beside its admin's, and print its export line."""
    state = lasting.status()
    if state is None:
        tell("nothing runs; start one with: make cluster")
        return NOT_RUNNING
    with GivenCluster(Programs(kubectl=state.programs / "kubectl"), state.kubeconfig) as cluster:
        made = cluster.user(name, *groups)
        kept = state.kubeconfig.with_name(made.name)
        shutil.copy(made, kept)
    print(export_line(kept, state.programs))
    return 0


def prepare() -> int:
    """Build what stories need before they start, where a person can watch it; say which cluster they pick.

    Stories that run side by side each say so too, but pytest keeps that to itself.
    """
    choice = next(choices(Circumstances(os.environ)))
    tell(f"cluster: {choice.source}: {choice.reason}")
    if choice.source is Source.BUILT:
        build()
    return 0


def tell(line: str) -> None:
    """A line for the person, not for the shell."""
    print(line, file=sys.stderr, flush=True)


def _programs() -> Programs:
    if assets := os.environ.get(ASSETS_BY):
        return assets_programs(Path(assets), tell)
    return Programs.of_binary(build())


def _operator(plane: ControlPlane) -> Mapping[str, Component]:
    installation = Installation(plane)
    try:
        installation.install()
        return {"operator": installation.start_operator()}
    except BaseException:
        installation.stop()
        raise


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m e2e.controlplane", description="a control plane to play with"
    )
    parser.add_argument("--kubeconfig", type=Path, help="for up: use this cluster rather than start one")
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("up", help="start one, or find the running one; print the export line")
    commands.add_parser("down", help="stop it and remove its data")
    commands.add_parser("status", help="tell what runs")
    commands.add_parser("prepare", help="build what the stories need, if anything")
    person = commands.add_parser("user", help="a kubeconfig for a user, by client certificate")
    person.add_argument("name")
    person.add_argument("--group", action="append", default=[])
    return parser


if __name__ == "__main__":
    sys.exit(main())
