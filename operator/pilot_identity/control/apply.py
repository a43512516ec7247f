"""Apply: do what a plan says, in the order of its fields (see `core.decisions.plan`)."""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

import msgspec

from pilot_identity.control.bundles import Bundles
from pilot_identity.control.store import Store
from pilot_identity.core.audit.entries import Entry
from pilot_identity.core.decisions.announced import RELEASE_WITHIN
from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    AccessDenied,
    DeleteAccount,
    DeleteCredential,
    KeyOrder,
    MakeServiceAccount,
    Notice,
    OnRevocationList,
    Outcome,
    Owner,
    Plan,
    Preparation,
    Proving,
    PublishBundle,
    Release,
    RemoveBundle,
    Revoke,
    SecretGone,
    Test,
    TokenRefused,
    Unbind,
    Withdrawal,
)
from pilot_identity.core.resources import Phase, Resource, TaskGrant
from pilot_identity.core.resources.conditions import cut
from pilot_identity.core.resources.metadata import Key, View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.task_grant import Binding, Proof
from pilot_identity.ports import (
    AccountToken,
    AuditLog,
    Clock,
    Cluster,
    Conflict,
    Issuer,
    PortError,
    Recorder,
    Revocations,
)

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
    revocations: Revocations
    clock: Clock
    _cutting: dict[str, asyncio.Task[None]] = field(default_factory=dict, init=False)
    _bundles: Bundles = field(default_factory=Bundles, init=False)

    def cut(self, grant: TaskGrant) -> None:
        """Cut the Kubernetes access of a grant that is to end, ahead of its pass, which does the rest.

        A pass takes a worker for as long as its tests take; where a thousand grants end at once, the last
        would keep its access until then. A failure here is the pass's to find.
        """
        credential, uid = grant.status.credential, grant.metadata.uid
        access = credential.kubernetes if credential is not None else None
        if access is None or grant.status.phase is not Phase.ACTIVE or uid in self._cutting:
            return
        task = asyncio.create_task(self._unbind(access.bindings))
        self._cutting[uid] = task
        task.add_done_callback(lambda _: self._cutting.pop(uid))

    async def _unbind(self, bindings: Sequence[Binding]) -> None:
        for binding in bindings:
            try:
                await self.cluster.accounts.unbind(binding)
            except PortError as error:
                log.debug("RoleBinding %s/%s: %s", binding.namespace, binding.name, error)

    async def apply(self, resource: Resource, plan: Plan) -> Applied:
        """Carry out `plan` for `resource`."""
        with self._bundles.wanted(plan.prepare):
            return await self._apply(resource, plan)

    async def _apply(self, resource: Resource, plan: Plan) -> Applied:
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
            self.log.owe(plan.entries)
            outcome = Outcome()
        if plan.status is not None:
            resource = await self._write_status(resource, plan.status(outcome), dirty)
        for notice in plan.notices:
            self._tell(notice, outcome.index)
        if plan.let_go:
            await self._set_finalizer(resource, dirty, held=False)
        if plan.discard:
            await self.cluster.discard(resource)
        if plan.status is not None or plan.let_go:
            self.log.settle(resource.metadata.uid, outcome.index)
        return Applied(frozenset(dirty - {resource.key}), plan.recheck_at)

    async def _prove(self, withdrawals: Sequence[Withdrawal], proving: Proving) -> Plan:
        """Withdraw and test. A step that fails is told as not proven, and keeps no other from its turn."""
        proofs: list[Proof] = []
        failures: list[str] = []
        for withdrawal in withdrawals:
            try:
                await self._withdraw(withdrawal)
            except PortError as error:
                failures.append(str(error))
        if failures:
            # One proof, however many fail: a status holds only so many.
            told = cut("; ".join(dict.fromkeys(failures)))
            proofs.append(Proof(WITHDRAWN, proven=False, message=told, at=self.clock()))
        for test in proving.tests:
            try:
                proof = await self._test(test)
            except PortError as error:
                proof = Proof(test.name, proven=False, message=cut(str(error)))
            proofs.append(msgspec.structs.replace(proof, at=self.clock()))
        return proving.conclude(tuple(proofs))

    async def _test(self, test: Test) -> Proof:
        match test:
            case SecretGone(owner, secret, credential_id):
                uid = await self.cluster.holds(owner, secret, credential_id)
                return Proof(test.name, proven=not uid, message=_found(uid))
            case AccessDenied():
                return await self.cluster.accounts.test_access(test)
            case TokenRefused():
                return await self.cluster.accounts.test_token(test)
            case OnRevocationList(revoked):
                publication = await self.revocations.published(revoked)
                return Proof(test.name, proven=publication.is_done, message=publication.message)
            case _:
                assert_never(test)

    async def _carry_out(self, plan: Plan) -> Outcome:
        """Do all that comes before the status."""
        for withdrawal in plan.withdraw:
            await self._withdraw(withdrawal)
        for preparation in plan.prepare:
            await self._prepare(preparation)
        made = await self._make_keys(plan.make_keys) if plan.make_keys is not None else Outcome()
        outcome = await self._record(plan)
        if plan.retire_keys is not None:
            await self.issuer.delete_keys(plan.retire_keys)
        return outcome if outcome.index >= 0 else made

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
        account = await self._make_account(release)
        facts = account.facts if account is not None else None
        credential = self.issuer.sign(release.order)
        announcement = release.announce(credential.public_key_sha256, facts)
        index = await self.log.commit([*plan.entries, announcement])
        self._require_timely(announcement, index)
        if account is not None:
            await self._bind(release)
            self._require_timely(announcement, index)
            files = {**credential.files, "kubeconfig": account.kubeconfig}
            credential = replace(credential, files=files)
        if not release.secret:
            return Outcome(index, certificate=credential.files["tls.crt"].decode())
        uid = await self.cluster.write_credential(
            release.owner, release.secret, credential, replaces=release.replaces
        )
        return Outcome(index, uid, account=facts)

    async def _make_account(self, release: Release) -> AccountToken | None:
        """Make the account and its token, so that the entry can name them; they give no access yet."""
        order = release.order.kubernetes
        if order is None:
            return None
        return await self.cluster.accounts.make(release.owner, order, is_renewal=bool(release.replaces))

    async def _bind(self, release: Release) -> None:
        order = release.order.kubernetes
        if order is None:
            return
        try:
            for binding in order.bindings:
                self._require_wanted(release.owner)
                await self.cluster.accounts.bind(release.owner, order.name, binding)
            self._require_wanted(release.owner)
        except Conflict:
            # `cut` may have come before the last of these stood, and does not come again. The port has
            # conflicts of its own; they say nothing of the grant's end.
            if not self._is_to_end(release.owner):
                raise
            await self._unbind(order.bindings)
            raise

    def _require_wanted(self, owner: Owner) -> None:
        """Bind nothing for a grant that somebody's word ended since it was decided upon."""
        if self._is_to_end(owner):
            raise Conflict(f"{owner.key} is to end; it is bound no more")

    def _is_to_end(self, owner: Owner) -> bool:
        grant = self.store.get(owner.key)
        if not isinstance(grant, TaskGrant) or grant.metadata.uid != owner.uid:
            return False
        return self.store.is_to_end(grant)

    def _require_timely(self, announcement: Entry, index: int) -> None:
        """Release nothing late: another leader may have called it abandoned by now."""
        if self.clock() > announcement.time + RELEASE_WITHIN:
            raise Conflict(f"entry {index} took too long to commit; what it announces is not released")

    async def _make_keys(self, order: KeyOrder) -> Outcome:
        fingerprints = self.issuer.draw_keys(order)
        index = await self.log.commit([order.announce(fingerprints)])
        await self.issuer.store_keys(order)
        return Outcome(index)

    async def _withdraw(self, withdrawal: Withdrawal) -> None:
        match withdrawal:
            case Unbind(binding):
                await self.cluster.accounts.unbind(binding)
            case DeleteAccount(owner, name):
                await self.cluster.accounts.delete(owner.key.namespace, name)
            case DeleteCredential(namespace, secret, uid):
                await self.cluster.delete_credential(namespace, secret, uid)
            case RemoveBundle(owner, stage):
                await self._remove_bundle(owner, stage)
            case Revoke(revoked):
                self.revocations.revoke(revoked)
            case _:
                assert_never(withdrawal)

    async def _remove_bundle(self, owner: Owner, stage: str) -> None:
        """Delete a bundle, unless another pilot got there since that was decided."""
        namespace = owner.key.namespace
        async with self._bundles.turn((namespace, stage)):
            is_wanted = self._bundles.is_wanted((namespace, stage))
            if is_wanted or stage in self.store.neighbours_stages(owner.key):
                raise Conflict(f"the bundle of stage {stage!r} in {namespace} is needed again")
            await self.cluster.remove_bundle(namespace, stage)

    async def _prepare(self, preparation: Preparation) -> None:
        match preparation:
            case MakeServiceAccount():
                await self.cluster.make_service_account(preparation)
            case PublishBundle(namespace, stage):
                async with self._bundles.turn((namespace, stage)):
                    await self.cluster.publish_bundle(namespace, stage, self.issuer.bundle(stage))
            case _:
                assert_never(preparation)


def _found(secret_uid: str | None) -> str:
    """Say what `Cluster.holds` found."""
    if secret_uid is None:
        return "no such Secret"
    return "the Secret is still there" if secret_uid else "the Secret of that name is someone else's"
