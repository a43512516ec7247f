"""Revocation lists in ConfigMaps beside the bundles: written in groups, within a budget, pruned in time.

Each list is complete for its stage, since a CRL without a narrower scope claims to be (RFC 5280 §5); it is
published in the namespaces in which something was revoked. A revocation goes out at once to its own
namespace; the copies elsewhere are brought up to date when they are next written, after `REFRESH` at the
latest. While one write is in flight what arrives waits and goes out with the next; large lists are written
less often, so that a busy stage does not fill etcd with old versions. Nothing is read back: after a restart
the audit log tells what was revoked.
"""

from __future__ import annotations

import asyncio
import datetime as dt
import logging
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import msgspec

from pilot_identity.adapters.kubernetes import paths
from pilot_identity.adapters.kubernetes.api import Api, Invalid, NotFound
from pilot_identity.core.audit.entries import RecordedEntry
from pilot_identity.core.resources.metadata import GROUP
from pilot_identity.core.spiffe.revocation import Revoked, RevokedCertificate, RevokedToken
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
BURST_BYTES = 8 * 1024 * 1024
BYTES_PER_SECOND = 256 * 1024
"""What lists may cost etcd in the long run: 75 MB between two compactions (every 5 minutes)."""
LARGEST_BYTES = 1_000_000
"""Of all files of one ConfigMap; the API server takes 1 MiB with its metadata."""
WAIT_SECONDS = 0.5
"""How long a pass waits for a publication before it goes on without; it holds up no other grant's end."""
SIDE_BY_SIDE = 4
FIRST_RETRY = 0.5
LONGEST_RETRY = 30.0
SHORTEST_PAUSE = 0.01


@dataclass(slots=True)
class _List:
    """What one stage has revoked; `version` counts the additions."""

    certificates: dict[str, tuple[RevokedCertificate, dt.datetime]] = field(default_factory=dict)
    tokens: dict[str, RevokedToken] = field(default_factory=dict)
    version: int = 0
    number: int = 0
    built: _Files | None = None


@dataclass(frozen=True, slots=True)
class _Files:
    """A list as signed: of which version, its number, when, and what could not be in it."""

    version: int
    number: int
    at: dt.datetime
    data: dict[str, str]
    left_out: frozenset[str]

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
        left_out: what the published list had no room for.
        problem: why the last write failed; empty where it did not.
        retry_at: by the loop's clock.
    """

    wanted: int = 0
    published: int = -1
    at: dt.datetime | None = None
    left_out: frozenset[str] = frozenset()
    problem: str = ""
    failures: int = 0
    retry_at: float = 0.0
    is_closed: bool = False
    changed: asyncio.Event = field(default_factory=asyncio.Event)


class ConfigMapRevocations:
    """`ports.Revocations`: ConfigMaps `pilot-revoked-<stage>`."""

    def __init__(self, api: Api, issuer: Issuer, clock: Clock) -> None:
        self._api = api
        self._issuer = issuer
        self._clock = clock
        self._lists: dict[str, _List] = {}
        self._places: dict[tuple[str, str], _Place] = {}
        self._wake = asyncio.Event()
        self._slots = asyncio.Semaphore(SIDE_BY_SIDE)
        self._budget = Budget(BURST_BYTES, BYTES_PER_SECOND)
        self.writes = 0

    def __len__(self) -> int:
        """How many certificates and tokens are on the lists."""
        return sum(len(one.certificates) + len(one.tokens) for one in self._lists.values())

    def remember(self, entry: RecordedEntry) -> None:
        """Take back into the lists what an entry of the log says was revoked, unless it lapsed since."""
        if "revoked" in entry.data:
            self.revoke(msgspec.convert(entry.data["revoked"], Revoked))

    def revoke(self, revoked: Revoked) -> None:
        """Put it on its stage's lists; they are published soon."""
        now = self._clock()
        if revoked.lapses_at is None or revoked.lapses_at <= now:
            return
        stage = self._lists.setdefault(revoked.stage, _List())
        certificates = [one for one in revoked.certificates if one.serial not in stage.certificates]
        tokens = [one for one in revoked.tokens if one.jti not in stage.tokens]
        place = self._places.setdefault((revoked.stage, revoked.namespace), _Place())
        if certificates or tokens or not place.wanted:
            stage.certificates.update({one.serial: (one, revoked.at) for one in certificates})
            stage.tokens.update({one.jti: one for one in tokens})
            stage.version += 1
            place.wanted = stage.version
        self._wake.set()

    async def published(self, revoked: Revoked) -> Publication:
        """Wait a moment for the lists in its namespace to name it; say where they stand."""
        now = self._clock()
        if revoked.lapses_at is None or revoked.lapses_at <= now:
            return Publication(is_done=True, message="all of it has lapsed by itself")
        place = self._places.get((revoked.stage, revoked.namespace))
        if place is None:
            return Publication(is_done=False, message="it is on no list")
        wanted = place.wanted
        deadline = _tick() + WAIT_SECONDS
        while not self._is_there(place, wanted):
            left = min(deadline - _tick(), WAIT_SECONDS - self._budget.wait_for(1))
            if left <= 0 or place.problem:
                return Publication(is_done=False, message=place.problem or "the list is not published yet")
            place.changed.clear()
            with suppress(TimeoutError):
                async with asyncio.timeout(left):
                    await place.changed.wait()
        return self._standing(place, revoked)

    async def run(self) -> None:
        """Publish what is revoked and keep what is published fresh, for ever."""
        while True:
            self._wake.clear()
            due = list(self._due())
            if due:
                await asyncio.gather(*(self._publish_or_retry(*where) for where in due))
                continue
            # Not `wait_for`: before Python 3.12 it swallows a cancellation that comes with the event.
            with suppress(TimeoutError):
                async with asyncio.timeout(max(self._pause(), SHORTEST_PAUSE)):
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

    def _due(self) -> Iterator[tuple[str, str]]:
        """The places to be written now."""
        now, tick = self._clock(), _tick()
        for where, place in self._places.items():
            is_stale = place.at is None or now >= place.at + REFRESH
            if (place.published < place.wanted or is_stale) and tick >= place.retry_at:
                yield where

    def _pause(self) -> float:
        """Seconds until a place is to be written without anything being revoked."""
        now, tick = self._clock(), _tick()
        pauses = [REFRESH.total_seconds()]
        for place in self._places.values():
            if place.retry_at > tick:
                pauses.append(place.retry_at - tick)
            elif place.at is not None:
                pauses.append((place.at + REFRESH - now).total_seconds())
        return min(pauses)

    async def _publish_or_retry(self, stage: str, namespace: str) -> None:
        place = self._places[stage, namespace]
        async with self._slots:
            try:
                await self._publish(stage, namespace, place)
            except PortError as error:
                place.failures += 1
                place.problem = f"the list could not be written: {error}"
                pause = min(LONGEST_RETRY, FIRST_RETRY * 2.0 ** min(place.failures - 1, 10))
                place.retry_at = _tick() + pause
                log.warning("revocation list of %s in %s: %s", stage, namespace, error)
        place.changed.set()

    async def _publish(self, stage: str, namespace: str, place: _Place) -> None:
        if await self._issuer.facts(stage) is None:
            raise Unavailable(f"stage {stage!r} has no keys to sign its lists with")
        revoked = self._lists[stage]
        size = revoked.built.size if revoked.built is not None else 0
        # Waited for before the list is made, so that what arrives meanwhile is on it.
        await asyncio.sleep(self._budget.take(size))
        files = self._files(stage, revoked)
        if not revoked.certificates and not revoked.tokens:
            await self._remove(stage, namespace)
            del self._places[stage, namespace]
            return
        try:
            place.is_closed = not await self._write(stage, namespace, files)
        except Invalid:
            # Not ours, or a larger number stands there: the next try has a number of its own time.
            revoked.built = None
            raise
        self.writes += 1
        place.published, place.at, place.left_out = files.version, files.at, files.left_out
        place.problem, place.failures, place.retry_at = "", 0, 0.0
        if place.is_closed:
            del self._places[stage, namespace]

    def _files(self, stage: str, revoked: _List) -> _Files:
        """Sign the list, or take the one that was signed for another namespace a moment ago."""
        now, before = self._clock(), revoked.built
        if before is not None and before.version == revoked.version and now < before.at + REFRESH / 2:
            return before
        if before is not None:
            _prune(revoked, before.at)
        certificates = dict(revoked.certificates)
        tokens = dict(revoked.tokens)
        # Milliseconds: larger than any number of a process before this one, which nobody here could read.
        revoked.number = max(revoked.number + 1, int(now.timestamp() * 1000))
        left_out: set[str] = set()
        while True:
            order = RevocationOrder(
                stage,
                tuple((int(one.serial, 16), at) for one, at in certificates.values()),
                tuple(tokens),
                number=revoked.number,
                this_update=now,
                next_update=now + VALID_FOR,
            )
            files = _Files(
                revoked.version,
                revoked.number,
                now,
                dict(self._issuer.revocation_lists(order)),
                frozenset(left_out),
            )
            if files.size <= LARGEST_BYTES:
                break
            # What lapses first is left out first: it needs the list for the shortest time.
            left_out |= _shed(certificates, tokens)
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


def _prune(revoked: _List, published_at: dt.datetime) -> None:
    """Drop what had lapsed when the last list was made: that one named it beyond its life (RFC 5280 §3.3)."""
    for serial in [
        serial for serial, (one, _) in revoked.certificates.items() if one.not_after <= published_at
    ]:
        del revoked.certificates[serial]
    for jti in [jti for jti, one in revoked.tokens.items() if one.not_after <= published_at]:
        del revoked.tokens[jti]


def _shed(
    certificates: dict[str, tuple[RevokedCertificate, dt.datetime]], tokens: dict[str, RevokedToken]
) -> set[str]:
    """Take out the tenth that lapses first; returns its serial numbers and token ids."""
    ends = sorted(
        [
            *((one.not_after, serial) for serial, (one, _) in certificates.items()),
            *((one.not_after, jti) for jti, one in tokens.items()),
        ]
    )
    shed = {name for _, name in ends[: len(ends) // 10 + 1]}
    for name in shed:
        certificates.pop(name, None)
        tokens.pop(name, None)
    return shed


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

    def wait_for(self, size: int) -> float:
        """How many seconds it would take until `size` bytes may be written."""
        self._refill()
        return max(0.0, (size - self._left) / self._per_second)

    def _refill(self) -> None:
        now = _tick()
        passed = now - self._at if self._at is not None else 0.0
        self._left = min(float(self._burst), self._left + passed * self._per_second)
        self._at = now
