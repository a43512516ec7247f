"""Apply: do what a plan says, in the order of its fields (see `core.decisions.plan`)."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from pilot_identity.control.store import Store
from pilot_identity.core.decisions.announced import RELEASE_WITHIN
from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    DeleteCredential,
    KeyOrder,
    MakeServiceAccount,
    Notice,
    Outcome,
    Plan,
    Preparation,
    Proving,
    PublishBundle,
    RemoveBundle,
    SecretGone,
    Test,
    Withdrawal,
)
from pilot_identity.core.resources import Resource
from pilot_identity.core.resources.conditions import cut
from pilot_identity.core.resources.metadata import Key, View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import Proof
from pilot_identity.ports import AuditLog, Clock, Cluster, Conflict, Issuer, PortError, Recorder

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Applied:
    """What came of a plan.

    Attributes:
        dirty: the keys that must be looked at because of it.
        recheck_at: when to look again at the object itself.
    """

    dirty: frozenset[Key]
    recheck_at: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Applier:
    """Carries out plans. A failure leaves the rest undone: the next pass observes what was reached."""

    store: Store
    cluster: Cluster
    issuer: Issuer
    log: AuditLog
    recorder: Recorder
    clock: Clock

    async def apply(self, resource: Resource, plan: Plan) -> Applied:
        """Carry out `plan` for `resource`."""
        dirty: set[Key] = set()
        if plan.hold:
            resource = await self._set_finalizer(resource, dirty, held=True)
        if plan.prove is not None:
            plan = await self._prove(plan.withdraw, plan.prove)
        try:
            outcome = await self._carry_out(plan)
        except PortError as error:
            if not plan.is_overdue:
                raise
            log.error("%s: let go, though not all is withdrawn and recorded: %s", resource.key, error)  # noqa: TRY400
            outcome = Outcome()
        if plan.status is not None:
            resource = await self._write_status(resource, plan.status(outcome), dirty)
        for notice in plan.notices:
            self._tell(notice, outcome.index)
        if plan.let_go:
            await self._set_finalizer(resource, dirty, held=False)
        if plan.status is not None or plan.let_go:
            self.log.settle(resource.metadata.uid, outcome.index)
        return Applied(frozenset(dirty - {resource.key}), plan.recheck_at)

    async def _prove(self, withdrawals: Sequence[Withdrawal], proving: Proving) -> Plan:
        """Withdraw and test. A step that fails is told as not proven, and keeps no other from its turn."""
        proofs: list[Proof] = []
        for withdrawal in withdrawals:
            try:
                await self._withdraw(withdrawal)
            except PortError as error:
                proofs.append(Proof(WITHDRAWN, proven=False, message=cut(str(error))))
        for test in proving.tests:
            try:
                proofs.append(await self._test(test))
            except PortError as error:
                proofs.append(Proof(test.name, proven=False, message=cut(str(error))))
        return proving.conclude(tuple(proofs))

    async def _test(self, test: Test) -> Proof:
        match test:
            case SecretGone(owner, secret, credential_id):
                uid = await self.cluster.holds(owner, secret, credential_id)
                return Proof(test.name, proven=not uid, message=_found(uid))
            case _:
                assert_never(test)

    async def _carry_out(self, plan: Plan) -> Outcome:
        """Do all that comes before the status."""
        for withdrawal in plan.withdraw:
            await self._withdraw(withdrawal)
        for preparation in plan.prepare:
            await self._prepare(preparation)
        if plan.make_keys is not None:
            await self._make_keys(plan.make_keys)
        return await self._record(plan)

    def _tell(self, notice: Notice, index: int) -> None:
        about = {"object": str(notice.owner.key), "reason": str(notice.reason), "audit_index": index}
        log.info("%s: %s: %s", notice.owner.key, notice.reason, notice.note, extra=about)
        self.recorder.tell(notice, index)

    async def _write_status(self, resource: Resource, status: View, dirty: set[Key]) -> Resource:
        before, after = encode(resource.status), encode(status)
        if before == after:
            return resource
        written = await self.cluster.write_status(resource, before, after)
        dirty |= self.store.put(written)
        return written

    async def _set_finalizer(self, resource: Resource, dirty: set[Key], *, held: bool) -> Resource:
        written = await self.cluster.set_finalizer(resource, held=held)
        if written is None:
            return resource
        dirty |= self.store.put(written)
        return written

    async def _record(self, plan: Plan) -> Outcome:
        """Commit the entries; only then release what the last of them announces."""
        release = plan.release
        if release is None:
            return Outcome(await self.log.commit(plan.entries)) if plan.entries else Outcome()
        credential = self.issuer.sign(release.order)
        announcement = release.announce(credential.public_key_sha256)
        index = await self.log.commit([*plan.entries, announcement])
        if self.clock() > announcement.time + RELEASE_WITHIN:
            # Another leader may have called it abandoned by now.
            raise Conflict(f"entry {index} took too long to commit; what it announces is not released")
        uid = await self.cluster.write_credential(
            release.owner, release.secret, credential, replaces=release.replaces
        )
        return Outcome(index, uid)

    async def _make_keys(self, order: KeyOrder) -> None:
        fingerprints = self.issuer.draw_keys(order)
        await self.log.commit([order.announce(fingerprints)])
        await self.issuer.store_keys(order)

    async def _withdraw(self, withdrawal: Withdrawal) -> None:
        match withdrawal:
            case DeleteCredential(namespace, secret, uid):
                await self.cluster.delete_credential(namespace, secret, uid)
            case RemoveBundle(namespace, stage):
                await self.cluster.remove_bundle(namespace, stage)
            case _:
                assert_never(withdrawal)

    async def _prepare(self, preparation: Preparation) -> None:
        match preparation:
            case MakeServiceAccount():
                await self.cluster.make_service_account(preparation)
            case PublishBundle(namespace, stage):
                await self.cluster.publish_bundle(namespace, stage, self.issuer.bundle(stage))
            case _:
                assert_never(preparation)


def _found(secret_uid: str | None) -> str:
    """Say what `Cluster.holds` found."""
    if secret_uid is None:
        return "no such Secret"
    return "the Secret is still there" if secret_uid else "the Secret of that name is someone else's"
