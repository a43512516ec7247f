"""Which stage a pilot is in: what its spec asks for, as far as it is allowed."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.decisions.objection import Objection
from pilot_identity.core.decisions.pilot_checks import PilotSeen
from pilot_identity.core.decisions.promotion import PromotionSeen, missing_evidence
from pilot_identity.core.resources import StagePolicy
from pilot_identity.core.resources.conditions import ConditionType, Finding, Reason


@dataclass(frozen=True, slots=True)
class Placed:
    """Where the pilot is.

    Attributes:
        stage: the effective stage; `None` where it has none.
        objection: why the stage that the spec asks for cannot even be considered.
        promoted: the Promoted condition: whether the effective stage is the one asked for.
    """

    stage: StagePolicy | None
    objection: Objection | None = None
    promoted: Finding | None = None


def place(seen: PilotSeen, now: dt.datetime) -> Placed:
    """Decide the effective stage, failing closed.

    A first appearance is in the lowest stage or nowhere. After that the status says where the pilot is (only
    the operator writes it): up is held until the evidence is there, down takes effect at once.
    """
    pilot = seen.pilot
    wanted = seen.stages.get(pilot.spec.stage)
    current = seen.stages.get(pilot.status.stage)
    if wanted is None:
        return Placed(current, _unknown(seen, pilot.spec.stage))
    if not pilot.status.stage:
        return _first_appearance(seen, wanted)
    if current is None:
        return Placed(None, _unknown(seen, pilot.status.stage))
    if wanted.spec.rank > current.spec.rank:
        return _rise(seen, current, wanted, now)
    message = f"in stage {wanted.name!r}"
    return Placed(wanted, promoted=_promoted(status=True, reason=Reason.STAGE_REACHED, message=message))


def _unknown(seen: PilotSeen, name: str) -> Objection:
    known = ", ".join(sorted(seen.stages, key=lambda stage: seen.stages[stage].spec.rank)) or "none yet"
    return Objection(Reason.UNKNOWN_STAGE, f"no StagePolicy is named {name!r}; there are: {known}")


def _first_appearance(seen: PilotSeen, wanted: StagePolicy) -> Placed:
    lowest = min(seen.stages.values(), key=lambda stage: (stage.spec.rank, stage.name))
    if wanted.spec.rank > lowest.spec.rank:
        return Placed(
            None,
            Objection(
                Reason.STAGE_ABOVE_ENTRY,
                f"a pilot first appears in the lowest stage, {lowest.name!r}, and rises on evidence; "
                f"set spec.stage to {lowest.name!r}",
            ),
        )
    message = f"in stage {wanted.name!r}"
    return Placed(wanted, promoted=_promoted(status=True, reason=Reason.STAGE_REACHED, message=message))


def _rise(seen: PilotSeen, current: StagePolicy, wanted: StagePolicy, now: dt.datetime) -> Placed:
    next_rank = min(stage.spec.rank for stage in seen.stages.values() if stage.spec.rank > current.spec.rank)
    missing = missing_evidence(PromotionSeen(seen.pilot, current, wanted, next_rank, now))
    if not missing:
        message = f"rose from {current.name!r} to {wanted.name!r}"
        return Placed(wanted, promoted=_promoted(status=True, reason=Reason.STAGE_REACHED, message=message))
    message = f"stays in {current.name!r}; to enter {wanted.name!r} it still needs: {'; '.join(missing)}"
    return Placed(current, promoted=_promoted(status=False, reason=Reason.PROMOTION_HELD, message=message))


def _promoted(*, status: bool, reason: Reason, message: str) -> Finding:
    return Finding(ConditionType.PROMOTED, status=status, reason=reason, message=message)
