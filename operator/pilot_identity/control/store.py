"""The store: the newest known version of every watched object, and the indexes that decisions need."""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from pilot_identity.core.decisions.grants.seen import RATE_WINDOW
from pilot_identity.core.decisions.stages import is_ready
from pilot_identity.core.resources import Phase, PilotIdentity, Resource, StagePolicy, TaskGrant
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
        self._pilots_by_account: dict[tuple[str, str], set[Key]] = defaultdict(set)
        self._pilots_in: dict[str, set[Key]] = defaultdict(set)
        self._issued_lately: dict[Key, dict[Key, dt.datetime]] = defaultdict(dict)
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

    def neighbours_stages(self, pilot: PilotIdentity) -> frozenset[str]:
        """The stages whose bundle other pilots of the namespace use."""
        others = self._pilots(self._pilots_in.get(pilot.metadata.namespace, set()) - {pilot.key})
        return frozenset(other.status.bundle.stage for other in others if other.status.bundle is not None)

    def active_grants(self, grant: TaskGrant) -> int:
        """How many other grants of the same pilot are active."""
        active = self._active_of.get(grant.pilot_key, set())
        return len(active) - (grant.key in active)

    def open_grants(self, pilot: PilotIdentity) -> int:
        """How many grants of a pilot are active or closing."""
        return len(self._open_of.get(pilot.key, ()))

    def issued_lately(self, grant: TaskGrant, now: dt.datetime) -> tuple[int, dt.datetime | None]:
        """How many other grants of the pilot were issued within the last minute, and the first of those."""
        times = self._issued_lately.get(grant.pilot_key)
        if not times:
            return 0, None
        # In the order of issuing: what is too old is at the front.
        while times and next(iter(times.values())) <= now - RATE_WINDOW:
            del times[next(iter(times))]
        oldest = next((at for key, at in times.items() if key != grant.key), None)
        return len(times) - (grant.key in times), oldest

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

    def _dependents(self, before: Resource | None, after: Resource | None) -> Iterator[Key]:
        """Whose decision rests on this object, where what they read of it changed."""
        now = after if after is not None else before
        match now:
            case StagePolicy():
                if _signs(before, _stage_face) != _signs(after, _stage_face):
                    yield from self.keys("PilotIdentity")
                    yield from (key for key in self.keys("StagePolicy") if key != now.key)
                    for key in self.keys("PilotIdentity"):
                        yield from self._live_grants(key)
            case PilotIdentity():
                if _signs(before, _pilot_face) != _signs(after, _pilot_face):
                    yield from self._live_grants(now.key)
                    yield from (other.key for other in self.sharers(now))
                    if before is not None and isinstance(before, PilotIdentity):
                        yield from (other.key for other in self.sharers(before))
            case TaskGrant():
                if _is_open(before) and not _is_open(after):
                    yield now.pilot_key
                    yield from self._waiting_of.get(now.pilot_key, ())
            case _:
                return

    def _live_grants(self, pilot: Key) -> Iterator[Key]:
        """A pilot's grants that are not ended."""
        yield from self._open_of.get(pilot, ())
        yield from self._waiting_of.get(pilot, ())


IndexKey = TypeVar("IndexKey")


def _discard(index: dict[IndexKey, set[Key]], at: IndexKey, key: Key) -> None:
    """Take `key` out of a set of the index, and the set with its last key."""
    members = index.get(at)
    if members is not None:
        members.discard(key)
        if not members:
            del index[at]


def _signs(resource: Resource | None, face: Callable[[Resource], object]) -> object:
    return None if resource is None else face(resource)


def _stage_face(resource: Resource) -> object:
    """What pilots and grants read of a stage."""
    if not isinstance(resource, StagePolicy):
        return None
    return resource.spec, is_ready(resource), resource.metadata.is_deleting


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
    )


def _is_open(resource: Resource | None) -> bool:
    """Whether it is a grant with something to withdraw."""
    return isinstance(resource, TaskGrant) and resource.status.phase in {Phase.ACTIVE, Phase.CLOSING}
