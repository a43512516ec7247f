"""What a grant or pilot is told of the audit log's disagreement with it.

This changes nothing that is decided: access is cut, issued and proven as the object says. It tells the people
who answer for the object, where they look first.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass

from pilot_identity.core.decisions.plan import Notice, Owner
from pilot_identity.core.resources import PilotIdentity, TaskGrant
from pilot_identity.core.resources.conditions import (
    Condition,
    ConditionType,
    Finding,
    Reason,
    cut,
    find,
    settle,
)


@dataclass(frozen=True, slots=True)
class Telling:
    """The conditions as they are to be, and what people are told of the change."""

    conditions: tuple[Condition, ...]
    notice: Notice


def tell_mismatch(
    owner: TaskGrant | PilotIdentity, messages: Sequence[str], now: dt.datetime
) -> Telling | None:
    """Say on an object what disagrees with the log, or that nothing does any more; `None` where that is said.

    Other conditions stay as they are and where they are.
    """
    before = owner.status.conditions
    told = find(before, ConditionType.RECORD_MISMATCH)
    who = Owner(owner.key, owner.metadata.uid)
    if not messages:
        if told is None:
            return None
        kept = tuple(one for one in before if one.type != ConditionType.RECORD_MISMATCH)
        note = "cluster and audit log agree again"
        return Telling(kept, Notice(who, "Normal", Reason.AS_RECORDED, "Reconcile", note))
    message = "; ".join(messages)
    finding = Finding(
        ConditionType.RECORD_MISMATCH, status=True, reason=Reason.NOT_AS_RECORDED, message=message
    )
    generation = owner.metadata.generation
    (wanted,) = settle([] if told is None else [told], (finding,), generation=generation, now=now)
    if told is not None and told.message == wanted.message:
        return None
    conditions = (
        (*before, wanted) if told is None else tuple(wanted if one is told else one for one in before)
    )
    return Telling(conditions, Notice(who, "Warning", Reason.NOT_AS_RECORDED, "Reconcile", cut(message)))
