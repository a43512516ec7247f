"""`PilotIdentity`: one pilot, its owners, its stage and the most it may ever reach."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

import msgspec

from pilot_identity.core.resources.approval import CountedApproval
from pilot_identity.core.resources.conditions import Condition
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.metadata import Key, Metadata, View
from pilot_identity.core.resources.stage_policy import Rule


class Owners(View, frozen=True):
    """The people who answer for the pilot, by their Kubernetes user names."""

    business: str
    technical: str

    @property
    def people(self) -> tuple[str, ...]:
        """Everyone who answers for the pilot, each once."""
        return tuple(dict.fromkeys((self.business, self.technical)))


class Workload(View, frozen=True):
    """Who runs as the pilot."""

    service_account_name: str = ""


class ToolAccess(View, frozen=True):
    """Access to a tool that verifies tokens."""

    audience: str
    actions: tuple[str, ...]
    resources: tuple[str, ...]


class RoleRef(View, frozen=True):
    """The role that a Kubernetes access entry binds."""

    kind: str
    name: str


class KubernetesAccess(View, frozen=True):
    """Access to the API server itself."""

    role_ref: RoleRef
    namespace: str = ""


class AccessEntry(View, frozen=True):
    """One named piece of the pilot's ceiling: a tool or Kubernetes."""

    name: str
    data_class: str
    sensitivity: str = "low"
    tool: ToolAccess | None = None
    kubernetes: KubernetesAccess | None = None


class Delegation(View, frozen=True):
    """To whom the pilot may delegate, and how deep."""

    to: tuple[str, ...] = ()
    max_depth: int = 0


class Material(View, frozen=True):
    """What counts as a material change beside access and owners."""

    model: str = ""
    data_sources: tuple[str, ...] = ()


class PilotException(View, frozen=True):
    """A rule that does not apply to this pilot until a date, once people approved that.

    Attributes:
        requested_by: who wrote it, by the API server's word; empty where that is not known.
    """

    rule: str
    reason: str
    until: dt.datetime
    requested_by: str = ""


class PilotIdentitySpec(View, frozen=True):
    """What the pilot's team declares."""

    workflow: str
    purpose: str
    owners: Owners
    stage: str
    workload: Workload = Workload()
    access: tuple[AccessEntry, ...] = ()
    delegation: Delegation = Delegation()
    material: Material = Material()
    exceptions: tuple[PilotException, ...] = ()
    suspend: bool = False


def bundle_name(stage: str) -> str:
    """The name of the ConfigMap that holds a stage's trust bundle in the pilots' namespaces."""
    return f"pilot-bundle-{stage}"


class BundleStatus(View, frozen=True):
    """The trust bundle last published in the pilot's namespace."""

    stage: str
    config_map_name: str
    sequence: int


class EmergencyUse(View, frozen=True):
    """An emergency grant that a review is owed for."""

    name: str
    uid: str
    requested_by: str


class OwedReview(View, frozen=True):
    """A review that emergency grants owe.

    Attributes:
        since: when the last of them was recorded; a review made before does not count.
        due_at: until when the pilot may get grants without one.
    """

    grants: tuple[EmergencyUse, ...]
    since: dt.datetime
    due_at: dt.datetime


class CountedReview(View, frozen=True):
    """The last review that counted: the Approval and who made it."""

    name: str
    uid: str
    approver: str
    at: dt.datetime


class ExceptionState(StrEnum):
    """How far an exception has come. The docstring below each is its meaning."""

    WAITING = "Waiting"
    """People must approve it; it lifts nothing yet."""
    IN_FORCE = "InForce"
    """It lifts its rule for the pilot's grants."""
    REFUSED = "Refused"
    """Nobody is asked, since it could never be in force; the message says what to change."""
    DENIED = "Denied"
    """Somebody who may approve it said Deny; one Deny is final."""
    ENDED = "Ended"
    """Its time is over."""


class ExceptionStatus(View, frozen=True):
    """What became of one exception.

    Attributes:
        digest: of exactly what is approved.
        since: when it was first looked at as it is now.
        until: its end, in whole seconds.
        rule_text: the rule as it reads; whoever approves may not be let to see the stage.
        required: how many distinct people must approve.
        approvals: that count so far, and those that it was opened on.
        denied_by: the word that ended it.
        audit_index: of the entry that says that it is in force; `None` where it never was.
    """

    rule: str
    digest: str
    since: dt.datetime
    until: dt.datetime
    state: ExceptionState
    message: str = ""
    rule_text: Rule | None = None
    required: int = 1
    approvals: tuple[CountedApproval, ...] = ()
    denied_by: CountedApproval | None = None
    audit_index: int | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is in force, or may yet be."""
        return self.state in {ExceptionState.WAITING, ExceptionState.IN_FORCE}


class PilotIdentityStatus(View, frozen=True):
    """What the operator says. Only the operator may write it, so it is believed.

    Attributes:
        last_used: when one of the pilot's grants was last used, rounded down to ten minutes.
    """

    observed_generation: int = 0
    stage: str = ""
    stage_since: dt.datetime | None = None
    spiffe_id: str = msgspec.field(name="spiffeID", default="")
    service_account_name: str = ""
    digest: str = ""
    credential: CredentialStatus | None = None
    issuances: int = 0
    bundle: BundleStatus | None = None
    review_due: dt.datetime | None = None
    review_owed: OwedReview | None = None
    reviewed: CountedReview | None = None
    exceptions: tuple[ExceptionStatus, ...] = ()
    last_used: dt.datetime | None = None
    conditions: tuple[Condition, ...] = ()


class PilotIdentity(View, frozen=True, tag_field="kind", tag="PilotIdentity"):
    """One pilot."""

    metadata: Metadata
    spec: PilotIdentitySpec
    status: PilotIdentityStatus = PilotIdentityStatus()

    @property
    def key(self) -> Key:
        """The pilot's key in the store."""
        return Key("PilotIdentity", self.metadata.namespace, self.metadata.name)

    @property
    def service_account(self) -> str:
        """The service account that is this pilot's workload, named or made for it."""
        return self.spec.workload.service_account_name or f"pilot-workload-{self.metadata.name}"

    @property
    def makes_service_account(self) -> bool:
        """Whether the operator makes the account rather than finding a named one."""
        return not self.spec.workload.service_account_name

    @property
    def svid_secret(self) -> str:
        """The name of the Secret that holds the pilot's own SVID."""
        return f"pilot-svid-{self.metadata.name}"
