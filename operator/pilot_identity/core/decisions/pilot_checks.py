"""What is checked of a pilot's definition before it has an identity."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass, field

from pilot_identity.core.decisions.announced import Announced, Holding
from pilot_identity.core.decisions.hindrance import refused
from pilot_identity.core.decisions.objection import Check, Objection
from pilot_identity.core.decisions.stages import is_ready
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import Reason


@dataclass(frozen=True, slots=True)
class PilotSeen:
    """All that is known of a pilot.

    Attributes:
        stages: every StagePolicy by name.
        sharers: other pilots of the namespace that use the same service account.
        open_grants: how many of its grants have not ended.
        stages_of_neighbours: the stages whose bundle other pilots of the namespace use.
        ca_not_after: when the CA of each ready stage expires.
        bundle_sequences: the sequence of each ready stage's bundle.
        announced: a credential that the log announced and the status does not know.
        holding: what stands in the place of the pilot's Secret, asked where the last pass could not know.
        refusal: why the pilot's Secret could not be made, asked where the last credential never came to be.
        account_is_free: whether the account to be made is absent or this pilot's own.
        emergencies: its emergency grants that wait until its status says that a review is owed for them.
        reviews: every Approval that names its UID.
    """

    pilot: PilotIdentity
    stages: dict[str, StagePolicy]
    sharers: tuple[PilotIdentity, ...] = ()
    open_grants: int = 0
    stages_of_neighbours: frozenset[str] = frozenset()
    ca_not_after: dict[str, dt.datetime] = field(default_factory=dict)
    bundle_sequences: dict[str, int] = field(default_factory=dict)
    announced: Announced | None = None
    holding: Holding = Holding.NOTHING
    refusal: str = ""
    account_is_free: bool = True
    emergencies: tuple[TaskGrant, ...] = ()
    reviews: tuple[Approval, ...] = ()


@dataclass(frozen=True, slots=True)
class Placement:
    """A pilot and the stage that it is in, or would be in if nothing else is against it."""

    seen: PilotSeen
    stage: StagePolicy


def is_older(one: PilotIdentity, other: PilotIdentity) -> bool:
    """Whether `one` was there first; the UID decides between pilots of the same second."""
    first, second = one.metadata.creation_timestamp, other.metadata.creation_timestamp
    if first is None or second is None or first == second:
        return one.metadata.uid < other.metadata.uid
    return first < second


def _stage_not_ready(placed: Placement) -> Objection | None:
    if is_ready(placed.stage) and placed.stage.name in placed.seen.ca_not_after:
        return None
    return Objection(
        Reason.STAGE_NOT_READY,
        f"stage {placed.stage.name!r} cannot issue identities: kubectl describe stage {placed.stage.name}",
        is_final=False,
    )


def _service_account_shared(placed: Placement) -> Objection | None:
    pilot = placed.seen.pilot
    for other in placed.seen.sharers:
        if is_older(other, pilot):
            return Objection(
                Reason.SERVICE_ACCOUNT_SHARED,
                f"service account {pilot.service_account!r} is already the workload of pilot "
                f"{other.metadata.name!r}; set spec.workload.serviceAccountName to an account of its own, "
                "or leave it out to have one made",
            )
    return None


def _service_account_taken(placed: Placement) -> Objection | None:
    if placed.seen.account_is_free:
        return None
    return Objection(
        Reason.SERVICE_ACCOUNT_TAKEN,
        f"a service account {placed.seen.pilot.service_account!r} exists that was not made for this pilot; "
        "delete it, or name an account in spec.workload.serviceAccountName",
    )


def _data_class_outside_stage(placed: Placement) -> Objection | None:
    allowed = placed.stage.spec.data_classes
    for entry in placed.seen.pilot.spec.access:
        if entry.data_class not in allowed:
            return Objection(
                Reason.DATA_CLASS_OUTSIDE_STAGE,
                f"access {entry.name!r} has data class {entry.data_class!r}; "
                f"stage {placed.stage.name!r} allows {', '.join(allowed)}",
            )
    return None


def _secret_name_taken(placed: Placement) -> Objection | None:
    seen = placed.seen
    if seen.holding is not Holding.FOREIGN:
        return None
    return Objection(
        Reason.SECRET_NAME_TAKEN,
        f"a Secret {seen.pilot.svid_secret!r} exists that does not hold this pilot's identity; delete or "
        "rename it, it is never overwritten",
    )


def _secret_refused(placed: Placement) -> Objection | None:
    seen = placed.seen
    return refused(seen.pilot.svid_secret, seen.refusal) if seen.refusal else None


CHECKS = (
    # Make sure that the definition breaks no rule of its stage, whether or not that can issue now.
    Check("data-classes-of-stage", _data_class_outside_stage),
    # Make sure that whatever runs as this account is this pilot and no other.
    Check("service-account-not-shared", _service_account_shared),
    # Make sure that the account to be made is not somebody's already.
    Check("service-account-free", _service_account_taken),
    # Make sure that the stage has keys and is not itself refused.
    Check("stage-ready", _stage_not_ready),
    # Make sure that nobody's Secret is overwritten.
    Check("secret-name-free", _secret_name_taken),
    # Make sure that no identity is announced over and over that can be put nowhere.
    Check("secret-not-refused", _secret_refused),
)
