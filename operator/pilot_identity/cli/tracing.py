"""`trace`: from something that was found to the grant behind it, and to that grant's end."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path
from typing import Annotated

import typer

from pilot_identity.cli import telling
from pilot_identity.cli.clues import read_clues
from pilot_identity.cli.ending import end_grant, revocation
from pilot_identity.cli.failures import CliError
from pilot_identity.cli.files import STDIN, read_bounded
from pilot_identity.cli.options import Place, TimeoutOption, in_place
from pilot_identity.cli.output import Format, say, show_data
from pilot_identity.cli.reading import as_grant, duration
from pilot_identity.cli.session import reference
from pilot_identity.cli.traces import Result, View, look
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.task_grant import TaskGrant

MAX_BYTES = 1024 * 1024


@in_place
def trace(  # noqa: PLR0913, PLR0917 - typer reads a verb's options from its parameters
    place: Place,
    thing: Annotated[
        str,
        typer.Argument(
            metavar="THING",
            help="A file with a token, certificate, key, kubeconfig or Secret, '-' for stdin; or a serial, a "
            "jti, a Secret's name (or secret/NAME), grant/NAME, a SPIFFE ID. A token itself works too, but "
            "then your shell's history has it.",
            show_default=False,
        ),
    ],
    revoke: Annotated[
        bool, typer.Option("--revoke", help="End the grant, and with it its children.")
    ] = False,
    reason: Annotated[
        str, typer.Option("--reason", "-r", help="Why, for --revoke.")
    ] = "its credential leaked",
    operator_namespace: Annotated[
        str, typer.Option("--operator-namespace", help="Where the operator keeps its audit log.")
    ] = "pilot-identity-system",
    timeout: TimeoutOption = "1m",
) -> None:
    """Tell whose a found credential is, who asked for it and approved it, and whether it is alive.

    Looks at the grants that you may see, in all namespaces if you may, or in the one that -n names; then in
    the operator's audit log, if you may read it. Nothing that was given is believed or printed again.
    """
    patience = duration(timeout, "--timeout")
    path = Path(thing)
    text = read_bounded(path, MAX_BYTES, "THING") if path == STDIN or _is_file(path) else thing
    clues = read_clues(text)
    now = dt.datetime.now(dt.UTC)
    view = View(place)
    result = look(view, clues, operator_namespace)
    if revoke:
        result = _revoked(place, result, reason, patience)
    _show(place, result, now)
    if not result.is_found:
        raise CliError(
            "nothing is known of it" + (f" in namespace {place.namespace}" if not view.saw_all else ""),
            _where_else(result, view, operator_namespace),
        )


def _revoked(place: Place, result: Result, reason: str, timeout: Duration) -> Result:
    """End what was found, as far as it is sure that it was found."""
    sure = [each for each in result.traces if each.ground.is_sure]
    if not sure and result.traces:
        trace, grant = result.traces[0], result.traces[0].grant.metadata
        raise CliError(
            f"not revoked: of grant {grant.namespace}/{grant.name} {trace.ground}; it may be forged",
            f"if you are sure: kubectl pilot revoke {grant.name} -n {grant.namespace} --reason …",
        )
    if not sure and result.pilots:
        pilot = result.pilots[0].metadata
        raise CliError(
            f"not revoked: it is pilot {pilot.namespace}/{pilot.name}'s own certificate; it gives no access",
            f"to stop the whole pilot: kubectl pilot suspend {pilot.name} -n {pilot.namespace}",
        )
    ended: dict[str, TaskGrant] = {}
    for each in sure:
        metadata = each.grant.metadata
        if each.grant.status.phase.is_terminal:
            continue
        there = replace(place, namespace=metadata.namespace)
        ended[metadata.uid] = as_grant(end_grant(there, metadata.name, revocation(place, reason), timeout))
    now = [replace(each, grant=ended.get(each.grant.metadata.uid, each.grant)) for each in result.traces]
    return replace(result, ended=ended, traces=now)


def _where_else(result: Result, view: View, operator_namespace: str) -> str:
    shown = sorted({name for clue in result.clues if not clue.is_literal for name in clue.identifiers})
    what = f" for {' or '.join(shown)}" if shown else " for it"
    if result.refused:
        return (
            f"ended grants go after a while; who may read ConfigMaps in {operator_namespace} "
            f"can search the audit log (audit-group-*){what}"
            + ("" if view.saw_all else ", and other namespaces")
        )
    if not view.saw_all:
        return "name another namespace with -n, or ask somebody who may list grants everywhere"
    return f"neither a grant nor the audit log knows it; search the API server's own audit log{what}"


def _show(place: Place, result: Result, now: dt.datetime) -> None:
    if place.output is Format.NAME:
        for each in result.traces:
            say(reference("TaskGrant", each.grant.metadata.name))
    elif not place.output.is_for_people:
        show_data(telling.data(result, now), place.output)
    else:
        for line in telling.lines(result, now):
            say(line)


def _is_file(path: Path) -> bool:
    """Whether a file of that name is there; a token may be longer than any name can be."""
    try:
        return path.is_file()
    except OSError:
        return False
