"""Revocation lists in ConfigMaps beside the bundles: written in groups, within a budget, pruned in time.

Each list is complete for its stage, since a CRL without a narrower scope claims to be (RFC 5280 §5); it is
published in the namespaces in which something was revoked. A revocation goes out at once to its own
namespace; the copies elsewhere are brought up to date when they are next written, after `REFRESH` at the
latest. While one write is in flight what arrives waits and goes out with the next; large lists are written
less often, so that a busy stage does not fill etcd with old versions. Nothing is read back: after a restart
the audit log tells what was revoked.

Revocations are made by whoever ends a grant, so nobody's may keep another's from being published: what is
fresh goes before what is refreshed, each namespace in its turn; half of the budget is for namespaces that
were written to a while ago; and a list that is full is shared out among the namespaces.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import itertools
import logging
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, Invalid, NotFound
from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.decisions.stage_keys import OLDEST, KeyFacts
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.spiffe.revocation import Revoked
from pilot_identity.ports import (
    Clock,
    Conflict,
    Issuer,
    PortError,
    Publication,
    Refused,
    RevocationOrder,
    Unavailable,
)

log = logging.getLogger(__name__)

NAME_PREFIX = "pilot-revoked-"
VALID_FOR = dt.timedelta(hours=1)
"""From `thisUpdate` to `nextUpdate`: how long a verifier may go without a newer list."""
REFRESH = dt.timedelta(minutes=10)
"""How old a published list becomes; copies in other namespaces learn of a revocation within this time."""
BURST_BYTES = 64 * 1024 * 1024
BYTES_PER_SECOND = 256 * 1024
"""What lists may cost etcd: 75 MB between two compactions (every 5 minutes) in the long run, and a burst."""
RESERVE_BYTES = BURST_BYTES // 2
"""For fresh revocations where none was published lately; neither a busy namespace nor a refresh takes it."""
LATELY_SECONDS = 10.0
LARGEST_BYTES = 1_000_000
"""Of all files of one ConfigMap; the API server takes 1 MiB with its metadata."""
FULLEST = 0.98
"""Of `LARGEST_BYTES`, to what a list that is too large is cut."""
WAIT_SECONDS = 0.5
"""How long a pass waits for a publication before it goes on without; it holds up no other grant's end."""
SIDE_BY_SIDE = 4
FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0
SHORTEST_PAUSE = 0.01


@dataclass(frozen=True, slots=True)
class _Item:
    """One certificate or token on a list.

    Attributes:
        name: its serial number or token id.
        namespace: where it was revoked.
        revoked_at: `None` for a token, of which the list does not say so.
    """

    name: str
    namespace: str
    not_after: dt.datetime
    revoked_at: dt.datetime | None

    @property
    def size(self) -> int:
        """Bytes in the list, near enough to share it out: base64 of 39 bytes of DER, or of a quoted id."""
        return 53 if self.revoked_at is not None else (len(self.name) + 3) * 4 // 3


@dataclass(slots=True)
class _List:
    """What one stage has revoked, by name; `version` counts the additions."""

    items: dict[str, _Item] = field(default_factory=dict)
    version: int = 0
    number: int = 0
    built: _Files | None = None


@dataclass(frozen=True, slots=True)
class _Files:
    """A list as signed: of which version, its number, when, what could not be in it, and with which keys."""

    version: int
    number: int
    at: dt.datetime
    data: dict[str, str]
    left_out: frozenset[str]
    keys: KeyFacts

    @property
    def size(self) -> int:
        return sum(map(len, self.data.values()))


@dataclass(slots=True)
class _Place:
    """One stage's list in one namespace.

    Attributes:
        wanted: the version that names all that was revoked here.
        published: the version that stands there; -1 where that is not known.
        at: when it was published.
        written: the same by the loop's clock.
        turn: of those that wait for something fresh, the smallest is next; 0 where nothing waits.
        is_in_flight: whether it is being written.
        left_out: what the published list had no room for.
        keys: with what it was signed.
        is_outdated: whether it is wanted with other keys.
        problem: why the last write failed; empty where it did not.
        retry_at: by the loop's clock.
    """

    wanted: int = 0
    published: int = -1
    at: dt.datetime | None = None
    written: float | None = None
    turn: int = 0
    is_in_flight: bool = False
    left_out: frozenset[str] = frozenset()
    keys: KeyFacts | None = None
    is_outdated: bool = False
    problem: str = ""
    failures: int = 0
    retry_at: float = 0.0
    is_closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ConfigMapRevocations:
    """`ports.Revocations`: ConfigMaps `pilot-revoked-<stage>`, in the served namespaces (none named: all)."""

    def __init__(
        self,
        api: Api,
        issuer: Issuer,
        clock: Clock,
        namespaces: Sequence[str] = (),
        *,
        signing: Callable[[str], int] = lambda _: OLDEST,
    ) -> None:
        """Take the parts.

        Args:
            api: the API server.
            issuer: signs the lists.
            clock: tells the time.
            namespaces: the served ones; none named: all.
            signing: which generation of a stage's keys signs now.
        """
        self._api = api
        self._issuer = issuer
        self._clock = clock
        self._namespaces = frozenset(namespaces)
        self._signing = signing
        self._lists: dict[str, _List] = {}
        self._places: dict[tuple[str, str], _Place] = {}
        self._wake = asyncio.Event()
        self._turns = itertools.count(1)
        self._budget = Budget(BURST_BYTES, BYTES_PER_SECOND)
        self.writes = 0

    def __len__(self) -> int:
        """How many certificates and tokens are on the lists."""
        return sum(len(one.items) for one in self._lists.values())

    def remember(self, entry: RecordedEntry) -> None:
        """Take back into the lists what an entry of the log says was revoked, unless it lapsed since."""
        if "revoked" in entry.data:
            # Most of it is published already: it does not go before what is fresh.
            revoked = msgspec.convert(entry.data["revoked"], Revoked)
            if not self._namespaces or revoked.namespace in self._namespaces:
                self._add(revoked)

    def revoke(self, revoked: Revoked) -> None:
        """Put it on its stage's lists; they are published soon."""
        place = self._add(revoked)
        if place is not None and place.published < place.wanted and not place.turn:
            place.turn = next(self._turns)

    def _add(self, revoked: Revoked) -> _Place | None:
        """Put it on its stage's lists; `None` where all of it has lapsed."""
        if revoked.lapses_at is None or revoked.lapses_at <= self._clock():
            return None
        stage = self._lists.setdefault(revoked.stage, _List())
        new = [item for item in _items(revoked) if item.name not in stage.items]
        place = self._places.setdefault((revoked.stage, revoked.namespace), _Place())
        if new or not place.wanted:
            stage.items.update({item.name: item for item in new})
            stage.version += 1
            place.wanted = stage.version
        self._wake.set()
        return place

    def behind(self, stage: str, keys: KeyFacts) -> frozenset[str]:
        """The namespaces whose lists are not signed with these keys; they are due now."""
        found = set[str]()
        for (name, namespace), place in self._places.items():
            place.is_outdated = place.keys != keys if name == stage else place.is_outdated
            if name == stage and place.is_outdated:
                found.add(namespace)
        if found:
            self._wake.set()
        return frozenset(found)

    async def published(self, revoked: Revoked) -> Publication:
        """Wait a moment for the lists in its namespace to name it; say where they stand."""
        now = self._clock()
        if revoked.lapses_at is None or revoked.lapses_at <= now:
            return Publication(is_done=True, message="all of it has lapsed by itself")
        where = (revoked.stage, revoked.namespace)
        place = self._places.get(where)
        if place is None:
            return Publication(is_done=False, message="it is on no list")
        wanted = place.wanted
        deadline = _tick() + WAIT_SECONDS
        while not self._is_there(place, wanted):
            left = deadline - _tick()
            is_far = not place.is_in_flight and self._ready_in(where, place) > left
            if left <= 0 or place.problem or is_far:
                return Publication(is_done=False, message=place.problem or "the list is not published yet")
            place.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await place.changed.wait()
        return self._standing(place, revoked)

    async def run(self) -> None:
        """Publish what is revoked and keep what is published fresh, for ever."""
        async with asyncio.TaskGroup() as publishers:
            for _ in range(SIDE_BY_SIDE):
                publishers.create_task(self._publish_what_is_next())

    async def _publish_what_is_next(self) -> None:
        """One publisher: what is most urgent when it is free, one write after the other."""
        while True:
            where, pause = self._next()
            if where is not None:
                await self._publish_or_retry(*where)
                continue
            self._wake.clear()
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(pause, SHORTEST_PAUSE)):
                    await self._wake.wait()

    @staticmethod
    def _is_there(place: _Place, wanted: int) -> bool:
        return place.is_closed or place.published >= wanted

    @staticmethod
    def _standing(place: _Place, revoked: Revoked) -> Publication:
        if place.is_closed:
            return Publication(
                is_done=True,
                message="the namespace is being deleted, and its list with it; other lists name it",
            )
        names = {*(one.serial for one in revoked.certificates), *(one.jti for one in revoked.tokens)}
        if names & place.left_out:
            return Publication(is_done=False, message="the stage's list is full; it has no room for this")
        return Publication(is_done=True, message=f"{len(names)} on the stage's lists")

    def _next(self) -> tuple[tuple[str, str] | None, float]:
        """The place to be written now, or `None` and how many seconds there will be none."""
        pause = REFRESH.total_seconds()
        chosen: tuple[tuple[bool, bool, int, float], tuple[str, str]] | None = None
        for where, place in self._places.items():
            if place.is_in_flight:
                continue
            ready_in = self._ready_in(where, place)
            if ready_in > 0:
                pause = min(pause, ready_in)
                continue
            urgency = (not place.turn, not _is_quiet(place), place.turn, place.written or 0.0)
            if chosen is None or urgency < chosen[0]:
                chosen = (urgency, where)
        return (chosen[1] if chosen is not None else None), pause

    def _ready_in(self, where: tuple[str, str], place: _Place) -> float:
        """Seconds until a place is due and its list's size may be spent on it."""
        tick = _tick()
        due_in = place.retry_at - tick
        if place.published >= place.wanted and place.at is not None and not place.is_outdated:
            due_in = max(due_in, (place.at + REFRESH - self._clock()).total_seconds())
        built = self._lists[where[0]].built
        size = built.size if built is not None else 0
        may_in = self._budget.wait_for(size, above=RESERVE_BYTES)
        if place.turn:
            quiet_in = 0.0 if place.written is None else place.written + LATELY_SECONDS - tick
            may_in = min(may_in, max(quiet_in, self._budget.wait_for(size)))
        return max(0.0, due_in, may_in)

    async def _publish_or_retry(self, stage: str, namespace: str) -> None:
        place = self._places[stage, namespace]
        turn, place.turn, place.is_in_flight = place.turn, 0, True
        try:
            await self._publish(stage, namespace, place)
        except PortError as error:
            place.failures += 1
            place.problem = f"the list could not be written: {error}"
            pause = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(place.failures - 1, 10))
            place.retry_at = _tick() + pause
            log.warning("revocation list of %s in %s: %s", stage, namespace, error)
        place.is_in_flight = False
        # What came during the write has its own turn, after those that waited longer.
        place.turn = (place.turn or turn) if place.published < place.wanted else 0
        place.changed.set()

    async def _publish(self, stage: str, namespace: str, place: _Place) -> None:
        generation = self._signing(stage)
        keys = await self._issuer.facts(stage, generation)
        if keys is None:
            raise Unavailable(f"stage {stage!r} has no keys to sign its lists with")
        revoked = self._lists[stage]
        files = self._files(stage, revoked, generation, keys)
        if not revoked.items:
            await self._remove(stage, namespace)
            place.published = -1
            if not revoked.items:
                del self._places[stage, namespace]
            return
        self._budget.take(files.size)
        try:
            place.is_closed = not await self._write(stage, namespace, files)
        except Invalid:
            # Not ours, or a larger number stands there: the next try has a number of its own time.
            revoked.built = None
            raise
        self.writes += 1
        place.published, place.at, place.left_out = files.version, files.at, files.left_out
        place.written, place.keys, place.is_outdated = _tick(), files.keys, False
        place.problem, place.failures, place.retry_at = "", 0, 0.0
        if place.is_closed:
            del self._places[stage, namespace]

    def _files(self, stage: str, revoked: _List, generation: int, keys: KeyFacts) -> _Files:
        """Sign the list, or take the one that was signed for another namespace a moment ago."""
        now, before = self._clock(), revoked.built
        is_same = before is not None and (before.version, before.keys) == (revoked.version, keys)
        if before is not None and is_same and now < before.at + REFRESH / 2:
            return before
        if before is not None:
            _prune(revoked, before.at)
        kept = list(revoked.items.values())
        # Milliseconds: larger than any number of a process before this one, which nobody here could read.
        revoked.number = max(revoked.number + 1, int(now.timestamp() * 1000))
        while True:
            order = RevocationOrder(
                stage,
                tuple((int(one.name, 16), one.revoked_at) for one in kept if one.revoked_at is not None),
                tuple(one.name for one in kept if one.revoked_at is None),
                number=revoked.number,
                this_update=now,
                next_update=now + VALID_FOR,
                generation=generation,
            )
            files = _Files(
                revoked.version,
                revoked.number,
                now,
                dict(self._issuer.revocation_lists(order)),
                frozenset(revoked.items.keys() - {one.name for one in kept}),
                keys,
            )
            if files.size <= LARGEST_BYTES:
                break
            kept = _shared_out(kept, sum(one.size for one in kept) * FULLEST * LARGEST_BYTES / files.size)
        revoked.built = files
        return files

    async def _write(self, stage: str, namespace: str, files: _Files) -> bool:
        """Write the ConfigMap; tell whether it could be, which it cannot in a namespace on its way out."""
        name = f"{NAME_PREFIX}{stage}"
        body = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": name,
                "namespace": namespace,
                "labels": {"app.kubernetes.io/managed-by": "pilot-identity", f"{GROUP}/stage": stage},
                # The admission policy lets no smaller number follow: that would take revocations back.
                "annotations": {f"{GROUP}/number": str(files.number)},
            },
            "data": files.data,
        }
        try:
            await self._api.replace(paths.core(namespace, "configmaps", name), body)
        except NotFound:
            try:
                await self._api.create(paths.core(namespace, "configmaps"), body)
            except NotFound:
                return False
            except Refused as error:
                # The API server's word for it (NamespaceLifecycle); it has no reason code of its own here.
                if "is being terminated" not in str(error):
                    raise
                return False
            except Conflict as error:
                raise Unavailable("someone else made the list in this moment") from error
        return True

    async def _remove(self, stage: str, namespace: str) -> None:
        """Everything on the list has lapsed: nobody needs it."""
        try:
            await self._api.delete(paths.core(namespace, "configmaps", f"{NAME_PREFIX}{stage}"))
        except (NotFound, Invalid):
            return


def _items(revoked: Revoked) -> Iterable[_Item]:
    for certificate in revoked.certificates:
        yield _Item(certificate.serial, revoked.namespace, certificate.not_after, revoked.at)
    for token in revoked.tokens:
        yield _Item(token.jti, revoked.namespace, token.not_after, None)


def _is_quiet(place: _Place) -> bool:
    return place.written is None or _tick() >= place.written + LATELY_SECONDS


def _prune(revoked: _List, published_at: dt.datetime) -> None:
    """Drop what had lapsed when the last list was made: that one named it beyond its life (RFC 5280 §3.3)."""
    revoked.items = {name: item for name, item in revoked.items.items() if item.not_after > published_at}


def _shared_out(items: Iterable[_Item], room: float) -> list[_Item]:
    """Keep what fits into `room` bytes.

    A namespace that has less than an equal share keeps all of its own, and what it leaves is the others'. In
    one that has more, what lapses first is left out first: it needs the list for the shortest time.
    """
    by_namespace: dict[str, list[_Item]] = defaultdict(list)
    for item in items:
        by_namespace[item.namespace].append(item)
    sizes = {namespace: sum(item.size for item in own) for namespace, own in by_namespace.items()}
    share = _equal_share(sizes, room)
    kept: list[_Item] = []
    for namespace, own in by_namespace.items():
        if sizes[namespace] <= share:
            kept += own
            continue
        left = share
        for item in sorted(own, key=lambda one: one.not_after, reverse=True):
            left -= item.size
            if left < 0:
                break
            kept.append(item)
    return kept


def _equal_share(sizes: Mapping[str, int], room: float) -> float:
    """The most that each may have, so that all together have `room` (max-min fairness)."""
    waiting = sorted(sizes.values())
    for place, size in enumerate(waiting):
        share = room / (len(waiting) - place)
        if size > share:
            return share
        room -= size
    return float(waiting[-1])


def _tick() -> float:
    """Seconds by the loop's clock, which nobody sets."""
    return asyncio.get_running_loop().time()


class Budget:
    """Bytes that may be written: a burst, and so many a second after it (a token bucket)."""

    def __init__(self, burst: int, per_second: int) -> None:
        self._burst = burst
        self._per_second = per_second
        self._left = float(burst)
        self._at: float | None = None

    def take(self, size: int) -> float:
        """Take `size` bytes; returns how many seconds to wait before they may be written."""
        self._refill()
        self._left -= size
        return max(0.0, -self._left / self._per_second)

    def wait_for(self, size: int, *, above: int = 0) -> float:
        """How many seconds it would take until `size` bytes may be written and `above` are still left.

        What is larger than the burst waits for a full one.
        """
        self._refill()
        needed = min(size + above, self._burst)
        return max(0.0, (needed - self._left) / self._per_second)

    def _refill(self) -> None:
        now = _tick()
        passed = now - self._at if self._at is not None else 0.0
        self._left = min(float(self._burst), self._left + passed * self._per_second)
        self._at = now
