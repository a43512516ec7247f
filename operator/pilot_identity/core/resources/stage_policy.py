"""`StagePolicy`: the rules, keys and lifetimes of one stage."""

from __future__ import annotations

import datetime as dt
from enum import StrEnum

import msgspec

from pilot_identity.core.resources.conditions import Condition
from pilot_identity.core.resources.durations import Duration
from pilot_identity.core.resources.metadata import Key, Metadata, View


class CredentialLifetimes(View, frozen=True):
    """How long each kind of credential lives before it must be renewed, and a task at most."""

    x509_ttl: Duration = msgspec.field(name="x509TTL", default=Duration(hours=1))
    jwt_ttl: Duration = msgspec.field(name="jwtTTL", default=Duration(minutes=5))
    kubernetes_ttl: Duration = msgspec.field(name="kubernetesTTL", default=Duration(minutes=10))
    max_task_duration: Duration = Duration(hours=1)


class KeyRules(View, frozen=True):
    """The stage's CA and JWT key, which are one generation together.

    Attributes:
        lifetime: how long the CA of a generation that is made from now on is valid.
        refresh_hint: how often verifiers fetch the bundle; told with the next generation.
        rotate: a word; another one than the newest generation was made under asks for the next.
        distrusted: numbers of generations that somebody else may have: they, and older ones with them, are
            replaced and dropped at once.
    """

    lifetime: Duration = Duration(hours=43800)
    refresh_hint: Duration = Duration(minutes=5)
    rotate: str = ""
    distrusted: tuple[int, ...] = ()


class GrantApprovals(View, frozen=True):
    """How many people must approve a grant, and when."""

    required: int = 0
    when: str = ""
    within: Duration = Duration(hours=24)


class PromotionApprovals(View, frozen=True):
    """How many people must approve a pilot's rise into this stage."""

    required: int = 1


class ExceptionApprovals(View, frozen=True):
    """How many people must approve an exception from a rule, and how long one may last."""

    required: int = 1
    max_duration: Duration = Duration(hours=720)


class ApprovalRules(View, frozen=True):
    """Who approves what."""

    grant: GrantApprovals = GrantApprovals()
    promotion: PromotionApprovals = PromotionApprovals()
    exception: ExceptionApprovals = ExceptionApprovals()
    groups: tuple[str, ...] = ()


class EmergencyRules(View, frozen=True):
    """How long an emergency grant may last, and how soon it must be reviewed."""

    max_duration: Duration = Duration(minutes=15)
    review_within: Duration = Duration(hours=24)


class ReviewRules(View, frozen=True):
    """How often a pilot's access is reviewed, and how late that may be."""

    every: Duration | None = None
    grace: Duration | None = None


class Drills(View, frozen=True):
    """The revocation drill that a pilot must have passed."""

    within: Duration | None = None
    max_time_to_revoke: Duration | None = None


class EntryRequirements(View, frozen=True):
    """What a pilot must prove before it enters this stage."""

    soak: Duration | None = None
    minimum_tasks: int = 0
    claims: tuple[str, ...] = ()
    drills: Drills | None = None


class Rule(View, frozen=True):
    """One CEL rule over a request."""

    name: str
    expression: str
    message: str = ""


class Limits(View, frozen=True):
    """Bounds for each pilot of the stage."""

    active_grants: int = 1000
    requests_per_minute: int = 600


class StagePolicySpec(View, frozen=True):
    """What an admin declares."""

    rank: int
    trust_domain: str
    data_classes: tuple[str, ...]
    credentials: CredentialLifetimes = CredentialLifetimes()
    keys: KeyRules = KeyRules()
    approvals: ApprovalRules = ApprovalRules()
    emergency: EmergencyRules | None = None
    review: ReviewRules | None = None
    entry: EntryRequirements = EntryRequirements()
    rules: tuple[Rule, ...] = ()
    limits: Limits = Limits()
    retention: Duration = Duration(hours=168)
    freeze: bool = False


class KeyPhase(StrEnum):
    """What a generation of keys does. Every one is in the bundle."""

    PREPARED = "Prepared"
    """It signs nothing yet, so that every verifier knows it before it does."""
    ACTIVE = "Active"
    """It signs; there is one."""
    OLD = "Old"
    """It signs nothing any more, and is trusted until everything that it signed has lapsed."""


class KeyStatus(View, frozen=True):
    """One generation of the stage's keys.

    Attributes:
        since: since when it is in its phase.
        published_at: while it is Prepared, since when it is in every bundle and list of the stage.
        longest_life: the longest life that anything it signed may have had.
    """

    generation: int
    phase: KeyPhase
    jwt_key_id: str = msgspec.field(name="jwtKeyID")
    ca_not_after: dt.datetime
    since: dt.datetime
    published_at: dt.datetime | None = None
    longest_life: Duration | None = None
    ca_key_sha256: str = msgspec.field(name="caPublicKeySHA256", default="")


class StagePolicyStatus(View, frozen=True):
    """What the operator says."""

    observed_generation: int = 0
    digest: str = ""
    ca_not_after: dt.datetime | None = None
    jwt_key_id: str = msgspec.field(name="jwtKeyID", default="")
    keys: tuple[KeyStatus, ...] = ()
    next_rotation: dt.datetime | None = None
    conditions: tuple[Condition, ...] = ()

    @property
    def signing(self) -> int:
        """The number of the generation that signs; 0 where that is not told, and the oldest does."""
        return next((one.generation for one in self.keys if one.phase is KeyPhase.ACTIVE), 0)


class StagePolicy(View, frozen=True, tag_field="kind", tag="StagePolicy"):
    """One stage, for example `sandbox`."""

    metadata: Metadata
    spec: StagePolicySpec
    status: StagePolicyStatus = StagePolicyStatus()

    @property
    def key(self) -> Key:
        """The stage's key in the store."""
        return Key("StagePolicy", "", self.metadata.name)

    @property
    def name(self) -> str:
        """The stage's name."""
        return self.metadata.name
