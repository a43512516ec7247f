"""What people are asked about a grant, and whose word counts.

A person's word is an Approval. It is bound to one grant by its UID and, to approve, to exactly what would be
issued by the digest that the grant's status shows. Who said it and of which groups that person is, is the API
server's word (`charts/…/admission/people.yaml`); so is that RBAC let them. What the API server cannot see is
decided here: that nobody approves what he, or anyone before him in the delegation chain, asked for.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from pilot_identity.core.decisions.objection import Check, Objection, ask_all
from pilot_identity.core.resources import Approval, PilotIdentity, StagePolicy, TaskGrant
from pilot_identity.core.resources.approval import CountedApproval
from pilot_identity.core.resources.conditions import Reason
from pilot_identity.core.resources.digests import digest_json, grant_digest, pilot_digest, policy_digest

APPROVE = "Approve"
DENY = "Deny"
GRANT = "Grant"
AGAIN = "look at the grant again and name its status.approval.digest in a new Approval"
LONG_AGO = dt.datetime.min.replace(tzinfo=dt.UTC)
NO_PERSON = "system:"
"""Kubernetes keeps user names with this prefix for itself: ServiceAccounts, nodes, the anonymous."""


@dataclass(frozen=True, slots=True)
class Word:
    """A person's word, and what is against it where it counts for nothing."""

    approval: Approval
    objection: Objection | None

    @property
    def approves(self) -> bool:
        """Whether it counts for the grant."""
        return self.objection is None and self.approval.spec.decision == APPROVE

    @property
    def denies(self) -> bool:
        """Whether it ends the grant."""
        return self.objection is None and self.approval.spec.decision == DENY

    @property
    def counted(self) -> CountedApproval:
        """The approval as a decision names it."""
        metadata = self.approval.metadata
        return CountedApproval(metadata.name, metadata.uid, self.approval.spec.approver)


@dataclass(frozen=True, slots=True)
class Question:
    """What people are asked about one grant.

    Attributes:
        ancestors: the grants that it descends from.
        groups: of the stage; an approver must be in one of them, unless there are none.
        digest: of exactly what would be issued.
        since: since when the digest is that one; `None` while it never changed.
    """

    grant: TaskGrant
    ancestors: tuple[TaskGrant, ...]
    groups: tuple[str, ...]
    digest: str
    since: dt.datetime | None


@dataclass(frozen=True, slots=True)
class Tally:
    """What was said about a grant.

    Attributes:
        approvals: the oldest approval that counts of each person.
        denial: the oldest word that ends it, if there is one.
    """

    approvals: tuple[Word, ...]
    denial: Word | None

    @property
    def approvers(self) -> tuple[str, ...]:
        """Who approved."""
        return tuple(word.approval.spec.approver for word in self.approvals)


def digest_of(grant: TaskGrant, pilot: PilotIdentity, stage: StagePolicy) -> str:
    """Digest exactly what is approved: this very grant, of the pilot and under the policy as they are now."""
    return digest_json(
        {
            "grant": grant_digest(grant),
            "grantUID": grant.metadata.uid,
            "pilot": pilot_digest(pilot),
            "policy": policy_digest(stage),
        }
    )


def is_person(user: str) -> bool:
    """Whether a user name can be a person's."""
    return bool(user) and not user.startswith(NO_PERSON)


def is_in(approval: Approval, groups: Sequence[str]) -> bool:
    """Whether the approver is in one of `groups`; in none of none is everybody."""
    return not groups or not set(groups).isdisjoint(approval.spec.approver_groups)


def tally(question: Question, approvals: Iterable[Approval]) -> Tally:
    """Count what was said."""
    words = sorted((judge(question, approval) for approval in approvals), key=_age)
    approving: dict[str, Word] = {}
    for word in words:
        if word.approves:
            approving.setdefault(word.approval.spec.approver, word)
    return Tally(tuple(approving.values()), next((word for word in words if word.denies), None))


def judge(question: Question, approval: Approval) -> Word:
    """Say what an approval that names this grant's UID is worth.

    To deny it is enough to have a say; to approve, it must be of exactly what would be issued.
    """
    checks = HAS_A_SAY if approval.spec.decision == DENY else (*HAS_A_SAY, *IS_OF_THIS)
    return Word(approval, ask_all(checks, Heard(question, approval))[-1].objection)


@dataclass(frozen=True, slots=True)
class Heard:
    """An approval beside what was asked."""

    question: Question
    approval: Approval

    @property
    def made_at(self) -> dt.datetime:
        """When it was made, in whole seconds; long ago where the API server does not tell."""
        return self.approval.metadata.creation_timestamp or LONG_AGO


def _another_name(heard: Heard) -> Objection | None:
    key, subject = heard.question.grant.key, heard.approval.spec.subject
    if (subject.kind, heard.approval.metadata.namespace, subject.name) == key:
        return None
    return _refused(f"UID {subject.uid} is {key}; name it so, in its namespace, in a new Approval")


def _another_purpose(heard: Heard) -> Objection | None:
    if heard.approval.spec.purpose == GRANT:
        return None
    return _refused(f"purpose {heard.approval.spec.purpose} is not for a TaskGrant; {GRANT} is")


def _no_person(heard: Heard) -> Objection | None:
    approver = heard.approval.spec.approver
    return None if is_person(approver) else _refused(f"{approver or 'nobody'} is no person; ask a person")


def _own_request(heard: Heard) -> Objection | None:
    requester = heard.question.grant.spec.requested_by
    if not requester:
        return _refused("the grant does not say who asked for it, so nobody can be told apart from him")
    if requester == heard.approval.spec.approver:
        return _refused("you asked for this grant yourself; ask somebody else to approve it")
    return None


def _own_ancestor(heard: Heard) -> Objection | None:
    for above in heard.question.ancestors:
        if above.spec.requested_by == heard.approval.spec.approver:
            name = above.metadata.name
            return _refused(f"you asked for grant {name!r}, from which it descends; ask somebody else")
    return None


def _outside_groups(heard: Heard) -> Objection | None:
    groups = heard.question.groups
    if is_in(heard.approval, groups):
        return None
    return _refused(f"the stage lets only these groups approve: {', '.join(groups)}; you are in none of them")


def _going(heard: Heard) -> Objection | None:
    return _void("it is being deleted") if heard.approval.metadata.is_deleting else None


def _used(heard: Heard) -> Objection | None:
    return _void("it was used before, and each counts once") if heard.approval.status.used else None


def _another_digest(heard: Heard) -> Objection | None:
    if heard.approval.spec.digest == heard.question.digest:
        return None
    return _void(f"its digest is not the grant's: grant, pilot or policy is not what was approved; {AGAIN}")


def _older(heard: Heard) -> Objection | None:
    asked_at = heard.question.grant.metadata.creation_timestamp
    is_newer = asked_at is not None and heard.made_at >= asked_at
    return None if is_newer else _void(f"it is older than the grant; {AGAIN}")


def _overtaken(heard: Heard) -> Objection | None:
    """Creation times are whole seconds: of what was said in the second of a change nobody knows of what."""
    since = heard.question.since
    if since is None or heard.made_at >= since:
        return None
    return _void(
        f"pilot or policy changed since, or in that second, though they are now as they were; {AGAIN}"
    )


HAS_A_SAY = (
    # Make sure that RBAC was asked about this grant: it goes by name and namespace, we by UID.
    Check("names-the-grant", _another_name),
    # Make sure that what was said of something else is not taken for this.
    Check("purpose-grant", _another_purpose),
    # Make sure that there is somebody to ask afterwards.
    Check("is-a-person", _no_person),
    # Make sure that nobody approves for himself (promise 3).
    Check("not-the-requester", _own_request),
    # Make sure that nobody approves for himself by way of a parent (promise 3).
    Check("not-in-the-chain", _own_ancestor),
    # Make sure that the stage wants to hear this person.
    Check("of-the-stages-groups", _outside_groups),
    # Make sure that what somebody takes back is taken back.
    Check("not-deleted", _going),
    # Make sure that each counts once (promise 3).
    Check("not-used", _used),
)

IS_OF_THIS = (
    # Make sure that nothing else is put in the place of what was approved (promise 3).
    Check("same-digest", _another_digest),
    # Make sure that nothing is approved before it is asked for.
    Check("newer-than-the-grant", _older),
    # Make sure that an approval outlives no change, even one that was taken back (promise 3).
    Check("newer-than-the-last-change", _overtaken),
)


def _refused(message: str) -> Objection:
    return Objection(Reason.REFUSED, message)


def _void(message: str) -> Objection:
    return Objection(Reason.VOID, message)


def _age(word: Word) -> tuple[dt.datetime, str]:
    metadata = word.approval.metadata
    return metadata.creation_timestamp or LONG_AGO, metadata.uid
