"""What a person approves of an exception: the rule that it lifts, for whom, why and until when.

As with a grant, the word is bound to a digest, and that is made from exactly what is shown. Who may not see
the stage sees the rule as the operator tells it in the pilot's status, which nobody else may write.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from pilot_identity.cli.failures import CliError
from pilot_identity.cli.matter import find_stage
from pilot_identity.cli.reading import as_pilot
from pilot_identity.cli.review_matter import reaches
from pilot_identity.cli.session import Session, one
from pilot_identity.cli.text import ahead, clock
from pilot_identity.core.decisions.exceptions import declared_of, exception_digest, known_of
from pilot_identity.core.resources.pilot_identity import ExceptionStatus, PilotException, PilotIdentity

AGAIN = "try again in a moment; if it stays so, this kubectl-pilot is not of the operator's version"


@dataclass(frozen=True, slots=True)
class ExceptionMatter:
    """What a person decides upon.

    Attributes:
        known: what the operator says of it; the word is bound to its digest.
        is_compared: whether that digest was made again from what is shown.
    """

    pilot: PilotIdentity
    declared: PilotException
    known: ExceptionStatus
    is_compared: bool


def read_exception(session: Session, namespace: str, name: str, rule: str) -> ExceptionMatter:
    """Read what a person is to decide upon.

    Raises:
        CliError: there is no such pilot or exception, nobody is asked about it, or it is changing just now.
    """
    found = session.find(one("PilotIdentity", namespace, name))
    if found is None:
        raise CliError(f"no pilot {name} in namespace {namespace}")
    pilot = as_pilot(found)
    declared, known = declared_of(pilot, rule), known_of(pilot, rule)
    if declared is None:
        asked = ", ".join(one.rule for one in pilot.spec.exceptions) or "none"
        raise CliError(f"pilot {name} asks for no exception from rule {rule}; it asks for: {asked}")
    if known is None or pilot.status.observed_generation != pilot.metadata.generation:
        raise CliError(f"the operator has not looked at pilot {name} as it is now", AGAIN)
    if not known.is_open:
        raise CliError(f"the exception of pilot {name} from rule {rule} is {known.state}: {known.message}")
    stage = find_stage(session, pilot.status.stage)
    if stage is not None and exception_digest(pilot, stage, declared, known.since) != known.digest:
        raise CliError(
            f"what the operator wants approved is not what is in the cluster now: pilot {name} or stage "
            f"{stage.name} just changed",
            AGAIN,
        )
    return ExceptionMatter(pilot, declared, known, is_compared=stage is not None)


def describe_exception(matter: ExceptionMatter, now: dt.datetime) -> Iterator[str]:
    """What is decided upon, a line for each thing that a person should weigh."""
    pilot, declared, known = matter.pilot, matter.declared, matter.known
    owners = pilot.spec.owners
    yield f"Exception    from rule {known.rule} of stage {pilot.status.stage}"
    if known.rule_text is not None:
        yield f"Rule says    {known.rule_text.message or '(no message)'}"
        yield f"Expression   {known.rule_text.expression}"
    yield f"Reason       {declared.reason}"
    yield f"Until        {clock(known.until)}, {ahead(known.until, now)}"
    yield f"Asked by     {declared.requested_by}, {ahead(known.since, now)}"
    yield f"Pilot        {pilot.metadata.namespace}/{pilot.metadata.name}: {pilot.spec.purpose}"
    yield f"Owners       {owners.business} (business), {owners.technical} (technical)"
    yield from reaches(pilot)
    by = f" ({', '.join(one.approver for one in known.approvals)})" if known.approvals else ""
    yield f"State        {known.state}; approvals {len(known.approvals)} of {known.required}{by}"
    yield "Lifted for   every grant of this pilot in this stage, but for those that an approver asks for"
    if not matter.is_compared:
        yield "Note         you may not see the stage; rule and digest are the operator's word"
    yield f"Digest       {known.digest}"
