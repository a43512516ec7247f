"""What is known of a grant when it is decided upon."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.decisions.announced import Announced
from pilot_identity.core.decisions.hindrance import Hindrance
from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find

RETENTION = dt.timedelta(hours=168)
"""How long an ended grant whose stage is gone stays as an object: the API's default."""
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
        oldest_issue: when the one of those was issued that makes room for this grant as it lapses.
        announced: a credential that the log announced and the status does not know.
        is_announced_unknown: whether that could not be asked, of a grant whose access is to be cut anyway.
        closed: the entry that has the grant's end, and its index, where the status does not tell of it.
        ancestors: the grants that `spec.parent` leads to, the parent last; short where one is missing.
        ancestor_pilots: the pilot of each of them, `None` where it is missing.
        approvals: every Approval that names this grant's UID.
        hindrances: the Kubernetes bindings that cannot be made, asked before an issue and before a renewal.
        refusal: why the grant's Secret could not be made, asked where the last credential never came to be.
        retention: how long the grant's object stays once it ended.
    """

    grant: TaskGrant
    pilot: PilotIdentity | None
    stage: StagePolicy | None
    ca_not_after: dt.datetime | None = None
    active_grants: int = 0
    issued_lately: int = 0
    oldest_issue: dt.datetime | None = None
    announced: Announced | None = None
    is_announced_unknown: bool = False
    closed: tuple[int, RecordedEntry] | None = None
    ancestors: tuple[TaskGrant, ...] = ()
    ancestor_pilots: tuple[PilotIdentity | None, ...] = ()
    approvals: tuple[Approval, ...] = ()
    hindrances: tuple[Hindrance, ...] = ()
    refusal: str = ""
    retention: dt.timedelta = RETENTION

    @property
    def parent(self) -> TaskGrant | None:
        """The grant that `spec.parent` names, as far as it is there."""
        return self.ancestors[-1] if self.ancestors else None

    @property
    def parent_pilot(self) -> PilotIdentity | None:
        """The parent grant's pilot."""
        return self.ancestor_pilots[-1] if self.ancestor_pilots else None

    def of_parent(self) -> GrantSeen | None:
        """What is known of the parent, as far as its end depends on it: both are in one stage."""
        if self.parent is None:
            return None
        return GrantSeen(
            self.parent,
            self.parent_pilot,
            self.stage,
            ancestors=self.ancestors[:-1],
            ancestor_pilots=self.ancestor_pilots[:-1],
        )


@dataclass(frozen=True, slots=True)
class Request:
    """A grant whose pilot and stage are there: what most checks look at."""

    grant: TaskGrant
    pilot: PilotIdentity
    stage: StagePolicy
    ca_not_after: dt.datetime
    seen: GrantSeen
    now: dt.datetime


def wait(reason: Reason, message: str) -> Objection:
    """Make an objection that goes away by itself when its cause does."""
    return Objection(reason, message, is_final=False)


def request_of(seen: GrantSeen, now: dt.datetime) -> Request | Objection:
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
    return Request(grant, pilot, seen.stage, seen.ca_not_after, seen, now)


def pilot_not_ready(pilot: PilotIdentity) -> Objection:
    """Say, in the pilot's own words, why it is not ready."""
    ready = find(pilot.status.conditions, ConditionType.READY)
    why = f"{ready.reason}: {ready.message}" if ready is not None else "it has no identity yet"
    return wait(Reason.PILOT_NOT_READY, f"pilot {pilot.metadata.name!r} is not ready ({why})")
