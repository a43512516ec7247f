"""Stage policies: which are usable, and their keys."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, replace
from typing import assert_never

import msgspec

from pilot_identity.core.audit.entries import Entry, EntryType, evidence
from pilot_identity.core.decisions import key_steps
from pilot_identity.core.decisions.definitions import short
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.key_rotation import (
    Activate,
    Keys,
    Prepare,
    Rest,
    Retire,
    Step,
    keys_of,
    next_step,
    signer_of,
    why_retired,
)
from pilot_identity.core.decisions.objection import Check, Objection, ask_all
from pilot_identity.core.decisions.plan import Notice, Owner, Plan, RetireKeys
from pilot_identity.core.decisions.rules import RuleError, compile_rule
from pilot_identity.core.decisions.stage_keys import Generation, is_whole
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find, settle
from pilot_identity.core.resources.digests import policy_digest
from pilot_identity.core.resources.parsing import encode
from pilot_identity.core.resources.stage_policy import KeyPhase, KeyStatus, StagePolicyStatus


@dataclass(frozen=True, slots=True)
class StageSeen:
    """A stage policy, the others, and the stage's stored keys, if there are any.

    Attributes:
        keys: the generations that stand, oldest first.
        behind: namespaces whose bundle or revocation list does not know of all of them.
    """

    stage: StagePolicy
    others: tuple[StagePolicy, ...]
    keys: tuple[Generation, ...]
    now: dt.datetime
    behind: frozenset[str] = frozenset()


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
    status, numbers = seen.stage.status, {one.number for one in seen.keys}
    if not numbers and status.jwt_key_id:
        lost = f"the stage had keys (JWT key {status.jwt_key_id}) but their Secret is gone"
    elif needed := sorted(_needed(status.keys) - numbers):
        lost = f"the Secret of generation {needed[0]} of the stage's keys is gone"
    elif not is_whole(seen.keys):
        lost = f"of the generations of the stage's keys only {sorted(numbers)} are there"
    else:
        return None
    return Objection(
        Reason.KEYS_MISSING,
        f"{lost}; restore it from a backup, or delete the StagePolicy and apply it again to start with new "
        "keys",
    )


def _needed(keys: tuple[KeyStatus, ...]) -> set[int]:
    """The generations that must stand: an old one may just have been deleted, its time being over."""
    return {one.generation for one in keys if one.phase is not KeyPhase.OLD}


def _keys_foreign(seen: StageSeen) -> Objection | None:
    wanted = seen.stage.spec.trust_domain
    foreign = next((one for one in seen.keys if one.trust_domain != wanted), None)
    if foreign is None:
        return _keys_replaced(seen)
    return Objection(
        Reason.KEYS_FOREIGN,
        f"the stored keys are for trust domain {foreign.trust_domain!r}, the policy says {wanted!r}; if "
        f"nothing relies on them, lift the policy binding that guards Secrets stage-keys-{seen.stage.name}…, "
        "delete them and put the binding back",
    )


def _keys_replaced(seen: StageSeen) -> Objection | None:
    """A stored key is not the one that the status tells of: nobody who may change it did it by rotating."""
    known = {one.generation: one for one in seen.stage.status.keys}
    for stored in seen.keys:
        row = known.get(stored.number)
        if row is None:
            continue
        is_same_ca = row.ca_key_sha256 in {"", stored.ca_key_sha256}  # older versions did not say it
        if row.jwt_key_id != stored.jwt_key_id or not is_same_ca:
            return _replaced(seen, f"generation {stored.number}", row.jwt_key_id, stored.jwt_key_id)
    before, ids = seen.stage.status.jwt_key_id, [one.jwt_key_id for one in seen.keys]
    if before and seen.keys and not known and before not in ids:
        return _replaced(seen, "the stage", before, ids[-1])
    return None


def _replaced(seen: StageSeen, whose: str, before: str, now: str) -> Objection:
    return Objection(
        Reason.KEYS_FOREIGN,
        f"the stored keys of {whose} are not those that it had (JWT key {before}, now {now}): somebody "
        f"replaced Secrets stage-keys-{seen.stage.name}…; find out who, and restore them from a backup",
    )


def _ca_expired(seen: StageSeen) -> Objection | None:
    if not seen.keys:
        return None
    signer = signer_of(seen.stage, seen.keys, seen.now)
    if signer.not_after > seen.now:
        return None
    return Objection(
        Reason.CA_EXPIRED,
        f"the stage's CA expired at {signer.not_after.isoformat()}; it issues nothing until the next is made",
    )


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
    """Decide what is to be done for a stage policy: refuse it, see to its keys, or say that it is ready."""
    stage = seen.stage
    if stage.metadata.is_deleting:
        return Plan()
    owner = Owner(stage.key, stage.metadata.uid)
    objection = ask_all(CHECKS, seen)[-1].objection
    if objection is not None:
        refusal = _refuse(seen, objection, owner, moment)
        if objection.reason is not Reason.CA_EXPIRED or refusal.status is not None:
            # An expired authority is told first, and replaced then.
            return replace(refusal, recheck_at=moment.now if objection.reason is Reason.CA_EXPIRED else None)
    if not seen.keys:
        word = stage.spec.keys.rotate
        order = key_steps.order_keys(stage, 1, key_steps.FIRST, word, moment)
        return Plan(make_keys=order, recheck_at=moment.now)
    keys = keys_of(stage, seen.keys, seen.behind, moment.now)
    step = next_step(keys)
    if objection is None:
        # What is known already is told before the next step is taken: who asked for it, for example.
        told = _confirm(seen, keys, step, owner, moment)
        if told.status is not None:
            return told
    return _take(keys, step, moment)


def _take(keys: Keys, step: Step, moment: Moment) -> Plan:
    """Take the next step in the life of the stage's keys."""
    stage = keys.stage
    match step:
        case Prepare(number, why):
            word = stage.spec.keys.rotate or keys.signer.rotate
            return Plan(
                make_keys=key_steps.order_keys(stage, number, why, word, moment),
                notices=(key_steps.prepared_notice(stage, number),),
                recheck_at=moment.now,
            )
        case Activate(after, before):
            changed = {
                after.generation: after,
                before.generation: msgspec.structs.replace(before, phase=KeyPhase.OLD, since=moment.now),
            }
            phases = tuple(changed.get(one.generation, one) for one in keys.phases)
            status = _status(replace(keys, phases=phases), None, moment)
            return Plan(
                entries=(key_steps.rotated(stage, step, moment),),
                status=lambda _: status,
                notices=(key_steps.rotated_notice(stage, step),),
                recheck_at=moment.now,
            )
        case Retire(gone, why):
            return Plan(
                entries=(key_steps.retired(stage, gone, why, moment),),
                retire_keys=RetireKeys(stage.name, gone.generation),
                notices=(key_steps.retired_notice(stage, gone),),
                recheck_at=moment.now,
            )
        case Rest(until):
            return Plan(recheck_at=until)
        case _:
            assert_never(step)


def _status(keys: Keys, rest: Rest | None, moment: Moment) -> StagePolicyStatus:
    """The status of a stage that is ready; without `rest`, while something is due, it tells the old dates."""
    stage = keys.stage
    message = f"signs identities of trust domain {keys.signer.trust_domain}"
    ready = Finding(ConditionType.READY, status=True, reason=Reason.KEYS_READY, message=message)
    findings = (ready, *key_steps.rotating(keys, rest))
    generation = stage.metadata.generation
    return StagePolicyStatus(
        observed_generation=generation,
        digest=policy_digest(stage),
        ca_not_after=keys.signer.not_after,
        jwt_key_id=keys.signer.jwt_key_id,
        keys=keys.phases,
        next_rotation=rest.rotates_at if rest is not None else stage.status.next_rotation,
        conditions=settle(stage.status.conditions, findings, generation=generation, now=moment.now),
    )


def _confirm(seen: StageSeen, keys: Keys, step: Step, owner: Owner, moment: Moment) -> Plan:
    """Say what stands and what each of it does, where the status does not say it yet."""
    stage = seen.stage
    status = _status(keys, step if isinstance(step, Rest) else None, moment)
    if status == stage.status:
        return Plan()
    before = find(stage.status.conditions, ConditionType.READY)
    notice = Notice(owner, "Normal", Reason.KEYS_READY, "MakeKeys", status.conditions[0].message)
    oldest = keys.generations[0].number
    gone = tuple(one for one in stage.status.keys if one.generation < oldest)
    return Plan(
        entries=(
            *(key_steps.retired(stage, one, why_retired(keys, one), moment) for one in gone),
            *_policy_changed(stage, status.digest, moment),
        ),
        status=lambda _: status,
        notices=() if before is not None and before.status == "True" else (notice,),
        recheck_at=step.until if isinstance(step, Rest) else moment.now,
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
        keys=stage.status.keys,
        next_rotation=stage.status.next_rotation,
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
