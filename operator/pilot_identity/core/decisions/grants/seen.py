"""What is known of a grant when it is decided upon."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.decisions.announced import Announced
from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find

RATE_WINDOW = dt.timedelta(minutes=1)
"""The window of `limits.requestsPerMinute`."""


@dataclass(frozen=True, slots=True)
class GrantSeen:
    """All that is known of a grant.

    Attributes:
        stage: the policy of the pilot's effective stage.
        ca_not_after: when that stage's CA expires; `None` while it has none.
        active_grants: how many other grants of the pilot are active.
        issued_lately: how many other grants of the pilot were issued within the last minute.
        oldest_issue: when the first of those was issued.
        announced: a credential that the log announced and the status does not know.
        ancestors: the grants that `spec.parent` leads to, the parent last; short where one is missing.
        parent_pilot: the parent grant's pilot.
        approvals: every Approval that names this grant's UID.
    """

    grant: TaskGrant
    pilot: PilotIdentity | None
    stage: StagePolicy | None
    ca_not_after: dt.datetime | None = None
    active_grants: int = 0
    issued_lately: int = 0
    oldest_issue: dt.datetime | None = None
    announced: Announced | None = None
    ancestors: tuple[TaskGrant, ...] = ()
    parent_pilot: PilotIdentity | None = None
    approvals: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True)
class Request:
    """A grant whose pilot and stage are there: what most checks look at."""

    grant: TaskGrant
    pilot: PilotIdentity
    stage: StagePolicy
    ca_not_after: dt.datetime
    seen: GrantSeen


def wait(reason: Reason, message: str) -> Objection:
    """Make an objection that goes away by itself when its cause does."""
    return Objection(reason, message, is_final=False)


def request_of(seen: GrantSeen) -> Request | Objection:
    """Put the request together, or say what it waits for: manifests arrive in any order."""
    grant, pilot = seen.grant, seen.pilot
    if pilot is None or pilot.metadata.is_deleting:
        return wait(
            Reason.PILOT_NOT_FOUND,
            f"no PilotIdentity {grant.spec.pilot!r} in namespace {grant.metadata.namespace!r}; "
            "apply it, or correct the name in a new grant",
        )
    if seen.stage is None or seen.ca_not_after is None:
        return pilot_not_ready(pilot)
    return Request(grant, pilot, seen.stage, seen.ca_not_after, seen)


def pilot_not_ready(pilot: PilotIdentity) -> Objection:
    """Say, in the pilot's own words, why it is not ready."""
    ready = find(pilot.status.conditions, ConditionType.READY)
    why = f"{ready.reason}: {ready.message}" if ready is not None else "it has no identity yet"
    return wait(Reason.PILOT_NOT_READY, f"pilot {pilot.metadata.name!r} is not ready ({why})")
