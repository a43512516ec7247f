"""A world in which log and cluster agree, for tests that change one of them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from pilot_identity.core.audit.completeness import Discrepancy, reconcile
from pilot_identity.core.audit.entries import EntryType, RecordedEntry
from pilot_identity.core.audit.live import Listed, Live, LiveBinding, Subject
from pilot_identity.core.audit.told import Record
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.digests import grant_digest, pilot_digest
from pilot_identity.core.resources.metadata import View
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.pilot_identity import RoleRef
from tests.core import builders
from tests.core.builders import NAMESPACE, NOW

LONG_AGO = NOW - dt.timedelta(minutes=10)
ACCOUNT = "pilot-grant-0123456789abcdef0123"
BINDING = f"{ACCOUNT}-pods"
LABEL: dict[str, Any] = {"labels": {"app.kubernetes.io/managed-by": "pilot-identity"}}
VIEW = RoleRef("ClusterRole", "view")

DECISION = {
    "allowed": True,
    "owners": ["ana", "tom"],
    "checks": [{"name": "within-pilot", "passed": True}],
    "policyDigest": "sha256:policy",
    "decidedAt": "2026-06-01T11:55:00Z",
    "auditIndex": 5,
}
KUBERNETES = {
    "serviceAccountName": ACCOUNT,
    "serviceAccountUID": "account-uid",
    "credentialID": "JTI=1",
    "notAfter": "2026-06-01T12:05:00Z",
    "bindings": [
        {"namespace": NAMESPACE, "name": BINDING, "roleRef": {"kind": "ClusterRole", "name": "view"}},
    ],
}


def plain(view: View) -> dict[str, Any]:
    """A view as the log would have it."""
    decoded: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(encode(view)))
    return decoded


def credential(name: str, number: int, index: int, **fields: Any) -> dict[str, Any]:
    """A grant's credential as its status tells it."""
    told = {
        "id": name,
        "issuance": number,
        "auditIndex": index,
        "secretName": "task-1",
        "secretUID": "secret-uid",
    }
    told |= fields
    return builders.credential_status(
        notAfter="2026-06-01T12:05:00Z", tokens=[{"audience": "https://t", "jti": "j"}], **told
    )


def grant(**status: Any) -> TaskGrant:
    """A grant that is active."""
    told = {
        "decision": DECISION,
        "credential": credential("one", 1, 5, kubernetes=KUBERNETES),
        "expiresAt": "2026-06-01T12:10:00Z",
        **status,
    }
    return builders.active_grant(status=told)


def changed(one: TaskGrant, part: str = "", **fields: Any) -> TaskGrant:
    """The grant with another status, or another part of it."""
    if part:
        fields = {part: msgspec.structs.replace(getattr(one.status, part), **fields)}
    return msgspec.structs.replace(one, status=msgspec.structs.replace(one.status, **fields))


def entry(
    kind: EntryType, of: TaskGrant | PilotIdentity, at: dt.datetime = LONG_AGO, **data: Any
) -> RecordedEntry:
    """An entry about a grant or pilot."""
    digest = (
        {"grantDigest": grant_digest(of)} if isinstance(of, TaskGrant) else {"pilotDigest": pilot_digest(of)}
    )
    return RecordedEntry("id", kind, str(of.key), of.metadata.uid, at, {**digest, **data})


def announced(one: View) -> dict[str, Any]:
    """A credential as its announcement says it."""
    return {name: value for name, value in plain(one).items() if name not in {"auditIndex", "secretUID"}} | {
        "publicKeySHA256": "ab"
    }


def issued(of: TaskGrant, at: dt.datetime = LONG_AGO) -> RecordedEntry:
    """The entry that issued a grant as its status tells it."""
    assert of.status.credential is not None
    assert of.status.decision is not None
    decision = {name: value for name, value in plain(of.status.decision).items() if name != "auditIndex"}
    return entry(
        EntryType.GRANT_ISSUED,
        of,
        at,
        stage=of.status.stage,
        expiresAt=encode(of.status.expires_at).replace("+00:00", "Z"),
        decision=decision,
        credential=announced(of.status.credential),
    )


def closed(of: TaskGrant, at: dt.datetime = LONG_AGO, **closure: Any) -> RecordedEntry:
    """The entry that closed a grant."""
    told = {"outcome": "Revoked", "reason": "Revoked", "provenAt": "2026-06-01T11:56:00Z", **closure}
    return entry(EntryType.GRANT_CLOSED, of, at, closure=told)


def live(kind: str, name: str, uid: str, owner: str = "", **metadata: Any) -> Live:
    """An object as it is listed."""
    owners = [{"uid": owner, "controller": True}] if owner else []
    body = {"name": name, "namespace": NAMESPACE, "uid": uid, "ownerReferences": owners, **metadata}
    return Live.read(kind, {"metadata": body})


def secret(credential_id: str = "one", name: str = "task-1", owner: str = "uid-of-task-1") -> Live:
    """A credential's Secret."""
    annotations = {"pilotidentity.dev/credential": credential_id}
    return live("Secret", name, "secret-uid", owner, annotations=annotations, **LABEL)


def bound(
    name: str = BINDING, role: RoleRef = VIEW, subjects: tuple[Subject, ...] | None = None
) -> LiveBinding:
    """A RoleBinding to the grant's account."""
    whom = (Subject("ServiceAccount", NAMESPACE, ACCOUNT),) if subjects is None else subjects
    return LiveBinding(live("RoleBinding", name, "binding-uid", "uid-of-task-1", **LABEL), role, whom)


SVID = builders.credential_status(id="svid", auditIndex=2, secretUID="secret-uid")


def pilot(**status: Any) -> PilotIdentity:
    """The pilot, whose status says what the log does."""
    one = builders.ready_pilot(status={"credential": SVID})
    told = msgspec.structs.replace(one.status, **{"digest": pilot_digest(one), **status})
    return msgspec.structs.replace(one, status=told)


def registered(of: PilotIdentity) -> RecordedEntry:
    """The entry that gave the pilot its identity."""
    assert of.status.credential is not None
    data: dict[str, Any] = {"stage": of.status.stage, "credential": announced(of.status.credential)}
    return entry(EntryType.PILOT_REGISTERED, of, **data)


@dataclass
class World:
    """A log and a cluster that agree, until a case changes one of them."""

    entries: dict[int, RecordedEntry] = field(default_factory=dict)
    secrets: list[Live] = field(default_factory=list)
    accounts: list[Live] = field(default_factory=list)
    bindings: list[LiveBinding] = field(default_factory=list)
    cluster_bindings: list[LiveBinding] = field(default_factory=list)
    grants: list[TaskGrant] = field(default_factory=list)
    pilots: list[PilotIdentity] = field(default_factory=list)
    unlisted: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    pending: frozenset[str] = frozenset()

    @property
    def grant(self) -> TaskGrant:
        """The grant."""
        return self.grants[0]

    @grant.setter
    def grant(self, one: TaskGrant) -> None:
        self.grants = [one]

    def record(self) -> Record:
        """The log summed up."""
        record = Record()
        for index, one in sorted(self.entries.items()):
            record.take(index, one)
        record.pending = self.pending
        record.pending_accounts = {ACCOUNT} if self.pending else frozenset()
        return record

    def found(self, now: dt.datetime = NOW) -> tuple[Discrepancy, ...]:
        """What one look finds."""
        everything: Mapping[str, Any] = {
            "secrets": tuple(self.secrets),
            "accounts": tuple(self.accounts),
            "bindings": tuple(self.bindings),
            "cluster_bindings": tuple(self.cluster_bindings),
            "grants": {one.metadata.uid: one for one in self.grants},
            "pilots": {one.metadata.uid: one for one in self.pilots},
        }
        kept = {name: value for name, value in everything.items() if name not in self.unlisted}
        return reconcile(self.record(), Listed(**kept, namespaces=self.namespaces), now)


def sound() -> World:
    """A pilot with its identity, and a grant with all that it can have."""
    of, who = grant(), pilot()
    return World(
        entries={2: registered(who), 5: issued(of)},
        secrets=[secret(), secret("svid", "pilot-svid-triage", "uid-of-triage")],
        accounts=[
            live("ServiceAccount", ACCOUNT, "account-uid", "uid-of-task-1", **LABEL),
            live("ServiceAccount", "pilot-workload-triage", "workload-uid", "uid-of-triage", **LABEL),
            live("ServiceAccount", "default", "default-uid"),
        ],
        bindings=[bound(), LiveBinding(live("RoleBinding", "others", "o"), VIEW, ())],
        grants=[of],
        pilots=[who],
    )


def ended(world: World, **closure: Any) -> None:
    """The grant is revoked, and all of it is gone."""
    at = {"outcome": "Revoked", "provenAt": "2026-06-01T11:56:00Z", "auditIndex": 7, **closure}
    world.entries[7] = closed(world.grant)
    status = {**plain(world.grant.status), "phase": at["outcome"], "closure": at}
    world.grant = builders.grant(status=status)
    world.secrets = world.secrets[1:]
    world.accounts, world.bindings = world.accounts[1:], world.bindings[1:]


def renewed(world: World, *, at: dt.datetime = LONG_AGO, is_told: bool = True) -> None:
    """The log announces another credential; the status and the Secret have it, or not yet."""
    before = world.grant
    told = credential("two", 2, 8, kubernetes=KUBERNETES)
    after = grant(credential=told)
    assert after.status.credential is not None
    world.entries[8] = entry(
        EntryType.GRANT_RENEWED, before, at, credential=announced(after.status.credential)
    )
    if is_told:
        world.grant = after
        world.secrets[0] = secret("two")
