"""Options that every verb which reads a log has: where it is, and by which key it is verified."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from enum import StrEnum
from typing import Annotated, Any, Concatenate

import typer

from pilot_identity.cli.audit.reading import OpenLog, Where, opened
from pilot_identity.cli.options import ContextOption, KubeconfigOption, failing_well


class Output(StrEnum):
    """How results are printed."""

    TABLE = "table"
    JSON = "json"


FromOption = Annotated[
    str,
    typer.Option(
        "--from",
        help="A directory or a URL with the log in tiles; by default the cluster.",
        metavar="DIR|URL",
        show_default=False,
    ),
]
LogNamespaceOption = Annotated[
    str,
    typer.Option(
        "--namespace", "-n", help="The operator's; by default pilot-identity-system.", show_default=False
    ),
]
VkeyOption = Annotated[
    str,
    typer.Option(
        "--vkey",
        help="The log's verifier key, or a file with it; by default the one seen before, else the published.",
        show_default=False,
    ),
]
OutputOption = Annotated[
    Output, typer.Option("--output", "-o", help="How to print; JSON has each entry in one line.")
]
WitnessOption = Annotated[
    list[str] | None,
    typer.Option(
        "--witness",
        help="A witness's verifier key, or a file with it; may be repeated. Each must have cosigned the log.",
        metavar="VKEY",
        show_default=False,
    ),
]
WitnessUrlOption = Annotated[
    list[str] | None,
    typer.Option(
        "--witness-url",
        help="Ask a witness there for the head that it cosigned last; may be repeated.",
        metavar="URL",
        show_default=False,
    ),
]
RequireWitnessOption = Annotated[
    int | None,
    typer.Option(
        "--require-witness", min=0, help="How many of them are enough; by default all.", show_default=False
    ),
]
WitnessedWithinOption = Annotated[
    str,
    typer.Option(
        "--witnessed-within",
        help="What is in the log for longer must be under a head cosigned no longer ago, such as 1h.",
        metavar="DURATION",
        show_default=False,
    ),
]

ArchiveOption = Annotated[
    str,
    typer.Option(
        "--archive",
        help="Where the part of the log is that left the cluster for the archive.",
        metavar="DIR|URL",
        show_default=False,
    ),
]

_COMMON = tuple(
    inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default="", annotation=annotation)
    for name, annotation in (
        ("place", FromOption),
        ("archive", ArchiveOption),
        ("vkey", VkeyOption),
        ("namespace", LogNamespaceOption),
        ("context", ContextOption),
        ("kubeconfig", KubeconfigOption),
    )
)


def on_log(verb: Callable[Concatenate[OpenLog, ...], None]) -> Callable[..., None]:
    """Give a verb the common options; it gets the log that they name as its first parameter.

    What it raises of `CliError` becomes a sentence on stderr and an exit code.
    """

    @functools.wraps(verb)
    def with_log(  # noqa: PLR0913 - the common options
        *, place: str, archive: str, vkey: str, namespace: str, context: str, kubeconfig: str, **own: Any
    ) -> None:
        where = Where(place, namespace, context, kubeconfig, vkey, archive)
        with failing_well(), opened(where) as log:
            verb(log, **own)

    _, *own = inspect.signature(verb, eval_str=True).parameters.values()
    # Arguments keep their place before the options, which is their order on the command line.
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    signature = inspect.Signature([*keyword_only, *_COMMON])
    # typer reads both: parameters and defaults here, types there.
    with_log.__signature__ = signature  # type: ignore[attr-defined]
    with_log.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    return with_log
