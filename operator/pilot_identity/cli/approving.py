"""`approve`, `deny` and `review`: one person's word on exactly what is on the screen."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from typing import Annotated

import typer

from pilot_identity.cli.completion import grant_names, pilot_names
from pilot_identity.cli.exception_matter import describe_exception, read_exception
from pilot_identity.cli.failures import CliError
from pilot_identity.cli.matter import describe, read_matter
from pilot_identity.cli.options import Place, TimeoutOption, in_place
from pilot_identity.cli.output import Format, say, show_objects, tell
from pilot_identity.cli.reading import as_approval, duration
from pilot_identity.cli.review_matter import describe_pilot, read_review
from pilot_identity.cli.session import Document, collection, reference
from pilot_identity.cli.waiting import Target, wait_for
from pilot_identity.core.decisions.exceptions import EXCEPTION
from pilot_identity.core.decisions.grants.approving import APPROVE, DENY, GRANT
from pilot_identity.core.decisions.reviews import REVIEW
from pilot_identity.core.resources.approval import Approval, Subject
from pilot_identity.core.resources.conditions import Condition, ConditionType, Reason, find
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import API_VERSION

GrantArgument = Annotated[
    str, typer.Argument(help="The waiting grant; with --exception the pilot.", autocompletion=grant_names)
]
PilotArgument = Annotated[str, typer.Argument(help="The pilot.", autocompletion=pilot_names)]
ExceptionOption = Annotated[
    str, typer.Option("--exception", help="A rule: decide on the pilot's exception from it instead.")
]
ReasonOption = Annotated[str, typer.Option("--reason", "-r", help="Why; it is recorded.")]
TicketOption = Annotated[str, typer.Option("--ticket", help="Where it was discussed.")]
WaitOption = Annotated[bool, typer.Option("--wait/--no-wait", help="Wait until it is known to count.")]
YesOption = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask; you have read what it is.")]


@in_place
def approve(  # noqa: PLR0913, PLR0917 - typer reads a verb's options from its parameters
    place: Place,
    grant: GrantArgument,
    reason: ReasonOption,
    exception: ExceptionOption = "",
    ticket: TicketOption = "",
    yes: YesOption = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = "30s",
) -> None:
    """Approve a grant as it is now: who asked, for what, for how long are shown, and you are asked.

    The approval is bound to exactly that. If the pilot, its owners or the stage's rules change before the
    grant is issued, it is void. Waits until the operator says whether it counts.

    With --exception it is a pilot that you name, and its exception from that rule that you approve: rule,
    reason, end and who asks for it are shown, and the approval is bound to those.
    """
    patience = duration(timeout, "--timeout") if wait else None
    word = Word(APPROVE, reason, ticket)
    if exception:
        _decide_exception(place, grant, exception, word, is_sure=yes, timeout=patience)
    else:
        _decide(place, grant, word, is_sure=yes, timeout=patience)


@in_place
def deny(  # noqa: PLR0913, PLR0917
    place: Place,
    grant: GrantArgument,
    reason: ReasonOption,
    exception: ExceptionOption = "",
    ticket: TicketOption = "",
    yes: YesOption = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = "30s",
) -> None:
    """Deny a grant that waits for approval. One denial is final.

    With --exception it is a pilot that you name, and its exception from that rule that you deny; one that is
    in force ends by that.
    """
    patience = duration(timeout, "--timeout") if wait else None
    word = Word(DENY, reason, ticket)
    if exception:
        _decide_exception(place, grant, exception, word, is_sure=yes, timeout=patience)
    else:
        _decide(place, grant, word, is_sure=yes, timeout=patience)


@in_place
def review(  # noqa: PLR0913, PLR0917
    place: Place,
    pilot: PilotArgument,
    reason: ReasonOption,
    ticket: TicketOption = "",
    yes: YesOption = False,
    wait: WaitOption = True,
    timeout: TimeoutOption = "30s",
) -> None:
    """Review a pilot as it is now: owners, purpose, all that it may ever reach are shown, and you are asked.

    Say that it is still right. If it is not, say nothing: change the pilot, or `kubectl pilot suspend` it.
    """
    patience = duration(timeout, "--timeout") if wait else None
    matter = read_review(place.session, place.namespace, pilot)
    for line in describe_pilot(matter, dt.datetime.now(dt.UTC)):
        tell(line)
    if not yes and not _confirmed(f"Still right, says {place.session.user().name}?"):
        raise CliError("nothing was said: not confirmed", "--yes confirms beforehand")
    metadata = matter.pilot.metadata
    subject = Subject("PilotIdentity", metadata.name, metadata.uid)
    body = _body(place, subject, REVIEW, matter.digest, Word(APPROVE, reason, ticket))
    _say(place, body, f"reviewed pilot {pilot}", patience)


@dataclass(frozen=True, slots=True)
class Word:
    """What a person says."""

    decision: str
    reason: str
    ticket: str


def _decide(place: Place, name: str, word: Word, *, is_sure: bool, timeout: Duration | None) -> None:
    matter = read_matter(place.session, place.namespace, name)
    for line in describe(matter, dt.datetime.now(dt.UTC)):
        tell(line)
    if not is_sure and not _confirmed(f"{word.decision} this as {place.session.user().name}?"):
        raise CliError("nothing was said: not confirmed", "--yes confirms beforehand")
    metadata = matter.grant.metadata
    subject = Subject("TaskGrant", metadata.name, metadata.uid)
    said = "approved" if word.decision == APPROVE else "denied"
    _say(place, _body(place, subject, GRANT, matter.digest, word), f"{said} grant {name}", timeout)


def _decide_exception(  # noqa: PLR0913 - what is decided, by what word, and how it is asked
    place: Place, pilot: str, rule: str, word: Word, *, is_sure: bool, timeout: Duration | None
) -> None:
    matter = read_exception(place.session, place.namespace, pilot, rule)
    for line in describe_exception(matter, dt.datetime.now(dt.UTC)):
        tell(line)
    if not is_sure and not _confirmed(f"{word.decision} this as {place.session.user().name}?"):
        raise CliError("nothing was said: not confirmed", "--yes confirms beforehand")
    metadata = matter.pilot.metadata
    subject = Subject("PilotIdentity", metadata.name, metadata.uid)
    said = "approved" if word.decision == APPROVE else "denied"
    body = _body(place, subject, EXCEPTION, matter.known.digest, word)
    _say(place, body, f"{said} the exception of pilot {pilot} from rule {rule}", timeout)


def _say(place: Place, body: Document, said: str, timeout: Duration | None) -> None:
    """Make the Approval, and wait until the operator says whether it counts."""
    made = place.session.create(collection("Approval", place.namespace), body)
    told = None
    if timeout is not None:
        made = _wait(place, made, timeout)
        told = _told(as_approval(made))
    approval = as_approval(made).metadata.name
    if place.output is Format.NAME:
        say(reference("Approval", approval))
    elif not place.output.is_for_people:
        show_objects([made], place.output)
    elif told is None or told.reason in _HEARD:
        say(f"{said} (Approval {approval})" + (f": {told.message}" if told is not None else ""))
    if told is not None and told.reason not in _HEARD:
        raise CliError(f"your word (Approval {approval}) does not count: {told.message}")


_HEARD = frozenset({Reason.COUNTED, Reason.WAITING})


def _told(approval: Approval) -> Condition | None:
    """What the operator says of an approval; `None` where it has not looked at it yet."""
    return find(approval.status.conditions, ConditionType.READY)


def _wait(place: Place, made: Document, timeout: Duration) -> Document:
    name = made["metadata"]["name"]
    seen = wait_for(
        place.session,
        Target("Approval", place.namespace, name),
        is_so=lambda seen: seen is None or _told(as_approval(seen)) is not None,
        what=lambda: f"the operator has not looked at Approval {name}; is it running?",
        timeout=timeout,
    )
    if seen is None:
        raise CliError(f"Approval {name} was deleted before it was looked at")
    return seen


def _confirmed(question: str) -> bool:
    """Ask on the terminal; where nobody can answer, the answer is no."""
    try:
        return typer.confirm(question, err=True)
    except typer.Abort:
        return False


def _body(place: Place, subject: Subject, purpose: str, digest: str, word: Word) -> Document:
    user = place.session.user()
    return {
        "apiVersion": API_VERSION,
        "kind": "Approval",
        "metadata": {"generateName": f"{subject.name[:52]}-"},
        "spec": {
            "subject": {"kind": subject.kind, "name": subject.name, "uid": subject.uid},
            "purpose": purpose,
            "digest": digest,
            "decision": word.decision,
            "reason": word.reason,
            # The API server stamps these two where it can, and elsewhere wants exactly them.
            "approver": user.name,
            "approverGroups": list(user.groups),
            **({"ticket": word.ticket} if word.ticket else {}),
        },
    }
