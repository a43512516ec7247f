"""Reading our kinds: the same typed views that the operator has, so that both read the same."""

from __future__ import annotations

from collections.abc import Iterator
from http import HTTPStatus

from pilot_identity.cli.failures import AnswerError, CliError, UsageError
from pilot_identity.cli.session import Document, Session, collection, one
from pilot_identity.core.resources.approval import Approval
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.parsing import KINDS, parse_as
from pilot_identity.core.resources.pilot_identity import PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy
from pilot_identity.core.resources.task_grant import TaskGrant


def as_grant(body: Document) -> TaskGrant:
    """Read a grant's object; raises `ResourceError` where it does not fit."""
    view = parse_as(body, KINDS["TaskGrant"])
    if not isinstance(view, TaskGrant):
        raise TypeError("KINDS gives another view for TaskGrant")
    return view


def as_pilot(body: Document) -> PilotIdentity:
    """Read a pilot's object; raises `ResourceError` where it does not fit."""
    view = parse_as(body, KINDS["PilotIdentity"])
    if not isinstance(view, PilotIdentity):
        raise TypeError("KINDS gives another view for PilotIdentity")
    return view


def as_stage(body: Document) -> StagePolicy:
    """Read a stage's object; raises `ResourceError` where it does not fit."""
    view = parse_as(body, KINDS["StagePolicy"])
    if not isinstance(view, StagePolicy):
        raise TypeError("KINDS gives another view for StagePolicy")
    return view


def as_approval(body: Document) -> Approval:
    """Read an approval's object; raises `ResourceError` where it does not fit."""
    view = parse_as(body, KINDS["Approval"])
    if not isinstance(view, Approval):
        raise TypeError("KINDS gives another view for Approval")
    return view


def grant_object(session: Session, namespace: str, name: str) -> Document:
    """Read one grant.

    Raises:
        CliError: there is none of that name; the hint says where to look.
    """
    found = session.find(one("TaskGrant", namespace, name))
    if found is None:
        raise CliError(
            f"no grant {name} in namespace {namespace}",
            "`kubectl pilot grants -A` lists those that you may see",
        )
    return found


def find_pilot(session: Session, namespace: str, name: str) -> PilotIdentity | None:
    """A pilot, or `None` where there is none or we may not see it."""
    try:
        found = session.find(one("PilotIdentity", namespace, name))
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return None
    return as_pilot(found) if found is not None else None


def grants(session: Session, namespace: str = "") -> dict[str, TaskGrant]:
    """All grants of a namespace or, without one, of the cluster, by UID."""
    listed = (as_grant(each) for each in session.listed(collection("TaskGrant", namespace)))
    return {grant.metadata.uid: grant for grant in listed}


def pilots(session: Session, namespace: str = "") -> Iterator[PilotIdentity]:
    """All pilots of a namespace or of the cluster."""
    return (as_pilot(each) for each in session.listed(collection("PilotIdentity", namespace)))


def duration(text: str, option: str) -> Duration:
    """Read an option's length of time.

    Raises:
        UsageError: it is none.
    """
    try:
        return Duration.parse(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}") from error
