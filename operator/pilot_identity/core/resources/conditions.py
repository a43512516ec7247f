"""Conditions: what `kubectl get` and GitOps tools read of an object's state.

Types follow kstatus: `Ready` is normal-true; `Stalled` is abnormal-true and only present where something
stands still until a person changes it. Every reason is a documented constant below; a reason that is used
but not documented here is a red test.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Literal

from pilot_identity.core.resources.metadata import Repeated, View
from pilot_identity.core.resources.timestamps import format_timestamp

MESSAGE_LIMIT = 1024
"""Characters of user-made input end up in messages; this bounds them."""


class ConditionType(StrEnum):
    """What a condition is about."""

    READY = "Ready"
    """The object does its work: keys made, identity issued, or a grant's story told to its end."""
    STALLED = "Stalled"
    """Nothing will change until a person changes the spec."""
    PROMOTED = "Promoted"
    """The pilot is in the stage that its spec asks for."""
    REVOCATION_UNPROVEN = "RevocationUnproven"
    """A grant ended, and tests do not show yet that its access did; the operator goes on trying."""
    REVIEW_OVERDUE = "ReviewOverdue"
    """Nobody reviewed the pilot in time: it gets no grants, and none is renewed, until somebody does."""
    ROTATING = "Rotating"
    """The stage has more keys than the generation that signs: one that will, or one that did."""
    RECORD_MISMATCH = "RecordMismatch"
    """What is there for the object, or what its status says, is not what the audit log says."""
    WITNESSED = "Witnessed"
    """Every witness that is configured cosigns the audit log. On each stage, where there is a witness."""


STANDING = frozenset({ConditionType.RECORD_MISMATCH, ConditionType.WITNESSED})
"""Types that no decision finds: `core.decisions.mismatch` and `witnessed` alone give and take them."""


class Reason(StrEnum):
    """Why a condition stands as it does. The docstring below each is its documentation."""

    # Any object that issues or is issued.
    SPEC_UNREADABLE = "SpecUnreadable"
    """The spec does not fit this version: a pilot counts as suspended, a grant revoked, a stage frozen."""

    # StagePolicy
    KEYS_READY = "KeysReady"
    """The stage has its own CA and JWT key."""
    TRUST_DOMAIN_SHARED = "TrustDomainShared"
    """Another stage has the same trust domain; the younger of the two is refused."""
    DATA_CLASS_SHARED = "DataClassShared"
    """Another stage lists one of the data classes; the younger of the two is refused."""
    RANK_SHARED = "RankShared"
    """Another stage has the same rank, so that neither is above the other; the younger is refused."""
    KEYS_MISSING = "KeysMissing"
    """The stage had keys, but a Secret that held some is gone; they are not silently replaced."""
    KEYS_FOREIGN = "KeysForeign"
    """The stored keys belong to another trust domain; restore the policy or remove the stale Secret."""
    CA_EXPIRED = "CertificateAuthorityExpired"
    """The stage's CA has expired, so that nothing can be issued in it until the next one is made."""
    KEYS_STEADY = "KeysSteady"
    """One generation of keys stands, and signs."""
    KEYS_PREPARED = "KeysPrepared"
    """The next generation of keys is in the bundle and signs nothing yet; the message says when it will."""
    KEYS_ROTATED = "KeysRotated"
    """Another generation signs; the one before stays in the bundle until what it signed has lapsed."""
    KEYS_RETIRED = "KeysRetired"
    """A generation left the bundle, and its private keys are deleted."""
    RULE_INVALID = "RuleInvalid"
    """A CEL expression of the stage does not compile; until it does, nothing is issued in the stage."""

    # PilotIdentity
    IDENTITY_ISSUED = "IdentityIssued"
    """The pilot has its SPIFFE ID, service account and X.509-SVID."""
    UNKNOWN_STAGE = "UnknownStage"
    """`spec.stage` names no StagePolicy."""
    STAGE_NOT_READY = "StageNotReady"
    """The pilot's StagePolicy is itself refused."""
    STAGE_ABOVE_ENTRY = "StageAboveEntry"
    """A pilot first appears in the lowest stage; it rises from there on evidence."""
    SERVICE_ACCOUNT_SHARED = "ServiceAccountShared"
    """An older pilot already uses this service account."""
    SERVICE_ACCOUNT_TAKEN = "ServiceAccountTaken"
    """The name of the account that the operator would make is taken by one that is not this pilot's."""
    DATA_CLASS_OUTSIDE_STAGE = "DataClassOutsideStage"
    """An access entry's data class is not among those of the pilot's stage."""
    SECRET_NAME_TAKEN = "SecretNameTaken"  # noqa: S105 - a reason, not a secret
    """A Secret of that name exists and is not this object's; it is never overwritten."""
    SUSPENDED = "Suspended"
    """`spec.suspend` is true: every credential of the pilot is withdrawn."""
    DELETING = "Deleting"
    """The object is being deleted; what was issued for it is withdrawn."""
    STAGE_REACHED = "StageReached"
    """The pilot is in the stage that its spec asks for."""
    PROMOTION_HELD = "PromotionHeld"
    """The spec asks for a higher stage than the evidence allows; the message lists what is missing."""
    REVIEW_OWED = "ReviewOwed"
    """An emergency grant is about to be issued; someone else must review the pilot soon after it."""
    REVIEWED = "Reviewed"
    """Someone reviewed the pilot; no review is owed any more."""
    EXCEPTION_ASKED = "ExceptionAsked"
    """The pilot's team wants to be let off a rule of the stage; people must approve that."""
    EXCEPTION_OPENED = "ExceptionOpened"
    """An exception is in force: its rule does not hold for the pilot's grants until it ends."""
    EXCEPTION_ENDED = "ExceptionEnded"
    """An exception is over, or will never be in force; the rule holds."""
    EXCEPTION_REFUSED = "ExceptionRefused"
    """An exception could never be in force, so nobody is asked; the message says what to change."""

    # While a TaskGrant waits.
    PILOT_NOT_FOUND = "PilotNotFound"
    """No PilotIdentity of that name exists in the grant's namespace (yet)."""
    PILOT_NOT_READY = "PilotNotReady"
    """The pilot is refused or has no identity yet; its own Ready condition says why."""
    STAGE_FROZEN = "StageFrozen"
    """The stage's `freeze` is set: nothing is issued in it until that is lifted."""
    APPROVAL_REQUIRED = "ApprovalRequired"
    """The stage asks for approvals before issuing, and they are not there."""
    EXCEPTION_AWAITED = "ExceptionAwaited"
    """A rule of the stage refuses the grant, and people are asked whether to lift it for the pilot."""
    REVIEW_OVERDUE = "ReviewOverdue"
    """A review that the pilot's stage or its emergency grants want was not made in time."""
    REVIEW_UNRECORDED = "ReviewUnrecorded"
    """An emergency grant waits for the moment until its pilot's status says that a review is owed for it."""
    LIMIT_REACHED = "LimitReached"
    """The pilot has as many active grants, or asked as often in a minute, as its stage allows."""

    PARENT_NOT_FOUND = "ParentNotFound"
    """No TaskGrant of the name in `spec.parent` exists in the grant's namespace (yet)."""
    PARENT_NOT_READY = "ParentNotReady"
    """The parent is not issued yet, or its own credentials are not renewed any more."""

    # When a TaskGrant is denied, for good.
    PILOT_SUSPENDED = "PilotSuspended"
    """The pilot was suspended."""
    ACCESS_UNKNOWN = "AccessUnknown"
    """The grant asks for an access entry that the pilot does not have."""
    ACTION_OUTSIDE_PILOT = "ActionOutsidePilot"
    """The grant asks for an action outside the pilot's access."""
    RESOURCE_OUTSIDE_PILOT = "ResourceOutsidePilot"
    """The grant asks for resources outside the pilot's access."""
    AUDIENCE_OUTSIDE_PILOT = "AudienceOutsidePilot"
    """The grant asks for an audience that none of its access entries has."""
    DURATION_TOO_LONG = "DurationTooLong"
    """The grant asks for more time than the stage allows to one task."""
    RULE_REFUSED = "RuleRefused"
    """One of the stage's rules does not hold for this grant; the message is the rule's."""
    RULE_FAILED = "RuleFailed"
    """One of the stage's CEL expressions gave no answer for this grant; no answer is no."""
    REQUESTER_NOT_WORKLOAD = "RequesterNotWorkload"
    """A ServiceAccount asked that is not the pilot's workload."""
    APPROVAL_DENIED = "ApprovalDenied"
    """Somebody who may approve the grant said Deny; one Deny is final."""
    DELEGATION_NOT_ALLOWED = "DelegationNotAllowed"
    """The parent's pilot may not delegate to this grant's pilot, or the grant is its own ancestor."""
    DELEGATION_TOO_DEEP = "DelegationTooDeep"
    """The grant would be more generations below an ancestor than that one's pilot allows."""
    STAGE_OUTSIDE_PARENT = "StageOutsideParent"
    """The grant's pilot is in another stage than the parent; nothing is passed on from stage to stage."""
    ACCESS_OUTSIDE_PARENT = "AccessOutsideParent"
    """The grant asks for access that one of its ancestors does not have."""
    DURATION_OUTSIDE_PARENT = "DurationOutsideParent"
    """The grant would end after its parent; the message tells how much time is left."""
    CERTIFICATE_REQUEST_INVALID = "CertificateRequestInvalid"
    """`spec.certificateRequest` cannot be signed: malformed, a weak key, or asked for what needs a Secret."""
    ROLE_NOT_BINDABLE = "RoleNotBindable"
    """A role that is asked for cannot be bound: no admin allowed it, or it or its namespace is missing."""
    KUBERNETES_NAME_TAKEN = "KubernetesNameTaken"
    """The name of the grant's ServiceAccount or RoleBinding is taken by something that is not the grant's."""
    ACCESS_CHANGED = "AccessChanged"
    """The pilot's Kubernetes access is another than the one that was bound for the grant."""
    TOKEN_TOO_LARGE = "TokenTooLarge"  # noqa: S105 - a reason, not a secret
    """What the grant asks for does not fit into one token that verifiers read; the message says how far."""
    EMERGENCY_NOT_ALLOWED = "EmergencyNotAllowed"
    """`spec.emergency` is set, and the stage has no emergency grants."""

    # Whatever wants a credential.
    SECRET_REFUSED = "SecretRefused"  # noqa: S105 - a reason, not a secret
    """The API server does not let the Secret be made, for example for a ResourceQuota; it is asked again."""
    CREDENTIAL_UNSOUND = "CredentialUnsound"
    """What was to be signed breaks a clause of its own standard, so it is not: a defect, please report it."""

    # Once a TaskGrant is issued, and when it ends.
    ISSUED = "Issued"
    """The task's credentials are in its Secret."""
    DECISION_OUTDATED = "DecisionOutdated"
    """Pilot or stage changed materially since people approved the grant; it is not renewed any more."""
    RENEWED_TOO_OFTEN = "RenewedTooOften"
    """Too many credentials that renewals replaced are not lapsed yet; the next renewal waits for that."""
    RENEWED = "Renewed"
    """The task goes on; its credentials were replaced by fresh ones."""
    TASK_COMPLETED = "TaskCompleted"
    """`spec.completed` was set."""
    TIME_UP = "TimeUp"
    """The grant's duration is over."""
    APPROVAL_TIMED_OUT = "ApprovalTimedOut"
    """The grant was not issued within the time that its stage lets a request wait for approvals."""
    WAITED_TOO_LONG = "WaitedTooLong"
    """The grant waited for something else than approvals, and as long as its stage lets a request wait."""
    EMERGENCY_ISSUED = "EmergencyIssued"
    """Someone broke the glass: the credentials were issued without approvals; a review is owed."""
    REVOKED = "Revoked"
    """`spec.revoke` was set."""
    GRANT_DELETED = "GrantDeleted"
    """The grant was deleted."""
    PARENT_ENDED = "ParentEnded"
    """The parent grant ended or is gone, and its children end with it."""
    PILOT_DELETED = "PilotDeleted"
    """The pilot was deleted."""
    STAGE_CHANGED = "StageChanged"
    """The pilot moved to another stage, and with that to another trust domain."""

    # Approval
    COUNTED = "Counted"
    """A decision was made on it; it cannot be used again."""
    WAITING = "Waiting"
    """It counts, or may yet; the decision is not made."""
    VOID = "Void"
    """What it was about has changed, or was decided without it; it counts for nothing."""
    REFUSED = "Refused"
    """Its approver has no say in this; it counts for nothing."""
    OWNER_LEFT = "OwnerLeft"
    """Someone who owned the pilot when the grant was decided does not own it any more."""
    PROOF_PENDING = "ProofPending"
    """Access is cut; the tests that show it are not all passed yet."""
    PROOF_OVERDUE = "ProofOverdue"
    """Half a minute after the end the tests still do not show that access ended; the message names them."""

    # Whatever is held against the audit log.
    NOT_AS_RECORDED = "NotAsRecorded"
    """Two looks showed that cluster and audit log disagree; people must find out who did that."""
    AS_RECORDED = "AsRecorded"
    """Cluster and audit log agree again on the object."""
    LOG_HALTED = "AuditLogHalted"
    """Only of Events: the stored audit log is not what was committed. Nothing is issued until it is whole."""
    LOG_GOES_ON = "AuditLogGoesOn"
    """Only of Events: the stored audit log is what was committed again; entries are taken."""
    STRAY_REMOVED = "StrayRemoved"
    """Only of Events: a group that was no part of the audit log is removed; the entry says what it held."""

    # The audit log's witnesses, told on every StagePolicy.
    COSIGNED = "Cosigned"
    """Every witness cosigns the audit log's heads."""
    WITNESS_INCONSISTENT = "WitnessInconsistent"
    """A witness saw another history of this audit log: it was cut or rewritten. Keep everything, and look."""
    WITNESS_REFUSED = "WitnessRefused"
    """A witness will not cosign: it does not know this log, or takes its heads for none; it says why."""
    WITNESS_UNREACHABLE = "WitnessUnreachable"
    """For a minute a witness gave no answer, or none that a witness gives."""
    WITNESS_BEHIND = "WitnessBehind"
    """For a minute a witness could not be brought to the head; what lies between cannot be read or proven."""
    UNWITNESSED = "Unwitnessed"
    """No witness is configured any more: what comes from now on is under the log's own key alone."""

    # What the API server told of a grant's account; only in Events.
    USED_AFTER_END = "UsedAfterEnd"
    """Requests were still allowed long after a grant's access was withdrawn; the audit log has which."""
    USED_WITHOUT_GRANT = "UsedWithoutGrant"
    """An account named like a grant's was used, and is no known grant's; the audit log has for what."""


class Condition(Repeated, frozen=True):
    """One condition, as the API server stores it."""

    type: str
    status: Literal["True", "False", "Unknown"]
    reason: str
    message: str = ""
    last_transition_time: str = ""
    observed_generation: int = 0


class Finding(View, frozen=True):
    """A condition as a decision wants it, before it is dated."""

    type: ConditionType
    status: bool
    reason: Reason
    message: str


def cut(message: str) -> str:
    """Cut a message to what a condition may hold."""
    return message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…"


def settle(
    current: Sequence[Condition],
    findings: Sequence[Finding],
    *,
    generation: int,
    now: dt.datetime,
) -> tuple[Condition, ...]:
    """Make the list of conditions that `findings` demand; each keeps its time while its status stays.

    Types that `findings` do not name are dropped, so that an abnormal-true condition goes with its cause; but
    those of `STANDING` stay as they are.
    """
    before: Mapping[str, Condition] = {condition.type: condition for condition in current}
    named = {finding.type for finding in findings}
    standing = (one for one in current if one.type in STANDING and one.type not in named)
    return (
        *(_settle_one(before.get(finding.type), finding, generation, now) for finding in findings),
        *standing,
    )


def _settle_one(before: Condition | None, finding: Finding, generation: int, now: dt.datetime) -> Condition:
    status: Literal["True", "False"] = "True" if finding.status else "False"
    kept = before is not None and before.status == status and before.last_transition_time
    return Condition(
        type=finding.type,
        status=status,
        reason=finding.reason,
        message=cut(finding.message),
        last_transition_time=before.last_transition_time if kept and before else format_timestamp(now),
        observed_generation=generation,
    )


def find(conditions: Sequence[Condition], kind: ConditionType) -> Condition | None:
    """Return the condition of that type, if there is one."""
    return next((condition for condition in conditions if condition.type == kind), None)
