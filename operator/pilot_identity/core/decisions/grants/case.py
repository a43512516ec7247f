"""One grant at one moment: what every part of its life needs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.definitions import request_facts, requested
from pilot_identity.core.decisions.delegation import names_of
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources import TaskGrant
from pilot_identity.core.resources.conditions import Finding, Reason, settle
from pilot_identity.core.resources.task_grant import TaskGrantStatus


@dataclass(frozen=True, slots=True)
class Case:
    """One grant at one moment, with what every branch below needs."""

    seen: GrantSeen
    moment: Moment

    @property
    def grant(self) -> TaskGrant:
        """The grant itself."""
        return self.seen.grant

    @property
    def owner(self) -> Owner:
        """The grant as an owner of other objects."""
        return Owner(self.grant.key, self.grant.metadata.uid)

    @property
    def issuance(self) -> int:
        """The number of the next credential; numbers are never used twice."""
        return self.grant.status.issuances + 1

    def entry(self, step: str, kind: EntryType, data: Mapping[str, Any]) -> Entry:
        """Make an entry about this grant; `step` is unique in its life and the same after a crash."""
        grant = self.grant
        return Entry(
            id=f"{grant.metadata.uid}/{step}",
            type=kind,
            subject=str(grant.key),
            subject_uid=grant.metadata.uid,
            time=self.moment.now,
            data={**request_facts(grant, self.seen.parent), **data},
        )

    @property
    def requested(self) -> Entry:
        """The entry that has the request; whoever tells anything of the grant tells it first."""
        return requested(self.grant, self.seen.parent, self.moment.now)

    def notice(self, reason: Reason, action: str, note: str, *, warning: bool = False) -> Notice:
        """Make an Event about this grant."""
        return Notice(self.owner, "Warning" if warning else "Normal", reason, action, note)

    def settled(self, status: TaskGrantStatus, *findings: Finding) -> TaskGrantStatus:
        """Date the findings into the status.

        A child keeps to the parent that it was first looked at with: a namesake made later is another grant.
        """
        generation = self.grant.metadata.generation
        conditions = settle(status.conditions, findings, generation=generation, now=self.moment.now)
        parent = self.seen.parent
        if parent is not None and status.credential is None:
            status = msgspec.structs.replace(
                status, chain=names_of(self.seen.ancestors), parent_uid=parent.metadata.uid
            )
        return msgspec.structs.replace(status, observed_generation=generation, conditions=conditions)
