"""Options that every verb has, and how a verb fails: decorated once, not written ten times."""

from __future__ import annotations

import errno
import functools
import inspect
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Annotated, Any, Concatenate, ParamSpec

import typer

from pilot_identity.cli.failures import CliError, ExitCode
from pilot_identity.cli.output import Format, tell
from pilot_identity.cli.session import Session
from pilot_identity.core.resources.parsing import ResourceError

Own = ParamSpec("Own")
_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
"""What a write fails with where there is no room; a closed pipe is no failure, and no file is read so."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a verb works, and how it prints.

    Attributes:
        session: speaks to the API server.
        namespace: the one that `-n` names, else the context's.
        is_named: whether `-n` named it.
        output: the format.
    """

    session: Session
    namespace: str
    is_named: bool
    output: Format


NamespaceOption = Annotated[
    str, typer.Option("--namespace", "-n", help="Namespace; by default the context's.", show_default=False)
]
OutputOption = Annotated[Format, typer.Option("--output", "-o", help="How to print the result.")]
ContextOption = Annotated[
    str, typer.Option("--context", help="Context of the kubeconfig.", show_default=False)
]
KubeconfigOption = Annotated[
    str,
    typer.Option(
        "--kubeconfig",
        help="Kubeconfig file; by default $KUBECONFIG, then ~/.kube/config, in a pod its service account.",
        show_default=False,
    ),
]
TimeoutOption = Annotated[
    str, typer.Option("--timeout", help="How long to wait at most, such as 90s or 10m; then exit code 3.")
]

_COMMON = (
    inspect.Parameter("namespace", inspect.Parameter.KEYWORD_ONLY, default="", annotation=NamespaceOption),
    inspect.Parameter(
        "output", inspect.Parameter.KEYWORD_ONLY, default=Format.TABLE, annotation=OutputOption
    ),
    inspect.Parameter("context", inspect.Parameter.KEYWORD_ONLY, default="", annotation=ContextOption),
    inspect.Parameter("kubeconfig", inspect.Parameter.KEYWORD_ONLY, default="", annotation=KubeconfigOption),
)


def in_place(verb: Callable[Concatenate[Place, Own], None]) -> Callable[..., None]:
    """Give a verb the common options; it gets them as the `Place` that is its first parameter.

    What it raises of `CliError` becomes a sentence on stderr and an exit code.
    """

    @functools.wraps(verb)
    def with_place(*, namespace: str, output: Format, context: str, kubeconfig: str, **own: Any) -> None:
        with failing_well():
            session = Session.open(kubeconfig=kubeconfig, context=context, namespace=namespace)
            try:
                verb(Place(session, session.namespace, bool(namespace), output), **own)  # type: ignore[call-arg]
            finally:
                session.close()

    _, *own = inspect.signature(verb, eval_str=True).parameters.values()
    keyword_only = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own]
    signature = inspect.Signature([*keyword_only, *_COMMON])
    # typer reads both: parameters and defaults here, types there.
    with_place.__signature__ = signature  # type: ignore[attr-defined]
    with_place.__annotations__ = {each.name: each.annotation for each in signature.parameters.values()}
    return with_place


@contextmanager
def failing_well() -> Iterator[None]:
    """Say what failed and what to do, and exit with the code for it."""
    try:
        yield
    except CliError as error:
        tell(f"error: {error}")
        if error.hint:
            tell(f"hint: {error.hint}")
        raise typer.Exit(error.exit_code) from error
    except ResourceError as error:
        tell(f"error: {error}")
        tell("hint: this kubectl-pilot is of another version than the API in the cluster; update it")
        raise typer.Exit(ExitCode.REFUSED) from error
    except OSError as error:
        if error.errno not in _FULL:
            raise
        # What is left in the buffer would fail once more at the end of the process.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        tell(f"error: the result cannot be written: {error.strerror}")
        raise typer.Exit(ExitCode.REFUSED) from error
    except KeyboardInterrupt as error:
        tell("interrupted; what was asked for already goes on")
        raise typer.Exit(ExitCode.INTERRUPTED) from error
