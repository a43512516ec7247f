"""`Approval`: one person's word on exactly one thing."""

from __future__ import annotations

from pilot_identity.core.resources.conditions import Condition
from pilot_identity.core.resources.metadata import Key, Metadata, View


class Subject(View, frozen=True):
    """What is approved or denied."""

    kind: str
    name: str
    uid: str


class ApprovalSpec(View, frozen=True):
    """What the person said; immutable."""

    subject: Subject
    purpose: str
    digest: str
    decision: str
    reason: str
    approver: str = ""
    approver_groups: tuple[str, ...] = ()
    ticket: str = ""


class ApprovalStatus(View, frozen=True):
    """Whether it was used; an approval counts once."""

    observed_generation: int = 0
    used: bool = False
    used_by: str = ""
    conditions: tuple[Condition, ...] = ()


class Approval(View, frozen=True, tag_field="kind", tag="Approval"):
    """One approval or denial."""

    metadata: Metadata
    spec: ApprovalSpec
    status: ApprovalStatus = ApprovalStatus()

    @property
    def key(self) -> Key:
        """The approval's key in the store."""
        return Key("Approval", self.metadata.namespace, self.metadata.name)


class CountedApproval(View, frozen=True):
    """An approval that a decision rests on."""

    name: str
    uid: str
    approver: str
