"""Gather: everything that a decision looks at, read before it and nowhere else."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from dataclasses import dataclass, replace

from pilot_identity.control.store import Store
from pilot_identity.core.decisions.announced import Announced, Holding, announcement_of, stage_announced
from pilot_identity.core.decisions.approvals import ApprovalSeen
from pilot_identity.core.decisions.grants.closing import CLOSED
from pilot_identity.core.decisions.grants.endings import is_ending
from pilot_identity.core.decisions.grants.seen import RETENTION, GrantSeen
from pilot_identity.core.decisions.hindrance import Hindrance, Obstacle
from pilot_identity.core.decisions.holding import is_overdue
from pilot_identity.core.decisions.kubernetes_access import account_name, bindings_of
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.plan import Owner
from pilot_identity.core.decisions.stage_keys import KeyFacts, facts_of
from pilot_identity.core.decisions.stages import StageSeen, is_ready
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.ports import AuditLog, Cluster, Issuer, PortError, Revocations

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Gatherer:
    """Puts observations together from the store and, where the store cannot know, from the ports."""

    store: Store
    cluster: Cluster
    issuer: Issuer
    log: AuditLog
    revocations: Revocations

    async def stage(self, stage: StagePolicy, now: dt.datetime) -> StageSeen:
        """Observe a stage policy."""
        others = tuple(other for name, other in self.store.stages.items() if name != stage.name)
        generations = await self.issuer.generations(stage.name)
        keys = facts_of(generations, stage.status.signing)
        behind = frozenset[str]()
        if keys is not None:
            behind = self.store.behind(stage.name, keys.sequence) | self.revocations.behind(stage.name, keys)
        return StageSeen(stage, others, generations, now, behind)

    async def pilot(self, pilot: PilotIdentity) -> PilotSeen:
        """Observe a pilot."""
        facts = {
            name: found
            for name, stage in self.store.stages.items()
            if is_ready(stage) and (found := await self._facts(stage)) is not None
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
            stages_of_neighbours=await self._stages_of_neighbours(pilot),
            ca_not_after={name: fact.not_after for name, fact in facts.items()},
            bundle_sequences={name: fact.sequence for name, fact in facts.items()},
            announced=announced,
            holding=await self._first_holding(pilot, owner),
            refusal=await self._refusal(owner, pilot.svid_secret, known, pilot.status.issuances)
            if announced is None and not pilot.metadata.is_deleting and not pilot.spec.suspend
            else "",
            account_is_free=await self._account_is_free(pilot, owner),
            emergencies=self.store.unrecorded_emergencies(pilot),
            reviews=self.store.approvals(pilot.metadata.uid),
        )

    async def _stages_of_neighbours(self, pilot: PilotIdentity) -> frozenset[str]:
        """The stages whose bundle others use; also who has a credential that no status knows, after a crash.

        That is asked only of a pilot that leaves a bundle which nobody else's status names.
        """
        stages, bundle = self.store.neighbours_stages(pilot.key), pilot.status.bundle
        is_left = bundle is not None and (pilot.metadata.is_deleting or bundle.stage != pilot.status.stage)
        if bundle is None or not is_left or bundle.stage in stages:
            return stages
        for one in self.store.neighbours(pilot.key):
            try:
                found = await self.log.announced(one.metadata.uid, one.status.issuances)
            except PortError as error:
                log.warning("%s: bundle %s stays: %s", pilot.key, bundle.config_map_name, error)
                return stages | {bundle.stage}
            if found is not None:
                stages |= {stage_announced(found[1], one.status.issuances)}
        return stages

    def approval(self, approval: Approval) -> ApprovalSeen:
        """Observe an approval."""
        subject = self.store.subject(approval)
        pilot = subject if isinstance(subject, PilotIdentity) else None
        if isinstance(subject, TaskGrant):
            pilot = self.store.pilot(subject.pilot_key)
        stage = self.store.stages.get(pilot.status.stage) if pilot is not None else None
        ancestors = self.store.ancestors(subject) if isinstance(subject, TaskGrant) else ()
        return ApprovalSeen(approval, subject, stage, ancestors)

    async def grant(self, grant: TaskGrant, now: dt.datetime) -> GrantSeen:
        """Observe a grant."""
        pilot = self.store.pilot(grant.pilot_key)
        stage = self.store.stages.get(pilot.status.stage) if pilot is not None else None
        owner = Owner(grant.key, grant.metadata.uid)
        issued_lately, oldest_issue = self.store.issued_lately(grant, now)
        ancestors = self.store.ancestors(grant)
        seen = GrantSeen(
            grant=grant,
            pilot=pilot,
            stage=stage,
            active_grants=self.store.active_grants(grant),
            issued_lately=issued_lately,
            retention=self._retention(grant, stage),
            oldest_issue=oldest_issue,
            approvals=self.store.approvals(grant.metadata.uid),
            ancestors=ancestors,
            ancestor_pilots=tuple(self.store.pilot(ancestor.pilot_key) for ancestor in ancestors),
        )
        if _is_to_be_cut(seen, now):
            return await self._to_be_cut(seen, owner)
        facts = await self._facts(stage) if stage is not None and is_ready(stage) else None
        announced = await self._announced_to(grant, owner)
        seen = replace(seen, announced=announced, ca_not_after=facts.not_after if facts is not None else None)
        if announced is not None or not _wants_credential(grant, now):
            return seen
        return replace(
            seen,
            hindrances=await self._hindrances(grant, pilot, owner),
            refusal=await self._refusal(owner, grant.secret, grant.status.credential, grant.status.issuances),
        )

    async def _facts(self, stage: StagePolicy) -> KeyFacts | None:
        return await self.issuer.facts(stage.name, stage.status.signing)

    async def _to_be_cut(self, seen: GrantSeen, owner: Owner) -> GrantSeen:
        """Ask only what the end must name; where that cannot be answered, nothing waits for it."""
        try:
            announced = await self._announced_to(seen.grant, owner)
            is_told = seen.grant.status.closure is not None
            closed = None if is_told else await self.log.recorded(owner.uid, CLOSED)
            return replace(seen, announced=announced, closed=closed)
        except PortError as error:
            log.warning("%s: cut, though it is not known what was announced: %s", seen.grant.key, error)
            return replace(seen, is_announced_unknown=True)

    async def _announced_to(self, grant: TaskGrant, owner: Owner) -> Announced | None:
        known = grant.status.credential
        announced = await self._announced(
            owner, grant.secret, known.id if known else None, grant.status.issuances
        )
        if announced is not None and not grant.secret:
            # Released by a write of the status alone: what a status does not know was never released, if it
            # is the newest there is. A write of nothing asks that, and is a `Conflict` where it is not.
            await self.cluster.write_status(grant, {}, {})
        return announced

    async def _hindrances(
        self, grant: TaskGrant, pilot: PilotIdentity | None, owner: Owner
    ) -> tuple[Hindrance, ...]:
        """Ask what stands in the way of the Kubernetes access that a grant asks for."""
        bindings = bindings_of(grant, pilot) if pilot is not None else ()
        if not bindings:
            return ()
        account, accounts = account_name(grant), self.cluster.accounts
        owns, *tried = await asyncio.gather(
            self.cluster.owns_service_account(owner, account),
            *(accounts.hindrance(owner, account, binding) for binding in bindings),
        )
        taken = (Hindrance(bindings[0], Obstacle.NAME_TAKEN),) if owns is False else ()
        return (*taken, *(hindrance for hindrance in tried if hindrance is not None))

    async def _refusal(
        self, owner: Owner, secret: str, known: CredentialStatus | None, issuances: int
    ) -> str:
        """Ask why a Secret could not be made, where the last credential that was announced never came to be.

        Where none failed nothing is asked: a refusal is found out once by trying.
        """
        if not secret or issuances <= (known.issuance if known is not None else 0):
            return ""
        if known is not None and await self.cluster.holds(owner, secret, known.id) is not None:
            return ""
        return await self.cluster.refusal(owner, secret)

    def _retention(self, grant: TaskGrant, stage: StagePolicy | None) -> dt.timedelta:
        """How long the grant stays once it ended: what the stage says that it was issued in."""
        issued_in = self.store.stages.get(grant.status.stage) or stage
        return issued_in.spec.retention if issued_in is not None else RETENTION

    async def _announced(
        self, owner: Owner, secret: str, known_id: str | None, known_issuance: int
    ) -> Announced | None:
        """Find an announcement that the status does not know, and ask what became of it."""
        found = await self.log.announced(owner.uid, known_issuance)
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
        if not secret:
            return Holding.NOTHING, ""
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


def _is_to_be_cut(seen: GrantSeen, now: dt.datetime) -> bool:
    """Whether a grant's access is to be cut now, or was and is not shown, or its object waited too long."""
    grant = seen.grant
    if grant.status.phase.is_terminal:
        return is_overdue(grant.metadata, now)
    return grant.status.phase is Phase.CLOSING or is_ending(seen, now) or is_overdue(grant.metadata, now)


def _was_refused_for(pilot: PilotIdentity, reason: Reason) -> bool:
    ready = find(pilot.status.conditions, ConditionType.READY)
    return ready is not None and ready.reason == reason


def _wants_credential(grant: TaskGrant, now: dt.datetime) -> bool:
    """Whether a grant waits for its first credential, or one that runs for its next."""
    status = grant.status
    if status.phase in {Phase.PENDING, Phase.AWAITING_APPROVAL}:
        return not grant.metadata.is_deleting
    is_due = status.credential is not None and status.credential.renew_at <= now
    return status.phase is Phase.ACTIVE and is_due
