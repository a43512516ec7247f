"""What a person reviews: a pilot as it is, with all that it may ever reach, read in one go.

As with a grant, the word is bound to a digest, and that is made from exactly what is shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass

from pilot_identity.cli.access import format_access
from pilot_identity.cli.failures import CliError
from pilot_identity.cli.matter import find_stage
from pilot_identity.cli.reading import as_pilot
from pilot_identity.cli.session import Session, one
from pilot_identity.cli.text import ahead, clock
from pilot_identity.core.decisions.exceptions import known_of
from pilot_identity.core.decisions.review_dates import due_at, last_looked_at
from pilot_identity.core.resources.digests import pilot_digest
from pilot_identity.core.resources.pilot_identity import AccessEntry, PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy


@dataclass(frozen=True, slots=True)
class ReviewMatter:
    """What a person reviews.

    Attributes:
        digest: what the word is bound to.
        stage: None where the person may not see it.
    """

    pilot: PilotIdentity
    digest: str
    stage: StagePolicy | None


def read_review(session: Session, namespace: str, name: str) -> ReviewMatter:
    """Read what a person is to review.

    Raises:
        CliError: there is no such pilot, or nobody wants a review of it.
    """
    found = session.find(one("PilotIdentity", namespace, name))
    if found is None:
        raise CliError(f"no pilot {name} in namespace {namespace}")
    pilot = as_pilot(found)
    stage = find_stage(session, pilot.status.stage)
    wants_none = stage is not None and due_at(pilot.status, stage) is None
    if pilot.status.review_owed is None and wants_none:
        raise CliError(
            f"pilot {name} owes no review, and its stage {pilot.status.stage} wants none",
            "a word that nobody asked for cannot be kept for later",
        )
    return ReviewMatter(pilot, pilot_digest(pilot), stage)


def describe_pilot(matter: ReviewMatter, now: dt.datetime) -> Iterator[str]:
    """What is reviewed, a line for each thing that a person should weigh."""
    pilot, status = matter.pilot, matter.pilot.status
    spec = pilot.spec
    yield f"Pilot        {pilot.metadata.namespace}/{pilot.metadata.name}, in stage {status.stage or 'none'}"
    yield f"Purpose      {spec.purpose}"
    yield f"Workflow     {spec.workflow}"
    yield f"Owners       {spec.owners.business} (business), {spec.owners.technical} (technical)"
    yield f"Runs as      ServiceAccount {pilot.service_account}"
    yield from reaches(pilot)
    for lifted in spec.exceptions:
        known = known_of(pilot, lifted.rule)
        state = f" ({known.state})" if known is not None else ""
        yield f"Exception    from rule {lifted.rule} until {clock(lifted.until)}{state}: {lifted.reason}"
    if spec.suspend:
        yield "Suspended    it gets nothing until its spec.suspend is false"
    yield f"Looked at    {_last(pilot, now)}"
    if status.review_due is not None:
        yield f"Review due   {ahead(status.review_due, now)}"
    if status.review_owed is not None:
        for use in status.review_owed.grants:
            yield f"EMERGENCY    grant {use.name} by {use.requested_by}, issued without approvals"
        yield f"Owed         {ahead(status.review_owed.due_at, now)}"
    yield f"Digest       {matter.digest}"


def reaches(pilot: PilotIdentity) -> Iterator[str]:
    """What a pilot may reach, and what it is made of."""
    spec = pilot.spec
    for entry in spec.access:
        yield f"Access       {_reach(entry)}"
    if not spec.access:
        yield "Access       none"
    if spec.delegation.to:
        yield f"Delegates    to {', '.join(spec.delegation.to)}, at most {spec.delegation.max_depth} deep"
    if spec.material.model or spec.material.data_sources:
        yield f"Made of      {', '.join(filter(None, (spec.material.model, *spec.material.data_sources)))}"


def _last(pilot: PilotIdentity, now: dt.datetime) -> str:
    reviewed = pilot.status.reviewed
    if reviewed is not None:
        return f"{ahead(reviewed.at, now)}, by {reviewed.approver}"
    if pilot.status.stage_since is None:
        return "never"
    return f"never; it entered its stage {ahead(last_looked_at(pilot.status), now)}"


def _reach(entry: AccessEntry) -> str:
    about = f"(data {entry.data_class}, sensitivity {entry.sensitivity})"
    if entry.tool is not None:
        what = format_access(entry.name, entry.tool.actions, entry.tool.resources)
        return f"{what} at {entry.tool.audience} {about}"
    if entry.kubernetes is not None:
        role = entry.kubernetes.role_ref
        where = f" in namespace {entry.kubernetes.namespace}" if entry.kubernetes.namespace else ""
        return f"{entry.name}: Kubernetes {role.kind} {role.name}{where} {about}"
    return f"{entry.name} {about}"
