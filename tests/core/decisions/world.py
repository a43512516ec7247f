"""A cluster and a log in memory, on which plans are carried out one step at a time.

It is the smallest thing that keeps the ports' contracts (`pilot_identity.ports`): a Secret is made, or
replaces exactly the credential named; a status is written only over the version that was read; an entry's
id is taken once; what the log announced is remembered until it is settled, and read back from the log
after a restart. Any pass can be stopped after any step, as a kill or a conflict stops the real one.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeVar

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType, RecordedEntry, decode_entry, encode_entry
from pilot_identity.core.decisions.announced import Announced, Holding, announcement_of, stage_announced
from pilot_identity.core.decisions.delegation import lineage
from pilot_identity.core.decisions.grants.closing import CLOSED
from pilot_identity.core.decisions.grants.life import decide_grant
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW, RETENTION, GrantSeen
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.pilots import decide_pilot
from pilot_identity.core.decisions.plan import (
    WITHDRAWN,
    DeleteCredential,
    KeyOrder,
    MakeServiceAccount,
    OnRevocationList,
    Outcome,
    Plan,
    Preparation,
    PublishBundle,
    Release,
    RemoveBundle,
    Revoke,
    SecretGone,
    Test,
    Withdrawal,
)
from pilot_identity.core.decisions.proofs import revoked_of
from pilot_identity.core.decisions.stage_keys import Generation, KeyFacts, facts_of
from pilot_identity.core.decisions.stages import StageSeen, decide_stage, is_ready
from pilot_identity.core.resources import (
    KINDS,
    Approval,
    Phase,
    PilotIdentity,
    StagePolicy,
    TaskGrant,
    parse,
)
from pilot_identity.core.resources.conditions import ConditionType, Reason, find
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.digests import grant_digest, pilot_digest, policy_digest
from pilot_identity.core.resources.metadata import FINALIZER, Key, Metadata, View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.stage_policy import StagePolicyStatus
from pilot_identity.core.resources.task_grant import GrantCredentialStatus, Proof
from pilot_identity.core.resources.timestamps import format_timestamp
from tests.core.builders import NOW, moment
from tests.core.schema import misfits, schema_of

Object = StagePolicy | PilotIdentity | TaskGrant
Kept = TypeVar("Kept", StagePolicy, PilotIdentity, TaskGrant)
ROUNDS = 25
"""More passes than any object needs to come to rest; one that needs more never does."""


class PassLostError(Exception):
    """The world is not as observed: the pass stops where it is, and is made again."""


@dataclass
class Secret:
    """One Secret with a credential, or somebody's own where `owner` is empty."""

    uid: str
    owner: str
    credential: str
    ends: dt.datetime


@dataclass(frozen=True)
class Word:
    """An approval or denial, and what stood there when it was said."""

    approval: Approval
    material: tuple[object, ...]


class Log:
    """`ports.AuditLog` without groups."""

    def __init__(self) -> None:
        self.is_down = False
        self.entries: list[RecordedEntry] = []
        self._encoded: list[bytes] = []
        self._ids: dict[str, int] = {}
        self._announced: dict[str, int] = {}

    def commit(self, entries: Sequence[Entry]) -> int:
        """Take each id once; an announcement that is there already, but other, is refused."""
        if self.is_down:
            raise PassLostError("the log takes nothing")
        for entry in entries:
            encoded = encode_entry(entry, "log")
            known = self._ids.get(entry.id)
            if known is None:
                self._ids[entry.id] = index = len(self.entries)
                self._encoded.append(encoded)
                self.entries.append(decode_entry(encoded))
                if "credential" in entry.data:
                    self._announced[entry.subject_uid] = index
        last = entries[-1]
        index = self._ids[last.id]
        if "credential" in last.data and (
            self._announced.get(last.subject_uid) != index
            or self._encoded[index] != encode_entry(last, "log")
        ):
            raise PassLostError(f"{last.id} is entry {index} already")
        return index

    def announced(self, uid: str) -> tuple[int, RecordedEntry] | None:
        """The subject's last announcement, until it is settled."""
        index = self._announced.get(uid)
        return None if index is None else (index, self.entries[index])

    def recorded(self, uid: str, step: str) -> tuple[int, RecordedEntry] | None:
        """The entry of a subject's step."""
        index = self._ids.get(f"{uid}/{step}")
        return None if index is None else (index, self.entries[index])

    def settle(self, uid: str, index: int) -> None:
        """Forget what was announced up to there."""
        if self._announced.get(uid, index + 1) <= index:
            del self._announced[uid]

    def restart(self) -> None:
        """Read everything back."""
        self._announced = {
            entry.subject_uid: index for index, entry in enumerate(self.entries) if "credential" in entry.data
        }

    def about(self, subject: Object) -> list[str]:
        """What the log tells of an object: the types' middle words, in order."""
        uid = subject.metadata.uid
        return [".".join(one.type.split(".")[2:-1]) for one in self.entries if one.subject_uid == uid]


@dataclass
class World:
    """Everything there is; `now` moves only when a test moves it.

    Attributes:
        revoked: serial numbers and token ids on the published lists.
        broken: names of the proofs that cannot be had while it lasts.
    """

    now: dt.datetime = NOW
    objects: dict[Key, Object] = field(default_factory=dict)
    keys: dict[str, tuple[Generation, ...]] = field(default_factory=dict)
    secrets: dict[tuple[str, str], Secret] = field(default_factory=dict)
    bundles: set[tuple[str, str]] = field(default_factory=set)
    accounts: dict[tuple[str, str], str] = field(default_factory=dict)
    log: Log = field(default_factory=Log)
    released: dict[str, str] = field(default_factory=dict)
    issued: list[tuple[Key, dt.datetime]] = field(default_factory=list)
    told: list[str] = field(default_factory=list)
    revoked: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    owed: list[Entry] = field(default_factory=list)
    words: list[Word] = field(default_factory=list)
    effects: int = 0
    drawn: int = 0

    # What people do.

    def put(self, added: Kept) -> Kept:
        """Apply a manifest."""
        self.effects += 1
        self.objects[added.key] = added
        return added

    def edit(self, key: Key, **spec: Any) -> None:
        """Change fields of an object's spec."""
        found = self.objects[key]
        changed = msgspec.structs.replace(found.spec, **spec)
        self._write(found, generation=found.metadata.generation + 1, spec=changed)

    def delete(self, key: Key) -> None:
        """Ask for an object's deletion; what is not held is gone at once."""
        found = self.objects[key]
        if not found.metadata.finalizers:
            self._remove(found)
        elif not found.metadata.is_deleting:
            self._write(found, deletion_timestamp=self.now)

    def restart(self) -> None:
        """The operator forgets everything that it did not write down."""
        self.log.restart()
        self.issued.clear()

    # What is there.

    def pilot(self, name: str = "triage") -> PilotIdentity:
        """A pilot."""
        found = self.objects[Key("PilotIdentity", "team-a", name)]
        assert isinstance(found, PilotIdentity)
        return found

    def grant(self, name: str = "task-1") -> TaskGrant:
        """A grant."""
        found = self.objects[Key("TaskGrant", "team-a", name)]
        assert isinstance(found, TaskGrant)
        return found

    def secret_of(self, found: Object) -> Secret | None:
        """The Secret that belongs to an object."""
        return next((one for one in self.secrets.values() if one.owner == found.metadata.uid), None)

    def of_kind(self, kind: type[Kept]) -> list[Kept]:
        """All objects of a kind."""
        return [found for found in self.objects.values() if isinstance(found, kind)]

    def say(self, on: TaskGrant, approver: str, digest: str, *, deny: bool = False) -> None:
        """Someone approves a grant, or denies it."""
        self.effects += 1
        number = len(self.words) + 1
        body = {
            "kind": "Approval",
            "metadata": {
                "name": f"word-{number}",
                "uid": f"word-{number}",
                "namespace": on.metadata.namespace,
                "resourceVersion": "1",
                "creationTimestamp": format_timestamp(self.now),
            },
            "spec": {
                "subject": {"kind": "TaskGrant", "name": on.metadata.name, "uid": on.metadata.uid},
                "purpose": "Grant",
                "digest": digest,
                "decision": "Deny" if deny else "Approve",
                "reason": "looked at",
                "approver": approver,
            },
        }
        said = parse(body)
        assert isinstance(said, Approval)
        self.words.append(Word(said, self._material(on)))

    def mend(self) -> None:
        """Everything answers again; what is owed to the log is recorded."""
        self.broken.clear()
        self.log.is_down = False
        if self.owed:
            self.log.commit(self.owed)
            self.owed.clear()

    # What the operator does.

    def settle(self) -> None:
        """Make passes for everything until nothing is left to do."""
        for _ in range(ROUNDS):
            before = self.effects
            busy = [key for key in list(self.objects) if key in self.objects and self.make_pass(key)]
            if not busy and self.effects == before:
                return
        raise AssertionError(f"never comes to rest: {', '.join(map(str, busy))}")

    def make_pass(self, key: Key, *, steps: int | None = None) -> bool:
        """Make one pass, stopped after that many steps; returns whether another is due at once."""
        try:
            plan = self.decide(key)
            for taken, _ in enumerate(self.carry_out(self.objects[key], plan), start=1):
                if taken == steps:
                    return True
        except PassLostError:
            return True
        return plan.recheck_at is not None and plan.recheck_at <= self.now

    def decide(self, key: Key) -> Plan:
        """Gather and decide, and do nothing."""
        self.drawn += 1
        at = moment(self.now, self.drawn, jitter=self.drawn * 0.37 % 1)
        match self.objects[key]:
            case StagePolicy() as stage:
                others = tuple(one for one in self.of_kind(StagePolicy) if one.name != stage.name)
                return decide_stage(StageSeen(stage, others, self.keys.get(stage.name, ()), self.now), at)
            case PilotIdentity() as pilot:
                return decide_pilot(self.see_pilot(pilot), at)
            case TaskGrant() as grant:
                return decide_grant(self.see_grant(grant), at)

    def facts(self, stage: StagePolicy) -> KeyFacts | None:
        """What `ports.Issuer` would tell of a stage's keys."""
        return facts_of(self.keys.get(stage.name, ()), stage.status.signing)

    def see_pilot(self, pilot: PilotIdentity) -> PilotSeen:
        """What `control.gather` would observe."""
        stages = {stage.name: stage for stage in self.of_kind(StagePolicy)}
        facts = {
            name: fact for name, stage in stages.items() if is_ready(stage) and (fact := self.facts(stage))
        }
        neighbours = [one for one in self.of_kind(PilotIdentity) if one.key != pilot.key]
        known = pilot.status.credential
        announced = self._announced(
            pilot, pilot.svid_secret, known.id if known else None, pilot.status.issuances
        )
        account = (pilot.metadata.namespace, pilot.service_account)
        return PilotSeen(
            pilot=pilot,
            stages=stages,
            sharers=tuple(one for one in neighbours if one.service_account == pilot.service_account),
            open_grants=sum(
                grant.pilot_key == pilot.key and grant.status.phase in {Phase.ACTIVE, Phase.CLOSING}
                for grant in self.of_kind(TaskGrant)
            ),
            stages_of_neighbours=frozenset(filter(None, map(self._bundle_stage, neighbours)))
            | frozenset(filter(None, map(self._stage_announced, neighbours))),
            ca_not_after={name: fact.not_after for name, fact in facts.items()},
            bundle_sequences={name: fact.sequence for name, fact in facts.items()},
            announced=announced,
            holding=self._first_holding(pilot),
            account_is_free=not pilot.makes_service_account
            or self.accounts.get(account, pilot.metadata.uid) == pilot.metadata.uid,
        )

    def _bundle_stage(self, neighbour: PilotIdentity) -> str:
        return neighbour.status.bundle.stage if neighbour.status.bundle is not None else ""

    def _stage_announced(self, neighbour: PilotIdentity) -> str:
        told = self.log.announced(neighbour.metadata.uid)
        return stage_announced(told[1], neighbour.status.issuances) if told is not None else ""

    def _first_holding(self, pilot: PilotIdentity) -> Holding:
        """What stands in the place of a pilot's Secret, asked where its last pass could not know."""
        known = pilot.status.credential
        if pilot.metadata.is_deleting or pilot.spec.suspend:
            return Holding.NOTHING
        ready = find(pilot.status.conditions, ConditionType.READY)
        if known is not None and (ready is None or ready.reason != Reason.SECRET_NAME_TAKEN):
            return Holding.PREVIOUS
        standing = self.secrets.get((pilot.metadata.namespace, pilot.svid_secret))
        if standing is None:
            return Holding.NOTHING
        is_known = known is not None and standing.credential == known.id
        return Holding.PREVIOUS if is_known and standing.owner == pilot.metadata.uid else Holding.FOREIGN

    def see_grant(self, grant: TaskGrant) -> GrantSeen:
        """What `control.gather` would observe."""
        pilot = self.objects.get(grant.pilot_key)
        assert pilot is None or isinstance(pilot, PilotIdentity)
        stage = self.objects.get(Key("StagePolicy", "", pilot.status.stage)) if pilot else None
        assert stage is None or isinstance(stage, StagePolicy)
        facts = self.facts(stage) if stage and is_ready(stage) else None
        known = grant.status.credential
        lately = [at for key, at in self.issued if key == grant.pilot_key and at > self.now - RATE_WINDOW]
        ancestors = lineage(grant, self._grant)
        return GrantSeen(
            grant=grant,
            pilot=pilot,
            stage=stage,
            ca_not_after=facts.not_after if facts else None,
            active_grants=sum(
                one.pilot_key == grant.pilot_key and one.key != grant.key and one.status.phase is Phase.ACTIVE
                for one in self.of_kind(TaskGrant)
            ),
            issued_lately=len(lately),
            oldest_issue=lately[0] if lately else None,
            approvals=tuple(word.approval for word in self._words_on(grant)),
            retention=stage.spec.retention if stage is not None else RETENTION,
            ancestors=ancestors,
            ancestor_pilots=tuple(self._pilot(ancestor.pilot_key) for ancestor in ancestors),
            announced=self._announced(
                grant, grant.secret, known.id if known else None, grant.status.issuances
            ),
            closed=self.log.recorded(grant.metadata.uid, CLOSED) if grant.status.closure is None else None,
        )

    def _grant(self, key: Key) -> TaskGrant | None:
        found = self.objects.get(key)
        return found if isinstance(found, TaskGrant) else None

    def _pilot(self, key: Key) -> PilotIdentity | None:
        found = self.objects.get(key)
        return found if isinstance(found, PilotIdentity) else None

    def _announced(self, found: Object, secret: str, known: str | None, issuance: int) -> Announced | None:
        uid = found.metadata.uid
        told = self.log.announced(uid)
        if told is None:
            return None
        index, entry = told
        announcement = announcement_of(entry)
        if announcement is None or announcement.issuance <= issuance:
            self.log.settle(uid, index)
            return None
        standing = self.secrets.get((found.metadata.namespace, secret))
        if standing is None:
            return Announced(entry, index, announcement, Holding.NOTHING)
        if standing.owner == uid and standing.credential == announcement.id:
            return Announced(entry, index, announcement, Holding.ANNOUNCED, standing.uid)
        if standing.owner == uid and standing.credential == known:
            return Announced(entry, index, announcement, Holding.PREVIOUS, standing.uid)
        return Announced(entry, index, announcement, Holding.FOREIGN)

    def carry_out(self, found: Object, plan: Plan) -> Iterator[str]:
        """Do what a plan says, in its order, and say after each step what was done."""
        proofs: list[Proof] = []
        for withdrawal in plan.withdraw:
            if plan.prove is not None and WITHDRAWN in self.broken:
                proofs.append(Proof(WITHDRAWN, proven=False, message="no answer", at=self.now))
                continue
            self._withdraw(withdrawal)
            yield "withdraw"
        if plan.prove is not None:
            proofs += [msgspec.structs.replace(self._test(test), at=self.now) for test in plan.prove.tests]
            plan = plan.prove.conclude(tuple(proofs))
        if plan.hold:
            found = self._set_finalizer(found, held=True)
            yield "hold"
        for preparation in plan.prepare:
            self._prepare(preparation)
            yield "prepare"
        if plan.make_keys is not None:
            yield from self._make_keys(plan.make_keys)
        yield from self._record_and_tell(found, plan)

    def _withdraw(self, withdrawal: Withdrawal) -> None:
        match withdrawal:
            case DeleteCredential(namespace, name, uid):
                standing = self.secrets.get((namespace, name))
                if standing is not None and standing.uid == uid:
                    del self.secrets[namespace, name]
                    self.effects += 1
            case RemoveBundle(owner, name):
                self.bundles.discard((owner.key.namespace, name))
            case Revoke(revoked):
                names = {*(one.serial for one in revoked.certificates), *(one.jti for one in revoked.tokens)}
                self.effects += not names <= self.revoked
                self.revoked |= names
            case _:
                raise NotImplementedError(f"no grant here asks for this: {withdrawal}")

    def _test(self, test: Test) -> Proof:
        if test.name in self.broken:
            return Proof(test.name, proven=False, message="no answer")
        match test:
            case SecretGone(owner, name, credential):
                standing = self.secrets.get((owner.key.namespace, name))
                is_there = standing is not None and (standing.owner, standing.credential) == (
                    owner.uid,
                    credential,
                )
                return Proof(test.name, proven=not is_there)
            case OnRevocationList(revoked):
                names = {*(one.serial for one in revoked.certificates), *(one.jti for one in revoked.tokens)}
                return Proof(test.name, proven=names <= self.revoked)
            case _:
                raise NotImplementedError(f"no grant here asks for this: {test}")

    def _prepare(self, preparation: Preparation) -> None:
        match preparation:
            case MakeServiceAccount(owner, name):
                if self.accounts.setdefault((owner.key.namespace, name), owner.uid) != owner.uid:
                    raise PassLostError("the account is taken")
            case PublishBundle(namespace, name):
                self.bundles.add((namespace, name))

    def _make_keys(self, order: KeyOrder) -> Iterator[str]:
        self.log.commit([order.announce({"jwtKeyID": f"key-of-{order.stage}"})])
        yield "announce keys"
        made = Generation(
            order.generation, order.trust_domain.name, self.now, order.not_after, f"key-of-{order.stage}"
        )
        self.keys[order.stage] = (*self.keys.get(order.stage, ()), made)
        self.effects += 1
        yield "store keys"

    def _record(self, found: Object, plan: Plan) -> Generator[str, None, Outcome]:
        """Commit, and release what the last entry announces."""
        outcome = Outcome()
        if plan.entries or plan.release is not None:
            before = len(self.log.entries)
            release = plan.release
            announcement = [release.announce("ab" * 32)] if release else []
            if release is not None and isinstance(found, TaskGrant):
                self._check_issuing(found, release)
            try:
                index = self.log.commit([*plan.entries, *announcement])
            except PassLostError:
                if not plan.is_overdue:
                    raise
                self.owed += plan.entries
                index = -1
            self.effects += len(self.log.entries) - before
            if isinstance(found, TaskGrant) and release is not None:
                self.issued.append((found.pilot_key, self.now))
            yield "commit"
            keyless = release is not None and not release.secret
            uid = self._release(plan) if release and not keyless else ""
            outcome = Outcome(index, uid, certificate="a certificate" if keyless else "")
            yield "release"
        return outcome

    def _record_and_tell(self, found: Object, plan: Plan) -> Iterator[str]:
        outcome = yield from self._record(found, plan)
        if plan.status is not None:
            found = self._write_status(found, plan.status(outcome))
        if plan.release is not None and not plan.release.secret:
            # The write of the status is what releases it.
            self._count(plan.release)
        self.told += [f"{notice.action} {notice.owner.key}: {notice.note}" for notice in plan.notices]
        if plan.let_go:
            yield "status"
            if isinstance(found, TaskGrant):
                self._check_let_go(found)
            self._set_finalizer(found, held=False)
        if plan.discard:
            yield "status"
            assert isinstance(found, TaskGrant)
            assert found.status.phase.is_terminal, f"{found.key} is discarded before its end"
            self.delete(found.key)
        if plan.status is not None or plan.let_go:
            self.log.settle(found.metadata.uid, outcome.index)
        yield "done"

    def _release(self, plan: Plan) -> str:
        """Write the Secret; this is where the promises about credentials are kept or broken."""
        release = plan.release
        assert release is not None
        place = (release.owner.key.namespace, release.secret)
        standing = self.secrets.get(place)
        if standing is not None and not (
            release.replaces
            and (standing.owner, standing.credential) == (release.owner.uid, release.replaces)
        ):
            raise PassLostError("the name is taken")
        self._count(release)
        order = release.order
        ends = max([order.not_after, *(token.expires_at for token in order.tokens)])
        uid = standing.uid if standing else f"secret-{order.id}"
        self.secrets[place] = Secret(uid, release.owner.uid, order.id, ends)
        self.effects += 1
        return uid

    def _count(self, release: Release) -> None:
        """A credential is out: after its entry, and once."""
        order = release.order
        announced = [one for one in self.log.entries if one.data.get("credential", {}).get("id") == order.id]
        assert announced, f"{order.id} is released without an entry"
        assert order.id not in self.released, f"{order.id} is released twice"
        assert order.not_before < order.not_after, f"{order.id} is over before it begins"
        (entry,) = announced
        assert entry.subject_uid == release.owner.uid
        step = f"{release.owner.uid}/{entry.data['credential']['issuance']}"
        assert step not in self.released.values(), f"{step} is issued twice"
        self.released[order.id] = step

    def _write_status(self, found: Object, status: View) -> Object:
        if status == found.status:
            return found
        kind = KINDS[found.key.kind]
        broken = list(misfits(schema_of(kind.plural)["properties"]["status"], encode(status), "status"))
        assert broken == [], f"the API server refuses the status: {broken}"
        return self._write(found, status=status)

    def _set_finalizer(self, found: Object, *, held: bool) -> Object:
        others = tuple(name for name in found.metadata.finalizers if name != FINALIZER)
        written = self._write(found, finalizers=(*others, FINALIZER) if held else others)
        if written.metadata.is_deleting and not written.metadata.finalizers:
            self._remove(written)
        return written

    def _write(self, found: Object, *, spec: Any = None, status: Any = None, **meta: Any) -> Object:
        standing = self.objects.get(found.key)
        if standing is None or standing.metadata.resource_version != found.metadata.resource_version:
            raise PassLostError("the object changed since it was read")
        version = str(found.metadata.version + 1)
        metadata: Metadata = msgspec.structs.replace(found.metadata, resource_version=version, **meta)
        parts = {"spec": spec, "status": status}
        written: Object = msgspec.structs.replace(
            found, metadata=metadata, **{name: part for name, part in parts.items() if part is not None}
        )
        self.objects[found.key] = written
        self.effects += 1
        return written

    def _remove(self, found: Object) -> None:
        """The object is gone, and what it owns with it."""
        del self.objects[found.key]
        uid = found.metadata.uid
        self.secrets = {place: one for place, one in self.secrets.items() if one.owner != uid}
        self.accounts = {place: owner for place, owner in self.accounts.items() if owner != uid}
        self.effects += 1

    # What must be true.

    def _check_let_go(self, found: TaskGrant) -> None:
        """No grant goes before the log says that its access ended, or what is left of it."""
        every: list[Entry | RecordedEntry] = [*self.log.entries, *self.owed]
        told = [one for one in every if one.subject_uid == found.metadata.uid]
        assert any(
            one.type == EntryType.GRANT_DENIED
            or one.data.get("letGo")
            or one.data.get("closure", {}).get("provenAt")
            for one in told
        ), f"{found.key} is let go without proof or tombstone"

    def _check_issuing(self, found: TaskGrant, release: Release) -> None:
        """No grant is issued, or renewed, without what it needs at this very moment."""
        pilot = self._pilot(found.pilot_key)
        assert pilot is not None
        stage = self.objects[Key("StagePolicy", "", pilot.status.stage)]
        assert isinstance(stage, StagePolicy)
        assert not stage.spec.freeze, f"{found.key} is issued in a frozen stage"
        assert not pilot.spec.suspend, f"{found.key} is issued to a suspended pilot"
        ends = max([release.order.not_after, *(token.expires_at for token in release.order.tokens)])
        if found.spec.parent:
            parent = self._grant(Key("TaskGrant", found.metadata.namespace, found.spec.parent))
            assert parent is not None, f"{found.key} is issued without its parent"
            assert parent.status.phase is Phase.ACTIVE, f"{found.key} is issued under an ended parent"
            until = parent.status.expires_at
            assert until is not None
            assert ends <= until, f"{found.key} outlives its parent"
        if found.status.phase is not Phase.ACTIVE:
            self._check_approved(found, stage.spec.approvals.grant.required)

    def _check_approved(self, found: TaskGrant, required: int) -> None:
        """Enough distinct people, not its requesters, approved exactly what it is now; none denied it."""
        asked_by = {one.spec.requested_by for one in (found, *lineage(found, self._grant))}
        entitled = [
            word
            for word in self._words_on(found)
            if word.approval.spec.approver not in asked_by
            and not word.approval.spec.approver.startswith("system:")
        ]
        now = self._material(found)
        approved = {
            word.approval.spec.approver
            for word in entitled
            if word.approval.spec.decision == "Approve" and word.material == now
        }
        assert len(approved) >= required, f"{found.key} is issued on the word of {approved}"
        denied = [word for word in entitled if word.approval.spec.decision == "Deny"]
        assert not required or not denied, f"{found.key} is issued although it was denied"

    def _words_on(self, found: TaskGrant) -> list[Word]:
        return [one for one in self.words if one.approval.spec.subject.uid == found.metadata.uid]

    def _material(self, found: TaskGrant) -> tuple[object, ...]:
        """What an approval is bound to, as it stands now."""
        pilot = self._pilot(found.pilot_key)
        stage = self.objects.get(Key("StagePolicy", "", pilot.status.stage)) if pilot else None
        known_pilot = pilot_digest(pilot) if pilot else None
        return (
            grant_digest(found),
            known_pilot,
            policy_digest(stage) if isinstance(stage, StagePolicy) else None,
        )

    def check_trees(self) -> None:
        """No child outlives its parent (at rest)."""
        for found in self.of_kind(TaskGrant):
            if found.spec.parent and found.status.phase is Phase.ACTIVE:
                parent = self._grant(Key("TaskGrant", found.metadata.namespace, found.spec.parent))
                assert parent is not None, f"{found.key} outlives its parent"
                assert parent.status.phase is Phase.ACTIVE, f"{found.key} outlives its parent's end"

    def check_closure(self, found: TaskGrant) -> None:
        """An end is final only when it is shown: the Secret is gone, what lives on is on the lists."""
        status, closure = found.status, found.status.closure
        if status.phase in {Phase.ACTIVE, Phase.PENDING, Phase.AWAITING_APPROVAL, Phase.DENIED}:
            assert closure is None, f"{found.key} has a closure and did not end"
            return
        assert closure is not None, f"{found.key} ended without a closure"
        is_final = status.phase is not Phase.CLOSING
        assert (closure.proven_at is not None) is is_final, f"{found.key} is {status.phase}: {closure}"
        assert not is_final or all(proof.proven for proof in closure.proofs)
        assert not is_final or closure.outcome == status.phase
        revoked = revoked_of(found, self.now)
        if is_final and revoked is not None:
            names = {*(one.serial for one in revoked.certificates), *(one.jti for one in revoked.tokens)}
            assert names <= self.revoked, f"{found.key}: {names - self.revoked} live on and are on no list"

    def check_rest(self) -> None:
        """The promises that hold whenever nothing is left to do."""
        for pilot in self.of_kind(PilotIdentity):
            self._check_credential(pilot, pilot.status.credential)
            if pilot.spec.suspend or pilot.metadata.is_deleting:
                assert self.secret_of(pilot) is None, f"{pilot.key} keeps its credential"
            bundle = pilot.status.bundle
            if pilot.status.credential is not None:
                assert bundle is not None, f"{pilot.key} has no bundle"
                assert bundle.stage == pilot.status.stage, f"{pilot.key} says it has another stage's bundle"
                assert (pilot.metadata.namespace, bundle.stage) in self.bundles, f"{bundle} is not there"
        for grant in self.of_kind(TaskGrant):
            self._check_credential(grant, grant.status.credential)
            ends = grant.status.expires_at
            is_closing = grant.status.phase is Phase.CLOSING
            if ends is not None and ends <= self.now:
                assert grant.status.phase.is_terminal or is_closing, f"{grant.key} outlives its time"
            if grant.status.phase.is_terminal:
                assert self.secret_of(grant) is None, f"{grant.key} ended and keeps its credential"
            is_open = self.log.announced(grant.metadata.uid) is not None
            assert self.broken or is_open or not is_closing, f"{grant.key} is still closing"
            self.check_closure(grant)
        for key, found in list(self.objects.items()):
            if isinstance(found, TaskGrant) and found.status.phase is Phase.CLOSING:
                continue  # it goes on trying
            plan = self.decide(key)
            if self.log.announced(found.metadata.uid) is not None:
                # What may still be released is waited for; what is known is withdrawn again meanwhile.
                plan = replace(plan, withdraw=()) if plan.prove is None else plan.prove.conclude(())
            assert is_empty(self.objects[key], plan), f"{key} has more to do: {plan}"

    def _check_credential(
        self, found: Object, known: CredentialStatus | GrantCredentialStatus | None
    ) -> None:
        standing = self.secret_of(found)
        if standing is not None:
            assert known is not None, f"{found.key} does not know of its Secret"
            assert standing.credential == known.id, f"{found.key} does not know what is in its Secret"
        told = [one for one in self.log.entries if one.subject_uid == found.metadata.uid]
        dropped = {one.data["abandoned"]["id"] for one in told if "abandoned" in one.data}
        for entry in told:
            name = entry.data.get("credential", {}).get("id")
            still_open = self.log.announced(found.metadata.uid)
            if name is not None and (still_open is None or still_open[1] != entry):
                assert (name in self.released) != (name in dropped), f"{name} is left open"


def is_empty(found: Object, plan: Plan) -> bool:
    """Whether a plan does nothing; a look at a later time is nothing."""
    same = plan.status is None or plan.status(Outcome()) == found.status
    return same and plan == Plan(status=plan.status, recheck_at=plan.recheck_at)


def started(*stages: StagePolicy) -> World:
    """A world whose stages were just applied, and have got their keys."""
    world = World()
    for stage in stages:
        world.put(msgspec.structs.replace(stage, status=StagePolicyStatus()))
    world.settle()
    assert all(is_ready(stage) for stage in world.of_kind(StagePolicy))
    return world
