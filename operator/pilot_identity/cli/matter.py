"""The matter: a grant that people must approve, with all that a person should weigh, read in one go.

The word is bound to the digest in the grant's status. Between that and this screen somebody may have changed
the pilot, and may change it back: so that nobody approves something other than what they read, the digest is
made again from exactly the objects that are shown.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterator
from dataclasses import dataclass
from http import HTTPStatus

from pilot_identity.cli.access import format_access
from pilot_identity.cli.failures import AnswerError, CliError
from pilot_identity.cli.reading import as_approval, as_grant, as_stage, find_pilot, grant_object
from pilot_identity.cli.session import Session, collection, one
from pilot_identity.cli.text import ahead
from pilot_identity.core.decisions.grants.approving import digest_of
from pilot_identity.core.resources.approval import Approval
from pilot_identity.core.resources.durations import format_duration
from pilot_identity.core.resources.pilot_identity import AccessEntry, PilotIdentity
from pilot_identity.core.resources.stage_policy import StagePolicy
from pilot_identity.core.resources.task_grant import AskedAccess, Phase, TaskGrant


@dataclass(frozen=True, slots=True)
class Matter:
    """What a person decides upon, read in one go.

    Attributes:
        digest: what the word is bound to.
        pilot: None where the person may not see it.
        stage: None where the person may not see it; then the digest is the operator's word.
    """

    grant: TaskGrant
    digest: str
    pilot: PilotIdentity | None
    stage: StagePolicy | None
    approvals: tuple[Approval, ...]


def read_matter(session: Session, namespace: str, name: str) -> Matter:
    """Read what a person is to decide upon.

    Raises:
        CliError: there is no such grant, it does not wait for anybody's word, or it is changing just now.
    """
    grant = as_grant(grant_object(session, namespace, name))
    wait = grant.status.approval
    if grant.status.phase is not Phase.AWAITING_APPROVAL or wait is None:
        raise CliError(
            f"grant {name} does not wait for approval: it is {grant.status.phase}",
            "`kubectl pilot revoke` ends a grant that was issued"
            if grant.status.phase is Phase.ACTIVE
            else "",
        )
    pilot = find_pilot(session, namespace, grant.spec.pilot)
    stage = find_stage(session, pilot.status.stage if pilot is not None else "")
    if pilot is not None and stage is not None and digest_of(grant, pilot, stage) != wait.digest:
        raise CliError(
            f"what the operator wants approved of grant {name} is not what is in the cluster now: "
            f"pilot {pilot.metadata.name} or stage {stage.metadata.name} just changed",
            "try again in a moment; if it stays so, this kubectl-pilot is not of the operator's version",
        )
    return Matter(grant, wait.digest, pilot, stage, tuple(_approvals(session, grant)))


def find_stage(session: Session, name: str) -> StagePolicy | None:
    """A stage, or `None` where we may not see it: stages are cluster-scoped, many people's rights are not."""
    try:
        found = session.find(one("StagePolicy", "", name)) if name else None
    except AnswerError as error:
        if error.status != HTTPStatus.FORBIDDEN:
            raise
        return None
    return as_stage(found) if found is not None else None


def _approvals(session: Session, grant: TaskGrant) -> Iterator[Approval]:
    """What people said about this grant before."""
    for body in session.listed(collection("Approval", grant.metadata.namespace)):
        approval = as_approval(body)
        if approval.spec.subject.uid == grant.metadata.uid:
            yield approval


def describe(matter: Matter, now: dt.datetime) -> Iterator[str]:
    """What is decided upon, a line for each thing that a person should weigh."""
    grant, pilot, wait = matter.grant, matter.pilot, matter.grant.status.approval
    spec = grant.spec
    yield f"Grant        {grant.metadata.namespace}/{grant.metadata.name}" + (
        "   EMERGENCY: break the glass" if spec.emergency else ""
    )
    yield f"Asked by     {spec.requested_by or 'unknown'}, {ahead(grant.metadata.creation_timestamp, now)}"
    yield f"Task         {spec.task.id}" + (f": {spec.task.description}" if spec.task.description else "")
    yield f"For          {format_duration(spec.duration)}"
    if pilot is None:
        yield f"Pilot        {spec.pilot} (you may not see it)"
    else:
        owners = pilot.spec.owners
        yield f"Pilot        {spec.pilot}, in stage {pilot.status.stage}: {pilot.spec.purpose}"
        yield f"Owners       {owners.business} (business), {owners.technical} (technical)"
    if spec.parent:
        yield f"Child of     {' > '.join(grant.status.chain or (spec.parent,))}"
    entries = {entry.name: entry for entry in pilot.spec.access} if pilot is not None else {}
    for asked in spec.access:
        yield f"Access       {_access(asked, entries.get(asked.name))}"
    if spec.audience:
        yield f"Audiences    {', '.join(spec.audience)}"
    if wait is not None:
        by = f" ({', '.join(wait.approved_by)})" if wait.approved_by else ""
        yield f"Approvals    {len(wait.approved_by)} of {wait.required}{by}"
        yield f"Expires      {ahead(wait.expires_at, now)}, unless approved by then"
    yield from _changes(matter)
    if matter.stage is None:
        yield "Note         you may not see the stage's rules; the digest is the operator's word"
    yield f"Digest       {matter.digest}"


def _access(asked: AskedAccess, entry: AccessEntry | None) -> str:
    """An entry with what it comes to: what the grant leaves out, it gets all of."""
    if entry is None:
        return format_access(asked.name, asked.actions, asked.resources)
    about = f"(data {entry.data_class}, sensitivity {entry.sensitivity})"
    if entry.tool is not None:
        actions, resources = asked.actions or entry.tool.actions, asked.resources or entry.tool.resources
        return f"{format_access(asked.name, actions, resources)} at {entry.tool.audience} {about}"
    if entry.kubernetes is not None:
        role = entry.kubernetes.role_ref
        where = f" in namespace {entry.kubernetes.namespace}" if entry.kubernetes.namespace else ""
        return f"{asked.name}: Kubernetes {role.kind} {role.name}{where} {about}"
    return f"{asked.name} {about}"


def _changes(matter: Matter) -> Iterator[str]:
    """What was said about another version of this: so much has changed since."""
    for approval in matter.approvals:
        spec = approval.spec
        if spec.digest != matter.digest:
            yield (
                f"CHANGED      since {spec.approver} said {spec.decision} ({spec.reason}): the pilot or the "
                "stage's rules are not what they were; that word is void"
            )
