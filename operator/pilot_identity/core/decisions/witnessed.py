"""What every stage is told of the audit log's witnesses: whether they cosign, and if not, who and since when.

Nothing is decided on it: commits wait for no witness. It stands on the stages because they are few, share one
log, and `kubectl get stages` is where whoever is called looks first.

What passes by itself is not told: a witness must have been away for `PATIENCE`. That a witness saw another
history is told at once.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pilot_identity.core.decisions.mismatch import Telling
from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason, cut, find, settle
from pilot_identity.core.resources.timestamps import format_timestamp

PATIENCE = dt.timedelta(minutes=1)
_GRAVITY = (
    Reason.WITNESS_INCONSISTENT,
    Reason.WITNESS_REFUSED,
    Reason.WITNESS_UNREACHABLE,
    Reason.WITNESS_BEHIND,
)
"""Of several witnesses the gravest trouble is the condition's reason."""


@dataclass(frozen=True, slots=True)
class Trouble:
    """Why a witness does not cosign.

    Attributes:
        since: without a cosignature in between, by the operator's clock.
        message: what came first of it.
    """

    reason: Reason
    since: dt.datetime
    message: str


@dataclass(frozen=True, slots=True)
class WitnessStanding:
    """How it stands with one witness.

    Attributes:
        size: of the newest head that it cosigned.
        at: when it did, by its own clock; `None` where it is not known to have cosigned any.
    """

    name: str
    size: int
    at: dt.datetime | None
    trouble: Trouble | None = None


def tell_witnessed(
    stage: StagePolicy, witnesses: Sequence[WitnessStanding], now: dt.datetime
) -> Telling | None:
    """Say on a stage how it stands with the witnesses; `None` where that is said, or cannot be said yet.

    Other conditions stay as they are and where they are.
    """
    before = stage.status.conditions
    told = find(before, ConditionType.WITNESSED)
    who = Owner(stage.key, stage.metadata.uid)
    if not witnesses:
        if told is None:
            return None
        kept = tuple(one for one in before if one is not told)
        note = "no witness of the audit log is configured any more"
        return Telling(kept, Notice(who, "Warning", Reason.UNWITNESSED, "Witness", note))
    finding = _finding(witnesses, now)
    if finding is None:
        return None
    generation = stage.metadata.generation
    (wanted,) = settle([] if told is None else [told], (finding,), generation=generation, now=now)
    if told is not None and (told.reason, told.message) == (wanted.reason, wanted.message):
        return None
    conditions = (
        (*before, wanted) if told is None else tuple(wanted if one is told else one for one in before)
    )
    note = cut(finding.message)
    if finding.status:
        return Telling(conditions, Notice(who, "Normal", finding.reason, "Witness", note))
    return Telling(conditions, Notice(who, "Warning", finding.reason, "Witness", note))


def _finding(witnesses: Sequence[WitnessStanding], now: dt.datetime) -> Finding | None:
    """What holds of all of them; `None` while it cannot be told."""
    lasting = [
        (one, one.trouble) for one in witnesses if one.trouble is not None and _is_told(one.trouble, now)
    ]
    if lasting:
        reason = min((trouble.reason for _, trouble in lasting), key=_GRAVITY.index)
        message = "; ".join(_sentence(one, trouble) for one, trouble in lasting)
        return Finding(ConditionType.WITNESSED, status=False, reason=reason, message=message)
    if any(one.trouble is not None or one.at is None for one in witnesses):
        return None
    names = ", ".join(one.name for one in witnesses)
    message = f"the audit log's heads are cosigned by {names}"
    return Finding(ConditionType.WITNESSED, status=True, reason=Reason.COSIGNED, message=message)


def _is_told(trouble: Trouble, now: dt.datetime) -> bool:
    return trouble.reason is Reason.WITNESS_INCONSISTENT or now - trouble.since >= PATIENCE


def _sentence(one: WitnessStanding, trouble: Trouble) -> str:
    last = (
        f"the last head that it cosigned has {one.size} entries, at {format_timestamp(one.at)}"
        if one.at is not None
        else "it is not known to have cosigned this log"
    )
    return f"witness {one.name}: {trouble.message}; {last}"
