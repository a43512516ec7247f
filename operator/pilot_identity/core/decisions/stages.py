"""Stage policies: which are usable, and their keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping
from dataclasses import dataclass

from pilot_identity.core.audit.entries import Entry, EntryType, evidence
from pilot_identity.core.decisions.definitions import short
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.objection import Check, Objection, ask_all
from pilot_identity.core.decisions.plan import KeyOrder, Notice, Owner, Plan
from pilot_identity.core.decisions.rules import RuleError, compile_rule
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find, settle
from pilot_identity.core.resources.digests import policy_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.stage_policy import StagePolicyStatus
from pilot_identity.core.spiffe.ids import TrustDomain

CA_LIFETIME = dt.timedelta(days=5 * 365)
CLOCK_SKEW = dt.timedelta(seconds=10)
"""How far a certificate's start is set back for verifiers whose clocks are behind (SPIRE's figure)."""


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """What is public of a stage's stored keys."""

    trust_domain: str
    not_after: dt.datetime
    jwt_key_id: str
    sequence: int


@dataclass(frozen=True, slots=True)
class StageSeen:
    """A stage policy, the others, and the stage's stored keys, if there are any."""

    stage: StagePolicy
    others: tuple[StagePolicy, ...]
    keys: KeyFacts | None
    now: dt.datetime


def is_ready(stage: StagePolicy) -> bool:
    """Whether pilots may get identities in this stage, for the spec as it stands now."""
    ready = find(stage.status.conditions, ConditionType.READY)
    return (
        ready is not None
        and ready.status == "True"
        and stage.status.observed_generation == stage.metadata.generation
        and not stage.metadata.is_deleting
    )


def _is_older(one: StagePolicy, other: StagePolicy) -> bool:
    """Whether `one` came first; the UID decides between policies of the same second."""
    first, second = one.metadata.creation_timestamp, other.metadata.creation_timestamp
    if first is None or second is None or first == second:
        return one.metadata.uid < other.metadata.uid
    return first < second


def _elders(seen: StageSeen) -> tuple[StagePolicy, ...]:
    return tuple(other for other in seen.others if _is_older(other, seen.stage))


def _spec_unreadable(seen: StageSeen) -> Objection | None:
    unreadable = seen.stage.metadata.unreadable
    if not unreadable:
        return None
    return Objection(
        Reason.SPEC_UNREADABLE, f"counts as frozen, since its spec cannot be read; correct it: {unreadable}"
    )


def _rank_shared(seen: StageSeen) -> Objection | None:
    for other in _elders(seen):
        if other.spec.rank == seen.stage.spec.rank:
            return Objection(
                Reason.RANK_SHARED,
                f"stage {other.name!r} already has rank {other.spec.rank}; give this stage a rank of its own",
            )
    return None


def _trust_domain_shared(seen: StageSeen) -> Objection | None:
    for other in _elders(seen):
        if other.spec.trust_domain == seen.stage.spec.trust_domain:
            return Objection(
                Reason.TRUST_DOMAIN_SHARED,
                f"stage {other.name!r} already has trust domain {other.spec.trust_domain!r}; "
                "stages never share one, so make this stage anew with another",
            )
    return None


def _data_class_shared(seen: StageSeen) -> Objection | None:
    for other in _elders(seen):
        shared = sorted(set(other.spec.data_classes) & set(seen.stage.spec.data_classes))
        if shared:
            return Objection(
                Reason.DATA_CLASS_SHARED,
                f"stage {other.name!r} already has data class {shared[0]!r}; "
                "stages never share one, so remove it from one of the two",
            )
    return None


def _keys_gone(seen: StageSeen) -> Objection | None:
    if seen.keys is None and seen.stage.status.jwt_key_id:
        return Objection(
            Reason.KEYS_MISSING,
            f"the stage had keys (JWT key {seen.stage.status.jwt_key_id}) but their Secret is gone; restore "
            "it from a backup, or delete the StagePolicy and apply it again to start with new keys",
        )
    return None


def _keys_foreign(seen: StageSeen) -> Objection | None:
    if seen.keys is not None and seen.keys.trust_domain != seen.stage.spec.trust_domain:
        return Objection(
            Reason.KEYS_FOREIGN,
            f"the stored keys are for trust domain {seen.keys.trust_domain!r}, the policy says "
            f"{seen.stage.spec.trust_domain!r}; if nothing relies on them, lift the policy binding that "
            f"guards Secret stage-keys-{seen.stage.name}, delete the Secret and put the binding back",
        )
    return None


def _ca_expired(seen: StageSeen) -> Objection | None:
    if seen.keys is not None and seen.keys.not_after <= seen.now:
        return Objection(
            Reason.CA_EXPIRED,
            f"the stage's CA expired at {seen.keys.not_after.isoformat()}; it issues nothing",
        )
    return None


def _rule_invalid(seen: StageSeen) -> Objection | None:
    spec = seen.stage.spec
    expressions = [(f"rule {rule.name!r}", rule.expression) for rule in spec.rules]
    if spec.approvals.grant.when:
        expressions.append(("approvals.grant.when", spec.approvals.grant.when))
    for what, expression in expressions:
        try:
            compile_rule(expression)
        except RuleError as error:
            return Objection(
                Reason.RULE_INVALID, f"{what} does not compile, so nothing is issued in this stage: {error}"
            )
    return None


CHECKS = (
    # Make sure that no rule is made of what was not understood.
    Check("spec-readable", _spec_unreadable),
    # Make sure that of two stages one is above the other: promotion goes by rank.
    Check("rank-of-its-own", _rank_shared),
    # Make sure that no identity of one stage is valid in another (promise 5).
    Check("trust-domain-of-its-own", _trust_domain_shared),
    # Make sure that data of one stage is never reached from another (promise 5).
    Check("data-classes-of-its-own", _data_class_shared),
    # Make sure that no rule is passed over because it cannot be read.
    Check("rules-compile", _rule_invalid),
    # Make sure that keys which were lost are noticed, not silently replaced: verifiers hold the old bundle.
    Check("keys-still-there", _keys_gone),
    # Make sure that the stored keys are this stage's, not left over from one of the same name.
    Check("keys-of-this-trust-domain", _keys_foreign),
    # Make sure that the CA can still sign.
    Check("ca-valid", _ca_expired),
)


def decide_stage(seen: StageSeen, moment: Moment) -> Plan:
    """Decide what is to be done for a stage policy: refuse it, make its keys, or say that it is ready."""
    stage = seen.stage
    if stage.metadata.is_deleting:
        return Plan()
    owner = Owner(stage.key, stage.metadata.uid)
    objection = ask_all(CHECKS, seen)[-1].objection
    if objection is not None:
        return _refuse(seen, objection, owner, moment)
    if seen.keys is None:
        return Plan(make_keys=_order_keys(stage, owner, moment), recheck_at=moment.now)
    return _confirm(seen, seen.keys, owner, moment)


def _order_keys(stage: StagePolicy, owner: Owner, moment: Moment) -> KeyOrder:
    def announce(fingerprints: Mapping[str, str]) -> Entry:
        return Entry(
            id=f"{stage.metadata.uid}/keys/{moment.nonce}",
            type=EntryType.STAGE_KEYS_MADE,
            subject=str(stage.key),
            subject_uid=stage.metadata.uid,
            time=moment.now,
            data={"trustDomain": stage.spec.trust_domain, "rank": stage.spec.rank, **fingerprints},
        )

    start = moment.second - CLOCK_SKEW
    return KeyOrder(
        owner=owner,
        stage=stage.name,
        trust_domain=TrustDomain.parse(stage.spec.trust_domain),
        not_before=start,
        not_after=start + CA_LIFETIME,
        announce=announce,
    )


def _confirm(seen: StageSeen, keys: KeyFacts, owner: Owner, moment: Moment) -> Plan:
    stage = seen.stage
    message = f"signs identities of trust domain {keys.trust_domain}"
    finding = Finding(ConditionType.READY, status=True, reason=Reason.KEYS_READY, message=message)
    status = StagePolicyStatus(
        observed_generation=stage.metadata.generation,
        digest=policy_digest(stage),
        ca_not_after=keys.not_after,
        jwt_key_id=keys.jwt_key_id,
        conditions=settle(
            stage.status.conditions, [finding], generation=stage.metadata.generation, now=moment.now
        ),
    )
    if status == stage.status:
        return Plan(recheck_at=keys.not_after)
    before = find(stage.status.conditions, ConditionType.READY)
    notice = Notice(owner, "Normal", Reason.KEYS_READY, "MakeKeys", message)
    return Plan(
        entries=_policy_changed(stage, status.digest, moment),
        status=lambda _: status,
        notices=() if before is not None and before.status == "True" else (notice,),
        recheck_at=keys.not_after,
    )


def _policy_changed(stage: StagePolicy, digest: str, moment: Moment) -> tuple[Entry, ...]:
    """The entry for a new generation of the rules: whoever loosens a stage is named in the log.

    It is told whenever the stage's status is, since one that was refused may be ready only now; the log takes
    it once. Nothing is decided in a stage that is not ready, so its policy is in the log before.
    """
    return (
        Entry(
            id=f"{stage.metadata.uid}/policy/{stage.metadata.generation}/{short(digest)}",
            type=EntryType.STAGE_POLICY_CHANGED,
            subject=str(stage.key),
            subject_uid=stage.metadata.uid,
            time=moment.now,
            data={
                "generation": stage.metadata.generation,
                "changedBy": stage.metadata.changed_by,
                "before": stage.status.digest,
                "after": digest,
                "freeze": stage.spec.freeze,
                "policy": evidence(encode(stage.spec)),
            },
        ),
    )


def _refuse(seen: StageSeen, objection: Objection, owner: Owner, moment: Moment) -> Plan:
    stage = seen.stage
    findings = [
        Finding(ConditionType.READY, status=False, reason=objection.reason, message=objection.message),
        Finding(ConditionType.STALLED, status=True, reason=objection.reason, message=objection.message),
    ]
    status = StagePolicyStatus(
        observed_generation=stage.metadata.generation,
        digest=policy_digest(stage),
        ca_not_after=stage.status.ca_not_after,
        jwt_key_id=stage.status.jwt_key_id,
        conditions=settle(
            stage.status.conditions, findings, generation=stage.metadata.generation, now=moment.now
        ),
    )
    if status == stage.status:
        return Plan()
    entry = Entry(
        id=f"{stage.metadata.uid}/refused/{stage.metadata.generation}/{objection.reason}/{moment.nonce}",
        type=EntryType.STAGE_REFUSED,
        subject=str(stage.key),
        subject_uid=stage.metadata.uid,
        time=moment.now,
        data={"reason": objection.reason, "message": objection.message, "policyDigest": status.digest},
    )
    notice = Notice(owner, "Warning", objection.reason, "RefuseStage", objection.message)
    return Plan(entries=(entry,), status=lambda _: status, notices=(notice,))
