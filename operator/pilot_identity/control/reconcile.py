"""Reconcile: one pass for one key, and the workers that make passes."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
import secrets
from collections.abc import Iterable
from dataclasses import dataclass

from pilot_identity.control.apply import Applier
from pilot_identity.control.deadlines import Deadlines
from pilot_identity.control.gather import Gatherer
from pilot_identity.control.queue import Priority, WorkQueue
from pilot_identity.control.store import Store
from pilot_identity.core.decisions.approvals import decide_approval
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.grants.endings import left
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.pilots import decide_pilot
from pilot_identity.core.decisions.plan import Plan
from pilot_identity.core.decisions.stages import decide_stage
from pilot_identity.core.decisions.unsound import tell_unsound
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, Resource, StagePolicy, TaskGrant
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.spiffe.clauses import SvidError
from pilot_identity.ports import AlreadyRecorded, Clock, Conflict, PortError

log = logging.getLogger(__name__)

NEXT_RECHECK = dt.timedelta(seconds=1)
"""How soon the first of those who wait for a limit is looked at again: one grant for each pilot."""

_SERIAL_BITS = 159
"""RFC 5280 §4.1.2.2: at most 20 octets, and positive."""


def draw_moment(now: dt.datetime) -> Moment:
    """Draw the randomness that one decision may use."""
    return Moment(
        now=now,
        nonce=secrets.token_hex(16),
        serial=secrets.randbits(_SERIAL_BITS) | 1,
        jitter=secrets.randbelow(1 << 20) / (1 << 20),
    )


def priority_of(resource: Resource | None, pilot: PilotIdentity | None, now: dt.datetime) -> Priority:
    """How urgent a pass for an object is, by what can be seen of it and of a grant's pilot.

    After a restart every object wants a pass: those that only want to be looked at go last.
    """
    match resource:
        case TaskGrant():
            return _priority_of_grant(resource, pilot, now)
        case PilotIdentity() if resource.metadata.is_deleting or resource.spec.suspend:
            return Priority.REVOKE
        case PilotIdentity() if resource.status.credential is not None:
            return Priority.RENEW
        case _:
            return Priority.ISSUE


def _priority_of_grant(grant: TaskGrant, pilot: PilotIdentity | None, now: dt.datetime) -> Priority:
    if grant.metadata.is_deleting:
        return Priority.REVOKE
    phase = grant.status.phase
    if phase is Phase.CLOSING or phase.is_terminal:
        return Priority.DRIFT if phase.is_terminal else Priority.EXPIRE
    if grant.spec.revoke is not None or grant.spec.completed:
        return Priority.REVOKE
    if phase is not Phase.ACTIVE:
        return Priority.ISSUE
    if _is_cut(grant, pilot):
        return Priority.REVOKE
    is_due = grant.status.expires_at is None or grant.status.expires_at <= now
    return Priority.EXPIRE if is_due else Priority.RENEW


def _is_cut(grant: TaskGrant, pilot: PilotIdentity | None) -> bool:
    """Whether an active grant ends at once by what became of its pilot."""
    if pilot is None or pilot.spec.suspend or pilot.metadata.is_deleting:
        return True
    return bool(left(grant, pilot))


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Makes passes: gather, decide, apply."""

    store: Store
    queue: WorkQueue
    deadlines: Deadlines
    gatherer: Gatherer
    applier: Applier
    clock: Clock

    def mark(self, keys: Iterable[Key]) -> None:
        """Mark keys dirty, each as urgent as its object looks."""
        now = self.clock()
        for key in keys:
            resource = self.store.get(key)
            if isinstance(resource, TaskGrant) and self.store.is_to_end(resource):
                self.applier.cut(resource)
            is_urgent = isinstance(resource, TaskGrant) and self._ends_with_another(resource, now)
            self.queue.add(key, Priority.REVOKE if is_urgent else self._priority_of(resource, now))

    def _priority_of(self, resource: Resource | None, now: dt.datetime) -> Priority:
        pilot = self.store.pilot(resource.pilot_key) if isinstance(resource, TaskGrant) else None
        return priority_of(resource, pilot, now)

    def _ends_with_another(self, grant: TaskGrant, now: dt.datetime) -> bool:
        """Whether an active grant's stage is frozen, or it was delegated by one that ends, or has ended."""
        if grant.status.phase is not Phase.ACTIVE:
            return False
        stage = self.store.stages.get(grant.status.stage)
        if stage is not None and stage.spec.freeze:
            return True
        if not grant.spec.parent:
            return False
        ancestors = self.store.ancestors(grant)
        is_short = not ancestors or ancestors[0].spec.parent
        return bool(is_short) or any(
            ancestor.status.phase is not Phase.ACTIVE or self._priority_of(ancestor, now) is Priority.REVOKE
            for ancestor in ancestors
        )

    async def work(self) -> None:
        """Make passes for ever, one at a time; several workers share the queue."""
        while True:
            key = await self.queue.take()
            await self._pass(key)

    async def _pass(self, key: Key) -> None:
        try:
            await self.reconcile(key)
        except (Conflict, AlreadyRecorded) as error:
            # The world is not as observed: look again soon. Not an error, so that a person's log stays calm.
            log.debug("%s: looks again: %s", key, error, extra={"object": str(key)})
            self._retry(key)
        except PortError as error:
            log.warning("%s: tries again: %s", key, error, extra={"object": str(key)})
            self._retry(key)
        except Exception:
            # A defect must not stop the workers that withdraw other objects' access.
            log.exception("%s: a pass failed", key, extra={"object": str(key)})
            self._retry(key)
        else:
            self.queue.done(key)

    def _retry(self, key: Key) -> None:
        delay = self.queue.failed(key)
        asyncio.get_running_loop().call_later(delay, self.mark, [key])

    async def reconcile(self, key: Key) -> None:
        """Make one pass for a key.

        Raises:
            PortError: something outside did not do what was asked; the pass is to be made again.
        """
        resource = self.store.get(key)
        if resource is None:
            self.deadlines.set(key, None)
            return
        moment = draw_moment(self.clock())
        plan = await self._decide(resource, moment)
        if (
            isinstance(resource, TaskGrant)
            and plan.release is not None
            and resource.status.credential is None
        ):
            self.store.note_issuing(resource, moment.now)
        try:
            applied = await self.applier.apply(resource, plan)
        except SvidError as error:
            log.exception("%s: nothing was signed", key, extra={"object": str(key)})
            newest = self.store.get(key) or resource
            applied = await self.applier.apply(newest, tell_unsound(newest, str(error), moment))
        self.mark(applied.dirty)
        self.deadlines.set(key, self._recheck(key, applied.recheck_at, moment.now))

    def _recheck(self, key: Key, planned: dt.datetime | None, now: dt.datetime) -> dt.datetime | None:
        """When to look at a key again. Who is next in line is looked at often, lest he miss room."""
        grant = self.store.grant(key)
        if grant is None or not self.store.is_next(grant):
            return planned
        soon = now + NEXT_RECHECK
        return soon if planned is None else min(soon, planned)

    async def _decide(self, resource: Resource, moment: Moment) -> Plan:
        match resource:
            case TaskGrant():
                return decide_grant(await self.gatherer.grant(resource, moment.now), moment)
            case PilotIdentity():
                return decide_pilot(await self.gatherer.pilot(resource), moment)
            case StagePolicy():
                return decide_stage(await self.gatherer.stage(resource, moment.now), moment)
            case Approval():
                return decide_approval(self.gatherer.approval(resource), moment)
