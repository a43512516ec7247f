"""Completion: names of grants and pilots from the cluster, and the way in through `kubectl pilot <TAB>`.

kubectl asks the program `kubectl_complete-pilot` beside `kubectl-pilot`, with the words so far as arguments,
and reads a candidate a line and a last line `:0`, cobra's word for "files too where there is none".
"""

from __future__ import annotations

import os
import shlex
import sys
from contextlib import closing, suppress

import typer

from pilot_identity.cli.failures import CliError
from pilot_identity.cli.session import Session, collection

PROGRAM = "kubectl-pilot"
_VARIABLE = "_KUBECTL_PILOT_COMPLETE"
_DIRECTIVE = ":0"


def grant_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of grants that begin so."""
    return _names(ctx, "TaskGrant", incomplete)


def pilot_names(ctx: typer.Context, incomplete: str) -> list[str]:
    """Names of pilots that begin so."""
    return _names(ctx, "PilotIdentity", incomplete)


def _names(ctx: typer.Context, kind: str, incomplete: str) -> list[str]:
    """The first page's names; a cluster that cannot be asked has none, since nobody reads an error here."""
    given = {key: str(ctx.params.get(key) or "") for key in ("kubeconfig", "context", "namespace")}
    with suppress(CliError), closing(Session.open(**given)) as session:
        page = next(session.pages(collection(kind, session.namespace)))
        names = (item["metadata"]["name"] for item in page)
        return [name for name in names if name.startswith(incomplete)]
    return []


def main() -> None:
    """Be `kubectl_complete-pilot`."""
    from pilot_identity.cli.main import app  # noqa: PLC0415 - main's verbs complete by this module's names

    words = sys.argv[1:] or [""]
    asked = {_VARIABLE: "complete_bash", "COMP_WORDS": shlex.join([PROGRAM, *words])}
    os.environ.update(asked, COMP_CWORD=str(len(words)))
    with suppress(SystemExit):
        app(prog_name=PROGRAM)
    typer.echo(_DIRECTIVE)
