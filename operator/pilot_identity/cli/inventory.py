"""`grants`: the inventory of what is outstanding, with who answers for it and when it ends."""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Annotated, Any

import typer

from pilot_identity.cli.access import format_access
from pilot_identity.cli.completion import grant_names
from pilot_identity.cli.failures import AnswerError, CliError, UsageError
from pilot_identity.cli.options import Place, in_place
from pilot_identity.cli.output import Format, say, show_data, show_table, tell
from pilot_identity.cli.reading import grants as read_grants
from pilot_identity.cli.reading import pilots as read_pilots
from pilot_identity.cli.session import reference
from pilot_identity.cli.text import ago, ahead
from pilot_identity.core.resources.conditions import ConditionType, find
from pilot_identity.core.resources.pilot_identity import Owners
from pilot_identity.core.resources.task_grant import Phase, TaskGrant
from pilot_identity.core.resources.timestamps import format_timestamp


@in_place
def grants(  # noqa: PLR0913, PLR0917 - typer reads a verb's options from its parameters
    place: Place,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[GRANT...]", help="Only these.", show_default=False, autocompletion=grant_names
        ),
    ] = None,
    all_namespaces: Annotated[
        bool, typer.Option("--all-namespaces", "-A", help="In all namespaces.")
    ] = False,
    pilot: Annotated[str, typer.Option("--pilot", help="Only of this pilot.")] = "",
    owner: Annotated[str, typer.Option("--owner", help="Only of pilots that this person owns.")] = "",
    requester: Annotated[str, typer.Option("--requester", help="Only what this user asked for.")] = "",
    stage: Annotated[str, typer.Option("--stage", help="Only in this stage.")] = "",
    phase: Annotated[
        list[Phase] | None,
        typer.Option("--phase", case_sensitive=False, help="Only in this phase. May be repeated."),
    ] = None,
    ended: Annotated[
        bool, typer.Option("--ended", help="Also those that ended and left nothing behind.")
    ] = False,
) -> None:
    """List what is outstanding: every grant that waits or is active, and who answers for it.

    A grant that ended is listed as long as a copy of its credential could still pass a check that asks
    nobody (column RESIDUAL of -o wide); --ended lists the others too. LAST USE is as the API server's audit
    and tools have told so far, a minute late; `-` where nobody told of any.
    """
    if all_namespaces and (names or place.is_named):
        raise UsageError("-A lists all namespaces: leave out -n and names")
    namespace = "" if all_namespaces else place.namespace
    now = dt.datetime.now(dt.UTC)
    owners = _owners(place, namespace)
    lines = [
        Line(grant, owners.get((grant.metadata.namespace, grant.spec.pilot)), now)
        for grant in read_grants(place.session, namespace).values()
    ]
    if names:
        _demand(names, lines, namespace)
    wanted = [
        line
        for line in lines
        if (not names or line.grant.metadata.name in names)
        and (names or ended or phase or line.is_outstanding)
        and (not phase or line.grant.status.phase in phase)
        and (not pilot or line.grant.spec.pilot == pilot)
        and (not owner or owner in line.owners)
        and (not requester or line.grant.spec.requested_by == requester)
        and (not stage or line.grant.status.stage == stage)
    ]
    _show(place, wanted, is_everywhere=all_namespaces)


@dataclass(frozen=True, slots=True)
class Line:
    """One grant of the inventory.

    Attributes:
        named: the pilot's owners now; None where the pilot is gone or may not be seen.
        now: when the inventory was taken.
    """

    grant: TaskGrant
    named: Owners | None
    now: dt.datetime

    @property
    def residual_until(self) -> dt.datetime | None:
        """Until when a copy could still pass an offline check, after the grant's end."""
        closure = self.grant.status.closure
        return closure.residual_until if closure is not None else None

    @property
    def is_outstanding(self) -> bool:
        """Whether anything of it works, may come to work, or could still be believed."""
        residual = self.residual_until
        return not self.grant.status.phase.is_terminal or (residual is not None and residual > self.now)

    @property
    def owners(self) -> tuple[str, ...]:
        """Who answers for it: the pilot's owners, or those that it had when it was decided."""
        if self.named is not None:
            return tuple(dict.fromkeys((self.named.technical, self.named.business)))
        decision = self.grant.status.decision
        return decision.owners if decision is not None else ()

    @property
    def last_use(self) -> dt.datetime | None:
        """When it was last used, as far as somebody told."""
        usage = self.grant.status.usage
        return usage.last_used if usage is not None else None

    @property
    def ended_at(self) -> dt.datetime | None:
        """When its access was cut, before its time or at it."""
        closure = self.grant.status.closure
        return closure.withdrawn_at if closure is not None else None

    @property
    def ends(self) -> dt.datetime | None:
        """When it ended, else when its time is up; a grant that was never issued has no end."""
        return self.ended_at or (
            None if self.grant.status.phase.is_terminal else self.grant.status.expires_at
        )

    @property
    def access(self) -> str:
        """What was asked, as `--access` takes it."""
        asked = self.grant.spec.access
        return " ".join(format_access(each.name, each.actions, each.resources) for each in asked)

    def cells(self, *, is_wide: bool, is_everywhere: bool) -> tuple[str, ...]:
        """The line of the table."""
        grant = self.grant
        metadata, spec, status = grant.metadata, grant.spec, grant.status
        narrow = (
            metadata.name,
            spec.pilot,
            status.stage,
            status.phase.value,
            self.owners[0] if self.owners else "",
            spec.requested_by,
            ago(metadata.creation_timestamp, self.now),
            ahead(self.ends, self.now),
            ago(self.last_use, self.now),
        )
        ready = find(status.conditions, ConditionType.READY)
        wide = (
            spec.task.id,
            self.access,
            status.credential.secret_name if status.credential else "",
            status.credential.serial if status.credential else "",
            ahead(self.residual_until, self.now),
            spec.parent,
            ready.reason if ready is not None else "",
        )
        where = (metadata.namespace,) if is_everywhere else ()
        return (*where, *narrow, *(wide if is_wide else ()))

    def data(self) -> dict[str, Any]:
        """The line for programs. Identifiers are here, keys and tokens nowhere."""
        metadata, spec, status = self.grant.metadata, self.grant.spec, self.grant.status
        credential = status.credential
        return {
            "namespace": metadata.namespace,
            "name": metadata.name,
            "uid": metadata.uid,
            "pilot": spec.pilot,
            "stage": status.stage,
            "phase": status.phase.value,
            "owners": list(self.owners),
            "requestedBy": spec.requested_by,
            "task": spec.task.id,
            "access": [format_access(each.name, each.actions, each.resources) for each in spec.access],
            "emergency": spec.emergency,
            "parent": spec.parent,
            "createdAt": _time(metadata.creation_timestamp),
            "issuedAt": _time(status.issued_at),
            "expiresAt": _time(status.expires_at),
            "endedAt": _time(self.ended_at),
            "lastUse": _time(self.last_use),
            "usage": None
            if status.usage is None
            else {
                "requests": status.usage.requests,
                "refused": status.usage.refused,
                "activities": status.usage.activities,
            },
            "residualUntil": _time(self.residual_until),
            "credential": None
            if credential is None
            else {
                "spiffeID": credential.spiffe_id,
                "serial": credential.serial,
                "notAfter": _time(credential.not_after),
                "secret": credential.secret_name,
                "tokens": [{"audience": token.audience, "jti": token.jti} for token in credential.tokens],
                "kubernetesCredentialID": credential.kubernetes.credential_id
                if credential.kubernetes
                else "",
            },
        }


_HEADERS = ("NAME", "PILOT", "STAGE", "PHASE", "OWNER", "REQUESTER", "AGE", "ENDS", "LAST USE")
_WIDE_HEADERS = ("TASK", "ACCESS", "SECRET", "SERIAL", "RESIDUAL", "PARENT", "REASON")


def _owners(place: Place, namespace: str) -> Mapping[tuple[str, str], Owners]:
    try:
        return {
            (pilot.metadata.namespace, pilot.metadata.name): pilot.spec.owners
            for pilot in read_pilots(place.session, namespace)
        }
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return {}


def _demand(names: Iterable[str], lines: Iterable[Line], namespace: str) -> None:
    """Make sure that each grant asked for by name is there."""
    there = {line.grant.metadata.name for line in lines}
    missing = [name for name in names if name not in there]
    if missing:
        raise CliError(f"no grant {', '.join(missing)} in namespace {namespace}")


def _show(place: Place, lines: list[Line], *, is_everywhere: bool) -> None:
    if place.output is Format.NAME:
        for line in lines:
            say(reference("TaskGrant", line.grant.metadata.name))
    elif not place.output.is_for_people:
        show_data({"items": [line.data() for line in lines]}, place.output)
    elif not lines:
        tell("no grants" if is_everywhere else f"no grants in namespace {place.namespace}")
    else:
        is_wide = place.output is Format.WIDE
        where = ("NAMESPACE",) if is_everywhere else ()
        headers = (*where, *_HEADERS, *(_WIDE_HEADERS if is_wide else ()))
        show_table(headers, [line.cells(is_wide=is_wide, is_everywhere=is_everywhere) for line in lines])


def _time(moment: dt.datetime | None) -> str | None:
    return format_timestamp(moment) if moment is not None else None
