"""Promotion: what a pilot still has to prove before it rises a stage.

This is the seam for promotion by evidence. The checks that can be answered today are answered; the last
one holds every rise for as long as the rest of the evidence cannot be collected, so that a stage that asks
for nothing opens no way around.
"""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass

from pilot_identity.core.resources import PilotIdentity, StagePolicy
from pilot_identity.core.resources.timestamps import format_timestamp


@dataclass(frozen=True, slots=True)
class PromotionSeen:
    """A pilot, where it is and where it wants to be."""

    pilot: PilotIdentity
    current: StagePolicy
    wanted: StagePolicy
    next_rank: int
    now: dt.datetime


def _climbs_one_rank(seen: PromotionSeen) -> str | None:
    if seen.wanted.spec.rank == seen.next_rank:
        return None
    return f"stage {seen.wanted.name!r} is more than one rank up; a pilot climbs one rank at a time"


def _soaked(seen: PromotionSeen) -> str | None:
    soak, since = seen.wanted.spec.entry.soak, seen.pilot.status.stage_since
    if soak is None or (since is not None and seen.now - since >= soak):
        return None
    entered = format_timestamp(since) if since is not None else "just now"
    return f"{soak} in stage {seen.current.name!r} (there since {entered})"


def _worked(seen: PromotionSeen) -> str | None:
    needed = seen.wanted.spec.entry.minimum_tasks
    return f"evidence of {needed} completed tasks" if needed else None


def _drilled(seen: PromotionSeen) -> str | None:
    return "a passed revocation drill" if seen.wanted.spec.entry.drills is not None else None


def _approved(seen: PromotionSeen) -> str | None:
    needed = seen.wanted.spec.approvals.promotion.required
    return f"{needed} approval{'s' if needed > 1 else ''} of the promotion" if needed else None


def _claimed(seen: PromotionSeen) -> str | None:
    claims = seen.wanted.spec.entry.claims
    return f"proof of {', '.join(claims)}" if claims else None


def _evidence_is_collected(_: PromotionSeen) -> str | None:
    return "promotion by evidence itself, which this version does not decide yet"


EVIDENCE = (
    # Make sure that no stage is skipped.
    _climbs_one_rank,
    # Make sure that the pilot was watched for long enough where it is.
    _soaked,
    # Make sure that it did real work there.
    _worked,
    # Make sure that its access was revoked in a drill, in time.
    _drilled,
    # Make sure that people other than its own team agreed.
    _approved,
    # Make sure that what the stage demands to be proven is proven.
    _claimed,
    # Make sure that nothing rises on evidence that nobody collects.
    _evidence_is_collected,
)


def missing_evidence(seen: PromotionSeen) -> tuple[str, ...]:
    """Everything that is missing, each as a phrase for the sentence "missing: …"."""
    return tuple(phrase for ask in EVIDENCE if (phrase := ask(seen)) is not None)
