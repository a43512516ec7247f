"""The program `kubectl-pilot`: its verbs in one table."""

from __future__ import annotations

from typing import Annotated

import typer

from pilot_identity import __version__
from pilot_identity.cli import approving, asking, completion, ending, inventory, tracing
from pilot_identity.cli.audit.commands import app as audit

app = typer.Typer(
    name=completion.PROGRAM,
    no_args_is_help=True,
    # Its tracebacks show local variables, among them what may be a token.
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
    help="Ask for, approve, end and trace the grants of AI and automation pilots.",
    epilog="Exit codes: 0 done; 1 refused, not found or not reachable; 2 wrong usage, nothing was sent; "
    "3 not within --timeout, it may still happen; 130 interrupted.",
)

VERBS = (
    asking.request,
    approving.approve,
    approving.deny,
    approving.review,
    ending.complete,
    ending.revoke,
    ending.suspend,
    ending.resume,
    inventory.grants,
    tracing.trace,
)

for _verb in VERBS:
    app.command(_verb.__name__)(_verb)
app.add_typer(audit, name="audit")


def _show_version(*, is_asked: bool) -> None:
    if is_asked:
        typer.echo(f"kubectl-pilot {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    *,
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Print the version and end.",
            is_eager=True,
            callback=lambda asked: _show_version(is_asked=asked),
        ),
    ] = False,
) -> None:
    del version  # its callback has ended the program


def main() -> None:
    """Run the program and exit with its code."""
    app(prog_name=completion.PROGRAM)
