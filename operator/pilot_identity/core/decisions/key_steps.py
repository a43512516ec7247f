"""What is recorded and told of each step of a stage's keys."""

from __future__ import annotations

import datetime as dt
from collections.abc import Mapping

from pilot_identity.core.audit.entries import Entry, EntryType
from pilot_identity.core.decisions.fresh import Moment
from pilot_identity.core.decisions.key_rotation import Activate, Keys, Rest, lapses_at
from pilot_identity.core.decisions.plan import KeyOrder, Notice, Owner
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, find
from pilot_identity.core.resources.stage_policy import KeyStatus
from pilot_identity.core.spiffe.ids import TrustDomain

CLOCK_SKEW = dt.timedelta(seconds=10)
"""How far a certificate's start is set back for verifiers whose clocks are behind (SPIRE's figure)."""

FIRST = "first"
"""Why a stage's first generation is made."""


def order_keys(stage: StagePolicy, number: int, why: str, word: str, moment: Moment) -> KeyOrder:
    """Order generation `number`; `word` is the `spec.keys.rotate` that it is made under."""

    def announce(fingerprints: Mapping[str, str]) -> Entry:
        data = {
            "trustDomain": stage.spec.trust_domain,
            "rank": stage.spec.rank,
            "generation": number,
            "why": why,
            "rotate": word,
            **fingerprints,
        }
        # Keys are random: made again after a crash they are others, and another entry announces them.
        return _entry(stage, f"keys/{moment.nonce}", EntryType.STAGE_KEYS_MADE, data, moment)

    start = moment.second - CLOCK_SKEW
    return KeyOrder(
        owner=_owner(stage),
        stage=stage.name,
        trust_domain=TrustDomain.parse(stage.spec.trust_domain),
        not_before=start,
        not_after=start + stage.spec.keys.lifetime,
        announce=announce,
        generation=number,
        rotate=word,
        refresh_hint=stage.spec.keys.refresh_hint,
    )


def rotated(stage: StagePolicy, step: Activate, moment: Moment) -> Entry:
    """The entry for a generation that signs from now on."""
    data: dict[str, object] = {
        **_named(step.after),
        "before": _named(step.before),
        "why": step.why,
        "publishedAt": step.after.published_at.isoformat() if step.after.published_at else "",
    }
    step_id = f"keys/{step.after.generation}/rotated"
    return _entry(stage, step_id, EntryType.STAGE_KEYS_ROTATED, data, moment)


def retired(stage: StagePolicy, gone: KeyStatus, why: str, moment: Moment) -> Entry:
    """The entry for a generation that leaves the bundle; the same before its keys are deleted and after."""
    data: dict[str, object] = {**_named(gone), "why": why, "signedUntil": gone.since.isoformat()}
    step_id = f"keys/{gone.generation}/retired"
    return _entry(stage, step_id, EntryType.STAGE_KEYS_RETIRED, data, moment)


def prepared_notice(stage: StagePolicy, number: int) -> Notice:
    """Tell that a generation was made."""
    note = f"generation {number} of its keys is made, and in the bundle before it signs"
    return Notice(_owner(stage), "Normal", Reason.KEYS_PREPARED, "PrepareKeys", note)


def rotated_notice(stage: StagePolicy, step: Activate) -> Notice:
    """Tell that another generation signs."""
    after, before = step.after.generation, step.before.generation
    note = f"generation {after} of its keys signs, {before} no longer ({step.why})"
    return Notice(_owner(stage), "Normal", Reason.KEYS_ROTATED, "RotateKeys", note)


def retired_notice(stage: StagePolicy, gone: KeyStatus) -> Notice:
    """Tell that a generation is gone."""
    note = f"generation {gone.generation} of its keys is out of the bundle and deleted"
    return Notice(_owner(stage), "Normal", Reason.KEYS_RETIRED, "RetireKeys", note)


def rotating(keys: Keys, rest: Rest | None) -> tuple[Finding, ...]:
    """Whether the stage rotates its keys; as it was told last where something is due at once."""
    if rest is None:
        told = find(keys.stage.status.conditions, ConditionType.ROTATING)
        if told is None:
            return ()
        return (_finding(Reason(told.reason), told.message, is_true=told.status == "True"),)
    signs = f"generation {keys.signer.number} signs"
    if keys.successor is not None:
        number = keys.successor.generation
        when = (
            f"it signs from {_told(rest.rotates_at)}"
            if rest.rotates_at is not None
            else "it signs some time after every namespace of the stage has it in bundle and revocation list"
        )
        message = f"{signs}; generation {number} is prepared, and {when}"
        return (_finding(Reason.KEYS_PREPARED, message, is_true=True),)
    if keys.oldest is not None:
        until = _told(lapses_at(keys, keys.oldest))
        message = f"{signs}; generation {keys.oldest.generation} is trusted for what it signed, until {until}"
        return (_finding(Reason.KEYS_ROTATED, message, is_true=True),)
    due = f"the next signs from {_told(rest.rotates_at)}" if rest.rotates_at is not None else ""
    return (_finding(Reason.KEYS_STEADY, f"{signs}; {due}", is_true=False),)


def _finding(reason: Reason, message: str, *, is_true: bool) -> Finding:
    return Finding(ConditionType.ROTATING, status=is_true, reason=reason, message=message)


def _entry(
    stage: StagePolicy, step: str, kind: EntryType, data: Mapping[str, object], moment: Moment
) -> Entry:
    return Entry(
        id=f"{stage.metadata.uid}/{step}",
        type=kind,
        subject=str(stage.key),
        subject_uid=stage.metadata.uid,
        time=moment.now,
        data={"policyGeneration": stage.metadata.generation, "changedBy": stage.metadata.changed_by, **data},
    )


def _named(one: KeyStatus) -> dict[str, object]:
    return {
        "generation": one.generation,
        "jwtKeyID": one.jwt_key_id,
        "caNotAfter": one.ca_not_after.isoformat(),
    }


def _owner(stage: StagePolicy) -> Owner:
    return Owner(stage.key, stage.metadata.uid)


def _told(moment: dt.datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M:%SZ}"
