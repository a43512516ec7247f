"""`TaskGrant`: a piece of a pilot's reach, for one task, for a short time."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum
from functools import lru_cache

import msgspec

from pilot_identity.core.resources.approval import CountedApproval
from pilot_identity.core.resources.conditions import Condition
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import Key, Metadata, Repeated, View
from pilot_identity.core.resources.pilot_identity import RoleRef


class Phase(StrEnum):
    """Where a grant is in its life; the last four are terminal and final."""

    PENDING = "Pending"
    AWAITING_APPROVAL = "AwaitingApproval"
    ACTIVE = "Active"
    CLOSING = "Closing"
    COMPLETED = "Completed"
    EXPIRED = "Expired"
    REVOKED = "Revoked"
    DENIED = "Denied"

    @property
    def is_terminal(self) -> bool:
        """Whether nothing follows."""
        return self in {Phase.COMPLETED, Phase.EXPIRED, Phase.REVOKED, Phase.DENIED}


class Task(View, frozen=True):
    """What the access is for."""

    id: str
    description: str = ""


class AskedAccess(Repeated, frozen=True):
    """One of the pilot's access entries by name, narrowed where actions or resources are given."""

    name: str
    actions: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()


class Revocation(View, frozen=True):
    """The word that ends a grant."""

    reason: str
    by: str = ""


class TaskGrantSpec(View, frozen=True):
    """What was asked; immutable but for `completed` and `revoke`."""

    pilot: str
    task: Task
    access: tuple[AskedAccess, ...]
    requested_by: str = ""
    duration: Duration = Duration(minutes=15)
    audience: tuple[str, ...] = ()
    parent: str = ""
    certificate_request: str = ""
    secret_name: str = ""
    emergency: bool = False
    completed: bool = False
    revoke: Revocation | None = None


class IssuedToken(View, frozen=True):
    """One JWT-SVID of the credential: a token for each audience."""

    audience: str
    jti: str
    not_after: dt.datetime | None = None


class Superseded(View, frozen=True):
    """A credential that a renewal replaced, while a copy of it would still be believed."""

    serial: str
    not_after: dt.datetime
    tokens: tuple[IssuedToken, ...] = ()


class Binding(View, frozen=True):
    """A RoleBinding that gives a grant its Kubernetes access."""

    namespace: str
    name: str
    role_ref: RoleRef


class KubernetesCredential(View, frozen=True):
    """A grant's Kubernetes access: its own ServiceAccount, the token's id and the bindings."""

    service_account_name: str
    credential_id: str = msgspec.field(name="credentialID")
    not_after: dt.datetime
    bindings: tuple[Binding, ...]
    service_account_uid: str = msgspec.field(name="serviceAccountUID", default="")


class GrantCredentialStatus(CredentialStatus, frozen=True):
    """The credential that was last released, with its tokens.

    It stands in the grant's Secret; where the grant gave a certificate request, `certificate` holds it and
    there is no Secret.
    """

    tokens: tuple[IssuedToken, ...] = ()
    superseded: tuple[Superseded, ...] = ()
    certificate: str = ""
    kubernetes: KubernetesCredential | None = None


class CheckResult(View, frozen=True):
    """What one check of the decision said."""

    name: str
    passed: bool
    message: str = ""


@lru_cache(maxsize=256)
def _once(checks: tuple[CheckResult, ...]) -> tuple[CheckResult, ...]:
    """Of equal results those that came first."""
    return checks


class ApprovalWait(View, frozen=True):
    """What a grant that people must approve waits for.

    Attributes:
        digest: of exactly what is approved.
        required: how many distinct people must approve.
        expires_at: until when it waits.
        since: since when the digest is that one; what was approved before does not count, even where the
            digest comes back to what it was. `None` while it never changed.
    """

    digest: str
    required: int
    expires_at: dt.datetime
    approved_by: tuple[str, ...] = ()
    since: dt.datetime | None = None


class DecisionStatus(Repeated, frozen=True):
    """The decision, complete enough to be made again."""

    allowed: bool
    reason: str = ""
    message: str = ""
    checks: tuple[CheckResult, ...] = ()
    approvals: tuple[CountedApproval, ...] = ()
    owners: tuple[str, ...] = ()
    policy_digest: str = ""
    pilot_digest: str = ""
    decided_at: dt.datetime | None = None
    audit_index: int = -1

    def __post_init__(self) -> None:
        """Share the checks too: thousands of grants that were allowed alike have the same results."""
        super().__post_init__()
        msgspec.structs.force_setattr(self, "checks", _once(self.checks))


class Proof(View, frozen=True):
    """One test of what was withdrawn.

    Attributes:
        name: what was tested, one of `core.decisions.proofs`' names.
        proven: whether it shows that access has ended.
    """

    name: str
    proven: bool
    message: str = ""
    at: dt.datetime | None = None


class ClosureStatus(View, frozen=True):
    """How and when the grant ended."""

    outcome: str
    reason: str = ""
    message: str = ""
    requested_at: dt.datetime | None = None
    withdrawn_at: dt.datetime | None = None
    proven_at: dt.datetime | None = None
    proofs: tuple[Proof, ...] = ()
    residual_until: dt.datetime | None = None
    audit_index: int = -1


class Use(View, frozen=True):
    """How much something was used.

    Attributes:
        last_used: when, as far as it was told; a status lags by a minute.
        requests: to the API server.
        refused: those of them that it refused (403).
        activities: what agents and tools reported.
    """

    last_used: dt.datetime | None = None
    requests: int = 0
    refused: int = 0
    activities: int = 0


class Usage(Use, frozen=True):
    """The use of a grant itself, and of all grants that were delegated from it."""

    first_used: dt.datetime | None = None
    chained: Use | None = None


class TaskGrantStatus(View, frozen=True):
    """What the operator says. Only the operator may write it, so it is believed."""

    observed_generation: int = 0
    phase: Phase = Phase.PENDING
    approval: ApprovalWait | None = None
    decision: DecisionStatus | None = None
    credential: GrantCredentialStatus | None = None
    issuances: int = 0
    stage: str = ""
    issued_at: dt.datetime | None = None
    expires_at: dt.datetime | None = None
    chain: tuple[str, ...] = ()
    parent_uid: str = msgspec.field(name="parentUID", default="")
    usage: Usage | None = None
    closure: ClosureStatus | None = None
    conditions: tuple[Condition, ...] = ()


class TaskGrant(View, frozen=True, tag_field="kind", tag="TaskGrant"):
    """One grant."""

    metadata: Metadata
    spec: TaskGrantSpec
    status: TaskGrantStatus = TaskGrantStatus()

    @property
    def key(self) -> Key:
        """The grant's key in the store."""
        return Key("TaskGrant", self.metadata.namespace, self.metadata.name)

    @property
    def pilot_key(self) -> Key:
        """The key of the pilot that the grant names."""
        return Key("PilotIdentity", self.metadata.namespace, self.spec.pilot)

    @property
    def parent_key(self) -> Key | None:
        """The key of the grant whose child this is."""
        parent = self.spec.parent
        return Key("TaskGrant", self.metadata.namespace, parent) if parent else None

    @property
    def secret(self) -> str:
        """The name of the grant's Secret, known before the Secret is there; empty where there will be none.

        Whoever brought a certificate request keeps the key himself: nothing is left that needs a Secret.
        """
        return "" if self.spec.certificate_request else self.spec.secret_name or self.metadata.name
