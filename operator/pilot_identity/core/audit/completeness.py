"""Completeness: what is there, held against what the log says is there, and the reverse.

Integrity says that the log was not changed; it does not say that everything is in it. That is found out by
reconciling it with the live objects: each must have been announced, and be as announced; and whatever was
announced and not taken back must be there. Both sides change while they are read, so one look shows
candidates only: `confirmed` is what two looks show alike, each with the log read after the objects.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from pilot_identity.core.audit.announcement import Announcement
from pilot_identity.core.audit.contradictions import (
    SETTLED_WITHIN,
    grant_contradictions,
    pilot_contradictions,
)
from pilot_identity.core.audit.live import Listed, Live, LiveBinding, Subject, account_of
from pilot_identity.core.audit.told import Record, Told
from pilot_identity.core.resources import Phase, PilotIdentity, TaskGrant
from pilot_identity.core.resources.credential import CredentialStatus
from pilot_identity.core.resources.metadata import Key
from pilot_identity.core.resources.task_grant import Binding


class Disagreement(StrEnum):
    """How log and cluster can disagree. The docstring below each is its meaning in plain words."""

    STRANGER = "stranger"
    """It looks like the operator's, or gives what only the operator gives, and the log never announced it."""
    OUTLIVED = "outlived"
    """It is there though the log says that its grant or pilot ended, or that something replaced it."""
    REPLACED = "replaced"
    """One of that name was announced, but this is another: its UID or its owner is not the announced."""
    ALTERED = "altered"
    """It was announced, and says something else now: another role, other subjects."""
    MISSING = "missing"
    """By the log it is out, and it is not there."""
    CONTRADICTED = "contradicted"
    """A status, or a spec that never changes, says something else than the log."""


@dataclass(frozen=True, slots=True)
class Discrepancy:
    """One disagreement. Two that are equal are the same one, seen again.

    Attributes:
        key: the object that it is about, there or not.
        uid: its UID; empty where it is not there.
        index: the entry that it is held against; -1 where there is none.
        owner, owner_uid: the grant or pilot that it concerns, as far as that is known.
        message: both sides, in a sentence.
    """

    kind: Disagreement
    key: Key
    uid: str
    index: int
    message: str
    owner: Key | None = None
    owner_uid: str = ""

    @classmethod
    def about(
        cls, kind: Disagreement, what: Key | Live, index: int, message: str, told: Told | None = None
    ) -> Discrepancy:
        """Make one about an object that is there, or about a key where none is."""
        key, uid = (what.key, what.uid) if isinstance(what, Live) else (what, "")
        owner = (told.key, told.uid) if told is not None else (None, "")
        return cls(kind, key, uid, index, message, *owner)


def reconcile(record: Record, listed: Listed, now: dt.datetime) -> tuple[Discrepancy, ...]:
    """Hold what was listed against the log: candidates, as of this one look; in a fixed order.

    The log is to be read, or read on, after the objects were listed: then what was announced before it was
    made is known.
    """
    look = _Look.at(record, listed, now)
    found = (one for check in CHECKS for one in check(look))
    return tuple(sorted(found, key=lambda one: (one.key, one.kind, one.index, one.message)))


def confirmed(first: Iterable[Discrepancy], second: Iterable[Discrepancy]) -> tuple[Discrepancy, ...]:
    """What both looks show: what was under way in the first is over, or another step, in the second."""
    known = set(first)
    return tuple(one for one in second if one in known)


@dataclass(frozen=True, slots=True)
class _Look:
    """One look at both sides."""

    record: Record
    listed: Listed
    now: dt.datetime
    places: frozenset[str]

    @classmethod
    def at(cls, record: Record, listed: Listed, now: dt.datetime) -> _Look:
        """Look at both; `places` are the namespaces in which grants' accounts are, by either."""
        there = {one.key.namespace for one in listed.accounts or () if one.is_a_grants_account}
        out = {
            told.key.namespace
            for told in record.subjects.values()
            if told.current is not None and told.current.access is not None
        }
        return cls(record, listed, now, frozenset(there | out))

    def reached(self, binding: LiveBinding) -> Subject | None:
        """The group by which a binding gives grants' accounts something; `None` where there is none."""
        reached = (one for one in binding.gives_accounts if any(map(one.may_be, self.places)))
        return next(reached, None)

    def told(self, uid: str) -> Told | None:
        """What the log says of a subject; `None` also where not all of it is known yet."""
        return None if uid in self.record.pending else self.record.subjects.get(uid)

    def standing(self) -> Iterator[tuple[Told, Announcement]]:
        """Every subject of which something is out by the log's word, and should be there by now."""
        for uid, told in self.record.subjects.items():
            one = told.current
            if one is None or uid in self.record.pending or not self.listed.covers(told.key.namespace):
                continue
            is_settled = one.time + SETTLED_WITHIN <= self.now or self._is_confirmed(told, one)
            if is_settled and self.now < one.lapses_at and not self._is_ending(told):
                yield told, one

    def released(self, told: Told) -> CredentialStatus | None:
        """The credential that a grant's or pilot's status says was released last."""
        owner = (self.listed.grants or {}).get(told.uid) or (self.listed.pilots or {}).get(told.uid)
        return owner.status.credential if owner is not None else None

    def _is_confirmed(self, told: Told, one: Announcement) -> bool:
        """Whether the status says that it was released."""
        credential = self.released(told)
        return credential is not None and credential.id == one.id

    def _is_ending(self, told: Told) -> bool:
        """Whether its own object says that it is to end: access is cut before that is recorded."""
        grant = (self.listed.grants or {}).get(told.uid)
        pilot = (self.listed.pilots or {}).get(told.uid)
        if pilot is not None:
            return pilot.metadata.is_deleting or pilot.spec.suspend
        if grant is None:
            return False
        is_over = grant.status.expires_at is not None and grant.status.expires_at <= self.now
        is_wanted = not (grant.metadata.is_deleting or grant.spec.completed or grant.spec.revoke is not None)
        return is_over or not is_wanted or grant.status.phase is Phase.CLOSING

    def is_waiting(self, uid: str) -> bool:
        """Whether a UID is that of a grant that is not decided yet: its account comes before its entry."""
        grant = (self.listed.grants or {}).get(uid)
        return grant is not None and grant.status.phase in {Phase.PENDING, Phase.AWAITING_APPROVAL}


def _secrets(look: _Look) -> Iterator[Discrepancy]:
    for secret in look.listed.secrets or ():
        yield from _secret(look, secret)


def _secret(look: _Look, secret: Live) -> Iterator[Discrepancy]:
    if secret.is_a_grants_token:
        message = f"asks for a lasting token of ServiceAccount {secret.token_of}, which no entry announces"
        yield Discrepancy.about(Disagreement.STRANGER, secret, -1, message)
        return
    told = look.record.credentials.get(secret.credential_id)
    if secret.owner_uid in look.record.pending:
        return
    if told is None or told.uid in look.record.pending:
        message = f"holds credential {secret.credential_id or 'without a name'}, which no entry announces"
        yield Discrepancy.about(Disagreement.STRANGER, secret, -1, message)
        return
    one = told.announcement(secret.credential_id)
    if secret.owner_uid != told.uid or secret.key.namespace != told.key.namespace:
        message = (
            f"names credential {secret.credential_id} of {told.key} (UID {told.uid}), which does not own it"
        )
        yield Discrepancy.about(Disagreement.REPLACED, secret, _index(one), message, told)
        return
    if one is not None and secret.key.name != one.secret_name:
        where = f"Secret {one.secret_name} alone" if one.secret_name else "no Secret at all"
        message = f"holds credential {one.id} of {told.key} too; announced was {where}"
        yield Discrepancy.about(Disagreement.STRANGER, secret, one.index, message, told)
        return
    why = _outlived(look, told, secret.credential_id)
    if why is not None:
        at, message = why
        yield Discrepancy.about(Disagreement.OUTLIVED, secret, at, message, told)
        return
    released = look.released(told)
    if released is not None and released.id == secret.credential_id and released.secret_uid != secret.uid:
        message = f"has UID {secret.uid}; the one in which {told.key} was released has {released.secret_uid}"
        yield Discrepancy.about(Disagreement.REPLACED, secret, released.audit_index, message, told)


def _index(one: Announcement | None) -> int:
    return one.index if one is not None else -1


def _outlived(look: _Look, told: Told, credential_id: str) -> tuple[int, str] | None:
    """Why a credential that was announced should not be there any more, and the entry that says so."""
    if credential_id in look.record.abandoned:
        at = look.record.abandoned[credential_id]
        return at, f"holds credential {credential_id}, which was abandoned by entry {at}"
    if told.taken_back is not None:
        return told.taken_back.index, f"is there though {told.key} ended by entry {told.taken_back.index}"
    newest = told.newest
    if newest is None or newest.id == credential_id:
        return None
    is_under_way = look.now < newest.time + SETTLED_WITHIN
    if is_under_way and told.announcement(credential_id) is not None:
        return None
    return newest.index, f"holds credential {credential_id}, which entry {newest.index} replaced"


def _accounts(look: _Look) -> Iterator[Discrepancy]:
    for account in look.listed.accounts or ():
        if account.is_marked:
            yield from _account(look, account)


def _account(look: _Look, account: Live) -> Iterator[Discrepancy]:
    key = account.key
    announced_to = look.record.account((key.namespace, key.name))
    uid = announced_to.uid if announced_to is not None else account.owner_uid
    if uid in look.record.pending or key.name in look.record.pending_accounts or look.is_waiting(uid):
        return
    told = look.told(uid)
    if told is None or (told.key.kind == "TaskGrant" and announced_to is None):
        message = f"is no account that an entry announces (UID {account.uid})"
        yield Discrepancy.about(Disagreement.STRANGER, account, -1, message)
        return
    # A pilot's own account gives nothing: it stays while the pilot is suspended, and goes with it.
    taken_back = told.end if told.key.kind == "PilotIdentity" else told.taken_back
    if taken_back is not None:
        message = f"is there though {told.key} ended by entry {taken_back.index}"
        yield Discrepancy.about(Disagreement.OUTLIVED, account, taken_back.index, message, told)
        return
    known = {one.access.account_uid for one in told.announced if one.access is not None}
    if known and account.uid not in known:
        message = f"has UID {account.uid}; announced was {', '.join(sorted(known))}"
        yield Discrepancy.about(Disagreement.REPLACED, account, told.announced[-1].index, message, told)


def _bindings(look: _Look) -> Iterator[Discrepancy]:
    for binding in (*(look.listed.bindings or ()), *(look.listed.cluster_bindings or ())):
        if binding.is_marked:
            yield from _binding(look, binding)
        elif crowd := look.reached(binding):
            message = f"binds {binding}; grants' accounts are in {crowd}, and no entry announces it"
            yield Discrepancy.about(Disagreement.STRANGER, binding.object, -1, message)


def _binding(look: _Look, binding: LiveBinding) -> Iterator[Discrepancy]:
    key = binding.object.key
    nothing = (None, None, None)
    told, by, wanted = look.record.binding((key.namespace, key.name)) if key.namespace else nothing
    if told.uid in look.record.pending if told is not None else _may_be_pending(look, binding):
        return
    if told is None:
        message = f"binds {binding}; no entry announces it"
        yield Discrepancy.about(Disagreement.STRANGER, binding.object, -1, message)
        return
    if told.taken_back is not None:
        message = f"is there though {told.key} ended by entry {told.taken_back.index}"
        yield Discrepancy.about(Disagreement.OUTLIVED, binding.object, told.taken_back.index, message, told)
    elif wanted is None and not look.is_waiting(told.uid):
        message = f"is there though what announced it for {told.key} was abandoned"
        yield Discrepancy.about(Disagreement.OUTLIVED, binding.object, -1, message, told)
    if wanted is not None and by is not None:
        for message in _alterations(binding, wanted, by, told):
            yield Discrepancy.about(Disagreement.ALTERED, binding.object, by.index, message, told)


def _may_be_pending(look: _Look, binding: LiveBinding) -> bool:
    """Whether it may be that of a grant of which not everything is read."""
    names = {account_of(binding.object.key.name), *(subject.name for subject in binding.subjects)}
    return not names.isdisjoint(look.record.pending_accounts)


def _alterations(binding: LiveBinding, wanted: Binding, by: Announcement, told: Told) -> Iterator[str]:
    role = binding.role_ref
    if role != wanted.role_ref:
        yield (f"binds {role.kind} {role.name}; announced was {wanted.role_ref.kind} {wanted.role_ref.name}")
    account = by.access.account if by.access is not None else ""
    expected = (Subject("ServiceAccount", told.key.namespace, account),)
    if binding.subjects != expected:
        whom = ", ".join(map(str, binding.subjects)) or "nobody"
        yield f"binds {whom}; announced was {expected[0]}"


def _missing_owners(look: _Look) -> Iterator[Discrepancy]:
    for told, one in look.standing():
        listed = look.listed.grants if told.key.kind == "TaskGrant" else look.listed.pilots
        if listed is not None and told.uid not in listed:
            message = f"is not there (UID {told.uid}), and no entry ends what entry {one.index} announced"
            yield Discrepancy.about(Disagreement.MISSING, told.key, one.index, message, told)


def _missing_objects(look: _Look) -> Iterator[Discrepancy]:
    listed = look.listed
    secrets = _places(listed.secrets)
    accounts = _places(listed.accounts)
    bindings = _places(one.object for one in listed.bindings) if listed.bindings is not None else None
    for told, one in look.standing():
        message = f"is not there; entry {one.index} announced it for {told.key}"
        wanted: list[tuple[set[tuple[str, str]] | None, Key]] = []
        namespace = told.key.namespace
        if one.secret_name:
            wanted.append((secrets, Key("Secret", namespace, one.secret_name)))
        if one.access is not None:
            wanted.append((accounts, Key("ServiceAccount", namespace, one.access.account)))
            wanted += [
                (bindings, Key("RoleBinding", binding.namespace, binding.name))
                for binding in one.access.bindings
                if listed.covers(binding.namespace)
            ]
        for there, key in wanted:
            if there is not None and (key.namespace, key.name) not in there:
                yield Discrepancy.about(Disagreement.MISSING, key, one.index, message, told)


def _places(objects: Iterable[Live] | None) -> set[tuple[str, str]] | None:
    return None if objects is None else {(one.key.namespace, one.key.name) for one in objects}


def _statuses(look: _Look) -> Iterator[Discrepancy]:
    owners: list[TaskGrant | PilotIdentity] = [
        *(look.listed.grants or {}).values(),
        *(look.listed.pilots or {}).values(),
    ]
    for owner in owners:
        if owner.metadata.uid in look.record.pending:
            continue
        told = look.told(owner.metadata.uid)
        found = (
            grant_contradictions(owner, told, look.now)
            if isinstance(owner, TaskGrant)
            else pilot_contradictions(owner, told, look.now)
        )
        for index, message in found:
            uid = owner.metadata.uid
            yield Discrepancy(Disagreement.CONTRADICTED, owner.key, uid, index, message, owner.key, uid)


CHECKS: tuple[Callable[[_Look], Iterator[Discrepancy]], ...] = (
    # Make sure that every credential at rest was announced, and nothing took it back.
    _secrets,
    # Make sure that no account acts as a grant's that the log does not know.
    _accounts,
    # Make sure that nothing gives access but what was announced, to whom it was announced.
    _bindings,
    # Make sure that no grant or pilot vanished with something out.
    _missing_owners,
    # Make sure that what is out is where the log says.
    _missing_objects,
    # Make sure that people read in a status what the log says.
    _statuses,
)
