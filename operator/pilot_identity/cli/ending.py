"""`complete` and `revoke` end grants; `suspend` and `resume` stop and start whole pilots."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from http import HTTPStatus
from typing import Annotated, Any

import typer

from pilot_identity.cli.completion import grant_names, pilot_names
from pilot_identity.cli.failures import AnswerError, CliError
from pilot_identity.cli.options import Place, TimeoutOption, in_place
from pilot_identity.cli.output import Format, say, show_objects, tell
from pilot_identity.cli.reading import as_grant, as_pilot, duration, grant_object
from pilot_identity.cli.session import Document, one, reference
from pilot_identity.cli.text import clock
from pilot_identity.cli.waiting import Target, wait_for
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.resources.task_grant import Phase, TaskGrant

GrantsArgument = Annotated[
    list[str],
    typer.Argument(metavar="GRANT...", show_default=False, autocompletion=grant_names),
]
PilotsArgument = Annotated[
    list[str],
    typer.Argument(metavar="PILOT...", show_default=False, autocompletion=pilot_names),
]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it has taken effect.")]


@in_place
def complete(
    place: Place, grants: GrantsArgument, wait: WaitOption = True, timeout: TimeoutOption = "1m"
) -> None:
    """Say that the task is done: everything that was issued for it ends at once, for good."""
    patience = duration(timeout, "--timeout")
    _each(place, grants, lambda name: end_grant(place, name, {"completed": True}, patience if wait else None))


@in_place
def revoke(
    place: Place,
    grants: GrantsArgument,
    reason: Annotated[str, typer.Option("--reason", "-r", help="Why; it is recorded.")],
    wait: WaitOption = True,
    timeout: TimeoutOption = "1m",
) -> None:
    """End grants at once, for good, on your word and for a reason; their children end with them."""
    patience = duration(timeout, "--timeout")
    change = revocation(place, reason)
    _each(place, grants, lambda name: end_grant(place, name, change, patience if wait else None))


@in_place
def suspend(
    place: Place, pilots: PilotsArgument, wait: WaitOption = True, timeout: TimeoutOption = "1m"
) -> None:
    """Stop pilots: all that was issued for them is withdrawn; nothing is issued until `resume`."""
    patience = duration(timeout, "--timeout") if wait else None
    _each(place, pilots, lambda name: _set_suspend(place, name, is_suspended=True, timeout=patience))


@in_place
def resume(
    place: Place, pilots: PilotsArgument, wait: WaitOption = True, timeout: TimeoutOption = "1m"
) -> None:
    """Let suspended pilots work again. Grants that ended stay ended; request new ones."""
    patience = duration(timeout, "--timeout") if wait else None
    _each(place, pilots, lambda name: _set_suspend(place, name, is_suspended=False, timeout=patience))


def revocation(place: Place, reason: str) -> dict[str, Any]:
    """The change that revokes. Who revokes is stamped where the API server can, and checked everywhere."""
    return {"revoke": {"reason": reason, "by": place.session.user().name}}


def end_grant(place: Place, name: str, change: dict[str, Any], timeout: Duration | None) -> Document:
    """Write the word that ends a grant and, given a timeout, wait until it has taken effect.

    Raises:
        CliError: refused, or there is none of that name. A grant that has ended already is no error.
    """
    try:
        changed = place.session.patch(one("TaskGrant", place.namespace, name), {"spec": change})
    except AnswerError as error:
        if error.status not in {HTTPStatus.NOT_FOUND, HTTPStatus.UNPROCESSABLE_ENTITY}:
            raise
        changed = grant_object(place.session, place.namespace, name)
        # Of two who revoke, the first has the word; the other finds what was wanted done.
        if not _is_ending(as_grant(changed)):
            raise
    if as_grant(changed).status.phase.is_terminal:
        tell(f"grant {name} had ended before: nothing was done, and this word for it is not recorded")
        return changed
    if timeout is None:
        return changed
    return _wait_for_end(place, as_grant(changed), timeout) or changed


def _is_ending(grant: TaskGrant) -> bool:
    return grant.spec.revoke is not None or grant.status.phase.is_terminal


def _wait_for_end(place: Place, asked: TaskGrant, timeout: Duration) -> Document | None:
    """Wait until a grant has ended and that is proven; `None` where it was deleted meanwhile."""
    last = asked

    def is_so(seen: Document | None) -> bool:
        nonlocal last
        if seen is None or seen["metadata"]["uid"] != asked.metadata.uid:
            return True
        last = as_grant(seen)
        return last.status.phase.is_terminal

    def what() -> str:
        closure = last.status.closure
        if closure is None:
            return f"grant {asked.metadata.name} is asked to end; the operator has not confirmed it"
        unproven = (f"{proof.name}: {proof.message}" for proof in closure.proofs if not proof.proven)
        return f"{describe_end(last)}; not proven yet: {'; '.join(unproven) or 'anything'}"

    target = Target("TaskGrant", place.namespace, asked.metadata.name)
    seen = wait_for(place.session, target, is_so=is_so, what=what, timeout=timeout)
    return seen if seen is not None and seen["metadata"]["uid"] == asked.metadata.uid else None


def describe_end(grant: TaskGrant) -> str:
    """How a grant ended, in a sentence."""
    closure = grant.status.closure
    if closure is None:
        ended = grant.status.phase.is_terminal
        return f"grant {grant.metadata.name} " + (f"is {grant.status.phase}" if ended else "is asked to end")
    told = f"grant {grant.metadata.name} is {grant.status.phase}"
    if grant.status.phase is Phase.CLOSING:
        told += f" (to be {closure.outcome})"
    told += f", withdrawn {clock(closure.withdrawn_at)}" if closure.withdrawn_at is not None else ""
    told += f", proven {clock(closure.proven_at)}" if closure.proven_at is not None else ""
    residual = closure.residual_until
    if residual is not None and residual > dt.datetime.now(dt.UTC):
        told += f"; a copy could pass an offline check until {clock(residual)}"
    return told


def _set_suspend(place: Place, name: str, *, is_suspended: bool, timeout: Duration | None) -> Document:
    change = {
        # Where the API server does not stamp who changed it, it wants exactly this.
        "metadata": {"annotations": {f"{GROUP}/changed-by": place.session.user().name}},
        "spec": {"suspend": is_suspended},
    }
    path = one("PilotIdentity", place.namespace, name)
    changed = place.session.find(path)
    if changed is None:
        raise CliError(f"no pilot {name} in namespace {place.namespace}", "try `kubectl get pilots -A`")
    if as_pilot(changed).spec.suspend != is_suspended:
        changed = place.session.patch(path, change)
    if timeout is not None:
        target = Target("PilotIdentity", place.namespace, name)
        last = "the operator has not confirmed it; is it running?"

        def is_so(seen: Document | None) -> bool:
            nonlocal last
            if seen is None:
                raise CliError(f"pilot {name} was deleted meanwhile")
            pilot = as_pilot(seen)
            ready = find(pilot.status.conditions, ConditionType.READY)
            if ready is None or ready.observed_generation < pilot.metadata.generation:
                return False
            last = f"{ready.reason}: {ready.message}"
            return ready.reason == Reason.SUSPENDED if is_suspended else ready.status == "True"

        changed = (
            wait_for(
                place.session, target, is_so=is_so, what=lambda: f"pilot {name}: {last}", timeout=timeout
            )
            or changed
        )
    return changed


def _each(place: Place, names: Sequence[str], act: Callable[[str], Document]) -> None:
    """Act on each name, go on past those that fail, show all that worked, fail if any did."""
    done: list[Document] = []
    failed: list[CliError] = []
    for name in dict.fromkeys(names):
        try:
            done.append(act(name))
        except CliError as error:
            if len(names) == 1:
                raise
            tell(f"error: {name}: {error}")
            failed.append(error)
            continue
        if place.output.is_for_people:
            say(_describe(done[-1]))
        elif place.output is Format.NAME:
            say(reference(done[-1]["kind"], name))
    if done and not place.output.is_for_people and place.output is not Format.NAME:
        show_objects(done, place.output)
    if failed:
        failure = CliError(f"{len(failed)} of {len(names)} failed")
        failure.exit_code = max(error.exit_code for error in failed)
        raise failure


def _describe(body: Document) -> str:
    if body["kind"] == "TaskGrant":
        return describe_end(as_grant(body))
    pilot = as_pilot(body)
    ready = find(pilot.status.conditions, ConditionType.READY)
    return f"pilot {pilot.metadata.name} is " + (
        "suspended" if pilot.spec.suspend else f"not suspended; {ready.reason if ready else 'not ready yet'}"
    )
