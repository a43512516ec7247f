"""The store: the newest known version of every watched object, and the indexes that decisions need."""

from __future__ import annotations

import datetime as dt
import itertools
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pilot_identity.control.line import Lines, stands_in_line
from pilot_identity.core.decisions.delegation import lineage
from pilot_identity.core.decisions.grants.seen import RATE_WINDOW
from pilot_identity.core.decisions.reviews import wants_review_recorded
from pilot_identity.core.decisions.stage_keys import OLDEST
from pilot_identity.core.decisions.stages import is_ready
from pilot_identity.core.resources import Approval, Phase, PilotIdentity, Resource, StagePolicy, TaskGrant
from pilot_identity.core.resources.conditions import ConditionType, find
from pilot_identity.core.resources.metadata import Key

MARKS = 20_000
"""How many deletions are remembered; an event or page that is older than so many is long delivered."""


class Store:
    """Holds objects by key, newer versions replacing older ones, never the reverse.

    A deletion leaves a mark of the version at which it was seen, so that an older event or a stale page of
    a list, arriving later, cannot bring the object back.
    """

    def __init__(self) -> None:
        self._objects: dict[Key, Resource] = {}
        self._stages: dict[str, StagePolicy] = {}
        self._waiting_of: dict[Key, set[Key]] = defaultdict(set)
        self._active_of: dict[Key, set[Key]] = defaultdict(set)
        self._open_of: dict[Key, set[Key]] = defaultdict(set)
        self._children_of: dict[Key, set[Key]] = defaultdict(set)
        self._pilots_by_account: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._pilots_in: dict[str, set[Key]] = defaultdict(set)
        self._approvals_of: dict[str, set[Key]] = defaultdict(set)
        self._unrecorded_of: dict[Key, set[Key]] = defaultdict(set)
        self._issued_lately: dict[Key, dict[Key, dt.datetime]] = defaultdict(dict)
        self._lines = Lines()
        self._gone: dict[Key, int] = {}

    def __len__(self) -> int:
        """How many objects are held."""
        return len(self._objects)

    def get(self, key: Key) -> Resource | None:
        """Return the newest known version of an object."""
        return self._objects.get(key)

    def pilot(self, key: Key) -> PilotIdentity | None:
        """Return a pilot."""
        found = self._objects.get(key)
        return found if isinstance(found, PilotIdentity) else None

    def grant(self, key: Key) -> TaskGrant | None:
        """Return a grant."""
        found = self._objects.get(key)
        return found if isinstance(found, TaskGrant) else None

    def keys(self, kind: str) -> tuple[Key, ...]:
        """Every key of a kind."""
        return tuple(key for key in self._objects if key.kind == kind)

    @property
    def stages(self) -> dict[str, StagePolicy]:
        """Every stage policy by name."""
        return dict(self._stages)

    def put(self, resource: Resource) -> frozenset[Key]:
        """Take a version of an object; returns the keys that must be looked at because of it."""
        key = resource.key
        if self._gone.get(key, -1) >= resource.metadata.version:
            return frozenset()
        self._gone.pop(key, None)
        before = self._objects.get(key)
        if before is not None:
            same = before.metadata.uid == resource.metadata.uid
            if before.metadata.version >= resource.metadata.version:
                return frozenset()
            if not same:
                self._unindex(before)
        self._objects[key] = resource
        if before is not None and before.metadata.uid == resource.metadata.uid:
            self._unindex(before)
        self._index(resource)
        return frozenset({key, *self._dependents(before, resource)})

    def drop(self, key: Key, *, version: int) -> frozenset[Key]:
        """Forget an object that is gone; an event older than what is held is passed over."""
        before = self._objects.get(key)
        if before is None or before.metadata.version > version:
            return frozenset()
        del self._objects[key]
        self._mark_gone(key, version)
        self._unindex(before)
        if isinstance(before, TaskGrant):
            self._lines.leave(before)
        return frozenset({key, *self._dependents(before, None)})

    def _mark_gone(self, key: Key, version: int) -> None:
        self._gone[key] = version
        while len(self._gone) > MARKS:
            del self._gone[next(iter(self._gone))]

    def note_issuing(self, grant: TaskGrant, at: dt.datetime) -> None:
        """Count a grant as active before its status says so, so that passes side by side see each other."""
        self._active_of[grant.pilot_key].add(grant.key)
        times = self._issued_lately[grant.pilot_key]
        times.pop(grant.key, None)
        times[grant.key] = at

    def sharers(self, pilot: PilotIdentity) -> tuple[PilotIdentity, ...]:
        """Other pilots of the namespace that use the same service account."""
        keys = self._pilots_by_account.get((pilot.metadata.namespace, pilot.service_account), set())
        return tuple(self._pilots(key for key in keys if key != pilot.key))

    def neighbours(self, pilot: Key) -> tuple[PilotIdentity, ...]:
        """The other pilots of a pilot's namespace."""
        return tuple(self._pilots(self._pilots_in.get(pilot.namespace, set()) - {pilot}))

    def neighbours_stages(self, pilot: Key) -> frozenset[str]:
        """The stages whose bundle other pilots of the namespace use, as their statuses say."""
        bundles = (other.status.bundle for other in self.neighbours(pilot))
        return frozenset(bundle.stage for bundle in bundles if bundle is not None)

    def signing(self, stage: str) -> int:
        """The generation of a stage's keys that signs; `OLDEST` where no status says so."""
        found = self._stages.get(stage)
        return found.status.signing if found is not None else OLDEST

    def behind(self, stage: str, sequence: int) -> frozenset[str]:
        """The namespaces in which a pilot does not have a stage's bundle of that sequence yet."""
        found = (self.pilot(key) for key in self.keys("PilotIdentity"))
        return frozenset(
            pilot.metadata.namespace
            for pilot in found
            if pilot is not None
            and not pilot.metadata.is_deleting
            and pilot.status.bundle is not None
            and pilot.status.bundle.stage == stage
            and pilot.status.bundle.sequence < sequence
        )

    def active_grants(self, grant: TaskGrant) -> int:
        """How many other grants of the same pilot are active."""
        active = self._active_of.get(grant.pilot_key, set())
        return len(active) - (grant.key in active)

    def open_grants(self, pilot: PilotIdentity) -> int:
        """How many grants of a pilot are active or closing."""
        return len(self._open_of.get(pilot.key, ()))

    def issued_lately(self, grant: TaskGrant, now: dt.datetime) -> tuple[int, dt.datetime | None]:
        """How many other grants of the pilot were issued within the last minute, and which makes room for it.

        That is the first of those, or for a grant that stands in line the one as far behind it.
        """
        times = self._issued_lately.get(grant.pilot_key)
        if not times:
            return 0, None
        # In the order of issuing: what is too old is at the front.
        while times and next(iter(times.values())) <= now - RATE_WINDOW:
            del times[next(iter(times))]
        count = len(times) - (grant.key in times)
        if not count:
            return 0, None
        rounds, place = divmod(self._lines.ahead_of(grant), count)
        others = (at for key, at in times.items() if key != grant.key)
        return count, next(itertools.islice(others, place, None)) + rounds * RATE_WINDOW

    def is_next(self, grant: TaskGrant) -> bool:
        """Whether a grant waits for a limit and is the first of its pilot's that does."""
        return self._lines.head(grant.pilot_key) == grant.key

    def approvals(self, uid: str) -> tuple[Approval, ...]:
        """Every Approval that names an object's UID."""
        found = (self._objects.get(key) for key in self._approvals_of.get(uid, ()))
        return tuple(approval for approval in found if isinstance(approval, Approval))

    def ancestors(self, grant: TaskGrant) -> tuple[TaskGrant, ...]:
        """The grants that a grant descends from, its parent last; see `lineage`."""
        return lineage(grant, self.grant)

    def subject(self, approval: Approval) -> TaskGrant | PilotIdentity | StagePolicy | None:
        """What an Approval names, if it is there and has the UID that it names."""
        found = self._objects.get(_subject_key(approval))
        if found is None or isinstance(found, Approval) or found.metadata.uid != approval.spec.subject.uid:
            return None
        return found

    def unrecorded_emergencies(self, pilot: PilotIdentity) -> tuple[TaskGrant, ...]:
        """The pilot's emergency grants that wait until its status says that a review is owed for them."""
        found = (self._objects.get(key) for key in self._unrecorded_of.get(pilot.key, ()))
        return tuple(grant for grant in found if isinstance(grant, TaskGrant))

    def is_to_end(self, grant: TaskGrant) -> bool:
        """Whether somebody's word ends the grant, whatever else is known: on it, its pilot or its stage.

        What is missing says nothing here: while the store fills, everything is.
        """
        pilot, stage = self.pilot(grant.pilot_key), self.stages.get(grant.status.stage)
        return (
            grant.metadata.is_deleting
            or grant.spec.completed
            or grant.spec.revoke is not None
            or (pilot is not None and (pilot.spec.suspend or pilot.metadata.is_deleting))
            or (stage is not None and stage.spec.freeze)
        )

    def _pilots(self, keys: Iterable[Key]) -> Iterator[PilotIdentity]:
        for key in keys:
            found = self._objects.get(key)
            if isinstance(found, PilotIdentity):
                yield found

    def _index(self, resource: Resource) -> None:
        match resource:
            case StagePolicy():
                self._stages[resource.name] = resource
            case PilotIdentity():
                account = (resource.metadata.namespace, resource.service_account)
                self._pilots_by_account[account].add(resource.key)
                self._pilots_in[resource.metadata.namespace].add(resource.key)
            case TaskGrant():
                if _is_open(resource):
                    self._active_of[resource.pilot_key].add(resource.key)
                    self._open_of[resource.pilot_key].add(resource.key)
                elif not resource.status.phase.is_terminal:
                    self._waiting_of[resource.pilot_key].add(resource.key)
                if resource.parent_key is not None and not resource.status.phase.is_terminal:
                    self._children_of[resource.parent_key].add(resource.key)
                self._lines.follow(resource)
                if wants_review_recorded(resource):
                    self._unrecorded_of[resource.pilot_key].add(resource.key)
            case Approval():
                self._approvals_of[resource.spec.subject.uid].add(resource.key)

    def _unindex(self, resource: Resource) -> None:
        match resource:
            case StagePolicy():
                self._stages.pop(resource.name, None)
            case PilotIdentity():
                account = (resource.metadata.namespace, resource.service_account)
                _discard(self._pilots_by_account, account, resource.key)
                _discard(self._pilots_in, resource.metadata.namespace, resource.key)
            case TaskGrant():
                _discard(self._waiting_of, resource.pilot_key, resource.key)
                _discard(self._active_of, resource.pilot_key, resource.key)
                _discard(self._open_of, resource.pilot_key, resource.key)
                if resource.parent_key is not None:
                    _discard(self._children_of, resource.parent_key, resource.key)
                _discard(self._unrecorded_of, resource.pilot_key, resource.key)
            case Approval():
                _discard(self._approvals_of, resource.spec.subject.uid, resource.key)

    def _dependents(self, before: Resource | None, after: Resource | None) -> Iterator[Key]:
        """Whose decision rests on this object, where what they read of it changed."""
        now = after if after is not None else before
        match now:
            case StagePolicy() if _changed(before, after, _stage_face):
                yield from self._dependents_of_stage(now)
            case StagePolicy() if _changed(before, after, _standing_keys):
                yield from self._bundled_with(now.name)
            case PilotIdentity() if _changed(before, after, _pilot_face):
                yield from self._dependents_of_pilot(before, now)
            case TaskGrant():
                yield from self._dependents_of_grant(before, after, now)
            case Approval() if _changed(before, after, _approval_face):
                yield _subject_key(now)
            case _:
                return

    def _dependents_of_stage(self, stage: StagePolicy) -> Iterator[Key]:
        yield from self.keys("PilotIdentity")
        yield from (key for key in self.keys("StagePolicy") if key != stage.key)
        for key in self.keys("PilotIdentity"):
            yield from self._live_grants(key)

    def _bundled_with(self, stage: str) -> Iterator[Key]:
        """The pilots that have a bundle of the stage beside them."""
        for key in self.keys("PilotIdentity"):
            pilot = self.pilot(key)
            if pilot is not None and pilot.status.bundle is not None and pilot.status.bundle.stage == stage:
                yield key

    def _dependents_of_pilot(self, before: Resource | None, pilot: PilotIdentity) -> Iterator[Key]:
        yield from self._live_grants(pilot.key)
        yield from (other.key for other in self.sharers(pilot))
        if isinstance(before, PilotIdentity):
            yield from (other.key for other in self.sharers(before))
        yield from self._approvals_of.get(pilot.metadata.uid, ())

    def _dependents_of_grant(
        self, before: Resource | None, after: Resource | None, grant: TaskGrant
    ) -> Iterator[Key]:
        if _changed(before, after, _asking_face):
            yield from self._approvals_of.get(grant.metadata.uid, ())
        if after is not None and grant.key in self._unrecorded_of.get(grant.pilot_key, ()):
            yield grant.pilot_key
        if _changed(before, after, _grant_face):
            yield from self._descendants(grant.key)
        if _is_open(before) and not _is_open(after):
            yield grant.pilot_key
        made_room = _is_open(before) and not _is_open(after)
        left = stands_in_line(before) and not stands_in_line(after)
        head = self._lines.head(grant.pilot_key)
        if head is not None and (made_room or left):
            yield head

    def _live_grants(self, pilot: Key) -> Iterator[Key]:
        """A pilot's grants that are not ended, and those that were delegated by them."""
        for key in (*self._open_of.get(pilot, ()), *self._waiting_of.get(pilot, ())):
            yield key
            yield from self._descendants(key)

    def _descendants(self, grant: Key) -> Iterator[Key]:
        """The grants that are not ended and lead to this one by `spec.parent`, the nearest first."""
        known = {grant}
        level = [grant]
        while level:
            level = [key for above in level for key in self._children_of.get(above, ()) if key not in known]
            known.update(level)
            yield from level


IndexKey = TypeVar("IndexKey")


def _discard(index: dict[IndexKey, set[Key]], at: IndexKey, key: Key) -> None:
    """Take `key` out of a set of the index, and the set with its last key."""
    members = index.get(at)
    if members is not None:
        members.discard(key)
        if not members:
            del index[at]


def _changed(before: Resource | None, after: Resource | None, face: Callable[[Resource], object]) -> bool:
    """Whether what others read of an object is not as it was; one that came or went is changed."""
    if before is None or after is None:
        return before is not after
    return face(before) != face(after)


def _stage_face(resource: Resource) -> object:
    """What pilots and grants read of a stage."""
    if not isinstance(resource, StagePolicy):
        return None
    return resource.spec, is_ready(resource), resource.metadata.is_deleting


def _standing_keys(resource: Resource) -> object:
    """What is in the stage's bundle."""
    if not isinstance(resource, StagePolicy):
        return None
    return tuple(one.generation for one in resource.status.keys)


def _pilot_face(resource: Resource) -> object:
    """What grants, and pilots of the same account, read of a pilot."""
    if not isinstance(resource, PilotIdentity):
        return None
    ready = find(resource.status.conditions, ConditionType.READY)
    is_current = resource.status.observed_generation == resource.metadata.generation
    return (
        resource.spec,
        resource.status.stage,
        ready.status if ready else None,
        is_current,
        resource.metadata.is_deleting,
        resource.status.review_owed,
        resource.status.reviewed,
        resource.status.exceptions,
    )


def _asking_face(resource: Resource) -> object:
    """What the approvals of a grant read of it."""
    if not isinstance(resource, TaskGrant):
        return None
    status = resource.status
    return status.phase.is_terminal, status.approval, status.decision


def _approval_face(resource: Resource) -> object:
    """What its subject reads of an approval; the spec cannot change."""
    if not isinstance(resource, Approval):
        return None
    return resource.metadata.uid, resource.metadata.is_deleting, resource.status.used


def _subject_key(approval: Approval) -> Key:
    subject = approval.spec.subject
    namespace = approval.metadata.namespace if subject.kind != "StagePolicy" else ""
    return Key(subject.kind, namespace, subject.name)


def _grant_face(resource: Resource) -> object:
    """What those read of a grant whose parent, or ancestor, it is."""
    if not isinstance(resource, TaskGrant):
        return None
    ready = find(resource.status.conditions, ConditionType.READY)
    return (
        resource.metadata.uid,
        resource.metadata.is_deleting,
        resource.metadata.is_held,
        resource.spec,
        resource.status.phase,
        resource.status.expires_at,
        ready.status if ready else None,
    )


def _is_open(resource: Resource | None) -> bool:
    """Whether it is a grant with something to withdraw."""
    return isinstance(resource, TaskGrant) and resource.status.phase in {Phase.ACTIVE, Phase.CLOSING}
