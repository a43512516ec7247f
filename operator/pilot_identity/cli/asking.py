"""`request`: asks for a grant and, unless told otherwise, waits until it is there or refused."""

from __future__ import annotations

import datetime as dt
import secrets
from http import HTTPStatus
from pathlib import Path
from typing import Annotated, Any

import typer

from pilot_identity.cli.access import SYNTAX, parse_access
from pilot_identity.cli.completion import pilot_names
from pilot_identity.cli.failures import AnswerError, CliError, UsageError
from pilot_identity.cli.files import read_bounded
from pilot_identity.cli.options import Place, TimeoutOption, in_place
from pilot_identity.cli.output import Format, say, show_objects, tell
from pilot_identity.cli.reading import as_grant, duration
from pilot_identity.cli.session import Document, collection, one, reference
from pilot_identity.cli.text import ahead
from pilot_identity.cli.waiting import Target, wait_for
from pilot_identity.core.resources.conditions import ConditionType, find
from pilot_identity.core.resources.durations import Duration, format_duration
from pilot_identity.core.resources.metadata import API_VERSION
from pilot_identity.core.resources.task_grant import Phase, TaskGrant

MAX_CSR_BYTES = 8192
_SUFFIX_LENGTH = 5
_SUFFIX = "bcdfghjklmnpqrstvwxz2456789"
"""Kubernetes' own alphabet for generated names: no word comes of it, and nothing looks like another."""
_CSR_BEGIN = "-----BEGIN CERTIFICATE REQUEST-----"


@in_place
def request(  # noqa: PLR0913, PLR0917 - typer reads a verb's options from its parameters
    place: Place,
    pilot: Annotated[str, typer.Argument(help="The pilot to ask for.", autocompletion=pilot_names)],
    task: Annotated[str, typer.Option("--task", help="The task's id where it is run, such as TICKET-42.")],
    access: Annotated[
        list[str],
        typer.Option(
            "--access",
            help=f"A piece of the pilot's access as {SYNTAX}, for example tickets, tickets=read,comment or "
            "tickets=read@projects/billing/**. Without actions or resources: all of the entry's. "
            "May be repeated.",
        ),
    ],
    description: Annotated[str, typer.Option("--description", help="What is done, for who approves.")] = "",
    duration_: Annotated[str, typer.Option("--duration", help="How long the task may take.")] = "15m",
    audience: Annotated[
        list[str] | None,
        typer.Option(
            "--audience", help="Only tokens for this audience. May be repeated.", show_default=False
        ),
    ] = None,
    emergency: Annotated[
        bool,
        typer.Option(
            "--emergency", help="Break the glass: past approvals, short, loud, and a review is owed."
        ),
    ] = False,
    parent: Annotated[str, typer.Option("--parent", help="The grant whose child this is.")] = "",
    csr: Annotated[
        Path | None,
        typer.Option(
            "--csr",
            help="PEM certificate request, '-' for stdin. The key then stays where it is; no Secret is made.",
            show_default=False,
        ),
    ] = None,
    secret_name: Annotated[str, typer.Option("--secret-name", help="Name of the Secret to make.")] = "",
    name: Annotated[
        str, typer.Option("--name", help="Name of the grant.", show_default="the pilot's and a random suffix")
    ] = "",
    wait: Annotated[
        bool, typer.Option("--wait/--no-wait", help="Wait until it is issued or refused.")
    ] = True,
    timeout: TimeoutOption = "5m",
) -> None:
    """Ask for a grant: a piece of a pilot's reach, for one task, for a short time.

    Waits until the credentials are there, and tells what it waits for, such as approvals. The credentials are
    never printed: they are in the Secret, or with --csr in the grant's status.

    Example: kubectl pilot request invoice-triage --task TICKET-42 --access tickets=read --duration 30m
    """
    patience = duration(timeout, "--timeout")
    spec: dict[str, Any] = {
        "pilot": pilot,
        "task": {"id": task, **({"description": description} if description else {})},
        "access": parse_access(access),
        "duration": str(duration(duration_, "--duration")),
        "audience": audience or [],
        "parent": parent,
        "secretName": secret_name,
        "certificateRequest": _read_csr(csr) if csr is not None else "",
        "emergency": emergency,
    }
    _require_pilot(place, pilot)
    body = {
        "apiVersion": API_VERSION,
        "kind": "TaskGrant",
        "metadata": {"name": name or f"{pilot}-{_suffix()}"},
        # The API server stamps it where it can, and elsewhere wants exactly this.
        "spec": {key: value for key, value in spec.items() if value}
        | {"requestedBy": place.session.user().name},
    }
    made = place.session.create(collection("TaskGrant", place.namespace), body)
    grant = as_grant(made)
    if place.output.is_for_people:
        tell(f"{reference('TaskGrant', grant.metadata.name)} created")
    if wait:
        made = _wait(place, grant, patience)
    _show(place, made)
    phase = as_grant(made).status.phase
    if wait and phase is not Phase.ACTIVE:
        raise CliError(f"grant {grant.metadata.name} is {phase}: {_why(as_grant(made))}", _hint(phase))


def _require_pilot(place: Place, pilot: str) -> None:
    """Refuse a name that no pilot has, before a grant is made that would wait for one."""
    try:
        found = place.session.find(one("PilotIdentity", place.namespace, pilot))
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return  # who may ask for a pilot need not be allowed to read it
    if found is None:
        raise CliError(
            f"no pilot {pilot} in namespace {place.namespace}",
            "try `kubectl get pilots -A`",
        )


def _suffix() -> str:
    return "".join(secrets.choice(_SUFFIX) for _ in range(_SUFFIX_LENGTH))


def _read_csr(path: Path) -> str:
    text = read_bounded(path, MAX_CSR_BYTES, "--csr").strip()
    if not text.startswith(_CSR_BEGIN):
        # What it is instead might be the key itself, so not a word of it is shown.
        raise UsageError(f"--csr: the file must begin with {_CSR_BEGIN}", "make one with `openssl req -new`")
    return text + "\n"


def _wait(place: Place, asked: TaskGrant, timeout: Duration) -> Document:
    uid, told = asked.metadata.uid, ""
    last = "the operator has not looked at it yet; is it running?"

    def is_so(seen: Document | None) -> bool:
        nonlocal told, last
        if seen is None or seen["metadata"]["uid"] != uid:
            raise CliError(f"grant {asked.metadata.name} was deleted while it was waited for")
        grant = as_grant(seen)
        if grant.status.phase is Phase.ACTIVE or grant.status.phase.is_terminal:
            return True
        last = waits_for(grant) or last
        if last != told and grant.status.conditions:
            told = last
            tell(f"waiting: {last}")
        return False

    target = Target("TaskGrant", place.namespace, asked.metadata.name)
    found = wait_for(place.session, target, is_so=is_so, what=lambda: last, timeout=timeout)
    if found is None:
        raise CliError(f"grant {asked.metadata.name} is gone")
    return found


def waits_for(grant: TaskGrant) -> str:
    """What a grant that is not issued yet waits for, in a sentence; empty where nobody has looked at it."""
    wait = grant.status.approval
    if grant.status.phase is Phase.AWAITING_APPROVAL and wait is not None:
        by = f" (so far {', '.join(wait.approved_by)})" if wait.approved_by else ""
        missing = max(wait.required - len(wait.approved_by), 0)
        people = "person" if missing == 1 else "people"
        return (
            f"{missing} more {people} must approve{by}: `kubectl pilot approve {grant.metadata.name} "
            f"-n {grant.metadata.namespace} --reason …`"
        )
    return _why(grant)


def _why(grant: TaskGrant) -> str:
    ready = find(grant.status.conditions, ConditionType.READY)
    if grant.status.decision is not None and not grant.status.decision.allowed:
        return grant.status.decision.message
    return f"{ready.reason}: {ready.message}" if ready is not None else ""


def _hint(phase: Phase) -> str:
    if phase is Phase.DENIED:
        return "a denial is final: change what is asked, and request again"
    return "it ended; request again if the task goes on"


def _show(place: Place, made: Document) -> None:
    grant = as_grant(made)
    if place.output is Format.NAME:
        say(reference("TaskGrant", grant.metadata.name))
    elif not place.output.is_for_people:
        show_objects([made], place.output)
    elif grant.status.phase is Phase.ACTIVE and grant.status.expires_at is not None:
        credential = grant.status.credential
        where = f"Secret {credential.secret_name}" if credential and credential.secret_name else "its status"
        ends = ahead(grant.status.expires_at, dt.datetime.now(dt.UTC))
        say(f"grant {grant.metadata.name} is active and ends {ends}; its credentials are in {where}")
        say(f"when the task is done: kubectl pilot complete {grant.metadata.name} -n {place.namespace}")
    elif not grant.status.phase.is_terminal:
        say(f"grant {grant.metadata.name} asks {grant.spec.pilot} for {format_duration(grant.spec.duration)}")
