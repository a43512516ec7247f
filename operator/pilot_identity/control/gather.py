"""Gather: everything that a decision looks at, read before it and nowhere else."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.control.store import Store
from pilot_identity.core.decisions.announced import Announced, Holding, announcement_of
from pilot_identity.core.decisions.grants.seen import GrantSeen
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.plan import Owner
from pilot_identity.core.decisions.stages import StageSeen, is_ready
from pilot_identity.core.resources import PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.ports import AuditLog, Cluster, Issuer


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Puts observations together from the store and, where the store cannot know, from the ports."""

    store: Store
    cluster: Cluster
    issuer: Issuer
    log: AuditLog

    async def stage(self, stage: StagePolicy, now: dt.datetime) -> StageSeen:
        """Observe a stage policy."""
        others = tuple(other for name, other in self.store.stages.items() if name != stage.name)
        return StageSeen(stage, others, await self.issuer.facts(stage.name), now)

    async def pilot(self, pilot: PilotIdentity) -> PilotSeen:
        """Observe a pilot."""
        facts = {
            name: found
            for name, stage in self.store.stages.items()
            if is_ready(stage) and (found := await self.issuer.facts(name)) is not None
        }
        owner = Owner(pilot.key, pilot.metadata.uid)
        known = pilot.status.credential
        announced = await self._announced(
            owner, pilot.svid_secret, known.id if known else None, pilot.status.issuances
        )
        return PilotSeen(
            pilot=pilot,
            stages=self.store.stages,
            sharers=self.store.sharers(pilot),
            open_grants=self.store.open_grants(pilot),
            stages_of_neighbours=self.store.neighbours_stages(pilot),
            ca_not_after={name: fact.not_after for name, fact in facts.items()},
            bundle_sequences={name: fact.sequence for name, fact in facts.items()},
            announced=announced,
            holding=await self._first_holding(pilot, owner),
            account_is_free=await self._account_is_free(pilot, owner),
        )

    async def grant(self, grant: TaskGrant, now: dt.datetime) -> GrantSeen:
        """Observe a grant."""
        pilot = self.store.pilot(grant.pilot_key)
        stage = self.store.stages.get(pilot.status.stage) if pilot is not None else None
        facts = await self.issuer.facts(stage.name) if stage is not None and is_ready(stage) else None
        owner = Owner(grant.key, grant.metadata.uid)
        known = grant.status.credential
        issued_lately, oldest_issue = self.store.issued_lately(grant, now)
        return GrantSeen(
            grant=grant,
            pilot=pilot,
            stage=stage,
            ca_not_after=facts.not_after if facts is not None else None,
            active_grants=self.store.active_grants(grant),
            issued_lately=issued_lately,
            oldest_issue=oldest_issue,
            announced=await self._announced(
                owner, grant.secret, known.id if known else None, grant.status.issuances
            ),
        )

    async def _announced(
        self, owner: Owner, secret: str, known_id: str | None, known_issuance: int
    ) -> Announced | None:
        """Find an announcement that the status does not know, and ask what became of it."""
        found = self.log.announced(owner.uid)
        if found is None:
            return None
        index, entry = found
        announcement = announcement_of(entry)
        if announcement is None or announcement.issuance <= known_issuance:
            self.log.settle(owner.uid, index)
            return None
        holding, uid = await self._holding(owner, secret, announcement.id, known_id)
        return Announced(entry, index, announcement, holding, uid)

    async def _holding(
        self, owner: Owner, secret: str, announced_id: str, known_id: str | None
    ) -> tuple[Holding, str]:
        uid = await self.cluster.holds(owner, secret, announced_id)
        if uid is None:
            return Holding.NOTHING, ""
        if uid:
            return Holding.ANNOUNCED, uid
        if known_id is not None and (uid := await self.cluster.holds(owner, secret, known_id)):
            return Holding.PREVIOUS, uid
        return Holding.FOREIGN, ""

    async def _first_holding(self, pilot: PilotIdentity, owner: Owner) -> Holding:
        """What stands in the place of a pilot's Secret, asked where its last pass could not know."""
        known = pilot.status.credential
        if pilot.metadata.is_deleting or pilot.spec.suspend:
            return Holding.NOTHING
        if known is not None and not _was_refused_for(pilot, Reason.SECRET_NAME_TAKEN):
            return Holding.PREVIOUS
        match await self.cluster.holds(owner, pilot.svid_secret, known.id if known is not None else "none"):
            case None:
                return Holding.NOTHING
            case "":
                return Holding.FOREIGN
            case _:
                return Holding.PREVIOUS

    async def _account_is_free(self, pilot: PilotIdentity, owner: Owner) -> bool:
        """Whether the account to be made is absent or the pilot's own; asked until it was made."""
        if not pilot.makes_service_account or pilot.metadata.is_deleting:
            return True
        is_made = pilot.status.service_account_name == pilot.service_account
        if is_made and not _was_refused_for(pilot, Reason.SERVICE_ACCOUNT_TAKEN):
            return True
        return await self.cluster.owns_service_account(owner, pilot.service_account) is not False


def _was_refused_for(pilot: PilotIdentity, reason: Reason) -> bool:
    ready = find(pilot.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == reason
